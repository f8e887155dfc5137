"""From small motions that a person asks for, of the tool or of joints, to changes of joint positions."""

from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopol.errors import ConfigError
from robopol.real_robot.robot import RobotConfig

Vector = NDArray[np.float64]

DAMPING = 1e-2
"""Of the least squares, m: near a singular pose joints turn no faster than this allows."""
LENGTH = 0.1
"""What a radian of the tool's orientation is worth, m."""
ITERATIONS = 3
LARGEST = 0.1
"""Most that a joint turns in one iteration, rad."""


class Jog(Protocol):
    """Something that can be moved along axes.

    Attributes:
        axes: Name and unit, ``m``, ``rad`` or ``stroke``, of each of K directions.
    """

    axes: list[tuple[str, str]]

    def move(self, target: Vector, way: Vector) -> Vector:
        """Return how the target (A,), joints and gripper, moves on by a way (K,) along the axes."""


def jog_of(robot: RobotConfig, site: str) -> Jog:
    """Return what moves a robot: its tool, if it has a model, else its joints.

    Args:
        robot: The robot.
        site: The tool's name in the model.

    Raises:
        ConfigError: If the model cannot be read or has no such site.
    """
    return JointJog(robot) if robot.geometry is None else ToolJog(robot, site)


class JointJog:
    """Moves each joint."""

    def __init__(self, robot: RobotConfig) -> None:
        """Move a robot's joints."""
        self.axes = [(joint.name, "rad") for joint in robot.joints]
        self.axes += [("gripper", "stroke")] * (robot.gripper is not None)

    def move(self, target: Vector, way: Vector) -> Vector:
        """See `Jog.move`."""
        return way


class ToolJog:
    """Moves the tool along x, y and z of the world and turns it about z; it stays inclined as it is.

    By damped least squares on the site's Jacobian (Wampler, IEEE Trans. SMC 16, 1986). An arm with fewer than six
    joints keeps to the position and gives way in the orientation.
    """

    def __init__(self, robot: RobotConfig, site: str) -> None:
        """Read the robot's model.

        Raises:
            ConfigError: If it cannot be read, or has no such site or joint.
        """
        assert robot.geometry is not None
        path = robot.geometry.model
        try:
            self._model = mujoco.MjModel.from_xml_path(path)
            self._site = self._model.site(site).id
            joints = [self._model.joint(joint.name) for joint in robot.joints]
        except ValueError as error:
            raise ConfigError(f"MuJoCo cannot read the robot's geometry.model {path}: {error}") from error
        except KeyError as error:
            raise ConfigError(f"{path}, by which the tool is moved, lacks what is named: {error.args[0]}") from error
        self._data = mujoco.MjData(self._model)
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._jacobian = np.zeros((6, self._model.nv))
        self._hand = robot.gripper is not None
        self.axes = [("x", "m"), ("y", "m"), ("z", "m"), ("yaw", "rad")] + [("gripper", "stroke")] * self._hand
        self._led: tuple[Vector, Vector] | None = None

    def move(self, target: Vector, way: Vector) -> Vector:
        """See `Jog.move`."""
        n = len(self._qpos)
        q = target[:n].copy()
        position, rotation = self._pose(q)
        if self._led is not None and np.allclose(self._led[0], q, atol=1e-9):
            rotation = self._led[1]  # the one that is kept, not what rounding makes of it step by step
        cos, sin = np.cos(way[3]), np.sin(way[3])
        position = position + way[:3]
        rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ rotation
        for _ in range(ITERATIONS):
            q += self._step(q, position, rotation)
        self._led = q, rotation
        return np.concatenate([q - target[:n], way[4:]])

    def _step(self, q: Vector, position: Vector, rotation: Vector) -> Vector:
        """Return one iteration's turn of the joints (n,) towards a pose of the tool."""
        here, turned = self._pose(q)
        turn = rotation @ turned.T
        axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
        error = np.concatenate([position - here, LENGTH * axis])
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        jacobian = self._jacobian[:, self._dofs].copy()
        jacobian[3:] *= LENGTH
        square = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
        return np.clip(jacobian.T @ np.linalg.solve(square, error), -LARGEST, LARGEST)

    def _pose(self, q: Vector) -> tuple[Vector, Vector]:
        """Return the tool's position (3,) and rotation (3, 3) in the world."""
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()
