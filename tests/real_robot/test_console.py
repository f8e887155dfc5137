"""A terminal that stalls is not waited for, one that is gone is known, and none suspends what moves an arm."""

import os
import signal

import pytest

from robopol.real_robot.console import Console

LINES = [f"{k:4d} " + "x" * 1000 for k in range(200)]


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


def test_what_nobody_reads_keeps_nobody_waiting_and_is_read_later_in_order(pipe):
    reading, writing = pipe
    with Console(writing) as console:
        for line in LINES:
            console.say(line)  # much more than the pipe holds, and nobody reads so far
        found = b""
        while found.count(b"\n") < len(LINES):
            found += os.read(reading, 65536)
        console.say("the last")
    assert found.decode().splitlines() == LINES
    assert os.read(reading, 100) == b"the last\n"  # it was waited for
    os.close(reading)


def test_a_reader_that_is_gone_is_known_of_and_stops_nobody(pipe):
    reading, writing = pipe
    os.close(reading)
    with Console(writing) as console:
        for line in LINES:
            console.say(line)
    assert console.gone


def test_to_be_suspended_is_to_be_interrupted(pipe):
    reading, writing = pipe
    before = signal.getsignal(signal.SIGTSTP)
    with pytest.raises(KeyboardInterrupt), Console(writing):
        signal.raise_signal(signal.SIGTSTP)
    assert signal.getsignal(signal.SIGTSTP) is before
    os.close(reading)
