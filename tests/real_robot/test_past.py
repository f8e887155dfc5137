"""What came before an episode or a fault is kept: ten seconds, and nothing of it twice."""

from pathlib import Path

import numpy as np
import pytest
from lockstep import MS
from test_processes import STEPS, recorder_in

from robopol.errors import RobotError
from robopol.real_robot.channels import EVENT_ROW
from robopol.real_robot.events import Code, Event, Severity
from robopol.real_robot.recorder import ASIDE, DISCARD, DISCARDED, check_folder, load, load_about, load_before
from robopol.real_robot.session import PATIENCE, Session
from robopol.real_robot.states import Command, State
from robopol.real_robot.ticks import tick_type


class Days:
    """Rows in blocks of 50 ms, at 100 Hz."""

    def __init__(self, folder):
        self.recorder, self.t, self.epoch = recorder_in(folder), 0, 0

    def go(self, seconds, state, *events):
        for k in range(round(seconds / 0.05)):
            ticks = np.zeros(5, tick_type(5))
            ticks["t"], ticks["state"] = self.t + np.arange(5) * 10 * MS, state
            ticks["epoch"] = self.epoch
            steps = np.zeros(1, STEPS)
            steps["t"] = self.t
            rows = np.zeros(len(events) if k == 0 else 0, EVENT_ROW)
            for row, (code, *numbers) in zip(rows, events, strict=False):
                row["t"], row["code"], row["numbers"][: len(numbers)] = self.t, code, numbers
            self.recorder.add({"ticks": ticks, "events": rows, "steps": steps}, 0)
            self.t += 50 * MS
        return self


def test_the_ten_seconds_before_are_kept_as_far_as_no_episode_has_them(tmp_path):
    days = Days(tmp_path).go(15, State.ARMED).go(1, State.HUMAN).go(2, State.ARMED).go(1, State.RUNNING)
    days.go(0.05, State.ARMED)
    first, second = days.recorder.written
    found, before = load(first)[0]["ticks"], load_before(first)
    assert found["t"][0] == 15_000 * MS
    np.testing.assert_array_equal(before["ticks"]["t"], np.arange(499, 1500) * 10 * MS)
    assert before["steps"]["t"][0] == 5_000 * MS
    last, before = load(first)[0]["ticks"]["t"][-1], load_before(second)["ticks"]["t"]
    np.testing.assert_array_equal(before, np.arange(last + 10 * MS, load(second)[0]["ticks"]["t"][0], 10 * MS))


def test_a_fault_while_nothing_moves_leaves_what_came_before_it(tmp_path):
    fault = (Code.STATE_CHANGED, State.ARMED, State.FAULT, 3)
    days = Days(tmp_path).go(0.5, State.ARMED).go(0.2, State.FAULT, fault)
    assert not days.recorder.written
    (folder,) = tmp_path.glob("*-incident")
    before = load_before(folder)
    assert len(before["ticks"]) == 55
    assert before["events"]["code"].tolist() == [Code.STATE_CHANGED]
    assert load_about(folder)["robot"] == {}


@pytest.mark.parametrize("late", [False, True])
def test_discarding_takes_the_episode_that_goes_on_or_the_last_one_once(tmp_path, late):
    discard, success = ((Code.COMMANDED, Command.STOP, label) for label in (DISCARD, 2))
    days = Days(tmp_path).go(0.1, State.HUMAN).go(0.1, State.STOPPING, success).go(0.1, State.ARMED)
    days.go(0.1, State.HUMAN).go(0.1, State.STOPPING, success if late else discard).go(0.1, State.ARMED)
    if late:
        days.go(0.1, State.ARMED, discard)
    kept = list(days.recorder.written)
    assert len(kept) == 1
    assert load_about(kept[0])["success"] is True
    (aside,) = tmp_path.glob("discarded/*/episode.json")
    assert load_about(aside.parent)["success"] is (True if late else None)
    days.go(0.1, State.ARMED, discard)  # once more, by mistake
    assert days.recorder.written == kept
    days.go(0.1, State.HUMAN).go(0.1, State.FAULT)
    assert load_about(days.recorder.written[-1])["success"] is None


def test_a_session_goes_on_after_a_fault_and_counts_no_episode_without_a_label():
    said = []
    session = Session(1, 0.0, True, said.append)

    def happens(*numbers, code=Code.STATE_CHANGED, recorded=()):
        session.hear(Event(0, code, Severity.INFO, (*numbers, 7)))
        state = State(int(numbers[1])) if code is Code.STATE_CHANGED else State.STOPPING
        assert not session.look(0, state, dict(recorded))

    happens(State.CONNECTED, State.ARMED)
    happens(State.ARMED, State.HUMAN)
    happens(State.HUMAN, State.FAULT)
    assert not session.over
    assert "ended by a fault, without a label" in said[-2]
    assert "reset it" in said[-1]
    happens(State.FAULT, State.CONNECTED)
    happens(State.CONNECTED, State.ARMED)
    assert "ready for episode 2, 0 of 1 kept" in said[-1]
    happens(State.ARMED, State.HUMAN)
    happens(Command.STOP, 1, code=Code.COMMANDED)
    happens(State.STOPPING, State.ARMED)
    assert not session.over  # before it is on disk
    session.look(0, State.ARMED, {7: True})
    assert session.over  # failures count here


def stop(label):
    return Code.COMMANDED, Command.STOP, label


class Led(Days):
    """The same, and the person's side: two episodes are wanted, and two seconds are for putting things back."""

    def __init__(self, folder):
        super().__init__(folder)
        self.said, self.lost, self.recorded, self.state, self.epoch = [], [], {}, State.ARMED, 0
        self.session = Session(2, 2.0, False, self._say)
        self.recorder._tell = self._hear

    def _say(self, line):
        if not line.startswith("ready"):
            self.said.append(line)

    def _hear(self, lost=None, epoch=None, written=False):
        if lost is None:
            self.recorded[epoch] = written
        else:
            self.lost.append(lost)

    def becomes(self, seconds, new, *events):
        self.epoch += new in (State.STOPPING, State.CONNECTED, State.FAULT)
        changed, begin = (Code.STATE_CHANGED, self.state, new, self.epoch), self.t
        self.state = new
        self.go(seconds, new, *events, changed)
        for code, *numbers in (*events, changed):
            self.session.hear(Event(begin, code, Severity.INFO, tuple(numbers)))
        if self.session.look(self.t, new, self.recorded):
            self.stops(ASIDE)
        return self

    def stops(self, label):
        return self.becomes(0.1, State.STOPPING, stop(label)).becomes(0.1, State.ARMED)


@pytest.mark.parametrize("how", ["time is over", "stopped", "discarded", "fault"])
def test_an_episode_can_be_discarded_after_a_motion_that_is_none(tmp_path, how):
    """However what is led while things are put back ends, a discard takes the episode before it, in both books."""
    days = Led(tmp_path)
    days.becomes(0.5, State.HUMAN).stops(2)
    days.becomes(0.5 if how != "time is over" else 2.5, State.HUMAN)
    if how == "fault":
        for new in (State.FAULT, State.CONNECTED, State.ARMED):
            days.becomes(0.1, new)
    elif how != "time is over":
        days.stops(2 if how == "stopped" else DISCARD)
    (first,) = days.recorder.written
    assert len(list((tmp_path / DISCARDED).iterdir())) == 1
    days.stops(DISCARD).stops(DISCARD)  # once more, by mistake
    assert days.said[-2:] == ["episode 1 discarded; 0 of 2 kept", "there is no episode to discard"]
    assert not days.recorder.written
    assert (tmp_path / DISCARDED / first.name).exists()
    assert not days.session.kept


@pytest.mark.parametrize("where", ["mkdir", "rename"])
def test_an_episode_that_could_not_be_written_does_not_count_and_is_told_of(tmp_path, monkeypatch, where):
    days = Led(tmp_path)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, where, full)
        days.becomes(0.5, State.HUMAN).stops(2)
    assert days.said[-2].startswith("episode 1: success, ")
    assert days.said[-2].endswith(", NOT KEPT as it could not be written; 0 of 2 kept")
    assert "[Errno 28] No space left on device" in days.lost[0]
    days.stops(DISCARD)
    assert days.said[-1] == "there is no episode to discard"
    days.recorder._again = 0.0
    days.becomes(2.5, State.ARMED).becomes(0.5, State.HUMAN).stops(2)
    assert days.said[-2].endswith("; 1 of 2 kept")
    assert (days.session.wanted, days.session.kept, len(days.recorder.written)) == (2, 1, 1)
    assert load_about(days.recorder.written[0])["dropped"] == 0


def test_an_episode_of_which_nothing_is_heard_does_not_count():
    said = []
    session = Session(1, 0.0, False, said.append)
    for code, *numbers in ((Code.STATE_CHANGED, State.ARMED, State.HUMAN, 1), stop(2)):
        session.hear(Event(0, code, Severity.INFO, tuple(numbers)))
    session.hear(Event(0, Code.STATE_CHANGED, Severity.INFO, (State.STOPPING, State.ARMED, 2)))
    for seconds, lines in ((PATIENCE, 1), (PATIENCE + 1, 3)):
        session.look(round(seconds * 1e9), State.ARMED, {1: True})
        assert len(said) == lines
    assert "NOT KEPT" in said[1]


def test_a_folder_that_cannot_be_written_is_an_error_in_words_before_anything_is_armed(tmp_path):
    check_folder(tmp_path / "new" / "record")
    assert not list((tmp_path / "new" / "record").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(RobotError, match=r"nothing can be recorded in .*Not a directory.*record="):
        check_folder(tmp_path / "file" / "record")
