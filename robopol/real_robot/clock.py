"""Time: the machine's own, and one that moves only when it is told to."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol


class Clock(Protocol):
    """Where the servo loop, the drivers and the emulators take their time from; never the wall clock."""

    def now(self) -> int:
        """Return the time, ns, from an origin that stays."""

    def sleep_until(self, t: int) -> None:
        """Return at time ``t``, ns, or at once if it is past."""

    def doze_until(self, t: int) -> None:
        """The same, but later by as much as a sleeping process is woken late: it costs no waiting awake."""


def paced(clock: Clock, period: int, alive: Callable[[], bool]) -> Iterator[None]:
    """Yield every ``period``, ns, while ``alive``; what cannot be kept up with is left out, never made up for."""
    t = clock.now()
    while alive():
        yield
        t += period
        t += max(0, -(-(clock.now() - t) // period)) * period
        clock.sleep_until(t)


class MonotonicClock:
    """The machine's monotonic clock; processes of one machine agree on it."""

    spin_ns = 500_000
    """The last part of a sleep is waited out awake, ns, as a sleeping process is woken late."""

    def now(self) -> int:
        """See `Clock.now`."""
        return time.monotonic_ns()

    def sleep_until(self, t: int) -> None:
        """See `Clock.sleep_until`."""
        rest = t - self.spin_ns - time.monotonic_ns()
        if rest > 0:
            time.sleep(rest * 1e-9)
        while time.monotonic_ns() < t:
            pass

    def doze_until(self, t: int) -> None:
        """See `Clock.doze_until`."""
        time.sleep(max(0, t - time.monotonic_ns()) * 1e-9)


class VirtualClock:
    """Time that passes only by sleeping, so that what depends on it is the same in every run.

    Attributes:
        t: Now, ns.
    """

    def __init__(self, t: int = 0) -> None:
        """Begin at ``t``, ns."""
        self.t = t

    def now(self) -> int:
        """See `Clock.now`."""
        return self.t

    def sleep_until(self, t: int) -> None:
        """See `Clock.sleep_until`."""
        self.t = max(self.t, t)

    def doze_until(self, t: int) -> None:
        """See `Clock.doze_until`; here it is the same to the nanosecond."""
        self.sleep_until(t)
