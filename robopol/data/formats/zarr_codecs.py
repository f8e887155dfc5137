"""Unpacking the chunks of a Zarr store, with what each codec says of its size compared first."""

import zlib
from typing import Any

import numpy as np

from robopol.errors import DataError, MissingExtraError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def unpack(codec: str | None, raw: bytes, size: int) -> bytes:
    """Unpack a chunk.

    Args:
        codec: ``blosc``, ``zstd``, ``zlib`` or ``gzip``; None if the chunk is not packed.
        raw: The chunk as it is stored.
        size: The bytes that it must hold.

    Returns:
        Exactly so many bytes; memory for more is never asked for.

    Raises:
        DataError: If the codec is another one, or the chunk holds less or more.
        ValueError: If the chunk is damaged, or RuntimeError or zlib.error, as its codec pleases.
        MissingExtraError: If numcodecs is needed and not installed.
    """
    if codec is None:
        declared, unpacked = len(raw), raw
    elif codec == "blosc":  # header: bytes 4-8 unpacked size, 12-16 packed size
        declared = int.from_bytes(raw[4:8], "little")
        if int.from_bytes(raw[12:16], "little") != len(raw):
            raise DataError("the size of its Blosc header is not that of the file")
        unpacked = _numcodecs("blosc").decompress(raw) if declared == size else b""
    elif codec == "zstd":
        declared = _zstd_size(raw)
        unpacked = _numcodecs("zstd").decompress(raw, np.empty(size, np.uint8)) if declared == size else b""
    elif codec in ("zlib", "gzip"):
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        unpacked = stream.decompress(raw, size + 1)
        declared = len(unpacked)
        if not stream.eof:
            raise DataError("it ends too early, or is larger than the array says")
    else:
        raise DataError(f"it is packed by '{codec}'; re-save it with Blosc, Zstandard, gzip or zlib")
    if declared != size:
        raise DataError(f"it holds {declared:,} bytes; the array says {size:,}")
    return bytes(unpacked)


def _zstd_size(raw: bytes) -> int:
    """Return the size that a Zstandard frame declares, -1 if it declares none (RFC 8878, section 3.1.1.1)."""
    if raw[:4] != _ZSTD_MAGIC or len(raw) < 6:
        raise DataError("it does not begin with a Zstandard frame")
    descriptor = raw[4]
    single = descriptor >> 5 & 1
    width = (single, 2, 4, 8)[descriptor >> 6]
    begin = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    if not width:
        return -1
    return int.from_bytes(raw[begin : begin + width], "little") + (256 if width == 2 else 0)


def _numcodecs(name: str) -> Any:
    """Import a codec."""
    try:
        import numcodecs
    except ImportError:
        raise MissingExtraError("numcodecs", "zarr", "reading a compressed Zarr store") from None
    return getattr(numcodecs, name)
