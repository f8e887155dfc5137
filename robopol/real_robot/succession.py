"""New weights on their way to an arm that moves: loaded and tried beside those that act, then in their place."""

import time
from typing import Any

from robopol.errors import RobotError
from robopol.real_robot.process import START_TIME, Child

LEAVING = 5.0
"""Longest time that a policy may take to end what it is asked just now, s; one that hangs is killed."""


class Succession:
    """One policy that is to take the place of another; nothing here waits.

    The new one loads, and is tried, in a process of its own, while the other one goes on. Then that one is told to be
    silent: it ends with the plan that it makes just now, and says what it knows. What it knows is told to the new one,
    whose first plan follows. Meanwhile the arm follows the last plan of the old one, so nothing is cut in the middle.

    Attributes:
        child: The process of the new policy.
        speaker: Tree of the new policy's `robopol.real_robot.policy_process.Speaker`.
        said: What it says of itself; None as long as it is loaded and tried.
    """

    def __init__(self, child: Child, speaker: dict[str, Any]) -> None:
        """Begin with a process that was started just now."""
        self.child, self.speaker = child, speaker
        self.said: dict[str, Any] | None = None
        self._until = time.monotonic() + START_TIME

    def fit(self) -> bool:
        """Say whether the new policy was found fit since the last call.

        Raises:
            RobotError: If it was not, in words.
        """
        if self.said is not None:
            return False
        self.said = self.child.heard()
        if self.said is None and time.monotonic() > self._until:
            raise RobotError(f"it was not ready after {START_TIME:.0f} s")
        return self.said is not None

    def part(self, old: Child) -> None:
        """Tell the policy that speaks to be silent."""
        self._until = time.monotonic() + LEAVING
        old.tell(leave=True)

    def parted(self, old: Child) -> bool:
        """Say whether the other one is silent for good, and let the new one speak if so."""
        known = None
        try:
            if (said := old.heard()) is not None:
                known = said["known"]
            elif time.monotonic() < self._until:
                return False
        except RobotError:  # it died, or had died before: there is nothing to be known of it
            pass
        old.process.kill()  # it has nothing more to do, and two must never speak at a time
        self.child.tell(known=known)
        return True
