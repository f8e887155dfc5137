"""Measurements that grow: each is kept in the results' file by row and training seed, and is not made again.

A benchmark that takes hours can so be run in pieces (``--seeds 1``, some tasks only, after a crash), and a row can be
added to a table without the others. What is in a file was all measured under one setting; another one is refused.
"""

import json
import platform
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from robopol import __version__
from robopol.files import write_json


class Ledger:
    """The measurements of one results' file.

    Attributes:
        measured: Row -> training seed, as text -> what was measured.
        tables: What was computed of it; written by `write`.
    """

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        """Open a file, or begin one.

        Args:
            path: The results' file.
            setting: All that the measurements depend on besides row and seed; JSON values.
        """
        self.path = path
        self._setting: dict[str, Any] = json.loads(json.dumps(setting))
        tree = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if tree and tree.get("setting") != self._setting:
            sys.exit(
                f"{path} holds measurements under another setting ({tree.get('setting')}, now {self._setting}): "
                "delete it, or name another --out"
            )
        self.measured: dict[str, dict[str, Any]] = tree.get("measured", {})
        self._lock = threading.Lock()
        self.tables: dict[str, Any] = tree.get("tables", {})

    def measure(self, row: str, seed: int, how: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a measurement, which is made, and written, if it is not there yet; from any thread.

        Args:
            row: Its row.
            seed: The training seed.
            how: Makes it; JSON values.
        """
        if str(seed) not in self.measured.get(row, {}):
            made = json.loads(json.dumps(how()))
            with self._lock:
                self.measured.setdefault(row, {})[str(seed)] = made
                self.write()
        found: dict[str, Any] = self.measured[row][str(seed)]
        return found

    def of(self, row: str, seeds: list[str] | None = None) -> list[dict[str, Any]]:
        """Return what was measured of a row, in the order of the seeds.

        Args:
            row: The row.
            seeds: Only these; all that there are if left out.
        """
        found = self.measured[row]
        return [found[seed] for seed in (sorted(found, key=int) if seeds is None else seeds)]

    def seeds(self, row: str) -> list[str]:
        """Return the seeds that a row was measured for."""
        return sorted(self.measured[row], key=int)

    def write(self) -> None:
        """Write the file: the measurements, and the tables that were computed of them."""
        told = {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform()}
        write_json(self.path, told | {"setting": self._setting, "tables": self.tables, "measured": self.measured})
