"""A recording session: episodes are counted, and the person is told what is next."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from robopol.real_robot.events import Code, Event
from robopol.real_robot.recorder import ASIDE, DISCARD, LABELS
from robopol.real_robot.states import LATCHED, MOVING, Command, State

_ENDS = (State.ARMED, *LATCHED)
PATIENCE = 30.0
"""Longest time from the end of an episode until it is on disk, s."""


class _Episode(NamedTuple):
    """An episode that ended: its number, when, ns, in which epoch, how that is said, and whether it is to be kept."""

    number: int
    t: int
    epoch: int
    words: str
    counts: bool


class Session:
    """What the events of a servo loop mean to somebody who records demonstrations.

    After an episode there is time to put things back. How the arm is moved meanwhile is recorded by nobody: at the end
    of that time it is stopped, and what was recorded of it is set aside.

    Attributes:
        wanted: Episodes so far that are to be kept.
        kept: How many of them are known to be on disk.
        ended: Episodes so far of which it is known what became, discarded ones too.
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
        self.wanted = self.kept = self.ended = 0
        self._begun = 0
        self._going: str = ""  # "episode", "reset" or "dropping"
        self._owed = False  # whether a motion that is no episode has ended and was not set aside
        self._label, self._began, self._until = 0, 0, -1
        self._announced = False
        self._last: _Episode | None = None  # the last one, if it can be discarded
        self._awaited: list[_Episode] = []  # those that are to be kept, until they are written

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
                self._end(event.t, state, int(event.numbers[2]))
            if state in LATCHED:
                self._announced = False
                self._tell("a fault stopped the arm: reset it and switch it on again, to go on")

    def look(self, now: int, state: State, recorded: Mapping[int, bool]) -> bool:
        """Say what is next, if something is.

        Args:
            now: The time, ns.
            state: Of the arm.
            recorded: Epoch in which a motion ended -> whether it is on disk.

        Returns:
            Whether the servo loop is to be told, now, `Command.STOP` with `ASIDE`.
        """
        for episode in list(self._awaited):
            late = now - episode.t > PATIENCE * 1e9
            if episode.epoch in recorded or late:
                self._settle(episode, recorded.get(episode.epoch, False))
        ready = not self._going and state is State.ARMED
        if (self._going == "reset" and now >= self._until) or (self._owed and ready):
            self._going, self._owed = "dropping", False
            return True
        if ready and now >= self._until and not self._announced and not self._awaited and not self.over:
            self._announced = True
            self._tell(f"ready for episode {self._begun + 1}, {self.kept} of {self.episodes} kept: take over")
        return False

    def _begin(self, t: int) -> None:
        self._going, self._began, self._label = "reset" if t < self._until else "episode", t, 0
        self._owed = False
        if self._going == "episode":
            self._begun += 1
            self._tell(f"recording episode {self._begun}: stop with success, failure or discard")
        else:
            self._tell("this motion is not kept: it is still time to put things back")

    def _end(self, t: int, state: State, epoch: int) -> None:
        going, self._going = self._going, ""
        self._owed = going != "episode" and self._label != ASIDE
        if going == "episode":
            self._announced, self._until = False, t + round(self._reset * 1e9)
            self._judge(t, state, epoch)

    def _judge(self, t: int, state: State, epoch: int) -> None:
        label, discarded = LABELS.get(self._label), self._label == DISCARD
        counts = bool(label) or (label is False and self._failures)
        word = {None: "without a label, not kept", True: "success", False: "failure"}[label]
        if discarded:
            word = "discarded"
        elif state in LATCHED:
            word = f"ended by a fault, {word}"
        words = f"episode {self._begun}: {word}, {(t - self._began) * 1e-9:.1f} s"
        episode = _Episode(self._begun, t, epoch, words, counts)
        self._last = None if discarded else episode
        self.wanted += counts
        if counts:
            self._awaited.append(episode)
        else:
            self._say_of(words)

    def _settle(self, episode: _Episode, written: bool) -> None:
        """Count an episode that is to be kept, if it is there."""
        self._awaited.remove(episode)
        self.kept += written
        if not written and self._last is episode:
            self._last = None
        self._say_of(episode.words if written else f"{episode.words}, NOT KEPT as it could not be written")

    def _say_of(self, words: str) -> None:
        self.ended += 1
        self._tell(f"{words}; {self.kept} of {self.episodes} kept")
        if self._reset and not self.over:
            self._tell(f"put things back: {self._reset:g} s")

    def _discard_last(self) -> None:
        if self._last is None:
            self._tell("there is no episode to discard")
            return
        last, self._last, self._announced = self._last, None, False
        self.wanted -= last.counts
        if last in self._awaited:
            self._awaited.remove(last)
            self._say_of(f"episode {last.number} discarded")
        else:
            self.kept -= last.counts
            self._tell(f"episode {last.number} discarded; {self.kept} of {self.episodes} kept")
