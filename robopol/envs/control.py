"""From actions to joint references: the four action spaces.

Every control keeps a *commanded reference* (joint positions, tool pose, gripper opening). An action moves the
reference; the arm's servos follow it. A delta is relative to the reference, not to the measured pose, so
errors of tracking do not add up. The last entry of every action is the gripper's opening, 0 closed to 1 open.

An action outside its box is clipped to it. A reference moves at most `ur5e.SPEED_LIMIT` per joint, and at
most `TOOL_SPEED` and `YAW_SPEED` for a tool pose, so an absolute action far away is approached at that speed.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robopol.envs.kinematics import ToolKinematics
from robopol.envs.ur5e import JOINT_NAMES, POSITION_LIMIT, SPEED_LIMIT

Array = NDArray[np.float64]

TOOL_SPEED = 0.4
"""Fastest commanded motion of the tool along each of x, y and z, m/s."""
YAW_SPEED = 2.0
"""Fastest commanded yaw of the tool, rad/s."""
GRIPPER_SPEED = 2.0
"""Fastest commanded change of the gripper's opening, strokes/s."""

WORKSPACE_LOW = np.array([0.22, -0.30, 0.008, -np.pi / 2])
"""Least commanded tool pose (x, y, z in m, yaw in rad); the fingertips stay above the table."""
WORKSPACE_HIGH = np.array([0.72, 0.30, 0.35, np.pi / 2])
"""Greatest commanded tool pose (x, y, z in m, yaw in rad)."""

_LIMIT = np.array(POSITION_LIMIT)
_TOOL_AXES = ("x", "y", "z")


class Control(ABC):
    """One action space and the reference that its actions move.

    Attributes:
        names: A name with its unit for each entry of an action.
        low: Least action, (A,) float32.
        high: Greatest action, (A,) float32.
        q: Commanded joint positions, (6,) rad.
        pose: Commanded tool pose (x, y, z, yaw), (4,) m and rad; kept by the tool spaces only.
        opening: Commanded opening of the gripper, (1,).
    """

    names: ClassVar[tuple[str, ...]]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def __init__(self, kinematics: ToolKinematics, period: float) -> None:
        """Describe the space.

        Args:
            kinematics: Where the tool is for which joints.
            period: Time between two actions, s.
        """
        self.kinematics = kinematics
        self.reference = np.zeros(11)
        self.q, self.pose, self.opening = self.reference[:6], self.reference[6:10], self.reference[10:]
        self._joint_step = SPEED_LIMIT * period
        self._tool_step = np.array([TOOL_SPEED, TOOL_SPEED, TOOL_SPEED, YAW_SPEED]) * period
        self._gripper_step = GRIPPER_SPEED * period
        low, high = self._bounds()
        self.low = np.append(low, 0.0).astype(np.float32)
        self.high = np.append(high, 1.0).astype(np.float32)
        # In float32 the bounds may round outwards; the float64 references are clipped to the exact ones.
        self._low, self._high = self.low.astype(np.float64), self.high.astype(np.float64)

    def reset(self, q: Array, opening: float) -> None:
        """Set the reference to where the arm stands.

        Args:
            q: Joint positions, (6,) rad, with the tool pointing down.
            opening: Opening of the gripper.
        """
        self.q[:] = q
        self.pose[:] = self.kinematics.pose(q)
        self.opening[0] = opening

    def command(self, action: Array) -> None:
        """Move the reference by one action, (A,), which is clipped to the box."""
        action = np.clip(action, self._low, self._high)
        self.opening += np.clip(action[-1] - self.opening, -self._gripper_step, self._gripper_step)
        move = np.clip(self._target(action[:-1]), -_LIMIT, _LIMIT) - self.q
        # All joints slow down alike, so the direction of the motion is kept.
        self.q += move * min(1.0, self._joint_step / max(float(np.abs(move).max()), 1e-12))

    def action_for(self, pose: Array, opening: float) -> NDArray[np.float32]:
        """Return the action that takes the reference to a tool pose, or as far as one action may.

        Args:
            pose: Tool pose (x, y, z, yaw), (4,).
            opening: Opening of the gripper.

        Returns:
            Action within the box, (A,) float32.
        """
        pose = np.clip(pose, WORKSPACE_LOW, WORKSPACE_HIGH)
        action = np.append(self._towards(pose), opening).astype(np.float32)
        return np.clip(action, self.low, self.high)

    def commanded_pose(self) -> Array:
        """Return the commanded tool pose (x, y, z, yaw), (4,) m and rad."""
        return self.kinematics.pose(self.q)

    @abstractmethod
    def hold(self) -> Array:
        """Return the action that leaves the reference where it is, (A,)."""

    @abstractmethod
    def _bounds(self) -> tuple[Array, Array]:
        """Return the least and greatest action without the gripper's entry."""

    @abstractmethod
    def _target(self, motion: Array) -> Array:
        """Return the joint positions that an action without the gripper's entry asks for, (6,)."""

    @abstractmethod
    def _towards(self, pose: Array) -> Array:
        """Return the action without the gripper's entry that asks for a tool pose."""


class JointPos(Control):
    """Absolute joint positions, rad."""

    names = (*(f"{name} [rad]" for name in JOINT_NAMES), "gripper opening [0..1]")

    def hold(self) -> Array:
        """Return the commanded joint positions and opening."""
        return np.append(self.q, self.opening)

    def _bounds(self) -> tuple[Array, Array]:
        return -_LIMIT, _LIMIT

    def _target(self, motion: Array) -> Array:
        return motion

    def _towards(self, pose: Array) -> Array:
        return self.kinematics.inverse(pose, self.q)[0]


class JointDelta(Control):
    """Changes of the commanded joint positions, rad a control step."""

    names = (*(f"d {name} [rad]" for name in JOINT_NAMES), "gripper opening [0..1]")

    def hold(self) -> Array:
        """Return no motion and the commanded opening."""
        return np.append(np.zeros(6), self.opening)

    def _bounds(self) -> tuple[Array, Array]:
        return np.full(6, -self._joint_step), np.full(6, self._joint_step)

    def _target(self, motion: Array) -> Array:
        return self.q + motion

    def _towards(self, pose: Array) -> Array:
        move = self.kinematics.inverse(pose, self.q)[0] - self.q
        return move * min(1.0, self._joint_step / max(float(np.abs(move).max()), 1e-12))


class _ToolControl(Control):
    """A control whose reference is a tool pose, the tool pointing down."""

    def commanded_pose(self) -> Array:
        """Return the commanded tool pose (x, y, z, yaw), (4,) m and rad."""
        return self.pose.copy()

    def _move_tool(self, move: Array) -> Array:
        """Move the commanded pose within the workspace and return the joints for it."""
        self.pose += np.clip(move, -self._tool_step, self._tool_step)
        np.clip(self.pose, WORKSPACE_LOW, WORKSPACE_HIGH, out=self.pose)
        return self.kinematics.inverse(self.pose, self.q)[0]


class ToolPose(_ToolControl):
    """Absolute tool pose x, y, z (m) and yaw (rad) in the world frame."""

    names = (*(f"tool {axis} [m]" for axis in _TOOL_AXES), "tool yaw [rad]", "gripper opening [0..1]")

    def hold(self) -> Array:
        """Return the commanded pose and opening."""
        return np.append(self.pose, self.opening)

    def _bounds(self) -> tuple[Array, Array]:
        return WORKSPACE_LOW, WORKSPACE_HIGH

    def _target(self, motion: Array) -> Array:
        return self._move_tool(motion - self.pose)

    def _towards(self, pose: Array) -> Array:
        return pose


class ToolDelta(_ToolControl):
    """Changes of the commanded tool pose, in the world frame: m and rad a control step."""

    names = (*(f"tool d{axis} [m]" for axis in _TOOL_AXES), "tool dyaw [rad]", "gripper opening [0..1]")

    def hold(self) -> Array:
        """Return no motion and the commanded opening."""
        return np.append(np.zeros(4), self.opening)

    def _bounds(self) -> tuple[Array, Array]:
        return -self._tool_step, self._tool_step

    def _target(self, motion: Array) -> Array:
        return self._move_tool(motion)

    def _towards(self, pose: Array) -> Array:
        return pose - self.pose


CONTROLS: dict[str, type[Control]] = {
    "joint_pos": JointPos,
    "joint_delta": JointDelta,
    "ee_pose": ToolPose,
    "ee_delta": ToolDelta,
}
"""The option ``action_space`` -> the control that it chooses."""
