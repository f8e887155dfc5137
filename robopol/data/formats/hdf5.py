"""Datasets of an HDF5 file, read without trusting it.

Only plain values that lie in the file itself, and no more of them than its size allows. Texts of variable length
are read only where a format keeps what cannot be done without in them (`text`, `strings`): in a damaged file the HDF5
library may loop for ever over them, or crash.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from robopol.data.formats.budget import Budget
from robopol.data.formats.losses import Losses
from robopol.errors import DataError
from robopol.registry import nearest

if TYPE_CHECKING:
    import h5py

_CHECKSUM = 4  # bytes
_PIECE = 2**24  # bytes read at once


class Hdf5:
    """An open HDF5 file in which groups and datasets are looked up by path, e.g. ``"infos/qpos"``."""

    def __init__(self, file: "h5py.File", file_size: int) -> None:
        """Look into a file.

        Args:
            file: The open file.
            file_size: Bytes on disk; what the datasets declare is held against it.
        """
        self._size = file_size
        self._budget = Budget(file_size)
        self._groups: dict[str, h5py.Group] = {"": file}

    def __contains__(self, path: str) -> bool:
        """Return whether there is something at a path."""
        parent, _, name = path.rpartition("/")
        return (not parent or parent in self) and name in self.group(parent)

    def group(self, path: str) -> "h5py.Group":
        """Find a group; the empty path is the file itself.

        Raises:
            DataError: If there is none, or a link leads to it.
        """
        import h5py

        if path not in self._groups:
            found = self._member(path)
            if not isinstance(found, h5py.Group):
                raise DataError(f"{path} is not a group")
            self._groups[path] = found
        return self._groups[path]

    def dataset(self, path: str, kinds: str = "fiub", held: bool = True) -> "h5py.Dataset":
        """Find a dataset, check what it declares and count it as one that will be read; nothing is read yet.

        Args:
            path: From the root of the file.
            kinds: Kinds of values (``numpy.dtype.kind``) that are accepted.
            held: It will be in memory whole. Images are not: they are read by `blocks`.

        Raises:
            DataError: If there is none, it holds other values, points out of the file, or is larger than the
                file can be.
        """
        dataset = self.look(path, kinds)
        self._budget.spend(path, dataset.dtype.itemsize, dataset.shape, dataset.chunks or (), held=held)
        self._check_chunks(dataset, path)
        return dataset

    def look(self, path: str, kinds: str = "fiub") -> "h5py.Dataset":
        """Find a dataset whose values will not be read.

        Args:
            path: From the root of the file.
            kinds: Kinds of values that are accepted.

        Raises:
            DataError: If there is none, it holds other values, or points out of the file.
        """
        import h5py

        dataset = self._member(path)
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
            raise DataError(f"{path} is not an array")
        if dataset.external or dataset.is_virtual:
            raise DataError(f"{path} keeps its values in another file; copy them into this one")
        if dataset.dtype.kind not in kinds:
            raise DataError(f"{path} holds {dataset.dtype}; only plain numbers are read")
        return dataset

    def array(self, path: str, dtype: Any, losses: Losses) -> np.ndarray:
        """Read a dataset of plain numbers.

        Args:
            path: As for `dataset`.
            dtype: What the values are converted to; what does not fit becomes infinite.
            losses: Where it is noted if that rounds them.

        Raises:
            DataError: As `dataset`.
        """
        dataset = self.dataset(path)
        array = np.empty(dataset.shape, dtype)
        losses.fill(path, array, slice(None), dataset[()])
        return array

    def _check_chunks(self, dataset: "h5py.Dataset", path: str) -> None:
        """Check where the chunks lie; the HDF5 library crashes on one that is smaller than its checksum."""
        if not dataset.chunks:
            return
        least = _CHECKSUM if dataset.fletcher32 else 0

        def odd(chunk: Any) -> Any:  # whatever is not None ends the iteration
            return None if least < chunk.size <= self._size - chunk.byte_offset else chunk

        found = dataset.id.chunk_iter(odd)
        if found is not None:
            raise DataError(f"{path} has a chunk of {found.size} bytes at {found.byte_offset}; the file is damaged")

    def _member(self, path: str) -> Any:
        """Walk to a group or a dataset that lies in this file, not behind a link."""
        import h5py

        parent, _, name = path.rpartition("/")
        group = self.group(parent)
        if name not in group:
            raise DataError(f"there is no '{path}'{nearest(name, group)}; {group.name} has {list(group)}")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{path} is a link; only data that lie in the file itself are read")
        return group[name]


def blocks(dataset: "h5py.Dataset") -> Iterator[tuple[slice, np.ndarray]]:
    """Read a dataset some rows at a time, so that it need not fit into memory; no chunk is unpacked twice.

    Args:
        dataset: One that `Hdf5.dataset` has found.

    Yields:
        Which rows, and the rows.
    """
    chunk = dataset.chunks[0] if dataset.chunks else 1
    size = chunk * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    # Nobody knows how large a value of variable length is before it is there.
    rows = 1 if dataset.dtype.kind == "O" else chunk * max(1, _PIECE // max(size, 1))
    for start in range(0, len(dataset), rows):
        part = slice(start, min(start + rows, len(dataset)))
        yield part, dataset[part]


def strings(dataset: "h5py.Dataset") -> list[str]:
    """Read a dataset of names.

    Raises:
        DataError: If it holds anything else.
    """
    import h5py

    if h5py.check_string_dtype(dataset.dtype) is None:
        raise DataError(f"{dataset.name} holds {dataset.dtype}; it must hold names")
    return list(dataset.asstr()[()])


def text(group: "h5py.Group", name: str) -> str | None:
    """Return a text attribute, or None if there is none.

    Raises:
        DataError: If it is anything else.
    """
    value = group.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode()
    if value is not None and not isinstance(value, str):
        raise DataError(f"attribute {name} of {group.name} is {value!r}; it must be text")
    return value


def integer(group: "h5py.Group", name: str) -> int:
    """Return an integer attribute.

    Raises:
        DataError: If there is none, or it is anything else.
    """
    value = np.asarray(group.attrs[name]) if name in group.attrs else None
    if value is None or value.size != 1 or value.dtype.kind not in "iub":
        raise DataError(f"attribute {name} of {group.name} is {value}; it must be one integer")
    return int(value.item())
