"""Arrays of a Zarr store, read without trusting it (formats: Zarr storage specification 2 and 3).

A store is a folder or a zip archive. Zarr's own reader runs whatever codec the metadata name, unpickling among
them, and unpacks a chunk to any size that the chunk declares; here a chunk has the size that its array declares,
comes from a name that follows from its position, and is unpacked by one of four codecs.
"""

import itertools
import json
import math
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from robopol.data.formats.archive import Archive
from robopol.data.formats.budget import Budget
from robopol.data.formats.zarr_codecs import unpack
from robopol.errors import DataError
from robopol.registry import nearest

_METADATA = {".zarray": 2, "zarr.json": 3}
_MAX_METADATA = 2**20


@dataclass(frozen=True)
class _Layout:
    """What the metadata of one array declare."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    order: str
    codec: str | None
    fill: Any
    prefix: str
    separator: str

    def name(self, position: tuple[int, ...]) -> str:
        """Return where a chunk lies, relative to its array."""
        return self.prefix + self.separator.join(map(str, position))


class ZarrStore:
    """An open Zarr store; use it as a context manager.

    Attributes:
        names: Arrays in it, e.g. ``"data/img"``, in alphabetical order.
    """

    def __init__(self, path: Path) -> None:
        """Open a store.

        Args:
            path: A folder or a zip archive.

        Raises:
            DataError: If there is none, or something in it is no plain file.
        """
        self._open = ExitStack()
        if path.is_dir():
            self._sizes = dict(_files(path))
            self._read: Callable[[str], bytes] = lambda name: (path / name).read_bytes()
        elif path.is_file():
            archive = self._open.enter_context(Archive(path))
            self._sizes, self._read = archive.sizes, archive.read
        else:
            raise DataError(f"there is no store {path}")
        self._budget = Budget(sum(self._sizes.values()))
        self.names = sorted(
            name.removesuffix(f"/{kind}")
            for name in self._sizes
            for kind in _METADATA
            if name.endswith(f"/{kind}") and self._node(name) == "array"
        )

    def __enter__(self) -> "ZarrStore":
        """Return the open store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the archive, if it is one."""
        self._open.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array without reading it.

        Raises:
            DataError: If there is none, or it holds anything but plain numbers.
        """
        return self._layout(name).shape

    def array(self, name: str, missing: str | None = None) -> np.ndarray:
        """Read an array of plain numbers.

        Args:
            name: E.g. ``"data/img"``.
            missing: ``fill``: a chunk that is not there holds the array's fill value. By default it is an error,
                because a lost chunk looks the same.

        Raises:
            DataError: If there is none, it holds anything else, a chunk is damaged or missing, or it is larger
                than the store can be.
        """
        layout = self._layout(name)
        self._budget.spend(name, layout.dtype.itemsize, layout.shape, layout.chunks)
        array = np.empty(layout.shape, layout.dtype)
        self._fill(name, layout, array, missing)
        return array

    def fill(self, name: str, column: np.ndarray, missing: str | None = None) -> None:
        """Read an array chunk by chunk into a column that may be of another type, and not in memory.

        Args:
            name: The array.
            column: As large as the array, is filled.
            missing: As for `array`.

        Raises:
            DataError: As `array`; also if the type of the column cannot hold the values exactly.
        """
        layout = self._layout(name)
        self._budget.spend(name, layout.dtype.itemsize, layout.shape, layout.chunks, held=False)
        self._fill(name, layout, column, missing)

    def _fill(self, name: str, layout: _Layout, array: np.ndarray, missing: str | None) -> None:
        counts = [-(-size // chunk) for size, chunk in zip(layout.shape, layout.chunks, strict=True)]
        for position in itertools.product(*map(range, counts)):
            begin = [index * chunk for index, chunk in zip(position, layout.chunks, strict=True)]
            target = array[tuple(slice(b, b + chunk) for b, chunk in zip(begin, layout.chunks, strict=True))]
            stored = f"{name}/{layout.name(position)}"
            if stored in self._sizes:
                values = self._chunk(stored, layout)[tuple(slice(size) for size in target.shape)]
            elif missing == "fill":
                values = np.full(target.shape, layout.fill, layout.dtype)
            else:
                raise DataError(
                    f"chunk {stored} is missing; if the store was written without its empty chunks (zarr's "
                    "write_empty_chunks=False), say missing=fill"
                )
            with np.errstate(invalid="ignore"):  # compared below
                target[...] = values
            if array.dtype != layout.dtype and not np.array_equal(target, values):
                raise DataError(f"{name} holds values that are no {array.dtype}, in chunk {stored}")

    def _chunk(self, stored: str, layout: _Layout) -> np.ndarray:
        """Read and unpack one chunk."""
        size = math.prod(layout.chunks) * layout.dtype.itemsize
        try:
            raw = unpack(layout.codec, self._read(stored), size)
        except (ValueError, RuntimeError, zlib.error) as error:
            raise DataError(f"chunk {stored} is damaged: {error}") from error
        return np.frombuffer(raw, layout.dtype).reshape(layout.chunks, order=layout.order)  # type: ignore[call-overload]

    def _node(self, name: str) -> str:
        """Return whether metadata are those of an array or of a group."""
        return "array" if name.endswith("/.zarray") else str(self._json(name).get("node_type"))

    def _json(self, name: str) -> dict[str, Any]:
        """Read metadata."""
        if self._sizes[name] > _MAX_METADATA:
            raise DataError(f"{name} has {self._sizes[name]:,} bytes; that is no metadata of an array")
        tree = json.loads(self._read(name))
        if not isinstance(tree, dict):
            raise DataError(f"{name} is not a JSON object")
        return tree

    def _layout(self, name: str) -> _Layout:
        """Check the metadata of an array."""
        if name not in self.names:
            raise DataError(f"there is no array '{name}'{nearest(name, self.names)}; there are {self.names}")
        kinds = [kind for kind in _METADATA if f"{name}/{kind}" in self._sizes]
        tree = self._json(f"{name}/{kinds[0]}")
        if len(kinds) > 1 or tree.get("zarr_format") != _METADATA[kinds[0]]:
            raise DataError(f"{name} must be an array of one format, 2 or 3; it has {kinds}")
        try:
            layout = (_layout_2 if kinds == [".zarray"] else _layout_3)(tree)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"the metadata of {name} are not those of an array: {error!r}") from error
        sizes = (*layout.shape, *layout.chunks)
        whole = all(type(size) is int and size >= 0 for size in sizes) and min(layout.chunks, default=1) > 0
        if not whole or len(layout.shape) != len(layout.chunks) or not layout.shape:
            raise DataError(f"{name} declares the shape {layout.shape} in chunks of {layout.chunks}")
        if layout.dtype.kind not in "fiub":
            raise DataError(f"{name} holds {layout.dtype}; only plain numbers are read")
        if layout.order not in ("C", "F") or layout.separator not in (".", "/"):
            raise DataError(f"{name} has the order {layout.order!r} and the separator {layout.separator!r}")
        return layout


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and size of every file in a folder."""
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode):
                if not stat.S_ISREG(found.st_mode):
                    raise DataError(f"{path.relative_to(folder)} is a link or no plain file; nothing else is read")
                yield path.relative_to(folder).as_posix(), found.st_size


def _layout_2(tree: dict[str, Any]) -> _Layout:
    """Metadata of format 2, ``.zarray``."""
    if tree.get("filters"):
        raise DataError(f"it uses the filters {tree['filters']}; re-save it without filters")
    return _Layout(
        shape=tuple(tree["shape"]),
        chunks=tuple(tree["chunks"]),
        dtype=_dtype(tree["dtype"]),
        order=tree["order"],
        codec=tree["compressor"]["id"] if tree["compressor"] is not None else None,
        fill=tree["fill_value"] or 0,
        prefix="",
        separator=tree.get("dimension_separator", "."),
    )


def _layout_3(tree: dict[str, Any]) -> _Layout:
    """Metadata of format 3, ``zarr.json``."""
    first, *packed = tree["codecs"] or [{}]
    endian = first.get("configuration", {}).get("endian", "little")
    keys = tree["chunk_key_encoding"]
    if first["name"] != "bytes" or len(packed) > 1 or endian not in ("little", "big") or keys["name"] != "default":
        raise DataError(
            f"it uses the codecs {[codec['name'] for codec in tree['codecs']]} and the chunk keys {keys['name']}; "
            "re-save it with one compressor and neither shards nor transposes"
        )
    separator = keys.get("configuration", {}).get("separator", "/")
    return _Layout(
        shape=tuple(tree["shape"]),
        chunks=tuple(tree["chunk_grid"]["configuration"]["chunk_shape"]),
        dtype=_dtype(tree["data_type"]).newbyteorder("<" if endian == "little" else ">"),
        order="C",
        codec=packed[0]["name"] if packed else None,
        fill=tree["fill_value"],
        prefix=f"c{separator}",
        separator=separator,
    )


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str):
        raise DataError(f"it holds {name!r}; only plain numbers are read")
    return np.dtype(name)
