"""The one place from which commands go to an arm, after a last look that shares no code with what made them."""

import numpy as np
from numpy.typing import NDArray

from robopol.errors import RobotError
from robopol.real_robot.driver import Driver, StopLevel
from robopol.real_robot.robot import RobotConfig

Vector = NDArray[np.float64]
_ROUNDING = 1e-9


class Outlet:
    """Writes commands that are finite and whose positions, speeds and accelerations are within the robot's limits.

    It compares a command with the two before, whether these could be sent or not: none of them may be skipped. Stops go
    through it too: after one that is not at the last command, nothing is written until it is told where the arm is.
    """

    def __init__(self, driver: Driver, robot: RobotConfig) -> None:
        """Guard a driver."""
        self._driver, self._period = driver, robot.period
        self._low, self._high = robot.joint("low"), robot.joint("high")
        self._speed, self._acceleration = robot.joint("speed") * robot.speed, robot.joint("acceleration")
        self._last = self._before = np.full(len(robot.joints), np.nan)

    def reset(self, q: Vector) -> None:
        """Begin from an arm at rest at ``q``, (n,) rad."""
        self._last = self._before = q.copy()

    def write(self, q: Vector, gripper: float) -> None:
        """Send a command.

        Args:
            q: Joint positions (n,), rad.
            gripper: Opening, 0 to 1; NaN without a gripper.

        Raises:
            CommandRefused: If it is not within limits; nothing was sent.
            RobotError: If it could not be sent.
        """
        last, before = self._last, self._before
        step, change = q - last, q - 2 * last + before
        # an arm that stands outside its limits may only come in
        low, high = np.minimum(self._low, last), np.maximum(self._high, last)
        good = np.isfinite(q) & (q >= low - _ROUNDING) & (q <= high + _ROUNDING)
        good &= np.abs(step) <= self._speed * self._period + _ROUNDING
        good &= np.abs(change) <= self._acceleration * self._period**2 + _ROUNDING
        if not good.all() or not (np.isnan(gripper) or 0 <= gripper <= 1):
            joint = int(np.argmin(good))
            raise CommandRefused(joint, float(q[joint]), float(last[joint]))
        self._before, self._last = last, q.copy()
        self._driver.write(q, gripper)

    def stop(self, level: StopLevel) -> None:
        """Stop the arm; see `Driver.stop`.

        Raises:
            RobotError: If the arm could not be told.
        """
        if level is not StopLevel.REST:
            self._last = self._before = np.full_like(self._low, np.nan)
        self._driver.stop(level)


class CommandRefused(RobotError):
    """A command is not within the robot's limits.

    Attributes:
        numbers: The worst joint, its command and the one before, rad.
    """

    def __init__(self, joint: int, command: float, last: float) -> None:
        """Say which joint, rad."""
        self.numbers = float(joint), command, last
        super().__init__(f"joint {joint} was to go from {last} to {command} rad in one tick; nothing was sent")
