"""The witness at the wire: what an arm was really told, against what it may be told."""

import json
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.errors import RobotError
from robopol.real_robot.robot import RobotConfig

Vector = NDArray[np.float64]
KEPT = 200
"""Most violations that are kept in words; the rest are counted."""
_ROUNDING = 1e-9  # rad
FIRST = 0.02
"""Time in which an arm may go to the first goal of a motion if no period is declared, s."""


class Goal(NamedTuple):
    """A goal as it came over the wire.

    Attributes:
        t: When, ns.
        servo: Which.
        position: Where to, in the joint's unit.
    """

    t: int
    servo: int
    position: float


class Oracle:
    """Logs every goal of every servo and judges it against the declared limits.

    A goal is a violation if it is not finite or out of range, if the speed from the goal before exceeds the limit by
    more than one tick over the time between them, or if the second difference exceeds the acceleration limit by more
    than what rounding three goals to ticks can make of it, 2 ticks over the square of that time. The first goal after
    the arm was switched on or stopped is judged in the same way, as a step from rest from where the arm stands: between
    where it is and where it holds itself to be, as a load bends it. A joint that is out of range may only come in.

    With a period, the time between two goals is that of the schedule: the nearest multiple of the period, and at least
    one. The wire delays goals by what else is on it, so without a period limits that are used to the full seem to be
    exceeded; with one, delays may differ by less than half a period.

    Attributes:
        log: Every goal, in order.
        count: Violations so far.
        violations: The first `KEPT` of them, in words.
    """

    def __init__(
        self, low: Vector, high: Vector, speed: Vector, accel: Vector, tick: float, period: float = 0.0
    ) -> None:
        """Declare the limits.

        Args:
            low: Lowest goals (n,), rad.
            high: Highest goals (n,), rad.
            speed: Of the goals (n,), rad/s.
            accel: Of the goals (n,), rad/s^2.
            tick: Resolution of the wire, rad.
            period: Between goals by their schedule, s; 0 judges by when they came.
        """
        self.period = period
        self.low, self.high, self.speed, self.accel, self.tick = low, high, speed, accel, tick
        self.log: list[Goal] = []
        self.count = 0
        self.violations: list[str] = []
        self._last: dict[int, tuple[int, float, float]] = {}

    @classmethod
    def of(cls, robot: RobotConfig, tick: float = 0.0, hand: tuple[float, float] | None = None) -> "Oracle":
        """Declare the limits of a robot.

        Args:
            robot: The robot; its share of the speed limits counts.
            tick: Resolution of the wire, rad.
            hand: Lowest and highest goals of its gripper, which is the last servo then; None if the wire has none.
        """
        low, high = robot.joint("low"), robot.joint("high")
        speed, accel = robot.joint("speed") * robot.speed, robot.joint("acceleration")
        if hand is not None and robot.gripper is not None:
            stroke = hand[1] - hand[0]
            low, high = np.append(low, hand[0]), np.append(high, hand[1])
            speed = np.append(speed, robot.gripper.speed * stroke)
            accel = np.append(accel, robot.gripper.acceleration * stroke)
        return cls(low, high, speed, accel, tick, robot.period)

    def declared(self) -> str:
        """Return the limits as JSON, for `read` in another process."""
        names = ("low", "high", "speed", "accel")
        return json.dumps({name: getattr(self, name).tolist() for name in names} | {"period": self.period})

    @classmethod
    def read(cls, text: str, tick: float, servos: int) -> "Oracle":
        """Declare what `declared` wrote.

        Raises:
            RobotError: If it is something else, or of another arm.
        """
        try:
            tree = json.loads(text)
            limits = [np.array(tree[name], np.float64) for name in ("low", "high", "speed", "accel")]
            period = float(tree.get("period", 0.0))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RobotError(f"limits are JSON with low, high, speed and accel, lists of numbers: {error!r}") from error
        if {part.shape for part in limits} != {(servos,)}:
            raise RobotError(f"the arm has {servos} servos, limits are given for {[part.shape for part in limits]}")
        low, high, speed, accel = limits
        return cls(low, high, speed, accel, tick, period)

    def goal(self, t: int, servo: int, position: float, stands: tuple[float, float]) -> None:
        """Log a goal.

        Args:
            t: When it came, ns.
            servo: Which servo, from 0.
            position: Where to, rad.
            stands: Where the servo is and where it holds itself to be, rad; the way from there is judged if this is the
                first goal of a motion.
        """
        self.log.append(Goal(t, servo, position))
        if not np.isfinite(position):
            self._violated(t, servo, f"goal {position} is not finite")
            return
        before = self._last.get(servo)
        if before is None:
            position0, speed0, dt = float(np.clip(position, min(stands), max(stands))), 0.0, self.period or FIRST
        else:
            t0, position0, speed0 = before
            dt = max(t - t0, 1) * 1e-9
            if self.period:
                dt = self.period * max(round(dt / self.period), 1)
        low, high = min(self.low[servo], position0), max(self.high[servo], position0)
        if not low - self.tick / 2 - _ROUNDING <= position <= high + self.tick / 2 + _ROUNDING:
            self._violated(t, servo, f"goal {position:.6g} is not in {low:.6g} to {high:.6g}")
        speed = (position - position0) / dt
        slack = 1.0 + 1e-9
        if abs(speed) > slack * self.speed[servo] + (self.tick + _ROUNDING) / dt:
            self._violated(t, servo, f"speed {speed:.6g} is over {self.speed[servo]:.6g}")
        accel = abs(speed - speed0) / dt
        if accel > slack * self.accel[servo] + (2 * self.tick + _ROUNDING) / dt**2:
            self._violated(t, servo, f"acceleration {accel:.6g} is over {self.accel[servo]:.6g}")
        self._last[servo] = (t, position, speed)

    def moved(self, t: int, servo: int = 0) -> int | None:
        """Return when, after ``t``, ns, the goal of a servo first was another than before; None if it was not."""
        goals = [goal for goal in self.log if goal.servo == servo]
        for before, goal in pairwise(goals):
            if goal.t > t and goal.position != before.position:
                return goal.t
        return None

    def rest(self) -> None:
        """The arm was stopped or switched on: the next goals begin a motion from rest."""
        self._last.clear()

    def _violated(self, t: int, servo: int, words: str) -> None:
        self.count += 1
        if len(self.violations) < KEPT:
            self.violations.append(f"{t * 1e-9:.6f} s, servo {servo}: {words}")
