"""What came before: the last seconds of rows, kept in memory until something happens that they belong to."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS = 10.0
"""Time that is kept."""


class Past:
    """The newest rows of all kinds, as far back as `SECONDS` before the newest tick."""

    def __init__(self, rows: dict[str, np.dtype[Any]]) -> None:
        """Keep rows of these kinds, each of which has its time, ``t``, ns."""
        self._rows = rows
        self._blocks: deque[tuple[int, dict[str, NDArray[np.void]]]] = deque()

    def add(self, found: dict[str, NDArray[np.void]]) -> None:
        """Take new rows, and forget those that are too old by now."""
        ticks = found["ticks"]
        newest = int(ticks["t"][-1]) if len(ticks) else self._newest
        self._blocks.append((newest, {name: rows.copy() for name, rows in found.items()}))
        while self._blocks[0][0] < newest - SECONDS * 1e9:
            self._blocks.popleft()

    def take(self) -> dict[str, NDArray[np.void]]:
        """Return them, and begin anew."""
        oldest = self._newest - SECONDS * 1e9
        whole = {
            name: np.concatenate([np.zeros(0, row), *(block[name] for _, block in self._blocks if name in block)])
            for name, row in self._rows.items()
        }
        self._blocks.clear()
        return {name: rows[rows["t"] >= oldest] for name, rows in whole.items()}

    @property
    def _newest(self) -> int:
        return self._blocks[-1][0] if self._blocks else 0
