"""A run that nobody types for begins, moves and ends by itself, and does not wait for an arm that is not to be had."""

import pytest
from lockstep import Bench

from robopol.errors import RobotError
from robopol.real_robot.driver import Status
from robopol.real_robot.script import ARMED_WITHIN, Script
from robopol.real_robot.states import Command, State

S = 1_000_000_000


class Run:
    """A script that speaks to a bench."""

    def __init__(self, bench, seconds=1.0):
        self.bench, self.said, self.heard = bench, [], 0
        self.script = Script(seconds, self.order)

    def order(self, command):
        self.said.append(command)
        self.bench.say(command)

    def until(self, seconds):
        """Look every 50 ms; return when it was over."""
        for _ in range(round(seconds / 0.05)):
            self.bench.run(0.05)
            for event in self.bench.events[self.heard :]:
                self.script.hear(event)
            self.heard = len(self.bench.events)
            if self.script.look(self.bench.clock.now(), self.bench.state):
                return self.bench.clock.now()
        return None


def test_it_arms_lets_the_policy_run_and_is_over_after_its_time():
    run = Run(Bench())
    assert run.until(0.2) is None
    assert run.said == [Command.ARM, Command.RUN]
    began = run.bench.clock.now()
    run.bench.say(Command.ARM)  # somebody else is refused that, as it is armed
    assert 0.8 * S < run.until(2.0) - began < S
    assert run.said == [Command.ARM, Command.RUN]


def test_an_arm_that_cannot_be_armed_ends_it(monkeypatch):
    run = Run(Bench())

    def refused():
        raise RobotError("no power")

    monkeypatch.setattr(run.bench.driver, "arm", refused)
    with pytest.raises(RobotError, match=r"cannot ARM|device failed"):
        run.until(1.0)
    run = Run(Bench(), seconds=60.0)
    assert run.until(0.2) is None
    run.bench.driver.fault = Status.PROTECTIVE_STOP
    with pytest.raises(RobotError, match="a fault stopped the arm"):
        run.until(1.0)


def test_an_arm_of_which_nothing_comes_is_not_waited_for():
    script = Script(1.0, lambda command: None)
    assert not script.look(S, State.CONNECTED)
    assert not script.look(S + round(ARMED_WITHIN * S), State.CONNECTED)
    with pytest.raises(RobotError, match="is CONNECTED 30 s after it was told to ARM"):
        script.look(S + round(ARMED_WITHIN * S) + 1, State.CONNECTED)
