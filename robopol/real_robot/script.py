"""A run of some seconds for which nobody types: the arm is armed, the policy moves it, and then it is over."""

from collections.abc import Callable

from robopol.errors import RobotError
from robopol.real_robot.events import Code, Event
from robopol.real_robot.states import LATCHED, Command, State

ARMED_WITHIN = 30.0
"""Longest time from the first word until the arm is armed, s: to start the program of a controller takes some."""


class Script:
    """What is said to a servo loop, and what ends it."""

    def __init__(self, seconds: float, order: Callable[[Command], None]) -> None:
        """Begin.

        Args:
            seconds: How long the policy may move the arm.
            order: Commands the servo loop.
        """
        self._seconds, self._order = seconds, order
        self._said: Command | None = None  # and not answered yet: others may be refused the same
        self._armed_by: int | None = None
        self._end: int | None = None
        self._wrong = ""

    def hear(self, event: Event) -> None:
        """Take an event."""
        if event.code is Code.DEVICE_FAILED:
            self._wrong = "the arm's device failed"
        elif event.code in (Code.COMMANDED, Code.COMMAND_REFUSED) and event.numbers[0] == self._said:
            if event.code is Code.COMMAND_REFUSED:
                self._wrong = f"the arm cannot {self._said.name}"
            self._said = None

    def look(self, now: int, state: State) -> bool:
        """Say what is next, if something is.

        Args:
            now: The time, ns.
            state: Of the arm.

        Returns:
            Whether the time is over.

        Raises:
            RobotError: If the arm cannot be armed, or is stopped by a fault.
        """
        if state in LATCHED:
            self._wrong = self._wrong or "a fault stopped the arm"
        if self._wrong:
            raise RobotError(f"{self._wrong}: the events above say why")
        if self._armed_by is None:
            self._armed_by = now + round(ARMED_WITHIN * 1e9)
            self._say(Command.ARM)
        elif self._end is None and state is State.ARMED:
            self._end = now + round(self._seconds * 1e9)
            self._say(Command.RUN)
        elif self._end is None and now > self._armed_by:
            raise RobotError(
                f"the arm is {state.name} {ARMED_WITHIN:.0f} s after it was told to ARM: look at its power and its "
                "remote control, and try `arm` without seconds="
            )
        return self._end is not None and now > self._end

    def _say(self, command: Command) -> None:
        self._said = command
        self._order(command)
