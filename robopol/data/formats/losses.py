"""What of a foreign file does not fit into `Episodes`, or the other way round: collected, and named in one warning."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from robopol.errors import DataWarning


class Losses:
    """What was left out or rounded of one dataset."""

    def __init__(self) -> None:
        """Begin with nothing lost."""
        # Dicts keep the order and each name once.
        self._narrowed: dict[str, None] = {}
        self._left: dict[str, None] = {}

    def fill(self, name: str, column: np.ndarray, rows: slice, values: np.ndarray) -> None:
        """Copy values into rows of a column and remember if the column's type cannot hold them all.

        Args:
            name: What the file calls them.
            column: (N, ...), is changed.
            rows: Where the values go.
            values: (rows, ...), any type of number.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused by Episodes
            column[rows] = values
        if name not in self._narrowed and values.dtype != column.dtype and not np.array_equal(column[rows], values):
            self._narrowed[name] = None

    def floats(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return values as a contiguous array of float32, and remember if that rounds them.

        Args:
            name: What the user calls them.
            values: (N, ...), any type of number.
        """
        if values.dtype == np.float32:
            return np.ascontiguousarray(values)
        column = np.empty(values.shape, np.float32)
        self.fill(name, column, slice(None), values)
        return column

    def leave(self, what: str) -> None:
        """Remember that something has no place on the other side."""
        self._left[what] = None

    def leave_others(self, found: Iterable[str], known: Iterable[str], prefix: str = "") -> None:
        """Remember what there is beyond what is read.

        Args:
            found: Names in the file.
            known: Those that are read, or follow from what is.
            prefix: Goes before each name.
        """
        read = set(known)
        for name in found:
            if name not in read:
                self.leave(f"{prefix}{name}")

    def warn(self, path: Path) -> None:
        """Warn once of everything, if there is anything; called by ``read`` and ``write`` of a format themselves."""
        parts = []
        if self._left:
            parts.append(f"not carried over: {', '.join(self._left)}")
        if self._narrowed:
            parts.append(f"rounded to float32: {', '.join(self._narrowed)}")
        if parts:
            warnings.warn(f"{path}: {'; '.join(parts)}", DataWarning, stacklevel=4)
