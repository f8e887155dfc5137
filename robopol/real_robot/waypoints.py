"""From a policy's actions, in whatever space it speaks, to joint positions."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robopol.envs.control import CONTROLS, JointDelta, JointPos
from robopol.envs.kinematics import ToolKinematics
from robopol.envs.ur5e import JOINT_NAMES
from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.real_robot.robot import RobotConfig

Vector = NDArray[np.float64]


class Waypoints(Protocol):
    """Says which joint positions a chunk of actions leads to."""

    def points(self, actions: Vector, q: Vector, opening: float) -> Vector:
        """Return joint positions, and the gripper's opening, after each action.

        Args:
            actions: (H, A) in the policy's space.
            q: Commanded joint positions when the first action begins (n,), rad.
            opening: Commanded opening then; ignored without a gripper.

        Returns:
            (H, n) or (H, n + 1), rad and the opening.
        """

    def action(self, start: Vector, end: Vector) -> Vector:
        """Return the action (A,) that leads from one row of `points` to another, as far as one action may."""


def waypoints_for(spec: PolicySpec, robot: RobotConfig) -> Waypoints:
    """Return what turns the actions of a policy into joint positions of a robot.

    Raises:
        ConfigError: If the policy's actions are not ones of this robot.
    """
    if spec.control_hz <= 0:
        raise ConfigError("the policy does not say how many actions it gives a second, so it cannot move an arm")
    names = tuple(joint.name for joint in robot.joints)
    if names == JOINT_NAMES and robot.gripper is not None and spec.action_space in CONTROLS:
        return SuiteWaypoints(spec)
    if spec.action_space not in ("joint_pos", "joint_delta"):
        raise ConfigError(
            f"the policy's actions are '{spec.action_space}': on {robot.name} only joint_pos and joint_delta become "
            "joint positions; the spaces of the tool do so on a UR5e with a gripper"
        )
    if spec.action_dim != robot.columns:
        raise ConfigError(
            f"the policy gives {spec.action_dim} action entries, {robot.name} takes {robot.columns}: "
            f"{', '.join(names)}{', gripper' if robot.gripper else ''}"
        )
    return JointWaypoints(len(names), spec)


class JointWaypoints:
    """Absolute joint positions, or changes of the commanded ones."""

    def __init__(self, joints: int, spec: PolicySpec) -> None:
        """Take actions of n joints, and of a gripper behind them."""
        self._joints, self._delta = joints, spec.action_space == "joint_delta"
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)

    def points(self, actions: Vector, q: Vector, opening: float) -> Vector:
        """See `Waypoints.points`."""
        points = np.clip(actions, self._low, self._high)
        if self._delta:
            points[:, : self._joints] = q + np.cumsum(points[:, : self._joints], axis=0)
        return points

    def action(self, start: Vector, end: Vector) -> Vector:
        """See `Waypoints.action`."""
        action = end.copy()
        if self._delta:
            action[: self._joints] -= start[: self._joints]
        clipped: Vector = np.clip(action, self._low, self._high)
        return clipped


class SuiteWaypoints:
    """The action spaces of robopol's own arm, by the same control that moved it in the simulator."""

    def __init__(self, spec: PolicySpec) -> None:
        """Take actions of the space that a policy was trained in."""
        self._control = CONTROLS[spec.action_space](ToolKinematics(), 1 / spec.control_hz)

    def points(self, actions: Vector, q: Vector, opening: float) -> Vector:
        """See `Waypoints.points`."""
        control, points = self._control, []
        control.reset(q, opening)
        for action in actions:
            control.command(action)
            points.append(np.append(control.q, control.opening))
        return np.stack(points)

    def action(self, start: Vector, end: Vector) -> Vector:
        """See `Waypoints.action`."""
        control = self._control
        control.reset(start[:-1], float(start[-1]))
        if isinstance(control, JointPos | JointDelta):
            action = end - np.append(start[:-1], 0.0) * isinstance(control, JointDelta)
        else:
            action = control.action_for(control.kinematics.pose(end[:-1]), float(end[-1])).astype(np.float64)
        clipped: Vector = np.clip(action, control.low, control.high)
        return clipped
