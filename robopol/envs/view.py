"""What a task reads of a simulated world, or of many at once."""

from collections.abc import Callable

from robopol.envs.arrays import Array, arrays
from robopol.envs.engine import mujoco
from robopol.envs.gripper import STROKE

FIELDS = ("qpos", "qvel", "xpos", "xquat", "xmat", "site_xpos", "site_xmat")
"""The fields of ``mujoco.MjData`` that a view reads."""


class View:
    """Poses and speeds in worlds of one model.

    Every array has the leading axes of the batch, written ...: none for one world, (n,) for n worlds.
    """

    def __init__(self, model: mujoco.MjModel, read: Callable[[str], Array]) -> None:
        """Look into a simulation.

        Args:
            model: What is simulated.
            read: Gives a field of ``mujoco.MjData`` by its name, (..., *its shape there).
        """
        self._model, self._read = model, read
        self._tool = model.site("tool").id
        self._bodies = {model.body(i).name: i for i in range(model.nbody)}

    def joints(self) -> Array:
        """Return the joint positions of the arm, (..., 6) rad."""
        return self._read("qpos")[..., :6]

    def tool_pose(self) -> Array:
        """Return the tool pose (x, y, z, yaw), (..., 4) m and rad."""
        position = self._read("site_xpos")[..., self._tool, :]
        rotation = _matrices(self._read("site_xmat"))[..., self._tool, :, :]
        return _append(position, _yaw(rotation))

    def opening(self) -> Array:
        """Return the opening of the gripper, (...), 0 closed to 1 open."""
        fingers = self._read("qpos")
        return (fingers[..., 6] + fingers[..., 7]) / STROKE

    def position(self, body: str) -> Array:
        """Return where a body is, (..., 3) m."""
        return self._read("xpos")[..., self._bodies[body], :]

    def rotation(self, body: str) -> Array:
        """Return the orientation of a body, (..., 3, 3)."""
        return _matrices(self._read("xmat"))[..., self._bodies[body], :, :]

    def yaw(self, body: str) -> Array:
        """Return the yaw of the x axis of a body, (...) rad."""
        return _yaw(self.rotation(body))

    def quaternion(self, body: str) -> Array:
        """Return the orientation of a body, (..., 4), w first."""
        return self._read("xquat")[..., self._bodies[body], :]

    def velocity(self, body: str) -> Array:
        """Return the velocity of a free body, (..., 3) m/s."""
        dof = self._model.body_dofadr[self._bodies[body]]
        return self._read("qvel")[..., dof : dof + 3]


def _matrices(rows: Array) -> Array:
    """Return rotation matrices (..., N, 3, 3), whether their rows were apart or in a line of 9."""
    return rows.reshape(*rows.shape[:-1], 3, 3) if rows.shape[-1] == 9 else rows


def _yaw(rotation: Array) -> Array:
    return arrays(rotation).arctan2(rotation[..., 1, 0], rotation[..., 0, 0])


def _append(vector: Array, last: Array) -> Array:
    return arrays(vector).concatenate((vector, last[..., None]), axis=-1)
