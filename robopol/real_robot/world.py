"""Where everything is in a simulated scene, at one time and at the times before."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
T = TypeVar("T")

MEMORY = 4.0
"""So many seconds of a world are remembered."""


class World(NamedTuple):
    """All that is where it is in a scene.

    Attributes:
        t: When it was there, ns.
        qpos: MuJoCo's positions.
        mocap_pos: Positions of goals and obstacles (M, 3), m.
        mocap_quat: Their orientations (M, 4).
    """

    t: int
    qpos: Vector
    mocap_pos: Vector
    mocap_quat: Vector

    @classmethod
    def of(cls, data: Any, t: int) -> "World":
        """Return a copy of what a simulation, a ``mujoco.MjData``, holds at time ``t``, ns."""
        return cls(t, data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy())

    @classmethod
    def read(cls, row: np.void) -> "World":
        """Return what a row of `world_type` holds."""
        return cls(int(row["t"]), row["qpos"].copy(), row["mocap_pos"].copy(), row["mocap_quat"].copy())

    def show(self, data: Any) -> None:
        """Put everything there in another simulation of the scene; poses are to be computed yet."""
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = self.qpos, self.mocap_pos, self.mocap_quat


def world_type(sizes: list[int]) -> np.dtype[np.void]:
    """Return the row that holds a world of so many positions and mocap bodies."""
    positions, mocap = sizes
    return np.dtype(
        [
            ("t", np.int64),
            ("qpos", np.float64, (positions,)),
            ("mocap_pos", np.float64, (mocap, 3)),
            ("mocap_quat", np.float64, (mocap, 4)),
        ]
    )


class Worlds:
    """The world as it was in the last seconds."""

    def __init__(self) -> None:
        """Begin with none."""
        self._past: deque[tuple[int, World]] = deque()

    def add(self, world: World) -> None:
        """Remember one; they come in the order of their times."""
        self._past.append((world.t, world))
        while self._past[0][0] < world.t - MEMORY * 1e9:
            self._past.popleft()

    def at(self, t: int) -> World:
        """Return the one nearest to time ``t``, ns, the last of several that are.

        Raises:
            IndexError: If there is none yet.
        """
        return nearest(self._past, t)


def nearest(past: Sequence[tuple[int, T]], t: int) -> T:
    """Return what of a sequence of (time, thing), oldest first, is nearest to ``t``, the last of several that are.

    Raises:
        IndexError: If it is empty.
    """
    best = past[-1]
    for entry in reversed(past):
        if abs(entry[0] - t) < abs(best[0] - t):
            best = entry
        if entry[0] <= t:
            break
    return best[1]
