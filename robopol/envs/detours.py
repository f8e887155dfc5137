"""Upright rectangles that are in the way: where they stop a straight motion, and the shortest ways around them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.rectangles import Rectangle

Array = NDArray[np.float64]

_SLACK = 1e-6  # m by which a way may pass a rectangle more closely than its margin: it may follow a side
_THERE = 1e-6  # m from a turn at which the way has turned


def grown(rectangles: Sequence[Rectangle], margin: float) -> Array:
    """Return rectangles that reach a margin, m, farther to every side, (R, 4)."""
    return np.array(rectangles).reshape(-1, 4) + margin * np.array([-1.0, -1.0, 1.0, 1.0])


def inside(points: Array, rectangles: Array) -> Any:
    """Return whether points (..., 2) are inside one of some rectangles (R, 4), (...) bool."""
    within = (points[..., None, :] > rectangles[:, :2]) & (points[..., None, :] < rectangles[:, 2:])
    return within.all(-1).any(-1)


def outside(points: Array, rectangles: Array) -> Array:
    """Return points (..., 2), those inside one of some rectangles (R, 4) moved to its nearest side."""
    points = points.copy()
    for rectangle in rectangles:
        to_sides = rectangle - np.concatenate([points, points], axis=-1)
        nearest = abs(to_sides).argmin(-1)[..., None]
        move = np.where(np.arange(2) == nearest % 2, np.take_along_axis(to_sides, nearest, -1), 0.0)
        points += np.where(inside(points, rectangle[None])[..., None], move, 0.0)
    return points


def entered(start: Array, move: Array, rectangles: Array) -> Array:
    """Return the part of straight motions that is made before a rectangle is entered.

    By the slabs of Kay and Kajiya, "Ray tracing complex scenes", SIGGRAPH 1986.

    Args:
        start: Where the motions begin, (..., 2) m.
        move: What they add, (..., 2) m.
        rectangles: (R, 4).

    Returns:
        (...), 0 to 1; 1 if none is entered.
    """
    move = np.where(abs(move) < 1e-12, 1e-12, move)[..., None, :]
    ends = [(bound - start[..., None, :]) / move for bound in (rectangles[:, :2], rectangles[:, 2:])]
    enter, leave = np.minimum(*ends).max(-1), np.maximum(*ends).min(-1)
    hit = (enter < leave) & (leave > 0.0)
    found: Array = np.where(hit, enter.clip(0.0), 1.0).min(-1, initial=1.0)
    return found


class Detours:
    """The shortest ways from anywhere to some goals that keep a margin from rectangles.

    They lead straight from corner to corner of the rectangles grown by the margin (Lozano-Perez and Wesley, "An
    algorithm for planning collision-free paths among polyhedral obstacles", CACM 1979). A way that begins within the
    margin leaves it first.
    """

    def __init__(self, goals: Array, rectangles: Sequence[Rectangle], margin: float) -> None:
        """Measure all ways between corners and goals.

        Args:
            goals: (G, 2) m, outside the margins.
            rectangles: What is in the way.
            margin: The distance to keep, m.
        """
        self._kept, self._closed = grown(rectangles, margin), grown(rectangles, margin - _SLACK)
        corners = self._kept[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].reshape(-1, 2)
        self._turns = np.concatenate([corners, goals])
        between = self._straight(self._turns)
        for turn in range(len(self._turns)):  # Floyd and Warshall
            between = np.minimum(between, between[:, turn, None] + between[turn])
        self._left = between[:, len(corners) :]

    def left(self, points: Array) -> Array:
        """Return the lengths of the ways from points (..., 2) to all goals, (..., G) m; inf where none leads."""
        first = outside(points, self._kept)
        out = np.linalg.norm(first - points, axis=-1)[..., None]
        lengths: Array = out + (self._straight(first)[..., None] + self._left).min(-2)
        return lengths

    def turn(self, point: Array, goal: int) -> Array:
        """Return where the way from a point (2,) to one of the goals turns first, or the goal, (2,) m."""
        straight = self._straight(outside(point, self._kept))
        straight[straight < _THERE] = np.inf
        found: Array = self._turns[(straight + self._left[:, goal]).argmin()]
        return found

    def _straight(self, points: Array) -> Array:
        """Return the straight distances from points (..., 2) to all turns, (..., T) m; inf where one is in the way."""
        start = points[..., None, :]
        move = self._turns - start
        return np.where(entered(start, move, self._closed) < 1.0, np.inf, np.linalg.norm(move, axis=-1))
