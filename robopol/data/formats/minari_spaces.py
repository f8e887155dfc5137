"""Spaces of a Minari dataset, and which observation each part of them is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopol.data.image_columns import image_column
from robopol.errors import DataError

NAMES = {"state": "observation", "goal": "desired_goal"}
"""Observation key -> its name in Minari; any other key is its own name, without ``images.``."""

_KEYS = {name: key for key, name in NAMES.items()}


@dataclass(frozen=True)
class Box:
    """An observation that is an array of numbers.

    Attributes:
        path: Names of the dictionaries around it, from the outermost on, and its own; empty if it is the only one.
        shape: In Minari.
        image: Whether it is one.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    image: bool

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one row of the column."""
        return (*self.shape, 1) if self.image and len(self.shape) == 2 else self.shape or (1,)

    @property
    def key(self) -> str:
        """Observation key in `Episodes`."""
        if self.image:
            return f"images.{'.'.join(self.path) or 'pixels'}"
        first, *inner = self.path or ("observation",)
        return ".".join((_KEYS.get(first, first), *inner))

    def column(self, rows: int) -> np.ndarray:
        """Return a column that is still to be filled."""
        return image_column((rows, *self.row)).numpy() if self.image else np.empty((rows, *self.row), np.float32)


def boxes(space: Any, path: tuple[str, ...] = ()) -> Iterator[Box]:
    """Find the boxes in a space.

    Args:
        space: As Minari serialises it, parsed from JSON.
        path: Names of the dictionaries around it.

    Yields:
        What is there, in the order of the file.

    Raises:
        DataError: If there is anything but boxes and dictionaries of them.
    """
    kind = space.get("type")
    if kind == "Dict":
        for name, inner in space["subspaces"].items():
            yield from boxes(inner, (*path, name))
    elif kind == "Box":
        shape = tuple(int(size) for size in space["shape"])
        yield Box(path, shape, is_picture(shape) and space["dtype"] == "uint8")
    else:
        what = f"observation '{'.'.join(path)}'" if path else "observation"
        raise DataError(f"the {what} is {kind}; robopol holds numbers only (Box, or Dict of Box)")


def is_picture(shape: tuple[int, ...]) -> bool:
    """Return whether bytes of a shape are an image; grey ones without channels by Minari's own rule."""
    return (len(shape) == 3 and shape[2] in (1, 3, 4)) or (len(shape) == 2 and min(shape) >= 32)


def box_space(shape: tuple[int, ...], dtype: str, low: float = -np.inf, high: float = np.inf) -> dict[str, Any]:
    """Describe a Box as Minari does, with a bound for every number."""
    bounds = {side: np.full(shape, bound, dtype).tolist() for side, bound in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **bounds}
