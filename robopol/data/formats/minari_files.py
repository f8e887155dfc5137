"""The files of a Minari dataset, episode by episode: one HDF5 file, or folders of Arrow or Parquet files."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from robopol.data.formats.columns import decode_image, from_arrow
from robopol.data.formats.hdf5 import Hdf5
from robopol.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import h5py

METADATA, MAIN = "metadata.json", "main_data.hdf5"
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
        """Read an array of an episode without its padding; JPEG images are decoded.

        Raises:
            DataError: If there is none, it does not hold numbers, or it has another shape.
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
        yield _ArrowSource(folder, data_format)
    else:
        raise DataError(f"the data format is '{data_format}'; robopol reads hdf5, arrow and parquet")


class _Hdf5Source:
    """A group an episode."""

    def __init__(self, file: "h5py.File", size: int) -> None:
        self._file, self._hdf5 = file, Hdf5(file, size)

    def length(self, index: int) -> int:
        return int(self._hdf5.dataset(f"episode_{index}/rewards").shape[0])

    def attributes(self, index: int) -> dict[str, Any]:
        attributes = self._file[f"episode_{index}"].attrs
        # Of the others the names are enough, and damaged texts among them could hang the HDF5 library.
        return {name: attributes[name] if name in NUMBERS else None for name in attributes}

    def infos(self, index: int) -> list[str]:
        return list(self._file[f"episode_{index}/infos"]) if f"episode_{index}/infos" in self._hdf5 else []

    def info(self, index: int, name: str) -> np.ndarray:
        values: np.ndarray = self._hdf5.dataset(f"episode_{index}/infos/{name}")[()]
        return values

    def column(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        name = "/".join((f"episode_{index}", *path))
        # JPEG images are rows of bytes, or objects where they differ in length.
        dataset = self._hdf5.dataset(name, "fiubO" if len(shape) > 2 else "fiub")
        if len(shape) > 2 and dataset.ndim <= 2 and len(dataset) == shape[0]:
            return _decoded([np.asarray(row, np.uint8).tobytes() for row in dataset[()]], shape, name)
        if dataset.shape != shape:
            raise DataError(f"{name} has shape {dataset.shape}; it must be {shape}")
        values: np.ndarray = dataset[()]
        return values


class _ArrowSource:
    """A folder an episode; every column has one row more than there are steps."""

    def __init__(self, folder: Path, data_format: str) -> None:
        try:
            import pyarrow.dataset
        except ImportError:
            raise MissingExtraError("pyarrow", "lerobot", f"reading Minari data kept as {data_format}") from None
        self._folder, self._format, self._dataset = folder, data_format, pyarrow.dataset
        self._last: tuple[int, Any] = (-1, None)  # an episode and its table

    def length(self, index: int) -> int:
        return int(self._files(index).count_rows()) - 1

    def attributes(self, index: int) -> dict[str, Any]:
        text = (self._folder / str(index) / METADATA).read_text(encoding="utf-8")
        attributes: dict[str, Any] = json.loads(text)
        return attributes

    def infos(self, index: int) -> list[str]:
        schema = self._files(index).schema
        return [field.name for field in schema.field("infos").type] if "infos" in schema.names else []

    def info(self, index: int, name: str) -> np.ndarray:
        return np.asarray(self._array(index, ("infos", name)).to_pylist())

    def column(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        import pyarrow as pa

        name = "/".join((str(index), *path))
        array = self._array(index, path)[: shape[0]]
        if pa.types.is_binary(array.type):
            return _decoded(array.to_pylist(), shape, name)
        return from_arrow(array, (math.prod(shape[1:]),), name).reshape(shape)

    def _array(self, index: int, path: tuple[str, ...]) -> Any:
        import pyarrow as pa

        if self._last[0] != index:
            self._last = (index, self._files(index).to_table())
        table = self._last[1]
        found: Any = table.column(path[0]).combine_chunks() if path[0] in table.column_names else None
        for part in path[1:]:
            inside = found is not None and pa.types.is_struct(found.type) and found.type.get_field_index(part) >= 0
            found = found.field(part) if inside else None
        if found is None:
            raise DataError(f"episode {index} has no '{'/'.join(path)}'")
        return found

    def _files(self, index: int) -> Any:
        folder = self._folder / str(index)
        if not folder.is_dir():
            raise DataError(f"there is no folder '{index}' for episode {index}")
        files = sorted(str(file) for file in folder.iterdir() if file.name[0] not in "_." and file.name != METADATA)
        if not files:
            raise DataError(f"episode {index} has no {self._format} file")
        return self._dataset.dataset(files, format=self._format)


def _decoded(encoded: list[bytes], shape: tuple[int, ...], name: str) -> np.ndarray:
    images = np.empty(shape, np.uint8)
    for row, (data, image) in enumerate(zip(encoded, images, strict=True)):
        decode_image(data, image, f"{name}, row {row}")
    return images
