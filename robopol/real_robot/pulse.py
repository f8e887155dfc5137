"""Whether a servo loop goes on: the one rule by which its supervisor judges, the age of its last tick."""

from robopol.real_robot.states import WRITING, State

SILENT = 0.2
"""A loop that writes commands and has not ticked for so long, or three periods, is said to be silent, s."""
WAITING = 15.0
"""The same where it does not write: to connect and to arm a device, the loop waits for it, s."""
LOST = 2.0
"""After so long a silence more it is given up, s: it hangs, most likely in its device's client."""


class Pulse:
    """The ticks of one servo loop, as its supervisor hears them.

    Attributes:
        state: The arm's state in the last tick.
        silent: Whether it was said to be silent, and has not ticked since.
    """

    def __init__(self, now: int, period: float) -> None:
        """Begin to listen at ``now``, ns, to a loop of some period, s."""
        self._silent = max(SILENT, 3 * period)  # a tick is heard of once the arm was read
        self.state, self.silent, self._last = State.DISCONNECTED, False, now

    def hear(self, state: State, t: int) -> str | None:
        """Note a tick that was made at ``t``, ns; returns words for a person if it ends a silence."""
        gap, self._last, self.state = (t - self._last) * 1e-9, t, state
        if not self.silent:
            return None
        self.silent = False
        return f"the servo loop is back after {gap:.2f} s"

    def alarm(self, now: int) -> str | None:
        """Return words for a person, once, if it has become silent by ``now``, ns."""
        age = (now - self._last) * 1e-9
        if self.silent or now - self._last <= round(self._patience * 1e9):
            return None
        self.silent = True
        return f"the servo loop has not ticked for {age:.2f} s: nobody moves or holds the arm but the arm itself"

    def lost(self, now: int) -> bool:
        """Say whether it is to be given up."""
        return now - self._last > round((self._patience + LOST) * 1e9)

    @property
    def _patience(self) -> float:
        return self._silent if self.state in WRITING else WAITING
