"""Messages as bytes: msgpack, with arrays as small maps; reading one runs no code and takes bounded memory.

The format is that of openpi (Physical-Intelligence/openpi, packages/openpi-client, msgpack_numpy.py): a message is a
map whose keys are text; an array is the map of the byte-string keys ``__ndarray__`` (true), ``data`` (its bytes in C
order), ``dtype`` (numpy's name of the type, such as "<f4") and ``shape``, and a scalar of numpy the map of
``__npgeneric__``, ``data`` (the number) and ``dtype``. Both are understood with text keys too, which other languages
write more easily.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.errors import MessageError, MissingExtraError

MAX_BYTES = 64 * 2**20
"""Longest message, bytes."""
MAX_ARRAYS = 256
"""Most arrays of a message."""
MAX_RANK = 8
"""Most axes of an array."""
MAX_DEPTH = 16
"""How deep maps and lists may lie in each other; an array counts as one entry."""
MAX_LENGTH = 4096
"""Most entries of one map or list."""
MAX_ENTRIES = 65536
"""Most entries of all maps and lists of a message together."""
MAX_TEXT = 65536
"""Longest text, bytes in UTF-8."""
DTYPES = frozenset({"|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"})
"""Types of the entries of arrays, as numpy names them: truth values, integers and floats, little-endian."""

ARRAY, SCALAR = "__ndarray__", "__npgeneric__"


def encode(message: Mapping[str, Any]) -> bytes:
    """Write a message.

    Args:
        message: Text -> None, a truth value, a number, text, bytes, an array, or a list or a map of such.

    Returns:
        Its bytes, which `decode` turns back into it; tuples become lists, and numpy's scalars numbers.

    Raises:
        MessageError: If something in it cannot be written, or it is larger than a limit of this module.
        MissingExtraError: If msgpack is not installed.
    """
    if not isinstance(message, Mapping):
        raise MessageError(f"a message is a map, not {type(message).__name__}")
    try:
        data: bytes = _msgpack().packb(_Writer().plain(message, 1), use_bin_type=True)
    except (OverflowError, UnicodeEncodeError) as error:  # an integer of more than 64 bits; half a surrogate pair
        raise MessageError(f"the message cannot be written: {error}") from error
    if len(data) > MAX_BYTES:
        raise MessageError(
            f"the message has {len(data)} bytes, at most {MAX_BYTES} are sent: send fewer or smaller arrays"
        )
    return data


def decode(data: bytes) -> dict[str, Any]:
    """Read a message.

    Args:
        data: What `encode`, or a client or server of openpi, wrote; or anything else.

    Returns:
        The message. Its arrays are writable copies.

    Raises:
        MessageError: If it is not a message, or larger than a limit of this module; nothing else is ever raised for
            what the bytes are.
        MissingExtraError: If msgpack is not installed.
    """
    if len(data) > MAX_BYTES:
        raise MessageError(f"the message has {len(data)} bytes, at most {MAX_BYTES} are read")
    msgpack, reader = _msgpack(), _Reader()
    try:
        tree = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=reader.map,
            list_hook=reader.list,
            ext_hook=reader.extension,
            # The memory for a list is taken as soon as its length is read, before there are any entries.
            max_array_len=MAX_LENGTH,
            max_map_len=MAX_LENGTH,
            max_str_len=MAX_TEXT,
            max_bin_len=MAX_BYTES,
            max_ext_len=0,
        )
    except MessageError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise MessageError(
            f"these {len(data)} bytes are not a message: {str(error) or type(error).__name__}"
        ) from error
    if not isinstance(tree, dict):
        raise MessageError(f"a message is a map, this is {type(tree).__name__}")
    _check(tree, 1)
    return tree


class _Writer:
    """Turns a message into what msgpack writes, within the limits."""

    def __init__(self) -> None:
        self.arrays = self.entries = 0

    def plain(self, value: Any, depth: int) -> Any:
        if isinstance(value, np.ndarray):
            self.arrays += 1
            return self._array(value)
        if isinstance(value, np.generic):
            return self._scalar(value)
        if isinstance(value, Mapping | list | tuple):
            self.entries += len(value)
            if depth > MAX_DEPTH or len(value) > MAX_LENGTH or self.entries > MAX_ENTRIES:
                raise MessageError(
                    f"the message has more than {MAX_LENGTH} entries in a map or list, {MAX_ENTRIES} in all, or lies "
                    f"{MAX_DEPTH} deep: send arrays, not lists"
                )
            if not isinstance(value, Mapping):
                return [self.plain(item, depth + 1) for item in value]
            for key in value:
                if not isinstance(key, str) or key in (ARRAY, SCALAR):
                    raise MessageError(f"a key of a message is text, and not a mark of an array: {key!r}")
            return {self._text(key): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool | int | float | bytes):
            return value
        raise MessageError(f"a message cannot hold {type(value).__name__}: send numbers, text and arrays")

    def _text(self, value: str) -> str:
        if len(value.encode()) > MAX_TEXT:
            raise MessageError(f"a text of {len(value)} characters is too long: at most {MAX_TEXT} bytes are sent")
        return str(value)

    def _array(self, value: NDArray[Any]) -> dict[bytes, Any]:
        if value.dtype.str not in DTYPES or value.ndim > MAX_RANK or self.arrays > MAX_ARRAYS:
            raise MessageError(
                f"an array of {value.dtype} with {value.ndim} axes cannot be sent (or it is one of more than "
                f"{MAX_ARRAYS}): truth values, integers and floats with at most {MAX_RANK} axes can"
            )
        return {
            ARRAY.encode(): True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": list(value.shape),
        }

    def _scalar(self, value: np.generic) -> Any:
        if value.dtype.str not in DTYPES:
            raise MessageError(f"a message cannot hold {value.dtype}: send numbers, text and arrays")
        return value.item()


class _Reader:
    """Takes the maps and lists of a message from msgpack, the inner ones first, and counts what they hold."""

    def __init__(self) -> None:
        self.arrays = self.entries = 0

    def map(self, pairs: list[tuple[str | bytes, Any]]) -> Any:
        self._count(len(pairs))
        keys = [key.decode("utf-8", "replace") if isinstance(key, bytes) else key for key, _ in pairs]
        found = dict(zip(keys, (value for _, value in pairs), strict=True))
        if len(found) < len(keys):
            raise MessageError(f"a map has a key twice: {sorted(keys)[:8]}")
        if ARRAY in found:
            self.arrays += 1
            if self.arrays > MAX_ARRAYS:
                raise MessageError(f"the message has more than {MAX_ARRAYS} arrays")
            return _array(found)
        if SCALAR in found:
            return _scalar(found)
        if any(isinstance(key, bytes) for key, _ in pairs):
            raise MessageError(f"the keys of a map are text, these are bytes: {sorted(keys)[:8]}")
        return found

    def list(self, values: list[Any]) -> list[Any]:
        self._count(len(values))
        return values

    def extension(self, code: int, data: bytes) -> Any:
        raise MessageError(f"the message has an extension of msgpack (number {code}), which is never read")

    def _count(self, entries: int) -> None:
        self.entries += entries
        if self.entries > MAX_ENTRIES:
            raise MessageError(f"the maps and lists of the message have more than {MAX_ENTRIES} entries")


def _array(found: dict[str, Any]) -> NDArray[Any]:
    """Read an array from its map."""
    if found.keys() != {ARRAY, "data", "dtype", "shape"} or found[ARRAY] is not True:
        raise MessageError(f"an array has data, dtype and shape, this one {sorted(found)}")
    data, dtype, shape = found["data"], _dtype(found["dtype"]), found["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise MessageError(f"the shape of an array is a list of sizes, not {shape!r:.80}")
    if len(shape) > MAX_RANK:
        raise MessageError(f"an array has {len(shape)} axes, at most {MAX_RANK} are read")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        came = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise MessageError(f"an array of {dtype} with shape {shape!r:.80} came with {came} of data")
    if dtype.kind == "b" and max(data, default=0) > 1:
        raise MessageError("a truth value in an array is neither 0 nor 1")
    try:
        return np.ndarray(tuple(shape), dtype, data).copy()
    except ValueError as error:  # no data, and sizes whose product numpy cannot hold
        raise MessageError(f"an array with shape {shape!r:.80} cannot be made: {error}") from error


def _scalar(found: dict[str, Any]) -> Any:
    """Read a scalar of numpy from its map, as a plain number."""
    if found.keys() != {SCALAR, "data", "dtype"} or not isinstance(found["data"], bool | int | float):
        raise MessageError(f"a scalar of numpy has a number as data, and a dtype; this one has {sorted(found)}")
    try:
        return _dtype(found["dtype"]).type(found["data"]).item()
    except (ValueError, OverflowError) as error:
        raise MessageError(f"a scalar does not fit its type: {error}") from error


def _dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or name not in DTYPES:
        raise MessageError(f"the type of an array's entries is one of {', '.join(sorted(DTYPES))}, not {name!r:.80}")
    return np.dtype(name)


def _check(value: Any, depth: int) -> None:
    """Refuse what lies too deep, and the one thing that msgpack makes of an extension by itself, a time."""
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise MessageError(f"maps and lists lie more than {MAX_DEPTH} deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth + 1)
    elif not (value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray)):
        raise MessageError(f"the message has a {type(value).__name__}, which is never read")


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise MissingExtraError("msgpack", "remote", "a policy that is served elsewhere") from error
    return msgpack
