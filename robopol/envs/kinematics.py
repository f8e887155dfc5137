"""Forward and inverse kinematics of the arm's tool, on a model that holds nothing but the arm."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array, clip
from robopol.envs.engine import mujoco
from robopol.envs.scene import scene_mjcf
from robopol.envs.ur5e import POSITION_LIMIT

Vector = NDArray[np.float64]

HOME = np.array([-0.3007, -1.6682, 1.9950, -1.8975, -1.5708, -1.8715])
"""Elbow up, tool pointing down over the table at about (0.45, 0, 0.2, 0), rad; where the search for a start
begins."""

_LIMIT = np.array(POSITION_LIMIT)
LARGEST_MOVE = 0.5
"""Of a joint in one iteration, rad: far from the solution the linearisation is not to be trusted further."""
TOLERANCE = 1e-6
"""The search for joints ends when the error of the pose is below this (m, and rad alike)."""
MAX_ITERATIONS = 50
"""The search for joints ends after this many iterations at the latest."""


class Kinematics(Protocol):
    """Where the tools of arms are for given joints, and which joints put them somewhere; see `ToolKinematics`."""

    def pose(self, q: Array) -> Array:
        """Return tool poses, (..., 6) to (..., 4)."""

    def inverse(self, pose: Array, start: Array) -> tuple[Array, Array]:
        """Return joint positions for tool poses, (..., 4) and (..., 6) to (..., 6), and the errors left, (...)."""


class ToolKinematics:
    """Where the tool is for given joints, and which joints put it somewhere.

    A tool pose is (x, y, z, yaw): position in the world frame (m) and yaw (rad) of the tool's x axis about
    the world's z, the tool pointing straight down.
    """

    def __init__(self) -> None:
        """Build the arm-only model."""
        self._model = mujoco.MjModel.from_xml_string(scene_mjcf("arm", ""))
        self._data = mujoco.MjData(self._model)
        self._tool = self._model.site("tool").id
        self._jacobian = np.zeros((6, self._model.nv))

    def forward(self, q: Vector) -> tuple[Vector, Vector]:
        """Compute the tool's position and orientation.

        Args:
            q: Joint positions, (6,) rad.

        Returns:
            Position (3,) m and rotation matrix (3, 3), both in the world frame.
        """
        self._data.qpos[:6] = q
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._tool].copy(), self._data.site_xmat[self._tool].reshape(3, 3).copy()

    def pose(self, q: Vector) -> Vector:
        """Compute the tool pose (x, y, z, yaw), (4,), of a tool that points down."""
        position, rotation = self.forward(q)
        return np.array([*position, np.arctan2(rotation[1, 0], rotation[0, 0])])

    def inverse(
        self, pose: Vector, start: Vector, tolerance: float = TOLERANCE, max_iterations: int = MAX_ITERATIONS
    ) -> tuple[Vector, float]:
        """Find joint positions that reach a tool pose, by damped least squares.

        The damping is half the squared error plus a small bias (Sugihara, "Solvability-unconcerned inverse
        kinematics by the Levenberg-Marquardt method", IEEE T-RO 2011), so the search neither stalls nor
        explodes near a singular arm or a pose out of reach.

        Args:
            pose: Tool pose (x, y, z, yaw), (4,).
            start: Joint positions to start from, (6,) rad; the solution found is the one nearby.
            tolerance: The search ends when the error is below this (m, and rad alike).
            max_iterations: The search ends after this many iterations at the latest.

        Returns:
            Joint positions (6,) within the joint limits, and the error that is left (m and rad alike).
        """
        model, data, jacobian = self._model, self._data, self._jacobian
        cos, sin = np.cos(pose[3]), np.sin(pose[3])
        target = np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]])
        error, move = np.empty(6), np.empty(6)
        q = np.array(start, dtype=np.float64)
        for iteration in range(max_iterations + 1):
            data.qpos[:6] = q
            mujoco.mj_kinematics(model, data)
            rotation = data.site_xmat[self._tool].reshape(3, 3)
            error[:3] = pose[:3] - data.site_xpos[self._tool]
            # The rotation vector of target * rotation^T, to first order; the trace tells a half turn from
            # none.
            turn = target @ rotation.T
            error[3] = 0.5 * (turn[2, 1] - turn[1, 2])
            error[4] = 0.5 * (turn[0, 2] - turn[2, 0])
            error[5] = 0.5 * (turn[1, 0] - turn[0, 1])
            if turn[0, 0] + turn[1, 1] + turn[2, 2] < 1.0:  # beyond 90 degrees the sine falls again
                error[3:] /= max(float(np.linalg.norm(error[3:])), 1e-3)
            squared = float(error @ error)
            if squared < tolerance**2 or iteration == max_iterations:
                break
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._tool)
            arm = jacobian[:, :6]
            normal = arm.T @ arm
            normal.flat[::7] += 0.5 * squared + 1e-9
            # MuJoCo's functions on six numbers take a fraction of the time of numpy's
            mujoco.mju_cholFactor(normal, 0.0)
            mujoco.mju_cholSolve(move, normal, arm.T @ error)
            q += move * min(1.0, LARGEST_MOVE / max(float(np.abs(move).max()), 1e-12))
            q = clip(q, -_LIMIT, _LIMIT)
        return q, squared**0.5
