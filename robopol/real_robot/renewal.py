"""A process that is started anew in the place of one that died or hung, while everything else goes on."""

import time

from robopol.errors import RobotError
from robopol.real_robot.process import START_TIME, Child


class Renewal:
    """One process on its way back; nothing here waits.

    Attributes:
        what: What it is, in words.
    """

    def __init__(self, what: str, child: Child, back: str, known: str | None = None) -> None:
        """Begin with a process that was started just now.

        Args:
            what: What it is, in words.
            child: The process.
            back: What its return means, in words.
            known: Id that it must have to be trusted; None asks for none.
        """
        self.what, self._child, self._back, self._known = what, child, back, known
        self._until = time.monotonic() + START_TIME

    def settled(self) -> str | None:
        """Return words for a person once it is back; None as long as it is not.

        Raises:
            RobotError: If it will not be back, in words; it is killed then.
        """
        try:
            said = self._child.heard()
            if said is None:
                if time.monotonic() < self._until:
                    return None
                raise RobotError(f"it was not ready after {START_TIME:.0f} s")
            if self._known is not None and said["id"] != self._known:
                raise RobotError("it is another one than the servo loop was told to trust; start anew")
        except RobotError as error:
            self._child.process.kill()
            raise RobotError(f"{self.what} could not be started anew: {error}") from None
        return f"{self.what} is back{self._back}"
