"""Where image columns are put while a dataset is read: in memory, or in files that are mapped.

Readers allocate every image column by `image_column` and need not know which.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robopol.errors import DataError

MEMORY_SHARE = 0.8
"""Largest share of the free memory that the images of a dataset may take."""


class _Memory:
    """Columns in memory, as long as they fit."""

    def __init__(self) -> None:
        self._left = MEMORY_SHARE * free_memory()

    def allocate(self, shape: tuple[int, ...]) -> Tensor:
        self._left -= math.prod(shape)
        if self._left < 0:
            raise DataError(
                f"images of shape {shape} do not fit into the free memory ({free_memory():,} bytes): "
                "say cache=FOLDER to keep them in files there (data.NAME.cache=FOLDER in training)"
            )
        return torch.empty(shape, dtype=torch.uint8)


class MappedColumns:
    """Columns in ``.npy`` files of one folder.

    Attributes:
        files: Address of a column's first byte -> its file.
    """

    def __init__(self, folder: Path) -> None:
        """Put columns into an existing folder."""
        self._folder = folder
        self.files: dict[int, Path] = {}

    def allocate(self, shape: tuple[int, ...]) -> Tensor:
        """Make a new file and return it as a column (N, H, W, C) of zeros."""
        if 0 in shape:  # an empty file cannot be mapped
            return torch.empty(shape, dtype=torch.uint8)
        file = self._folder / f"column-{len(self.files)}.npy"
        column = torch.from_numpy(np.lib.format.open_memmap(file, "w+", np.uint8, shape))
        self.files[column.data_ptr()] = file
        return column


_PLACE: ContextVar[_Memory | MappedColumns | None] = ContextVar("place of image columns", default=None)


def image_column(shape: Sequence[int]) -> Tensor:
    """Allocate an image column; whatever reads a dataset fills it.

    Args:
        shape: (N, H, W, C).

    Returns:
        uint8 of that shape on the CPU, not initialised; ``.numpy()`` shares its memory.

    Raises:
        DataError: If it does not fit into memory.
    """
    return (_PLACE.get() or _Memory()).allocate(tuple(shape))


@contextmanager
def columns_in_memory() -> Iterator[None]:
    """Put the image columns of a dataset into memory and refuse them if together they do not fit."""
    with _place(_Memory()):
        yield


@contextmanager
def columns_in_files(folder: Path) -> Iterator[MappedColumns]:
    """Put image columns into files of an existing folder."""
    columns = MappedColumns(folder)
    with _place(columns):
        yield columns


@contextmanager
def _place(place: _Memory | MappedColumns) -> Iterator[None]:
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


def free_memory() -> int:
    """Return the bytes of memory that can be had without swapping; no limit where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration):
        return total_memory()


def total_memory() -> int:
    """Return the bytes of memory of this machine; no limit where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return 2**62
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
