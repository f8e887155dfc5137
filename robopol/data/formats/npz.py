"""Arrays of an ``.npz`` file, read without trusting it (format: NumPy reference, ``numpy.lib.format``).

The file is a zip archive of ``<name>.npy``. Nothing is unpickled, and memory is asked for only once the header
of an array agrees with the size of its member.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from robopol.data.formats.archive import Archive
from robopol.data.formats.budget import Budget
from robopol.errors import DataError
from robopol.registry import nearest

_PIECE = 2**24  # bytes unpacked at once


class Npz:
    """An open ``.npz`` file; use it as a context manager.

    Attributes:
        names: The arrays in it.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and check what it declares.

        Args:
            path: The file.

        Raises:
            DataError: If it is not a plain archive of arrays.
        """
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        self._archive = Archive(path)
        self._budget = Budget(path.stat().st_size)
        odd = [name for name in self._archive.sizes if "/" in name or not name.endswith(".npy")]
        if odd:
            raise DataError(f"{odd[0]} is not an array: an npz file holds <name>.npy only")
        self.names = [name.removesuffix(".npy") for name in self._archive.sizes]

    def __enter__(self) -> "Npz":
        """Return the open file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._archive.__exit__(kind, error, trace)

    def __contains__(self, name: str) -> bool:
        """Return whether there is an array of that name."""
        return name in self.names

    def array(self, name: str) -> np.ndarray:
        """Read an array of plain numbers.

        Raises:
            DataError: If there is none, it holds anything else, or its header and its size disagree.
        """
        with self._open(name) as (stream, header):
            self._budget.spend(name, header.dtype.itemsize, header.shape)
            flat = np.empty(math.prod(header.shape), header.dtype)
            filled = 0
            for piece in _pieces(stream, header, _PIECE // header.dtype.itemsize):
                flat[filled : filled + len(piece)] = piece
                filled += len(piece)
        return flat.reshape(header.shape, order="F" if header.fortran else "C")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array without reading it.

        Raises:
            DataError: As `array`.
        """
        with self._open(name) as (_, header):
            return header.shape

    def blocks(self, name: str, dtype: type) -> Iterator[tuple[slice, np.ndarray]]:
        """Read an array some rows at a time, so that it need not fit into memory.

        Args:
            name: The array.
            dtype: The type that its values must have.

        Yields:
            Which rows, and the rows (read-only).

        Raises:
            DataError: As `array`; also if the array is of another type or stored column by column.
        """
        with self._open(name) as (stream, header):
            row = math.prod(header.shape[1:])
            if header.dtype != dtype or header.fortran or not row:
                raise DataError(f"{name} is {header.dtype} {header.shape}; it must be {np.dtype(dtype)}, row by row")
            start = 0
            for piece in _pieces(stream, header, row * max(1, _PIECE // (row * header.dtype.itemsize))):
                rows = piece.reshape(-1, *header.shape[1:])
                yield slice(start, start + len(rows)), rows
                start += len(rows)

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], "_Header"]]:
        """Open an array and check its header against its size."""
        if name not in self.names:
            raise DataError(f"there is no array '{name}'{nearest(name, self.names)}; there are {self.names}")
        member = f"{name}.npy"
        with self._archive.open(member) as stream:
            try:
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                header = _Header(*read(stream))
            except ValueError as error:
                raise DataError(f"{member} is not an array: {error}") from error
            if header.dtype.kind not in "fiub":
                raise DataError(f"{member} holds {header.dtype}; only plain numbers are read")
            left = self._archive.sizes[member] - stream.tell()
            if min(header.shape, default=0) < 0 or math.prod(header.shape) * header.dtype.itemsize != left:
                raise DataError(f"{member} declares {header.dtype} {header.shape} and holds {left:,} bytes")
            yield stream, header


class _Header(NamedTuple):
    """What an array declares."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def _pieces(stream: IO[bytes], header: _Header, count: int) -> Iterator[np.ndarray]:
    """Read values, in the order in which they are stored, some at a time."""
    left = math.prod(header.shape)
    while left:
        wanted = min(count, left)
        data = stream.read(wanted * header.dtype.itemsize)
        if len(data) != wanted * header.dtype.itemsize:
            raise DataError(f"the array ends {left * header.dtype.itemsize - len(data)} bytes too early")
        yield np.frombuffer(data, header.dtype)
        left -= wanted
