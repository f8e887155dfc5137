"""A recording session: episodes are counted, and the person is told what is next."""

from collections.abc import Callable

from robopol.real_robot.events import Code, Event
from robopol.real_robot.recorder import ASIDE, DISCARD, LABELS
from robopol.real_robot.states import LATCHED, MOVING, Command, State

_ENDS = (State.ARMED, *LATCHED)


class Session:
    """What the events of a servo loop mean to somebody who records demonstrations.

    After an episode there is time to put things back. How the arm is moved meanwhile is recorded by nobody: at the end
    of that time it is stopped, and what was recorded of it is set aside.

    Attributes:
        kept: Episodes so far that count.
        ended: Episodes so far, discarded ones too.
    """

    def __init__(self, episodes: int, reset: float, failures: bool, tell: Callable[[str], None]) -> None:
        """Begin.

        Args:
            episodes: How many are to be kept.
            reset: Time to put things back after an episode, s.
            failures: Whether failed episodes count.
            tell: Says a line to the person.
        """
        self.episodes, self._reset, self._failures, self._tell = episodes, reset, failures, tell
        self.kept = self.ended = 0
        self._going: str = ""  # "episode", "reset" or "dropping"
        self._owed = False  # whether a motion that is no episode has ended and was not set aside
        self._label, self._began, self._until = 0, 0, -1
        self._announced = False
        self._last: bool | None = None  # whether the last episode counts; None if there is none to discard

    @property
    def over(self) -> bool:
        """Whether all episodes are there."""
        return self.kept >= self.episodes and not self._going

    def hear(self, event: Event) -> None:
        """Take an event."""
        if event.code is Code.COMMANDED and event.numbers[0] == Command.STOP:
            self._label = int(event.numbers[1])
            if not self._going and self._label == DISCARD:
                self._discard_last()
        elif event.code is Code.STATE_CHANGED:
            state = State(int(event.numbers[1]))
            if state in MOVING and not self._going:
                self._begin(event.t)
            elif state in _ENDS and self._going:
                self._end(event.t, state)
            if state in LATCHED:
                self._announced = False
                self._tell("a fault stopped the arm: reset it and switch it on again, to go on")

    def look(self, now: int, state: State) -> bool:
        """Say what is next, if something is.

        Args:
            now: The time, ns.
            state: Of the arm.

        Returns:
            Whether the servo loop is to be told, now, `Command.STOP` with `ASIDE`.
        """
        ready = not self._going and state is State.ARMED
        if (self._going == "reset" and now >= self._until) or (self._owed and ready):
            self._going, self._owed = "dropping", False
            return True
        if ready and now >= self._until and not self._announced and not self.over:
            self._announced = True
            self._tell(f"ready for episode {self.ended + 1}, {self.kept} of {self.episodes} kept: take over")
        return False

    def _begin(self, t: int) -> None:
        self._going, self._began, self._label = "reset" if t < self._until else "episode", t, 0
        self._owed = False
        if self._going == "episode":
            self._tell(f"recording episode {self.ended + 1}: stop with success, failure or discard")
        else:
            self._tell("this motion is not kept: it is still time to put things back")

    def _end(self, t: int, state: State) -> None:
        going, self._going = self._going, ""
        self._owed = going != "episode" and self._label != ASIDE
        if going == "episode":
            self.ended += 1
            self._judge((t - self._began) * 1e-9, state)
            self._announced, self._until = False, t + round(self._reset * 1e9)
            if self._reset and not self.over:
                self._tell(f"put things back: {self._reset:g} s")

    def _judge(self, seconds: float, state: State) -> None:
        label = LABELS.get(self._label)
        counts = bool(label) or (label is False and self._failures)
        self.kept += counts
        self._last = None if self._label == DISCARD else counts
        word = {None: "without a label, not kept", True: "success", False: "failure"}[label]
        if self._label == DISCARD:
            word = "discarded"
        elif state in LATCHED:
            word = f"ended by a fault, {word}"
        self._tell(f"episode {self.ended}: {word}, {seconds:.1f} s; {self.kept} of {self.episodes} kept")

    def _discard_last(self) -> None:
        if self._last is None:
            self._tell("there is no episode to discard")
            return
        self.kept -= self._last
        self._last, self._announced = None, False
        self._tell(f"episode {self.ended} discarded; {self.kept} of {self.episodes} kept")
