"""A servo loop that hangs is told from one that waits for its device, and given up after a while."""

import pytest

from robopol.real_robot.pulse import LOST, SILENT, WAITING, Pulse
from robopol.real_robot.states import State

S = 1_000_000_000


@pytest.mark.parametrize(
    ("state", "patience"), [(State.RUNNING, SILENT), (State.ARMED, SILENT), (State.CONNECTED, WAITING)]
)
def test_silence_is_said_once_and_its_end_too(state, patience):
    pulse, last = Pulse(0, 0.01), 5 * S
    assert pulse.hear(state, last) is None
    at = last + round(patience * S)
    assert pulse.alarm(at) is None
    assert "has not ticked" in pulse.alarm(at + 1)
    assert pulse.alarm(at + 2) is None
    late = last + round((patience + LOST) * S)
    assert not pulse.lost(late)
    assert pulse.lost(late + 1)
    assert "back" in pulse.hear(State.HOLD, at + S)
    assert pulse.alarm(at + S) is None
    assert not pulse.lost(at + S + 1)


def test_a_slow_loop_is_not_silent_between_two_ticks():
    pulse = Pulse(0, 0.1)
    pulse.hear(State.RUNNING, S)
    assert pulse.alarm(S + round(0.3 * S)) is None
    assert pulse.alarm(S + round(0.31 * S)) is not None


def test_the_alarm_comes_within_three_tenths_of_a_second():
    """T4: a supervisor looks every 50 ms or so."""
    assert SILENT + 0.05 < 0.3
