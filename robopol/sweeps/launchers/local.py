"""Runs on this machine, some at a time, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Literal

from pydantic import Field

from robopol.config import Config
from robopol.sweeps.grid import Point
from robopol.sweeps.launchers.launcher import Ended, log_of


class LocalConfig(Config):
    """This machine.

    Attributes:
        jobs: Runs at a time. They share the cores evenly, unless the training's words set runtime.threads.
    """

    kind: Literal["local"] = "local"
    jobs: int = Field(1, ge=1)

    def build(self) -> "Local":
        """Return the launcher."""
        return Local(self)


class Local:
    """See `LocalConfig`. When it is interrupted so are its runs, which can be gone on with."""

    def __init__(self, config: LocalConfig) -> None:
        """See `LocalConfig.build`."""
        self.config = config
        self._running: set[subprocess.Popen[bytes]] = set()

    def launch(self, points: Sequence[Point], ended: Ended) -> None:
        """See `Launcher.launch`."""
        pool = ThreadPoolExecutor(self.config.jobs)
        pending: dict[Future[bool], Point] = {pool.submit(self._run, point): point for point in points}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    ended(pending.pop(future), future.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                process.terminate()
            pool.shutdown(wait=True)

    def _run(self, point: Point) -> bool:
        command = [sys.executable, "-m", "robopol.cli", *point.command(self.threads(point))]
        with open(log_of(point), "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            self._running.add(process)
            status = process.wait()
            self._running.discard(process)
        return status == 0

    def threads(self, point: Point) -> list[str]:
        """Return the words that give a run its share of the cores."""
        if self.config.jobs == 1 or any(word.startswith("runtime.threads=") for word in point.words):
            return []
        return [f"runtime.threads={max(1, (os.cpu_count() or 1) // self.config.jobs)}"]
