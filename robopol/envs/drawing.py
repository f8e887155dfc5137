"""Small pictures of the square [-1, 1] x [-1, 1], drawn without OpenGL."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robopol.envs.rectangles import Rectangle

Colour = tuple[int, int, int]

_FINE = 4  # it is drawn so many times as large and made smaller, which smooths the edges


class Drawing:
    """A white square in a frame to draw on; y points up. What is drawn later lies on top."""

    def __init__(self, size: int) -> None:
        """Begin.

        Args:
            size: Height and width of the picture, pixels.
        """
        from PIL import Image, ImageDraw

        self._size = size
        self._image = Image.new("RGB", (_FINE * size, _FINE * size), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._draw.rectangle([0, 0, _FINE * size - 1, _FINE * size - 1], outline=(190, 190, 190), width=_FINE)

    def rectangle(self, rectangle: Rectangle, colour: Colour) -> None:
        """Fill a rectangle."""
        x0, y0, x1, y1 = rectangle
        self._draw.rectangle([self._place((x0, y1)), self._place((x1, y0))], fill=colour)

    def disc(self, centre: NDArray[np.float64], radius: float, colour: Colour) -> None:
        """Fill a disc around a centre, (2,)."""
        x, y = centre
        self._draw.ellipse([self._place((x - radius, y + radius)), self._place((x + radius, y - radius))], fill=colour)

    def line(self, points: Sequence[NDArray[np.float64]], width: float, colour: Colour) -> None:
        """Draw a line through some points, (2,) each, ``width`` wide."""
        places = [self._place(point) for point in points]
        self._draw.line(places, fill=colour, width=round(width * _FINE * self._size / 2), joint="curve")

    def picture(self) -> NDArray[np.uint8]:
        """Return what was drawn, (size, size, 3) uint8."""
        return np.array(self._image.reduce(_FINE))

    def _place(self, point: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
        return (point[0] + 1) / 2 * _FINE * self._size, (1 - point[1]) / 2 * _FINE * self._size
