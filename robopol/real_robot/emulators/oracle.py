"""The witness at the wire: what an arm was really told, against what it may be told."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
KEPT = 200
"""Most violations that are kept in words; the rest are counted."""


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
    than what rounding three goals to ticks can make of it, 2 ticks over the square of that time.

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
        self._last: dict[int, tuple[int, float, float | None]] = {}

    def goal(self, t: int, servo: int, position: float) -> None:
        """Log a goal.

        Args:
            t: When it came, ns.
            servo: Which servo, from 0.
            position: Where to, rad.
        """
        self.log.append(Goal(t, servo, position))
        if not np.isfinite(position):
            self._violated(t, servo, f"goal {position} is not finite")
            return
        if not self.low[servo] - self.tick / 2 <= position <= self.high[servo] + self.tick / 2:
            self._violated(t, servo, f"goal {position:.6g} is not in {self.low[servo]:.6g} to {self.high[servo]:.6g}")
        before = self._last.get(servo)
        speed = None
        if before is not None:
            t0, position0, speed0 = before
            dt = max(t - t0, 1) * 1e-9
            if self.period:
                dt = self.period * max(round(dt / self.period), 1)
            speed = (position - position0) / dt
            slack = 1.0 + 1e-9
            if abs(speed) > slack * self.speed[servo] + self.tick / dt:
                self._violated(t, servo, f"speed {speed:.6g} is over {self.speed[servo]:.6g}")
            if speed0 is not None:
                accel = abs(speed - speed0) / dt
                if accel > slack * self.accel[servo] + 2 * self.tick / dt**2:
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
        """Forget what came before: the arm was stopped or armed anew, and the next goals begin a motion."""
        self._last.clear()

    def _violated(self, t: int, servo: int, words: str) -> None:
        self.count += 1
        if len(self.violations) < KEPT:
            self.violations.append(f"{t * 1e-9:.6f} s, servo {servo}: {words}")
