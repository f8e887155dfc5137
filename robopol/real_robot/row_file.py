"""A file of rows that is sound whatever a disk does: there is never half a row in it, nor one that is shifted."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


class RowFile:
    """Rows of one kind, one after the other.

    Nothing is buffered, as what a buffer has taken it may write by halves, and try again at any later time.
    """

    def __init__(self, path: Path, row: np.dtype[Any]) -> None:
        """Begin a file.

        Raises:
            OSError: If it cannot be made.
        """
        self._file: BinaryIO = path.open("wb", buffering=0)
        self._size, self._end = row.itemsize, 0

    def add(self, rows: NDArray[np.void]) -> int:
        """Write rows; returns how many of them could not be, as on a full disk. What comes later may fit again."""
        try:
            put(self._file, self._end, rows.tobytes())
            whole = len(rows)
        except OSError:
            whole = max(0, self._file.tell() - self._end) // self._size
        self._end += whole * self._size
        return len(rows) - whole

    def close(self) -> None:
        """Bring it to disk, without what was written of a row that is not whole.

        Raises:
            OSError: If that fails.
        """
        try:
            self._file.truncate(self._end)
            os.fsync(self._file.fileno())
        finally:
            self._file.close()


def put(file: BinaryIO, start: int, data: bytes) -> None:
    """Write all of some bytes at a place of an unbuffered file; a full disk may take a part of them without a word.

    Raises:
        OSError: If they do not all fit; the file stands after those that do.
    """
    file.seek(start)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
