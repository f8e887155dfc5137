"""What formats that are folders of files share: Arrow columns and encoded images."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from robopol.errors import DataError


def from_arrow(column: Any, shape: Sequence[int], name: str) -> np.ndarray:
    """Return an Arrow column of numbers, or of lists of one length, as an array.

    Args:
        column: An Arrow array, chunked or not.
        shape: Shape of one row; ``(1,)`` may also be a plain number.
        name: For the error.

    Returns:
        (rows, *shape), the column's own type.

    Raises:
        DataError: If the column is ragged, has holes or is not of numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    rows = len(array)
    sizes = () if tuple(shape) == (1,) and not pa.types.is_nested(array.type) else shape
    for size in sizes:
        lists = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
        if array.null_count or not (lists or pa.types.is_fixed_size_list(array.type)):
            raise DataError(f"{name} holds {array.type} and {array.null_count} holes; each row must be {tuple(shape)}")
        sizes_found = pc.unique(pc.list_value_length(array)).to_pylist()
        if sizes_found not in ([], [size]):
            raise DataError(f"{name} holds lists of {sizes_found[:3]} values; each row must be {tuple(shape)}")
        array = array.flatten()
    plain = pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)
    if array.null_count or not plain:
        raise DataError(
            f"{name} has {array.null_count} holes and holds {array.type}; it must hold numbers without holes"
        )
    return array.to_numpy(zero_copy_only=False).reshape(rows, *shape)


def decode_image(encoded: Any, shape: Sequence[int], name: str) -> np.ndarray:
    """Decode a PNG or JPEG image.

    Args:
        encoded: The bytes of the file.
        shape: (H, W, C) or (H, W), what it must be.
        name: For the error.

    Returns:
        uint8 of that shape.

    Raises:
        DataError: If the bytes are not such an image, of this size.
    """
    from PIL import Image

    if not isinstance(encoded, bytes):
        raise DataError(f"{name} is no image but {encoded!r:.40}")
    (height, width), bands = shape[:2], math.prod(shape[2:])
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as picture:
            # The header is compared before anything is decompressed.
            if picture.size != (width, height) or len(picture.getbands()) != bands:
                raise DataError(
                    f"{name} is {picture.height} x {picture.width} x {len(picture.getbands())}; "
                    f"it must be {' x '.join(map(str, shape))}"
                )
            return np.array(picture, np.uint8).reshape(shape)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is not a PNG or JPEG image: {error}") from error
