"""The files of a Minari dataset, episode by episode: one HDF5 file, or folders of Arrow or Parquet files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from robopol.data.formats.columns import decode_image
from robopol.data.formats.hdf5 import Hdf5, blocks
from robopol.data.formats.minari_columns import ColumnSource
from robopol.errors import DataError

if TYPE_CHECKING:
    import h5py

MAIN = "main_data.hdf5"
NUMBERS = ("total_steps", "seed")
RECORDED = "final_observation_recorded"
"""Attribute of an episode that robopol adds, for whoever reads it with Minari."""


class Source(Protocol):
    """The episodes of a dataset, whatever its files are; they count from 0."""

    def length(self, index: int) -> int:
        """Return the number of steps of an episode."""
        ...

    def attributes(self, index: int) -> dict[str, Any]:
        """Return the metadata of an episode; only those named in `NUMBERS` need have their values."""
        ...

    def infos(self, index: int) -> list[str]:
        """Return the names of what was recorded of the infos of an episode."""
        ...

    def info(self, index: int, name: str) -> np.ndarray:
        """Return one of them."""
        ...

    def column(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        """Read an array of an episode without its padding.

        Raises:
            DataError: If there is none, it does not hold numbers, or it has another shape.
        """
        ...

    def images(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[tuple[slice, np.ndarray]]:
        """Read the images of an episode some at a time, JPEG decoded.

        Args:
            index: The episode.
            path: Names that lead to them.
            shape: (T + 1, H, W, C) or (T + 1, H, W).

        Yields:
            Which of them, and the images, uint8.

        Raises:
            DataError: If there are none, or they are others.
        """
        ...


@contextlib.contextmanager
def open_files(folder: Path, data_format: str) -> Iterator[Source]:
    """Open the files of a dataset.

    Args:
        folder: Where ``metadata.json`` is.
        data_format: As that file states it: ``hdf5``, ``arrow`` or ``parquet``.

    Raises:
        DataError: If the format is another one.
        MissingExtraError: If pyarrow is needed and not installed.
    """
    if data_format == "hdf5":
        import h5py

        with h5py.File(folder / MAIN, "r") as file:
            yield _Hdf5Source(file, (folder / MAIN).stat().st_size)
    elif data_format in ("arrow", "parquet"):
        with contextlib.closing(ColumnSource(folder, data_format)) as source:
            yield source
    else:
        raise DataError(f"the data format is '{data_format}'; robopol reads hdf5, arrow and parquet")


class _Hdf5Source:
    """A group an episode."""

    def __init__(self, file: "h5py.File", size: int) -> None:
        self._hdf5 = Hdf5(file, size)

    def length(self, index: int) -> int:
        return int(self._hdf5.look(f"episode_{index}/rewards").shape[0])

    def attributes(self, index: int) -> dict[str, Any]:
        attributes = self._hdf5.group(f"episode_{index}").attrs
        # Of the others the names are enough, and damaged texts among them could hang the HDF5 library.
        plain = [name for name in attributes if name in NUMBERS and attributes.get_id(name).dtype.kind in "iufb"]
        return {name: attributes[name] if name in plain else None for name in attributes}

    def infos(self, index: int) -> list[str]:
        path = f"episode_{index}/infos"
        return list(self._hdf5.group(path)) if path in self._hdf5 else []

    def info(self, index: int, name: str) -> np.ndarray:
        values: np.ndarray = self._hdf5.dataset(f"episode_{index}/infos/{name}")[()]
        return values

    def column(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        name = "/".join((f"episode_{index}", *path))
        dataset = self._hdf5.dataset(name)
        if dataset.shape != shape:
            raise DataError(f"{name} has shape {dataset.shape}; it must be {shape}")
        values: np.ndarray = dataset[()]
        return values

    def images(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[tuple[slice, np.ndarray]]:
        name = "/".join((f"episode_{index}", *path))
        # JPEG images are rows of bytes, or objects where they differ in length.
        dataset = self._hdf5.dataset(name, "uO", held=False)
        if dataset.ndim <= 2 and len(dataset) == shape[0]:
            for part, rows in blocks(dataset):
                for row, encoded in zip(range(part.start, part.stop), rows, strict=True):
                    image = decode_image(np.asarray(encoded, np.uint8).tobytes(), shape[1:], f"{name}, row {row}")
                    yield slice(row, row + 1), image[None]
            return
        if dataset.shape != shape or dataset.dtype != np.uint8:
            raise DataError(f"{name} is {dataset.dtype} {dataset.shape}; it must be uint8 {shape}")
        yield from blocks(dataset)
