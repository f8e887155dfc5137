"""A cube that fits between the fingers: its model, where it is, and whether it was let go."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopol.envs.task import Task

Array = NDArray[np.float64]

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
    """A cube of a model, read from the simulator's state."""

    def __init__(self, task: Task, name: str) -> None:
        """Find the cube.

        Args:
            task: The task whose model has it.
            name: Its name there.
        """
        self._data: mujoco.MjData = task.data
        self._body: int = task.model.body(name).id
        joint = task.model.joint(name)
        self._qpos, self._dof = int(joint.qposadr[0]), int(joint.dofadr[0])

    @property
    def position(self) -> Array:
        """The centre, (3,) m."""
        position: Array = self._data.xpos[self._body].copy()
        return position

    @property
    def yaw(self) -> float:
        """The yaw of its sides, which a quarter turn does not change: in [-pi/4, pi/4) rad."""
        axes = self._data.xmat[self._body].reshape(3, 3)
        flat = axes[:, np.argmin(np.abs(axes[2]))]  # on whichever face the cube lies
        return quarter(float(np.arctan2(flat[1], flat[0])))

    @property
    def still(self) -> bool:
        """Whether it moves slower than `STILL_SPEED`."""
        return bool(np.linalg.norm(self._data.qvel[self._dof : self._dof + 3]) < STILL_SPEED)

    def put(self, position: Array, yaw: float) -> None:
        """Put it somewhere, level.

        Args:
            position: Where its centre goes, (3,) m.
            yaw: Its yaw, rad.
        """
        self._data.qpos[self._qpos : self._qpos + 3] = position
        self._data.qpos[self._qpos + 3 : self._qpos + 7] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)

    def lies_at(self, height: float) -> bool:
        """Return whether it is at rest with its centre at a height, m."""
        return self.still and bool(abs(self.position[2] - height) < HEIGHT_TOLERANCE)

    def released_by(self, task: Task) -> bool:
        """Return whether the gripper is open and its fingertips are `AWAY` above the cube."""
        above = task.tool_pose()[2] - self.position[2]
        return bool(task.opening() > RELEASED_OPENING and above > AWAY)


def quarter(angle: float) -> float:
    """Return the angle equal to another up to quarter turns that lies in [-pi/4, pi/4), rad."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4
