"""Datasets of an HDF5 file, read without trusting it.

Only plain values that lie in the file itself, and no more of them than its size allows. Texts of variable length
are never read: in a damaged file the HDF5 library may loop for ever over them, or crash.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from robopol.data.formats.budget import Budget
from robopol.errors import DataError
from robopol.registry import nearest

if TYPE_CHECKING:
    import h5py

_CHECKSUM = 4  # bytes


class Hdf5:
    """An open HDF5 file of which datasets are looked up by path."""

    def __init__(self, file: "h5py.File", file_size: int) -> None:
        """Look into a file.

        Args:
            file: The open file.
            file_size: Bytes on disk; what the datasets declare is held against it.
        """
        self._file = file
        self._size = file_size
        self._budget = Budget(file_size)

    def __contains__(self, path: str) -> bool:
        """Return whether there is something at a path such as ``"infos/qpos"``."""
        group, _, name = path.rpartition("/")
        return (not group or group in self) and name in self._member(group)

    def dataset(self, path: str, kinds: str = "fiub") -> "h5py.Dataset":
        """Find a dataset and check what it declares; nothing is read.

        Args:
            path: From the root of the file, e.g. ``"infos/qpos"``.
            kinds: Kinds of values (``numpy.dtype.kind``) that are accepted.

        Raises:
            DataError: If there is none, it holds other values, points out of the file, or is larger than the
                file can be.
        """
        import h5py

        dataset = self._member(path)
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
            raise DataError(f"{path} is not an array")
        if dataset.external or dataset.is_virtual:
            raise DataError(f"{path} keeps its values in another file; copy them into this one")
        if dataset.dtype.kind not in kinds:
            raise DataError(f"{path} holds {dataset.dtype}; only plain numbers are read")
        self._budget.spend(path, dataset.dtype.itemsize, dataset.shape, dataset.chunks or ())
        self._check_chunks(dataset, path)
        return dataset

    def array(self, path: str, dtype: Any) -> np.ndarray:
        """Read a dataset of plain numbers.

        Args:
            path: As for `dataset`.
            dtype: What the values are converted to; what does not fit becomes infinite.

        Raises:
            DataError: As `dataset`.
        """
        dataset = self.dataset(path)
        array = np.empty(dataset.shape, dtype)
        with np.errstate(over="ignore"):
            array[...] = dataset[()]
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

        found: Any = self._file
        for name in path.split("/") if path else ():
            if not isinstance(found, h5py.Group) or name not in found:
                names = list(found) if isinstance(found, h5py.Group) else []
                raise DataError(f"there is no '{path}'{nearest(name, names)}; {found.name} has {names}")
            if not isinstance(found.get(name, getlink=True), h5py.HardLink):
                raise DataError(f"{path} is a link; only data that lie in the file itself are read")
            found = found[name]
        return found
