"""The Arrow or Parquet files of a Minari dataset: a folder an episode, with one row more than there are steps."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robopol.data.formats.arrow_files import read_arrow
from robopol.data.formats.budget import Budget
from robopol.data.formats.columns import decode_image, from_arrow
from robopol.data.formats.parquet import Parquet
from robopol.errors import DataError, MissingExtraError

METADATA = "metadata.json"


class _Arrow:
    """An Arrow file; all of it is mapped, so that nothing of it is in memory twice."""

    def __init__(self, path: Path, name: str, budget: Budget) -> None:
        self._table, self._name, self._budget = read_arrow(path, name), name, budget
        self.rows, self.schema = len(self._table), self._table.schema

    def numbers_in(self, path: tuple[str, ...]) -> Iterator[Any]:
        for array in self.encoded_in(path):
            # Columns may share their bytes, so that together they are more than the file.
            self._budget.spend(f"{self._name}: {'.'.join(path)}", 1, (array.nbytes,))
            yield array

    def encoded_in(self, path: tuple[str, ...]) -> Iterator[Any]:
        for chunk in self._table.column(path[0]).chunks:
            yield _inside(chunk, path)

    def close(self) -> None:
        pass


class _Parquet(Parquet):
    """A Parquet file in which columns are found by their path."""

    def numbers_in(self, path: tuple[str, ...]) -> Iterator[Any]:
        for chunk in self.numbers([".".join(path)]).column(path[0]).chunks:
            yield _inside(chunk, path)

    def encoded_in(self, path: tuple[str, ...]) -> Iterator[Any]:
        for batch in self.batches(".".join(path)):
            yield _inside(batch, path)


class _Open(NamedTuple):
    """An episode that is being read."""

    episode: int
    files: list[_Arrow | _Parquet]


class ColumnSource:
    """The episodes; see `robopol.data.formats.minari_files.Source`."""

    def __init__(self, folder: Path, data_format: str) -> None:
        """Look into a folder.

        Args:
            folder: Where the folders of the episodes are.
            data_format: ``arrow`` or ``parquet``.

        Raises:
            MissingExtraError: If pyarrow is not installed.
        """
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtraError("pyarrow", "lerobot", f"reading Minari data kept as {data_format}") from None
        self._folder, self._format = folder, data_format
        self._budget = Budget(sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file()))
        self._last = _Open(-1, [])

    def close(self) -> None:
        """Close all files."""
        for file in self._last.files:
            file.close()

    def length(self, index: int) -> int:
        """Return the number of steps of an episode."""
        return sum(file.rows for file in self._files(index)) - 1

    def attributes(self, index: int) -> dict[str, Any]:
        """Return the metadata of an episode."""
        text = (self._folder / str(index) / METADATA).read_text(encoding="utf-8")
        attributes: dict[str, Any] = json.loads(text)
        return attributes

    def infos(self, index: int) -> list[str]:
        """Return the names of what was recorded of the infos of an episode."""
        schema = self._files(index)[0].schema
        return [field.name for field in schema.field("infos").type] if "infos" in schema.names else []

    def info(self, index: int, name: str) -> np.ndarray:
        """Return one of them."""
        return np.concatenate([np.asarray(array.to_pylist()) for array in self._numbers(index, ("infos", name))])

    def column(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        """Read an array of an episode without its padding."""
        name = "/".join((str(index), *path))
        arrays = [from_arrow(array, (math.prod(shape[1:]),), name) for array in self._numbers(index, path)]
        return np.concatenate(arrays)[: shape[0]].reshape(shape)

    def images(self, index: int, path: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[tuple[slice, np.ndarray]]:
        """Read the images of an episode some at a time, JPEG decoded."""
        import pyarrow as pa

        name, row = "/".join((str(index), *path)), 0
        for file in self._files(index):
            _check_inside(file.schema, index, path)
            for array in file.encoded_in(path):
                if pa.types.is_binary(array.type):
                    for encoded in array:
                        image = decode_image(encoded.as_py(), shape[1:], f"{name}, row {row}")
                        yield slice(row, row + 1), image[None]
                        row += 1
                    continue
                values = from_arrow(array, (math.prod(shape[1:]),), name).reshape(-1, *shape[1:])
                if values.dtype != np.uint8:
                    raise DataError(f"{name} is {values.dtype}; it must be uint8")
                yield slice(row, row + len(values)), values
                row += len(values)

    def _numbers(self, index: int, path: tuple[str, ...]) -> Iterator[Any]:
        """Read an array, file by file."""
        for file in self._files(index):
            _check_inside(file.schema, index, path)
            yield from file.numbers_in(path)

    def _files(self, index: int) -> list[_Arrow | _Parquet]:
        """Open the files of an episode."""
        if self._last.episode != index:
            self.close()
            folder = self._folder / str(index)
            if not folder.is_dir():
                raise DataError(f"there is no folder '{index}' for episode {index}")
            paths = sorted(path for path in folder.iterdir() if path.name[0] not in "_." and path.name != METADATA)
            if not paths:
                raise DataError(f"episode {index} has no {self._format} file")
            opener = _Parquet if self._format == "parquet" else _Arrow
            self._last = _Open(index, [opener(path, f"{index}/{path.name}", self._budget) for path in paths])
        return self._last.files


def _check_inside(schema: Any, index: int, path: tuple[str, ...]) -> None:
    """Raise if there is no such column, or nothing of that name in its structs."""
    import pyarrow as pa

    kind = pa.struct(list(schema))
    for part in path:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            raise DataError(f"episode {index} has no '{'/'.join(path)}'")
        kind = kind.field(part).type


def _inside(array: Any, path: tuple[str, ...]) -> Any:
    """Return what lies in the structs of a column."""
    for part in path[1:]:
        array = array.field(part)
    return array
