"""A cube that fits between the fingers: its model, where it is, and whether it was let go."""

import numpy as np

from robopol.envs.arrays import Array, arrays, length
from robopol.envs.view import View

EDGE = 0.04
"""Edge of a cube, m."""
MASS = 0.1
"""Mass of a cube, kg."""
YAW_RANGE = 0.6
"""A cube starts with a yaw of at most this much to either side, rad."""
STILL_SPEED = 0.02
"""A cube is at rest below this speed, m/s."""
HEIGHT_TOLERANCE = 0.004
"""A cube lies on something if its centre is this close to the height that it then has, m."""
RELEASED_OPENING = 0.6
"""Least opening of a gripper that let a cube go; a cube between the fingers leaves 0.47."""
AWAY = 0.06
"""Least height of the fingertips above the centre of a cube that they left, m."""


def cube_mjcf(name: str, material: str) -> str:
    """Write a free cube as MJCF.

    Args:
        name: Name of the body, its joint and its geom.
        material: One of the materials of `scene`.
    """
    half = EDGE / 2
    return (
        f'<body name="{name}" pos="0 0 {half}"><freejoint name="{name}"/>'
        f'<geom name="{name}" class="object" type="box" size="{half} {half} {half}" mass="{MASS}" '
        f'material="{material}"/></body>'
    )


class Cube:
    """A cube in a simulated world, or one in each of many; arrays have the leading axes of the view."""

    def __init__(self, view: View, name: str) -> None:
        """Name the cube.

        Args:
            view: What is seen of the world.
            name: The cube's body.
        """
        self._view, self._name = view, name

    @property
    def position(self) -> Array:
        """The centre, (..., 3) m."""
        return self._view.position(self._name)

    @property
    def yaw(self) -> Array:
        """The yaw of its sides, which a quarter turn does not change: (...) in [-pi/4, pi/4) rad."""
        axes = self._view.rotation(self._name)
        xp = arrays(axes)
        level = xp.abs(axes[..., 2, :]).argmin(-1)[..., None]  # on whichever face the cube lies
        flat = xp.where(level == 0, axes[..., 0], xp.where(level == 1, axes[..., 1], axes[..., 2]))
        return quarter(xp.arctan2(flat[..., 1], flat[..., 0]))

    @property
    def still(self) -> Array:
        """Whether it moves slower than `STILL_SPEED`, (...) bool."""
        return length(self._view.velocity(self._name)) < STILL_SPEED

    def lies_at(self, height: Array) -> Array:
        """Return whether it is at rest with its centre at a height, m."""
        return self.still & (abs(self.position[..., 2] - height) < HEIGHT_TOLERANCE)

    def released(self) -> Array:
        """Return whether the gripper is open and its fingertips are `AWAY` above the cube."""
        above = self._view.tool_pose()[..., 2] - self.position[..., 2]
        return (self._view.opening() > RELEASED_OPENING) & (above > AWAY)


def quarter(angle: Array) -> Array:
    """Return the angle equal to another up to quarter turns that lies in [-pi/4, pi/4), rad."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4
