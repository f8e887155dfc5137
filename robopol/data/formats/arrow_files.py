"""Arrow files, read without trusting them (format: Arrow columnar format, "IPC File Format" and ``Message.fbs``)."""

import struct
from pathlib import Path
from typing import Any

from robopol.errors import DataError

_MAGIC = b"ARROW1\0\0"
_HEADER, _COMPRESSION = 2, 3  # fields of a Message and of the RecordBatch that it holds


def read_arrow(path: Path, name: str) -> Any:
    """Map an Arrow file into memory; what is not looked at is never read.

    Args:
        path: The file.
        name: What to call it in an error.

    Returns:
        An Arrow table, every part of which was checked to lie inside the file.

    Raises:
        DataError: If it is no such file, or packed: nothing would tell how large it becomes.
    """
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        content = file.read_buffer()
    if content.size < len(_MAGIC) or content[: len(_MAGIC)].to_pybytes() != _MAGIC:
        raise DataError(f"{name} is not an Arrow file")
    # Behind the magic a file is a stream. Its footer, which points into it, is not asked.
    stream = content[len(_MAGIC) :]
    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.type not in ("schema", "record batch"):
            raise DataError(f"{name} holds a {message.type}; only plain columns are read")
        if message.type == "record batch" and _is_packed(message.metadata.to_pybytes()):
            raise DataError(f"{name} is packed; write it again without compression")
    table = pa.ipc.open_stream(stream).read_all()
    table.validate(full=True)
    return table


def _is_packed(message: bytes) -> bool:
    """Return whether the buffers of a record batch are compressed, from its flatbuffer."""
    (table,) = struct.unpack_from("<I", message, 0)
    offset = _field(message, table, _HEADER)
    (batch,) = struct.unpack_from("<I", message, table + offset)
    return _field(message, table + offset + batch, _COMPRESSION) != 0


def _field(message: bytes, table: int, number: int) -> int:
    """Return where a field is, relative to its table; 0 if it is not there."""
    (back,) = struct.unpack_from("<i", message, table)
    (size,) = struct.unpack_from("<H", message, table - back)
    place = 4 + 2 * number
    return int(struct.unpack_from("<H", message, table - back + place)[0]) if place < size else 0
