"""What ends motion by itself: an arm that does not follow, pushes, is ill or silent, and a loop that is late."""

from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.real_robot.driver import FAULTS, Reading, Status
from robopol.real_robot.events import Code
from robopol.real_robot.robot import RobotConfig

Vector = NDArray[np.float64]


class Reaction(IntEnum):
    """What is done, the harshest last."""

    HOLD = 1
    """Brake and hold."""
    STOP = 2
    """Brake, stop the device, be armed."""
    FAULT = 3
    """Stop the device at once; latched."""
    ESTOP = 4
    """The same; the emergency stop was pressed."""


class Alarm(NamedTuple):
    """What was found, and what is to be done."""

    code: Code
    reaction: Reaction
    numbers: tuple[float, ...] = ()


class ArmWatch:
    """Looks at the arm: steps 9 and 10 of the filter, and how old its state is.

    Attributes:
        fresh: When its newest state came, ns.
        failures: Reads that failed one after the other.
        stale: Whether its state is too old to move by.
    """

    def __init__(self, robot: RobotConfig) -> None:
        """Watch a robot; `reset` begins."""
        self.config = robot.watch
        efforts = [np.inf if joint.effort is None else joint.effort for joint in robot.joints]
        self._effort = np.array(efforts)
        self._watches_effort = bool(np.isfinite(self._effort).any())
        self._stale = max(round(self.config.stale * 1e9), 3 * robot.period_ns)
        self._lost = round(self.config.lost * 1e9)
        self.reset(0)

    def reset(self, now: int) -> None:
        """Forget what was; the arm was well at ``now``, ns."""
        self.fresh, self.failures = now, 0
        self.stale = False
        self._exceeded = {code: 0 for code in (Code.TRACKING_LOST, Code.OVERLOADED, Code.CONTACT)}

    def saw(self, now: int, fresh: bool) -> None:
        """Note an answer of the arm, and whether it was a new state."""
        self.failures = 0
        if fresh:
            self.fresh, self.stale = now, False

    def read_failed(self) -> None:
        """Note that there was no answer."""
        self.failures += 1

    def age(self, now: int) -> float:
        """Return the age of the newest state, s."""
        return (now - self.fresh) * 1e-9

    def overdue(self, now: int) -> bool:
        """Say whether the newest state has become too old to move by and nobody has said so."""
        return not self.stale and now - self.fresh >= self._stale

    def silent(self, now: int) -> Iterator[Alarm]:
        """Say whether the newest state is too old to move by."""
        age = self.age(now)
        if self.failures >= self.config.failures:
            yield Alarm(Code.READ_FAILED, Reaction.FAULT, (self.failures,))
        elif now - self.fresh >= self._lost:
            yield Alarm(Code.STATE_STALE, Reaction.FAULT, (age,))
        elif now - self.fresh >= self._stale and not self.stale:
            self.stale = True
            yield Alarm(Code.STATE_STALE, Reaction.HOLD, (age,))

    def blind(self, reading: Reading) -> tuple[float, ...] | None:
        """Say which limit is on what the arm does not measure: 0 and the joint, or 1, its force; None if none is."""
        unmeasured = np.isfinite(self._effort) & ~np.isfinite(reading.effort)
        if unmeasured.any():
            return 0.0, float(np.argmax(unmeasured))
        if self.config.force is not None and not np.isfinite(reading.wrench[:3]).all():
            return (1.0,)
        return None

    def ill(self, reading: Reading, armed: bool) -> Iterator[Alarm]:
        """Say whether the arm reports a fault, or let go though it was armed."""
        status = reading.status
        if status & FAULTS:
            pressed = status & Status.EMERGENCY_STOP
            yield Alarm(Code.DEVICE_FAULT, Reaction.ESTOP if pressed else Reaction.FAULT, (int(status),))
        elif armed and not status & Status.POWERED:
            yield Alarm(Code.POWER_LOST, Reaction.FAULT, (int(status),))

    def astray(self, reading: Reading, q: Vector) -> Iterator[Alarm]:
        """Say whether a new state shows that the arm does not follow its command ``q``, (n,) rad, or pushes."""
        config = self.config
        distance = np.abs(reading.q - q)
        worst = int(np.argmax(distance))
        far = not distance[worst] <= config.tracking
        yield from self._for_some_ticks(Code.TRACKING_LOST, far, (worst, distance[worst], config.tracking))
        if self._watches_effort:
            effort = np.abs(reading.effort)
            # what is not a number, though it is watched, is over its limit
            excess = np.where(np.isinf(self._effort), -np.inf, np.nan_to_num(effort - self._effort, nan=np.inf))
            strained = int(np.argmax(excess))
            numbers = (strained, effort[strained], self._effort[strained])
            yield from self._for_some_ticks(Code.OVERLOADED, bool(excess[strained] > 0), numbers)
        if config.force is not None:
            force = float(np.linalg.norm(reading.wrench[:3]))
            yield from self._for_some_ticks(Code.CONTACT, not force <= config.force, (force, config.force))

    def _for_some_ticks(self, code: Code, exceeded: bool, numbers: tuple[float, ...]) -> Iterator[Alarm]:
        self._exceeded[code] = self._exceeded[code] + 1 if exceeded else 0
        if self._exceeded[code] >= self.config.ticks:
            self._exceeded[code] = 0
            yield Alarm(code, Reaction.STOP, tuple(float(number) for number in numbers))


class LoopWatch:
    """Counts the deadlines that the loop itself missed."""

    def __init__(self, robot: RobotConfig) -> None:
        """Watch the loop of a robot."""
        self._missed = robot.watch.missed
        self._last: deque[bool] = deque(maxlen=100)
        self.total = 0

    def tick(self, skipped: int) -> Iterator[Alarm]:
        """Note a tick and how many before it were skipped."""
        self._last.extend([True] * min(skipped, 100))
        self._last.append(False)
        self.total += skipped
        missed = sum(self._last)
        if missed > self._missed:
            self._last.clear()
            yield Alarm(Code.TOO_MANY_MISSED, Reaction.HOLD, (missed,))
