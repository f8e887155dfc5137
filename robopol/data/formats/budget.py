"""How large a file may become in memory: what it declares is added up before anything is read."""

import math
from collections.abc import Sequence

from robopol.data.image_columns import total_memory
from robopol.errors import DataError

DEFLATE = 1032
"""Deflate never shrinks data by more than this factor (zlib technical details)."""

_RATIO = 1100  # some more than deflate's, for what lies around the data
_FLOOR = 2**20


class Budget:
    """Bytes that a file of a certain size may declare, spent array by array."""

    def __init__(self, file_size: int) -> None:
        """Allow what deflate could have packed into a file, and no more than the memory of this machine.

        Args:
            file_size: Bytes on disk.
        """
        self._size = _RATIO * file_size + _FLOOR
        self._memory = total_memory()
        self._declared = self._held = self._passing = 0

    def spend(self, name: str, itemsize: int, *shapes: Sequence[int], held: bool = True, piece: int = 0) -> None:
        """Count an array before memory is asked for.

        Args:
            name: The array, for the message.
            itemsize: Bytes of one value.
            *shapes: The shape, and the shape of a chunk if there are chunks; the larger counts.
            held: It will be in memory whole. Images are not: they pass through it chunk by chunk, and
                `image_column` decides where they go.
            piece: Bytes that are in memory meanwhile, whatever becomes of the array; at least a chunk.

        Raises:
            DataError: If the arrays so far are more than the file or the machine can hold.
        """
        size = max(math.prod(shape) for shape in shapes) * itemsize
        self._declared += size
        self._held += size if held else 0
        self._passing = max(self._passing, piece, *(math.prod(shape) * itemsize for shape in shapes[1:]))
        if self._declared > self._size or self._held + self._passing > self._memory:
            raise DataError(
                f"{name} has shape {tuple(shapes[0])}: with it the file declares {self._declared:,} bytes; "
                f"its size allows {self._size:,}, this machine {self._memory:,}"
            )
