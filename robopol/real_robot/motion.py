"""The motion of one arm and its gripper: plans in, filtered commands out."""

import numpy as np
from numpy.typing import NDArray

from robopol.real_robot.chunk import Chunk, Usable
from robopol.real_robot.filter import Filter, Filtered
from robopol.real_robot.geometry import Geometry
from robopol.real_robot.limiter import RESERVE
from robopol.real_robot.merging import Merging, Replace
from robopol.real_robot.plan import Plan
from robopol.real_robot.robot import RobotConfig

Vector = NDArray[np.float64]

STILL = 1e-6
"""Speed, rad/s, below which a command stands still; following a plan, rounding leaves some."""


class Motion:
    """Plans, filter and limiters; knows nothing of states or devices.

    A command that is written in the tick at time t holds at t + T_s + L_act, so that is where the plan is read. The
    gripper has a latency of its own, and so a place of its own in its plan.

    Attributes:
        filter: Filters the joints; its limiter holds their command.
        hand: Limits the gripper, one entry or none.
        reference: Joint positions (n,), rad, that the plan asked for last.
        speed: Their speeds (n,), rad/s.
        merging: What becomes of the plan when a chunk comes.
    """

    def __init__(self, robot: RobotConfig) -> None:
        """Prepare; `reset` says where the arm is.

        Raises:
            ConfigError: If the robot's model cannot be used.
            RobotError: If a joint may be commanded to where its model cannot be.
        """
        self.robot = robot
        names = tuple(joint.name for joint in robot.joints)
        geometry = None if robot.geometry is None else Geometry(robot.geometry, names)
        if geometry is not None:
            robot.check_within("the model robot.geometry.model", geometry.low.tolist(), geometry.high.tolist())
        self.filter = Filter(robot.make_limiter(), geometry)
        self.hand = robot.make_gripper_limiter()
        self.merging: Merging = Replace()
        self._period = robot.period_ns
        self._delay = self._period + round(robot.latency * 1e9)
        self._hand_delay = self._period + round((robot.gripper.latency if robot.gripper else 0.0) * 1e9)
        self.reset(np.zeros(len(robot.joints)), 0.0, 0)

    def reset(self, q: Vector, gripper: float, t: int) -> None:
        """Stand still at ``q``, (n,) rad, with an opening, in the tick at ``t``, ns."""
        self.filter.reset(q)
        self.hand.reset(np.full_like(self.hand.low, gripper))
        self.begin(t)

    def begin(self, t: int) -> None:
        """Give up the plan: from the tick at ``t`` on, it is to brake from what is commanded."""
        joints, hand = self.filter.limiter, self.hand
        start = t - self._period  # when the last command was written
        self.plan = Plan(start + self._delay, joints.q, joints.dq, RESERVE * joints.acceleration)
        self.hand_plan = Plan(start + self._hand_delay, hand.q, hand.dq, RESERVE * hand.acceleration)
        self.reference, self.speed = joints.q, joints.dq
        self.merging.reset()

    def holds_at(self, t: int) -> int:
        """Return when a command that is written in the tick at ``t`` holds, ns."""
        return t + self._delay

    def due(self, t: int) -> int:
        """Return the time from which an action is of use in the tick at ``t``, ns: one period after the hand-over."""
        return t + self._delay

    def adopt(self, t: int, chunk: Chunk, usable: Usable) -> bool:
        """Let a chunk that was taken in the tick at ``t`` change the plan, from where the last command holds on.

        Returns:
            Whether it continued the plan as it was asked to.
        """
        merged = self.merging.merge(self.plan, self.hand_plan, chunk, usable)
        n, last = len(self.robot.joints), t - self._period
        self.plan.go_on(last + self._delay, merged.times, merged.points[:, :n])
        ahead = merged.times > last + self._hand_delay
        if ahead.any():
            self.hand_plan.go_on(last + self._hand_delay, merged.times[ahead], merged.points[ahead, n:])
        return merged.continued

    def follow(self, t: int) -> Filtered:
        """Move the command to where the plan is to be by the tick at ``t``."""
        self.plan.forget(t + self._delay)
        self.reference, self.speed = self.plan.at(t + self._delay)
        self.hand_plan.forget(t + self._hand_delay)
        opening, speed = self.hand_plan.at(t + self._hand_delay)
        sound = np.isfinite(opening).all() and np.isfinite(speed).all()
        self.hand.move(*(self.hand.towards(opening, speed) if sound else self.hand.braking()))
        return self.filter.follow(self.reference, self.speed)

    def brake(self) -> None:
        """Move the command by one tick of braking."""
        self.filter.brake()
        self.hand.move(*self.hand.braking())
        self.reference, self.speed = self.filter.limiter.q, self.filter.limiter.dq

    def ended(self, t: int) -> bool:
        """Say whether plans and commands of arm and gripper are at rest in the tick at ``t``."""
        over = t + self._delay >= self.plan.rest and t + self._hand_delay >= self.hand_plan.rest
        return over and self.at_rest and float(np.max(np.abs(self.hand.dq), initial=0.0)) < STILL

    @property
    def at_rest(self) -> bool:
        """Whether the command stands still."""
        return float(np.max(np.abs(self.filter.limiter.dq), initial=0.0)) < STILL

    @property
    def opening(self) -> float:
        """Commanded opening; NaN without a gripper."""
        return min(max(float(self.hand.q[0]), 0.0), 1.0) if len(self.hand.q) else np.nan
