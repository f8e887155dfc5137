"""The servo loop over the vendors' clients to emulated buses: what the witness at the wire sees of a wild policy."""

import gc
import os
import sys
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from arms_on_wires import Rig
from lockstep import DT, MS, POLICY, Bench, Box, robot

from robopol.real_robot.channels import Channels, event_of
from robopol.real_robot.driver import Status
from robopol.real_robot.emulators.bus import TICK
from robopol.real_robot.emulators.dynamixel import DynamixelBus
from robopol.real_robot.emulators.feetech import FeetechBus
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.events import Code
from robopol.real_robot.servo import READ_AT, Servo
from robopol.real_robot.servo_process import Desk
from robopol.real_robot.states import Command, State
from robopol.registry import lookup

BUSES = {"feetech": (FeetechBus, "scservo_sdk"), "dynamixel": (DynamixelBus, "dynamixel_sdk")}


class WiredBench(Bench):
    """A bench whose arm is at the other end of a wire."""

    def __init__(self, rig, **fields):
        self.robot, self.clock, self.driver = robot(**fields), rig.clock, rig.driver
        self.orders, self.held_at, self.seq = [], 0, 0
        self.policy, self.human, self.heirs = Box(), Box(), Box()
        self.events, self.rows = [], []
        boxes = {State.RUNNING: self.policy, State.HUMAN: self.human}
        publish = lambda row: self.rows.append(row[0].copy())  # noqa: E731
        told = (self.events.append, publish, self.heirs)
        self.servo = Servo(self.robot, self.driver, self.clock, self, boxes, POLICY, *told)
        self.servo.connect()
        self.t = self.clock.now() // (10 * MS) * (10 * MS)


@pytest.fixture(params=BUSES)
def rig(request, tmp_path):
    bus, package = BUSES[request.param]
    pytest.importorskip(package, reason=f"needs the vendor's client: pip install 'robopol[{request.param}]'")
    return Rig(bus, lookup("driver", request.param), tmp_path, robot=robot(), max_speed=6.0, max_accel=60.0)


@pytest.fixture
def feetech(tmp_path):
    bus, package = BUSES["feetech"]
    pytest.importorskip(package, reason="needs the vendor's client: pip install 'robopol[feetech]'")
    return Rig(bus, lookup("driver", "feetech"), tmp_path, robot=robot(), max_speed=6.0, max_accel=60.0)


def test_nothing_out_of_limits_is_on_the_wire_whatever_the_policy_says(rig):
    """T12 at the wire: jumps, late chunks, and some that are no numbers."""
    bench = WiredBench(rig).ready()
    rng = np.random.default_rng(0)
    for _ in range(15):
        steps = rng.normal(0, rng.choice([0.02, 0.2, 1.0]), (rng.integers(1, 9), 5))
        data = np.clip(bench.q + np.cumsum(steps, 0), -3, 3)
        if rng.random() < 0.2:
            data[0, 0] = np.nan
        bench.send(data, late=float(rng.uniform(0, 0.1)))
        bench.run(float(rng.uniform(0.05, 0.2)))
    assert len(rig.oracle.log) > 1000
    assert rig.oracle.violations == []
    assert np.ptp([goal.position for goal in rig.oracle.log if goal.servo == 0]) > 0.1


def test_a_stop_at_rest_is_no_step_on_the_wire(rig):
    """A load that weak servos hold some hundredths of a radian off their goals is not let down by a stop."""
    rig.arm.model.actuator_gainprm[:, 0] = rig.arm._gain[:, 0] = 12.0
    rig.arm.model.actuator_biasprm[:, 1] = rig.arm._bias[:, 1] = -12.0
    bench = WiredBench(rig).ready()
    bench.send(bench.q + np.linspace(0.05, 0.1, 2)[:, None] * [0, 1, 0, 0, 0])
    bench.run(0.5)
    assert bench.state is State.HOLD
    assert np.abs(bench.rows[-1]["q"] - bench.q).max() > 0.02
    before, logged = bench.q.copy(), len(rig.oracle.log)
    bench.say(Command.STOP)
    bench.run(0.5)
    assert bench.state is State.ARMED
    assert Code.DEVICE_FAILED not in bench.codes()
    after = np.array([goal.position for goal in rig.oracle.log[logged:]]).reshape(-1, 6)[:, :5]
    assert len(after) > 50
    np.testing.assert_allclose(after, np.tile(before, (len(after), 1)), atol=0.6 * TICK)
    assert rig.oracle.violations == []


def test_an_arm_on_its_stop_that_may_be_armed_does_not_fault_at_once(rig):
    """It is measured a few ticks beyond what it takes for a goal, and is held at the last one that it takes."""
    arm, end = rig.arm, rig.calibration.limits()[1][0]
    arm.model.jnt_range[0, 1] = end + 0.015  # the stop itself
    arm.data.qpos[0] = arm.goal[0] = arm._setpoint[0] = end + 0.015
    bench = WiredBench(rig)
    bench.run(0.05)
    assert bench.rows[-1]["q"][0] > end + 3 * TICK
    bench.say(Command.ARM)
    bench.run(0.3)
    assert bench.state is State.ARMED
    assert end - 2 * TICK < bench.q[0] <= end
    assert Code.WRITE_FAILED not in bench.codes()


def test_a_fault_is_the_last_thing_on_the_wire(rig):
    """T10 end to end: within two periods, latched, and nothing is written after."""
    bench = WiredBench(rig).ready()
    bench.send(bench.q + np.linspace(0.05, 0.4, 8)[:, None])
    bench.run(0.1)
    assert bench.state is State.RUNNING
    rig.faults.overheated = True
    bench.run(0.02)
    assert bench.state is State.FAULT
    assert Status.OVERHEATED in Status(int(bench.rows[-1]["status"]))
    logged = len(rig.oracle.log)
    bench.run(0.3)
    rig.faults.overheated = False
    bench.run(0.1)
    assert bench.state is State.FAULT
    assert len(rig.oracle.log) == logged


def test_a_silent_bus_is_a_fault_after_a_tenth_of_a_second(rig):
    """T9 end to end: nothing is written when it is back."""
    bench = WiredBench(rig).ready()
    bench.send(bench.q + np.linspace(0.05, 0.4, 8)[:, None])
    bench.run(0.1)
    rig.faults.stall = 500.0
    bench.run(0.13)
    assert bench.state is State.FAULT
    bench.run(0.5)
    logged = len(rig.oracle.log)
    bench.run(0.2)
    assert bench.state is State.FAULT
    assert len(rig.oracle.log) == logged


def still(rig, after):
    """Return when, after a time, the goal of a servo last was another than before, ns."""
    changed = [after]
    for servo in range(6):
        goals = [goal for goal in rig.oracle.log if goal.servo == servo]
        changed += [goal.t for last, goal in pairwise(goals) if goal.position != last.position and goal.t > after]
    return max(changed)


def fast(bench):
    """Let it move; return its greatest speed, and how long it takes to brake from there, ns."""
    for _ in range(4):
        bench.send(bench.q + np.linspace(0.1, 0.8, 8)[:, None] * [1, 0.5, -0.5, 1, -1])
        bench.run(0.1)
    speed = float(np.abs(bench.dq).max())
    assert speed > 1.2
    return round(speed / (0.9 * 15.0) * 1e9)


def test_without_a_policy_the_wire_is_still_soon_after_the_last_plan(feetech):
    """T3: a policy that is gone, at full speed; then an old chunk, and a fresh one."""
    bench = WiredBench(feetech).ready()
    braking, end = fast(bench), bench.servo.life.motion.plan.end
    old = bench.chunk(bench.q)
    bench.run(1.0)
    assert bench.state is State.HOLD
    # a goal is written some ms after its tick, and rounded to a count of the servo
    assert still(feetech, bench.t - 1_400 * MS) <= end + braking + 3 * bench.robot.period_ns
    logged = [goal.position for goal in feetech.oracle.log[-6:]]
    bench.policy.message = old.pack()
    bench.run(0.05)
    assert [goal.position for goal in feetech.oracle.log[-6:]] == logged
    bench.send(bench.q - 0.05)
    bench.run(0.1)
    assert [goal.position for goal in feetech.oracle.log[-6:]] != logged
    assert feetech.oracle.violations == []


def test_without_a_supervisor_the_wire_is_still_after_the_way_of_braking(feetech):
    """T5: what its process hears once the pipe is cut, and what becomes of it; nothing is sent after the arm rests."""
    bench, gone = WiredBench(feetech).ready(), []
    lifeline = SimpleNamespace(held=lambda: not gone)
    channels = Channels.new(bench.robot)
    events = Channels.open(bench.robot, channels.handles()).events
    bench.servo._operator = Desk(channels, lifeline, bench.clock)
    braking, t = fast(bench), bench.clock.now()
    gone.append(True)
    each = lambda: bench.servo.done or bench.send(bench.q + 0.1)  # noqa: E731 - the policy goes on
    for _ in range(60):
        if not bench.servo.done:
            bench.run(0.01, each)
    assert bench.servo.done
    assert still(feetech, t) - t <= 100 * MS + braking
    assert bench.clock.now() - t <= 100 * MS + braking
    assert [event_of(row).code for row in events.take()] == [Code.SUPERVISOR_LOST]
    assert feetech.oracle.violations == []
    channels.close()


def test_a_supervisor_that_is_suspended_is_missed_and_the_wire_is_still(feetech):
    """T5 of one whose pipe stays open, and who gives no sign; the policy goes on swaying the arm."""
    bench = WiredBench(feetech).ready()
    channels, there = Channels.new(bench.robot), True
    heard = Channels.open(bench.robot, channels.handles())
    bench.servo._operator = Desk(heard, SimpleNamespace(held=lambda: True), bench.clock)

    def each():
        if there:
            channels.beat(bench.clock.now())
        times = (bench.clock.now() + DT * np.arange(1, 9)) * 1e-9
        bench.send(0.3 * np.sin(2 * np.pi * times)[:, None] * np.ones(5))

    bench.run(2.0, each)
    assert bench.state is State.RUNNING
    there, t = False, bench.clock.now()
    bench.run(1.0, each)
    assert 500 * MS < still(feetech, t) - t <= 750 * MS
    assert bench.state is State.HOLD
    assert bench.codes().count(Code.SUPERVISOR_SILENT) == 1
    there = True
    bench.run(0.1, each)
    assert bench.state is State.HOLD
    channels.order(Command.RUN)
    bench.run(0.2, each)
    assert bench.state is State.RUNNING
    assert feetech.oracle.violations == []
    channels.close()


def test_lost_answers_are_told_of_and_too_many_stop_the_arm(feetech):
    """T6 end to end: no goal jumps, whatever was heard; after five reads without an answer nothing is written."""
    bench = WiredBench(feetech).ready()
    feetech.faults.set("seed=3")

    def on(seconds, loss):
        feetech.faults.drop = loss
        for _ in range(round(seconds / 0.1)):
            bench.send(bench.q + np.linspace(0.01, 0.08, 8)[:, None])
            bench.run(0.1)

    before = len(feetech.oracle.log) - 6  # the last at rest
    on(0.8, 0.05)
    assert bench.state is State.RUNNING
    assert feetech.driver.retries > 5
    # what is asked again makes goals of a tick late by most of a period, so they are judged by their order
    witness = Oracle.of(bench.robot, TICK, (feetech.oracle.low[5], feetech.oracle.high[5]))
    goals = feetech.oracle.log[before:]
    assert len(goals) == 6 * 81
    for k, goal in enumerate(goals):
        witness.goal(k // 6 * bench.robot.period_ns, goal.servo, goal.position, (goal.position, goal.position))
    assert witness.violations == []
    on(0.5, 0.5)
    assert bench.state is State.FAULT
    assert bench.codes().count(Code.READ_FAILED) >= 5
    logged = len(feetech.oracle.log)
    on(0.2, 0.0)
    assert bench.state is State.FAULT
    assert len(feetech.oracle.log) == logged


def test_a_step_of_the_arm_is_answered_at_the_wire_after_one_period(rig, monkeypatch):
    """T2: from a push of the arm to the first goal that is made of it, by a policy that infers nothing."""
    joints = [joint | {"acceleration": 40.0} for joint in robot().tree()["joints"]]  # a first step of several counts
    bench = WiredBench(rig, joints=joints).ready()
    sleep, due, took = bench.clock.sleep_until, [], []

    def sleep_and_push(t):
        if due and due[0] <= t:
            sleep(due[0])
            rig.bus.advance(due.pop())
            rig.arm.push(0.3)
        sleep(t)

    monkeypatch.setattr(bench.clock, "sleep_until", sleep_and_push)
    for k in range(10):  # at every millisecond of the period
        bench.run(0.4)
        rest = float(bench.rows[-1]["q"][0])
        pushed = bench.t + bench.robot.period_ns + k * MS
        due.append(pushed)

        def answer(rest=rest):
            if abs(float(bench.rows[-1]["q"][0]) - rest) > 0.1 and bench.policy.message is None:
                bench.send(bench.q + np.linspace(0.04, 0.12, 3)[:, None])

        bench.run(0.06, answer)
        assert not due
        took.append((rig.oracle.moved(pushed) - pushed) / MS)
    period = bench.robot.period * 1e3
    assert np.median(took) <= period + 1
    assert np.max(took) <= 2 * period + 2
    assert np.min(took) > (1 - READ_AT) * period, "it was read before it was answered"
    assert rig.oracle.violations == []


def test_a_goal_leaves_when_its_tick_is_due_whatever_reading_takes(rig, monkeypatch):
    bench = WiredBench(rig).ready()
    bench.send(bench.q + np.linspace(0.02, 0.1, 8)[:, None])
    bench.run(0.02)
    left, write, read = [], rig.driver.write, rig.driver.read
    monkeypatch.setattr(rig.driver, "write", lambda *goal: (left.append(bench.clock.now() - bench.t), write(*goal)))

    def slow(out):
        fresh = read(out)
        bench.clock.sleep_until(bench.t + 9 * MS)
        return fresh

    monkeypatch.setattr(rig.driver, "read", slow)
    bench.run(0.1)
    assert left == [0] * 10


def test_a_chunk_that_is_made_while_the_arm_is_read_is_taken(rig, monkeypatch):
    """A read of a bus takes a good part of the period, and whatever comes then is not of the future."""
    bench = WiredBench(rig).ready()
    read = rig.driver.read

    def slow(out):
        fresh = read(out)
        if bench.policy.message is None and bench.state is State.ARMED:
            bench.send(bench.q + np.linspace(0.02, 0.1, 8)[:, None])
        return fresh

    monkeypatch.setattr(rig.driver, "read", slow)
    bench.run(0.02)
    assert bench.state is State.RUNNING
    assert {event.code.name for event in bench.events} == {"STATE_CHANGED", "COMMANDED"}


def test_the_wall_clock_is_of_no_account_to_the_loop(rig, monkeypatch):
    """T19: stepped by an hour forwards and back at every look at it, while the arm moves."""
    hour = [0.0]

    def jumpy():
        hour[0] = 3600.0 - hour[0]
        return 1e9 + hour[0]

    bench = WiredBench(rig).ready()
    monkeypatch.setattr(time, "time", jumpy)
    bench.send(bench.q + np.linspace(0.02, 0.3, 12)[:, None])
    bench.run(0.4)
    logs = [goal.position for goal in rig.oracle.log if goal.servo == 0]
    assert max(logs) - min(logs) > 0.1
    assert {event.code.name for event in bench.events} == {"STATE_CHANGED", "COMMANDED"}
    assert rig.driver.retries == 0
    assert rig.oracle.violations == []


def test_a_loop_that_goes_on_takes_no_more_of_anything(rig):
    """T20 in small: descriptors, threads, memory of Python's; the schedule stays where it was."""
    bench = WiredBench(rig).ready()

    def for_a_while():
        for _ in range(3):
            bench.send(bench.q + np.linspace(0.005, 0.02, 8)[:, None] * rng.choice([-1, 1]))
            bench.run(0.1)
        for kept in (bench.rows, bench.events, rig.oracle.log):
            kept.clear()
        gc.collect()

    rng = np.random.default_rng(0)
    for_a_while()
    before, held = sys.getallocatedblocks(), (len(os.listdir("/proc/self/fd")), threading.active_count())
    for_a_while()
    assert sys.getallocatedblocks() - before < 200
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == held
    assert bench.t % bench.robot.period_ns == 0
