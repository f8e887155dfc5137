"""The loop over ur-rtde, unmodified, to an emulated controller that stands still between ticks (T6, T10, T12, T19)."""

import ctypes
import json
import os
import time
from itertools import pairwise

import numpy as np
import pytest
from lockstep import POLICY, Bench, Box

from robopol.config import parse
from robopol.real_robot.driver import Status
from robopol.real_robot.emulators import models
from robopol.real_robot.events import Code
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.servo import Servo
from robopol.real_robot.states import Command, State

pytest.importorskip("rtde_control", reason="needs ur-rtde: pip install 'robopol[ur]'")
from robopol.real_robot.rigs import OnUR

NAMES = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")


class URBench(Bench):
    """A bench whose arm is behind a controller; time moves by `run`, but for arming and stopping."""

    def __init__(self, path, host, period=0.008, **watch):
        """Like `Bench`; ``watch`` has the limits of `WatchConfig`, of which only some are the loop's by default."""
        joints = [{"name": name, "low": -1.2, "high": 1.2, "speed": 1.5, "acceleration": 6.0} for name in NAMES]
        driver = {"kind": "simulated", "model": str(path), "gripper": None}
        tree = {"name": "ur5e", "driver": driver, "joints": joints, "gripper": {}, "period": period}
        # arming takes the machine's time, and what it says of its age is of no account here
        watch = {"missed": 1000, "lost": 10.0, "stale": 5.0} | watch
        self.robot = parse(RobotConfig, tree | {"watch": watch, "gate": {"jump": 10.0, "strict": False, "margin": 3.0}})
        self.rig = OnUR(self.robot, host)
        self.driver, self.clock = self.rig.place(self.robot)
        self.orders, self.held_at, self.seq = [], 0, 0
        self.policy, self.human = Box(), Box()
        self.events, self.rows = [], []
        boxes = {State.RUNNING: self.policy, State.HUMAN: self.human}
        publish = lambda row: self.rows.append(row[0].copy())  # noqa: E731
        self.servo = Servo(self.robot, self.driver, self.clock, self, boxes, POLICY, self.events.append, publish)
        self.servo.connect()
        self.t = self.clock.now()

    def walk(self, scale, rows=6):
        """Send a plan of random steps."""
        steps = RNG.normal(0, scale, (rows, 6))
        self.send(np.concatenate([self.q + np.cumsum(steps, 0), np.full((rows, 1), 0.5)], 1))

    def told(self):
        """Return how many goals the controller has heard, and how many of them were outside the limits."""
        state = json.loads(self.rig.tell("state"))
        return state["goals"], state["outside"]


RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    path = tmp_path_factory.mktemp("ur") / "ur5e.xml"
    path.write_text(models.read("ur5e"))
    made = URBench(path, f"127.0.{os.getpid() % 200 + 1}.5")
    yield made.ready()
    made.driver.close()
    made.rig.close()


def test_states_that_are_left_out_are_told_of_and_too_many_stop_the_arm(tmp_path):
    """T6 where the wire is TCP, which loses nothing: the controller says nothing of its state in some cycles."""
    path = tmp_path / "ur5e.xml"
    path.write_text(models.read("ur5e"))
    # one cycle of the controller a period, so that each state that is left out is one that the loop does not see
    bench = URBench(path, f"127.0.{os.getpid() % 200 + 1}.6", period=0.002, lost=0.1, stale=0.006).ready()

    def on(seconds, loss):
        """Return the rows of so many seconds of motion while states are lost."""
        assert bench.rig.tell(f"drop={loss}") == "ok"
        before = len(bench.rows)
        for _ in range(round(seconds / 0.08)):
            bench.walk(0.05)
            bench.run(0.08)
        return bench.rows[before:]

    bench.rig.tell("seed=3")
    for loss in (0.01, 0.05):
        rows = on(1.6, loss)
        assert bench.state is State.RUNNING
        missed = [not row["fresh"] for row in rows]
        assert 0 < sum(missed) < 2 * loss * len(rows) + 3, "every one is in the log"
    rows = on(3.2, 0.2)
    assert Code.STATE_STALE in bench.codes(), "three one after the other: it brakes and holds"
    assert bench.state is not State.FAULT, "a tenth of a second is not reached"
    every = np.array([(row["t_device"], row["fresh"], *row["q"]) for row in bench.rows])
    new = every[1:, 1] != 0
    assert (np.diff(every[:, 0])[new] > 0).all()
    assert (np.diff(every[:, 0])[~new] == 0).all(), "what is not fresh is not taken for a new state"
    assert (every[1:, 2:][~new] == every[:-1, 2:][~new]).all()
    on(3.2, 0.95)
    assert bench.state is State.FAULT
    ages = np.array([row["t"] - last["t_received"] for last, row in pairwise(bench.rows) if row["written"]])
    assert ages.max() < 0.1e9, "nothing is written by one that is older"
    heard, outside = bench.told()
    assert outside == 0
    on(0.16, 0)
    assert bench.state is State.FAULT
    assert bench.told() == (heard, 0)
    bench.driver.close()
    bench.rig.close()


def test_whatever_the_policy_says_the_wire_stays_within_the_robots_limits(bench):
    for scale in (0.02, 1.0, 0.2, 5.0):
        bench.walk(scale)
        bench.run(0.12)
        assert bench.state is State.RUNNING
    goals, outside = bench.told()
    assert goals > 6 * 50
    assert outside == 0
    commands = np.array([row["command"] for row in bench.rows if row["written"]])
    assert np.ptp(commands, axis=0).max() > 0.05


@pytest.mark.skipif("WALL_CLOCK" not in os.environ, reason="needs a C compiler, to step the clock of one process")
def test_the_wall_clock_is_of_no_account(bench):
    """T19: an hour on and back, under a client that is compiled and has threads of its own."""
    step = ctypes.CDLL(os.environ["WALL_CLOCK"]).step_wall_clock
    bench.run(0.1)
    before, events, real = bench.told()[0], len(bench.events), time.time()
    for hour in (3600, -3600, 3600, 0):
        step(hour)
        assert abs(time.time() - real - hour) < 600
        bench.walk(0.1)
        bench.run(0.08)
        assert bench.state is State.RUNNING
    assert {event.code for event in bench.events[events:]} <= {Code.STATE_CHANGED, Code.CHUNK_CLIPPED}
    goals, outside = bench.told()
    assert goals >= before + 6 * 40
    assert outside == 0


def test_a_stop_is_no_step_on_the_wire_and_motion_begins_anew_from_there(bench):
    bench.walk(0.2)
    bench.run(0.1)
    before = bench.told()[0]
    bench.say(Command.STOP)
    bench.run(0.5)
    assert bench.state is State.ARMED, "\n".join(map(str, bench.events[-8:]))
    bench.say(Command.RUN)
    bench.run(0.016)
    bench.walk(0.2)
    bench.run(0.08)
    assert bench.state is State.RUNNING
    goals, outside = bench.told()
    assert goals > before + 6 * 60
    assert outside == 0


@pytest.mark.parametrize(
    ("knob", "status"), [("protective_stop", Status.PROTECTIVE_STOP), ("overheated", Status.DEVICE_FAULT)]
)
def test_a_fault_is_the_last_thing_on_the_wire_until_it_is_reset(bench, knob, status):
    # away from its limits: one that a stop carries beyond them may still come back while it is armed
    bench.send(np.concatenate([np.zeros((6, 6)), np.full((6, 1), 0.5)], 1))
    bench.run(2.0)
    bench.walk(0.2)
    bench.run(0.08)
    assert bench.state is State.RUNNING
    assert bench.rig.tell(f"{knob}=1") == "ok"
    bench.run(0.016)
    assert bench.state is State.FAULT
    assert status in Status(int(bench.rows[-1]["status"]))
    heard = bench.told()[0]
    bench.walk(0.2)
    bench.say(Command.RESET, 1)
    bench.run(0.08)
    assert bench.state is State.FAULT
    assert bench.told()[0] == heard
    assert bench.rig.tell(f"{knob}=0") == "ok"
    bench.run(0.04)
    bench.say(Command.RESET, 1)
    bench.run(0.016)
    bench.say(Command.ARM)
    bench.run(0.04)
    assert bench.state is State.ARMED
    bench.say(Command.RUN)
    bench.run(0.016)
    bench.walk(0.2)
    bench.run(0.05)
    assert bench.state is State.RUNNING
    assert bench.told()[1] == 0
    assert Code.WRITE_REFUSED not in bench.codes()
