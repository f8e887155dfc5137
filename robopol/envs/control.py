"""From actions to joint references: the four action spaces.

Every control keeps a *commanded reference* (joint positions, tool pose, gripper opening). An action moves the
reference; the arm's servos follow it. The reference may be that of one arm, or of many at once on a GPU: arrays have
the leading axes of the batch, written .... A delta is relative to the reference, not to the measured pose, so
errors of tracking do not add up. The last entry of every action is the gripper's opening, 0 closed to 1 open.

An action outside its box is clipped to it. A reference moves at most `ur5e.SPEED_LIMIT` per joint, and at
most `TOOL_SPEED` and `YAW_SPEED` for a tool pose, so an absolute action far away is approached at that speed.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array, arrays, clip, constant
from robopol.envs.kinematics import Kinematics
from robopol.envs.ur5e import JOINT_NAMES, POSITION_LIMIT, SPEED_LIMIT

Vector = NDArray[np.float64]

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
        reference: What follows in one array, (..., 11).
        q: Commanded joint positions, (..., 6) rad.
        pose: Commanded tool pose (x, y, z, yaw), (..., 4) m and rad; kept by the tool spaces only.
        opening: Commanded opening of the gripper, (..., 1).
    """

    names: ClassVar[tuple[str, ...]]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def __init__(self, kinematics: Kinematics, period: float, reference: Array | None = None) -> None:
        """Describe the space.

        Args:
            kinematics: Where the tool is for which joints.
            period: Time between two actions, s.
            reference: Where the reference is kept, (..., 11); None makes one for one arm.
        """
        self.kinematics = kinematics
        self.reference = np.zeros(11) if reference is None else reference
        self.q, self.pose = self.reference[..., :6], self.reference[..., 6:10]
        self.opening = self.reference[..., 10:]
        self._joint_step = SPEED_LIMIT * period
        self._tool_step = np.array([TOOL_SPEED, TOOL_SPEED, TOOL_SPEED, YAW_SPEED]) * period
        self._gripper_step = GRIPPER_SPEED * period
        low, high = self._bounds()
        self.low = np.append(low, 0.0).astype(np.float32)
        self.high = np.append(high, 1.0).astype(np.float32)
        # In float32 the bounds may round outwards; the float64 references are clipped to the exact ones.
        self._low, self._high = constant(self.low, self.reference), constant(self.high, self.reference)
        self._limit = constant(_LIMIT, self.reference)
        tool_limits = self._tool_step, WORKSPACE_LOW, WORKSPACE_HIGH
        self._tool_limits = [constant(limit, self.reference) for limit in tool_limits]

    def reset(self, q: Vector, opening: float) -> None:
        """Set the reference to where the arm stands.

        Args:
            q: Joint positions, (6,) rad, with the tool pointing down.
            opening: Opening of the gripper.
        """
        self.q[:] = q
        self.pose[:] = self.kinematics.pose(q)
        self.opening[0] = opening

    def command(self, action: Array) -> None:
        """Move the reference by one action, (..., A), which is clipped to the box."""
        action = clip(action, self._low, self._high)
        self.opening += clip(action[..., -1:] - self.opening, -self._gripper_step, self._gripper_step)
        move = clip(self._target(action[..., :-1]), -self._limit, self._limit) - self.q
        # All joints slow down alike, so the direction of the motion is kept.
        self.q += move * self._slowed(move)

    def action_for(self, pose: Vector, opening: float) -> NDArray[np.float32]:
        """Return the action, for one arm, that takes the reference to a tool pose, or as far as one action may.

        Args:
            pose: Tool pose (x, y, z, yaw), (4,).
            opening: Opening of the gripper.

        Returns:
            Action within the box, (A,) float32.
        """
        pose = np.clip(pose, WORKSPACE_LOW, WORKSPACE_HIGH)
        action = np.append(self._towards(pose), opening).astype(np.float32)
        return np.clip(action, self.low, self.high)

    def commanded_pose(self) -> Vector:
        """Return the commanded tool pose (x, y, z, yaw) of one arm, (4,) m and rad."""
        return self.kinematics.pose(self.q)

    @abstractmethod
    def hold(self) -> Vector:
        """Return the action that leaves the reference of one arm where it is, (A,)."""

    @abstractmethod
    def _bounds(self) -> tuple[Vector, Vector]:
        """Return the least and greatest action without the gripper's entry."""

    @abstractmethod
    def _target(self, motion: Array) -> Array:
        """Return the joint positions that an action without the gripper's entry asks for, (..., 6)."""

    @abstractmethod
    def _towards(self, pose: Vector) -> Vector:
        """Return the action without the gripper's entry that asks for a tool pose."""

    def _slowed(self, move: Array) -> Array:
        """Return the part of a motion of the joints that they may make in one step, (..., 1)."""
        fastest = arrays(move).amax(abs(move), axis=-1, keepdims=True)
        return (self._joint_step / fastest.clip(1e-12)).clip(max=1.0)


class JointPos(Control):
    """Absolute joint positions, rad."""

    names = (*(f"{name} [rad]" for name in JOINT_NAMES), "gripper opening [0..1]")

    def hold(self) -> Vector:
        """Return the commanded joint positions and opening."""
        return np.append(self.q, self.opening)

    def _bounds(self) -> tuple[Vector, Vector]:
        return -_LIMIT, _LIMIT

    def _target(self, motion: Array) -> Array:
        return motion

    def _towards(self, pose: Vector) -> Vector:
        return self.kinematics.inverse(pose, self.q)[0]


class JointDelta(Control):
    """Changes of the commanded joint positions, rad a control step."""

    names = (*(f"d {name} [rad]" for name in JOINT_NAMES), "gripper opening [0..1]")

    def hold(self) -> Vector:
        """Return no motion and the commanded opening."""
        return np.append(np.zeros(6), self.opening)

    def _bounds(self) -> tuple[Vector, Vector]:
        return np.full(6, -self._joint_step), np.full(6, self._joint_step)

    def _target(self, motion: Array) -> Array:
        return self.q + motion

    def _towards(self, pose: Vector) -> Vector:
        move: Vector = self.kinematics.inverse(pose, self.q)[0] - self.q
        slowed: Vector = move * self._slowed(move)
        return slowed


class _ToolControl(Control):
    """A control whose reference is a tool pose, the tool pointing down."""

    def commanded_pose(self) -> Vector:
        """Return the commanded tool pose (x, y, z, yaw) of one arm, (4,) m and rad."""
        pose: Vector = self.pose.copy()
        return pose

    def _move_tool(self, move: Array) -> Array:
        """Move the commanded pose within the workspace and return the joints for it."""
        step, low, high = self._tool_limits
        self.pose[:] = clip(self.pose + clip(move, -step, step), low, high)
        return self.kinematics.inverse(self.pose, self.q)[0]


class ToolPose(_ToolControl):
    """Absolute tool pose x, y, z (m) and yaw (rad) in the world frame."""

    names = (*(f"tool {axis} [m]" for axis in _TOOL_AXES), "tool yaw [rad]", "gripper opening [0..1]")

    def hold(self) -> Vector:
        """Return the commanded pose and opening."""
        return np.append(self.pose, self.opening)

    def _bounds(self) -> tuple[Vector, Vector]:
        return WORKSPACE_LOW, WORKSPACE_HIGH

    def _target(self, motion: Array) -> Array:
        return self._move_tool(motion - self.pose)

    def _towards(self, pose: Vector) -> Vector:
        return pose


class ToolDelta(_ToolControl):
    """Changes of the commanded tool pose, in the world frame: m and rad a control step."""

    names = (*(f"tool d{axis} [m]" for axis in _TOOL_AXES), "tool dyaw [rad]", "gripper opening [0..1]")

    def hold(self) -> Vector:
        """Return no motion and the commanded opening."""
        return np.append(np.zeros(4), self.opening)

    def _bounds(self) -> tuple[Vector, Vector]:
        return -self._tool_step, self._tool_step

    def _target(self, motion: Array) -> Array:
        return self._move_tool(motion)

    def _towards(self, pose: Vector) -> Vector:
        return pose - self.pose


CONTROLS: dict[str, type[Control]] = {
    "joint_pos": JointPos,
    "joint_delta": JointDelta,
    "ee_pose": ToolPose,
    "ee_delta": ToolDelta,
}
"""The option ``action_space`` -> the control that it chooses."""
