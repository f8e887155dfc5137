"""A second arm that is led by hand and that the robot follows."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from robopol.config import OneOf
from robopol.errors import ConfigError, RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import Driver, Reading
from robopol.real_robot.operator import Operator, OperatorConfig, Saying, Typed, Vector
from robopol.real_robot.operators.keyboard import KeyboardConfig
from robopol.real_robot.robot import RobotConfig

MAX_FAILURES = 5
"""Reads that failed one after the other after which a leader is lost."""


class LeaderConfig(OperatorConfig):
    """A second arm with joints as the robot's, torque off, led by hand.

    Attributes:
        driver: What reads it.
        scale: Joint of the robot, or ``gripper`` -> what the leader's angle is multiplied with, 1 unless given; -1 for
            one that turns the other way.
        offset: Joint -> what is then added, rad.
        realign: The two agree in pose only after the hand-over; this share of its own way is what a joint of the leader
            comes nearer to agreeing with the robot's while it moves. 0 leaves them apart as they were.
        commands: The device that commands are given with, and that has the switch.
    """

    kind: Literal["leader"] = "leader"
    driver: Annotated[Any, OneOf("driver")]
    scale: dict[str, float] = Field(default_factory=dict)
    offset: dict[str, float] = Field(default_factory=dict)
    realign: float = Field(0.5, ge=0, lt=1)
    commands: Annotated[Any, OneOf("operator")] = KeyboardConfig()

    @property
    def terminal(self) -> bool:
        """See `OperatorConfig.terminal`."""
        return bool(self.commands.terminal)

    def build(self, robot: RobotConfig, clock: Clock, typed: Typed) -> "Leader":
        """See `OperatorConfig.build`."""
        names = [joint.name for joint in robot.joints] + ["gripper"] * (robot.gripper is not None)
        for key in (*self.scale, *self.offset):
            if key not in names:
                raise ConfigError(f"the leader's scale or offset names '{key}'; {robot.name} has {', '.join(names)}")
        return Leader(self, robot, clock, self.commands.build(robot, clock, typed))


class Leader(Operator):
    """See `LeaderConfig`.

    Attributes:
        driver: The leader's.
    """

    def __init__(self, config: LeaderConfig, robot: RobotConfig, clock: Clock, commands: Operator) -> None:
        """Prepare; nothing is opened."""
        self.driver: Driver = config.driver.build(clock, robot.period)
        self._robot, self._commands, self._realign = robot, commands, config.realign
        names = [joint.name for joint in robot.joints] + ["gripper"] * (robot.gripper is not None)
        self._scale = np.array([config.scale.get(name, 1.0) for name in names])
        self._offset = np.array([config.offset.get(name, 0.0) for name in names])
        self._reading, self._failures = Reading(len(robot.joints)), 0
        self._pose: Vector | None = None

    def connect(self) -> str:
        """See `Operator.connect`; the leader's torque is switched off."""
        info, n = self.driver.connect(), len(self._robot.joints)
        if info.joints != n:
            self.driver.close()
            raise RobotError(f"the leader {info.model} has {info.joints} joints, {self._robot.name} has {n}")
        self.driver.relax()
        hand = "" if info.gripper else ", the gripper stays as it is" * (self._robot.gripper is not None)
        return f"leader {info.model}: lead it by hand{hand}\n{self._commands.connect()}"

    def listen(self, target: Vector) -> Saying:
        """See `Operator.listen`."""
        said, before = self._commands.listen(target), self._pose
        try:
            if self.driver.read(self._reading):
                self._pose = self._mapped(target)
            self._failures = 0
        except RobotError:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                raise
        if self._pose is None or before is None:
            return Saying(said.held, None, said.orders)
        way, apart = self._pose - before, target - before
        nearer = np.sign(apart) * np.minimum(np.abs(apart), self._realign * np.abs(way))
        return Saying(said.held, way - nearer, said.orders)

    def close(self) -> None:
        """See `Operator.close`."""
        self.driver.close()
        self._commands.close()

    def _mapped(self, target: Vector) -> Vector:
        """Return where the leader is, in the robot's joints; a gripper that it lacks is where the robot's is."""
        pose = self._reading.q.copy()
        if self._robot.gripper is not None:
            pose = np.append(pose, self._reading.gripper)
        pose = self._scale * pose + self._offset
        if self._robot.gripper is not None and np.isnan(self._reading.gripper):
            pose[-1] = target[-1]
        return pose
