"""The servo loop in lock-step with a simulated arm: nominal motion, refusals, faults, hand-overs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lockstep import DT, MS, POLICY, Bench, robot

from robopol.errors import RobotError
from robopol.real_robot.channels import Channels
from robopol.real_robot.chunk import Refusal
from robopol.real_robot.driver import Status, StopLevel
from robopol.real_robot.emulators import models
from robopol.real_robot.events import Code
from robopol.real_robot.states import MOVING, Command, State, describe
from robopol.real_robot.ticks import Source

RAMP = np.linspace(0.02, 0.4, 16)[:, None] * [1, 0.5, -0.5, 1, -1]


def feed(bench, goal, every=10, rows=8):
    """Return what sends a chunk towards ``goal`` every so many ticks, at most 0.05 rad a step."""
    ticks = iter(range(10**9))

    def each():
        if next(ticks) % every == 0:
            way = np.array(goal) - bench.q
            steps = np.arange(1, rows + 1)[:, None] * np.clip(way, -0.05, 0.05)
            bench.send(bench.q + np.where(np.abs(steps) < np.abs(way), steps, way))

    return each


def test_it_arms_where_it_stands_and_holds():
    bench = Bench()
    bench.run(0.1)
    assert bench.state is State.CONNECTED
    assert not bench.driver.goals
    before = bench.driver.device.q
    bench.say(Command.ARM)
    bench.run(0.5)
    assert bench.state is State.ARMED
    goals = np.array([goal[1] for goal in bench.driver.goals])
    np.testing.assert_array_equal(goals, np.tile(goals[0], (len(goals), 1)))
    np.testing.assert_allclose(goals[0], before[:5], atol=0.02)


def test_the_first_row_of_an_armed_arm_says_where_it_stands():
    """Who looks at rows begins there, whatever was commanded before a fault."""
    bench = Bench().ready()
    bench.send(bench.q + RAMP)
    bench.run(0.3)
    assert np.abs(bench.dq).max() > 0.5
    bench.driver.fault = Status.OVERLOAD
    bench.run(0.02)
    assert bench.state is State.FAULT
    bench.driver.fault = Status(0)
    bench.run(0.1)
    bench.say(Command.RESET, 1)
    bench.run(0.02)
    bench.say(Command.ARM)
    count = len(bench.rows)
    bench.run(0.1)
    armed = next(row for row in bench.rows[count:] if row["state"] == State.ARMED)
    np.testing.assert_array_equal(armed["command"], armed["q"])
    np.testing.assert_array_equal(armed["command_speed"], 0)
    assert armed["opening"] == pytest.approx(armed["gripper"], abs=1e-9)
    assert not armed["written"]


def test_a_plan_is_followed_and_ends_at_rest_by_itself():
    bench = Bench().ready()
    bench.send(bench.q + RAMP)
    start = bench.q
    bench.run(0.02)
    assert bench.state is State.RUNNING
    bench.run(1.2)
    assert bench.state is State.HOLD
    # 2 rad/s at the end of the ramp take a little way to brake
    np.testing.assert_allclose(bench.q - start, RAMP[-1], atol=0.02)
    assert np.abs(bench.dq).max() < 1e-6
    np.testing.assert_allclose(bench.driver.device.q[:5], bench.q, atol=0.03)
    assert bench.driver.check() > 100
    assert bench.codes().count(Code.STARVED) == 1


def test_a_command_holds_at_the_time_that_the_plan_says():
    """With a latency of 30 ms the command for a time is written 40 ms before it."""
    bench = Bench(robot(latency=0.03)).ready()
    t, start = bench.clock.now(), bench.q
    bench.send(bench.q + RAMP, t_first=t + DT)
    bench.run(0.6)
    for k in range(3, 9):
        row = next(row for row in bench.rows if row["t_hold"] >= t + (k + 1) * DT)
        assert row["t_hold"] - row["t"] == 40 * MS
        np.testing.assert_allclose(row["command"] - start, RAMP[k], atol=0.02)


def test_the_gripper_follows_its_column_within_its_speed():
    bench = Bench(robot(gripper={"speed": 1.0})).ready()
    bench.send(np.append(bench.q, 1.0)[None].repeat(20, 0))
    bench.run(1.2)
    openings = np.array([goal[2] for goal in bench.driver.goals])
    assert np.abs(np.diff(openings)).max() <= 1.0 * 0.01 + 1e-9
    assert openings[-1] == pytest.approx(1.0, abs=1e-4)


def test_new_chunks_replace_the_plan_without_a_jump():
    bench = Bench().ready()
    rng = np.random.default_rng(0)
    bench.run(0.05)
    for _ in range(20):
        goal = bench.q + rng.uniform(-0.2, 0.2, 5)
        bench.send(np.linspace(bench.q, goal, 9)[1:], late=0.03)
        bench.run(0.1)
        assert bench.state is State.RUNNING
    assert bench.driver.check() > 200


def with_number(value):
    def data(bench):
        data = bench.q + RAMP
        data[9, 3] = value
        return data

    return data


def ramp(bench):
    return bench.q + RAMP


# name -> what is sent, the other fields of the chunk given the time now, what is said of it
BAD = {
    "nan": (with_number(np.nan), lambda now: {}, Code.CHUNK_NOT_FINITE),
    "inf": (with_number(np.inf), lambda now: {}, Code.CHUNK_NOT_FINITE),
    "1e6": (with_number(1e6), lambda now: {}, Code.CHUNK_RANGE),
    "-1e6": (with_number(-1e6), lambda now: {}, Code.CHUNK_RANGE),
    "no rows": (lambda bench: np.zeros((0, 6)), lambda now: {}, Code.CHUNK_SHAPE),
    "too few columns": (lambda bench: bench.q[None, :4], lambda now: {}, Code.CHUNK_SHAPE),
    "too many columns": (lambda bench: np.zeros((9, 7)), lambda now: {}, Code.CHUNK_SHAPE),
    "old number": (ramp, lambda now: {"seq": 1}, Code.CHUNK_ORDER),
    "another epoch": (ramp, lambda now: {"epoch": 0}, Code.CHUNK_EPOCH),
    "another policy": (ramp, lambda now: {"policy": bytes(16)}, Code.CHUNK_POLICY),
    "old": (ramp, lambda now: {"t_observed": now - 510 * MS}, Code.CHUNK_OLD),
    "slow": (ramp, lambda now: {"t_observed": now - 410 * MS}, Code.CHUNK_SLOW),
    "time runs back": (ramp, lambda now: {"step": -DT}, Code.CHUNK_TIME),
    "first action before the observation": (ramp, lambda now: {"t_first": now - 1}, Code.CHUNK_TIME),
    "made before the observation": (ramp, lambda now: {"t_created": now - 1}, Code.CHUNK_TIME),
    "made in the future": (ramp, lambda now: {"t_created": now + 20 * MS}, Code.CHUNK_TIME),
    "late": (
        ramp,
        lambda now: {"t_observed": now - 400 * MS, "t_first": now - 400 * MS, "step": 5 * MS},
        Code.CHUNK_LATE,
    ),
    "far from here": (lambda bench: bench.q + RAMP + 0.6, lambda now: {}, Code.CHUNK_JUMP),
}


@pytest.mark.parametrize("name", BAD)
def test_nothing_of_a_bad_chunk_reaches_the_wire(name):
    """One event, and the plan that was there goes on to the bit (T8)."""
    data, fields, code = BAD[name]
    wires = []
    for send in (False, True):
        bench = Bench(robot(gate={"max_latency": 0.405})).ready()
        bench.send(bench.q + RAMP)
        bench.run(0.2)
        if send:
            bench.send(data(bench), **fields(bench.clock.now()))
        count = len(bench.events)
        bench.run(0.2)
        assert [event.code for event in bench.events[count:]] == ([code] if send else [])
        wires.append(np.array([goal[1] for goal in bench.driver.goals]))
    np.testing.assert_array_equal(*wires)


def test_a_chunk_that_is_made_since_the_tick_began_is_taken(monkeypatch):
    bench = Bench().ready()

    def slowly():
        bench.clock.sleep_until(bench.clock.now() + 3 * MS)
        if bench.seq == 0:
            bench.send(bench.q + RAMP)
        return []

    monkeypatch.setattr(bench, "commands", slowly)
    bench.run(0.01)
    assert bench.state is State.RUNNING
    assert Code.CHUNK_TIME not in bench.codes()


@given(st.binary(max_size=400))
@settings(max_examples=10)
def test_rubbish_in_the_mailbox_is_an_event_and_nothing_else(junk):
    bench = Bench().ready()
    bench.policy.message = junk
    bench.run(0.03)
    assert bench.codes()[-1] is Code.CHUNK_SHAPE
    assert bench.state is State.ARMED


def test_plans_that_were_refused_where_they_were_made_count_and_those_of_others_do_not():
    bench = Bench().ready()
    bench.send(bench.q + RAMP)
    for policy, epoch in [(POLICY, bench.epoch - 1)] * 3 + [(POLICY, bench.epoch)] * 3:
        bench.run(0.03)
        assert bench.state is State.RUNNING
        bench.policy.message = Refusal(policy, epoch).pack()
    bench.run(0.03)
    assert bench.state is State.HOLD
    assert bench.codes()[-2:] == [Code.REJECTED_TOO_OFTEN, Code.STATE_CHANGED]  # the rest was told by who refused
    bench.policy.message = Refusal(bytes(16), bench.epoch).pack()
    bench.run(0.03)
    assert bench.codes()[-1] is Code.CHUNK_SHAPE  # of a stranger it is rubbish


def test_three_refusals_end_motion_and_a_good_chunk_resumes_it():
    bench = Bench().ready()
    bench.send(bench.q + RAMP)
    bench.run(0.1)
    for _ in range(3):
        bench.send(bench.q + 1.2)
        bench.run(0.03)
    assert bench.state is State.HOLD
    assert bench.codes()[-5:] == [
        Code.CHUNK_JUMP,
        Code.CHUNK_JUMP,
        Code.CHUNK_JUMP,
        Code.REJECTED_TOO_OFTEN,
        Code.STATE_CHANGED,
    ]
    bench.run(0.3)
    bench.send(bench.q + RAMP)
    bench.run(0.1)
    assert bench.state is State.RUNNING
    bench.driver.check()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=3)
def test_whatever_is_sent_the_wire_stays_within_the_limits(seed):
    """Jumps, wrong times, late and early chunks, all rules of merging, operators in between (T12 at the wire)."""
    rng = np.random.default_rng(seed)
    merging = ["replace", "blend", {"kind": "ensemble", "m": 0.1}, "continue"][seed % 4]
    gate = {"jump": 10.0, "strict": False, "margin": 3.0}  # let nearly everything through to the filter
    bench = Bench(robot(gate=gate), merging=merging).ready()
    words = [Command.RUN, Command.HOLD, Command.STOP, Command.HUMAN]
    for _ in range(30):
        rows = int(rng.integers(1, 12))
        scale = rng.choice([0.05, 1.0, 20.0])
        data = bench.q + rng.normal(size=(rows, 5)) * scale
        fields = {"late": rng.uniform(0, 0.4), "step": int(rng.integers(1, 100) * MS)}
        send = bench.send if rng.random() < 0.8 else bench.send_human
        send(data, committed=int(rng.integers(4)), executed=int(rng.integers(1, 5)), **fields)
        if rng.random() < 0.15:
            bench.say(rng.choice(words))
            bench.say(Command.RUN)
        bench.run(rng.choice([0.01, 0.05, 0.1]))
    assert bench.driver.check() > 100
    assert Code.WRITE_REFUSED not in bench.codes()


@pytest.mark.parametrize("merging", ["replace", "blend"])
def test_a_late_chunk_keeps_the_old_plan(merging):
    bench = Bench(robot(), merging=merging).ready()
    bench.send(bench.q + RAMP)
    bench.run(0.2)
    bench.send(bench.q + RAMP[:3], late=0.3)
    bench.run(0.02)
    assert bench.codes()[-1] is Code.CHUNK_LATE
    assert bench.state is State.RUNNING
    assert np.abs(bench.dq).max() > 0.1


# T3


def test_without_a_policy_it_comes_to_rest_and_resumes_with_a_fresh_chunk_only():
    bench = Bench().ready()
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    bench.run(0.5, each)
    speed, end = np.abs(bench.dq).max(), bench.servo.life.motion.plan.end
    old = bench.chunk(bench.q + RAMP)
    assert speed > 0.5
    bench.run(1.5)
    assert bench.state is State.HOLD
    still = next(
        row["t"] for row in bench.rows if row["t"] > end - 500 * MS and np.abs(row["command_speed"]).max() < 1e-6
    )
    assert still <= end + speed / (0.9 * 15.0) * 1e9 + 2 * bench.robot.period_ns
    assert Code.POLICY_SILENT in bench.codes()
    bench.policy.message = old.pack()
    bench.run(0.05)
    assert bench.codes()[-1] is Code.CHUNK_OLD
    assert bench.state is State.HOLD
    bench.send(bench.q + RAMP)
    bench.run(0.05)
    assert bench.state is State.RUNNING
    bench.driver.check()


# T9


def test_a_short_stall_holds_and_a_long_one_is_a_fault_that_stays():
    bench = Bench().ready()
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    bench.run(0.3, each)
    bench.driver.frozen, t = True, bench.clock.now()
    bench.run(0.04, each)
    stale = next(event for event in bench.events if event.code is Code.STATE_STALE)
    assert stale.t - t == 30 * MS  # three periods
    assert bench.state is State.HOLD  # though chunks go on coming
    bench.driver.frozen = False
    bench.run(0.2, each)
    assert bench.state is State.RUNNING
    bench.driver.frozen, t = True, bench.clock.now()
    bench.run(0.12, each)
    fault = next(event for event in bench.events if event.numbers[1:2] == (State.FAULT,))
    assert fault.t - t == 100 * MS
    assert bench.driver.calls[-1] is StopLevel.STOP
    written = len(bench.driver.goals)
    bench.driver.frozen = False
    bench.run(1.0, each)
    assert bench.state is State.FAULT
    assert len(bench.driver.goals) == written
    bench.driver.check()


def test_five_failed_reads_are_a_fault_and_four_are_not():
    bench = Bench(robot(period=0.005)).ready()
    bench.driver.read_error = RobotError("no answer")
    bench.run(0.02)
    bench.driver.read_error = None
    bench.run(0.02)
    assert bench.state is State.ARMED
    bench.driver.read_error = RobotError("no answer")
    bench.run(0.03)
    assert bench.state is State.FAULT


def test_why_the_driver_could_not_is_said_once_after_every_word_of_a_person(monkeypatch):
    bench = Bench()
    monkeypatch.setattr(bench.driver, "arm", lambda: (_ for _ in ()).throw(RobotError("move it by hand")))
    for _ in range(2):
        bench.say(Command.ARM)
        bench.run(0.05)
        assert bench.codes()[-2:] == [Code.DEVICE_FAILED, Code.COMMAND_REFUSED]
    assert bench.words == ["move it by hand"] * 2
    monkeypatch.undo()
    bench.ready().words.clear()
    bench.driver.write_error = RobotError("bus off")
    bench.run(0.02)
    bench.driver.write_error, bench.driver.read_error = None, RobotError("no answer")
    bench.run(0.02)
    assert bench.words == ["bus off", "no answer"]  # of four failures
    channels = Channels.new(bench.robot)
    reader = Channels.open(bench.robot, channels.handles())
    channels.complain(bench.words[0])
    channels.complain("ä" * 1000)
    told = [row["words"].decode(errors="replace") for row in reader.complaints.take()]
    assert told == ["bus off", "ä" * 240]
    channels.close()


def test_a_position_that_is_not_a_number_is_a_failed_read(monkeypatch):
    bench = Bench().ready()
    read = bench.driver.read

    def broken(out):
        fresh = read(out)
        out.q[2] = np.nan
        return fresh

    monkeypatch.setattr(bench.driver, "read", broken)
    bench.run(0.1)
    assert bench.state is State.FAULT
    assert bench.codes().count(Code.READ_FAILED) == 6  # five, and the alarm
    assert np.isfinite(bench.q).all()


# T10

FAULTS = {
    "emergency stop": (Status.EMERGENCY_STOP, State.ESTOP, StopLevel.ABORT),
    "protective stop": (Status.PROTECTIVE_STOP, State.FAULT, StopLevel.STOP),
    "overload": (Status.OVERLOAD, State.FAULT, StopLevel.STOP),
    "over-temperature": (Status.OVERHEATED, State.FAULT, StopLevel.STOP),
    "device fault": (Status.DEVICE_FAULT, State.FAULT, StopLevel.STOP),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_device_ends_writing_within_two_periods_and_is_latched(name):
    status, state, level = FAULTS[name]
    bench = Bench().ready()
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    bench.run(0.3, each)
    bench.driver.fault, t = status, bench.clock.now()
    bench.run(0.03, each)
    assert bench.state is state
    assert bench.driver.calls[-1] is level
    goals = list(bench.driver.goals)
    assert goals[-1][0] <= t + 2 * bench.robot.period_ns
    for command in (Command.RUN, Command.ARM, Command.HOLD, Command.HUMAN):
        bench.say(command)
    bench.say(Command.RESET, 1)  # the fault is still there
    bench.run(0.1, each)
    assert bench.state is state
    bench.driver.fault = Status(0)
    bench.run(0.1, each)
    bench.say(Command.RESET, 0)  # without a reason
    bench.run(0.05, each)
    assert bench.state is state
    before = bench.chunk(bench.q + RAMP)
    bench.say(Command.RESET, 3)
    bench.run(0.05)
    assert bench.state is State.CONNECTED
    assert len(bench.driver.goals) == len(goals)
    bench.say(Command.ARM)
    bench.run(0.1)
    assert bench.state is State.ARMED
    np.testing.assert_allclose(
        bench.q, bench.driver.device.q[:5], atol=0.03
    )  # it holds where it is, not where it was to be
    bench.say(Command.RUN)
    bench.run(0.02)
    bench.policy.message = before.pack()
    bench.run(0.02)
    assert bench.codes()[-1] is Code.CHUNK_EPOCH
    bench.send(bench.q + RAMP)
    bench.run(0.05)
    assert bench.state is State.RUNNING
    bench.driver.check()


@pytest.mark.parametrize(("what", "numbers"), [("effort", (0.0, 2.0)), ("force", (1.0,))])
@pytest.mark.parametrize("early", [True, False])
def test_a_limit_on_what_is_not_measured_is_refused_when_the_arm_is_to_be_armed(monkeypatch, what, numbers, early):
    """It would never be exceeded: XL430 servos measure no current, and few arms a force."""
    joints = [joint | {"effort": 5.0} for joint in robot().tree()["joints"]]
    bench = Bench(robot(joints=joints) if what == "effort" else robot(watch={"force": 10.0}))
    read = bench.driver.read

    calls = iter(range(1000))

    def poor(out):
        if not early and next(calls) < 3:
            return False
        fresh = read(out)
        out.effort[2] = np.nan
        return fresh

    monkeypatch.setattr(bench.driver, "read", poor)
    bench.say(Command.ARM)
    bench.run(0.05)
    assert bench.state is State.CONNECTED
    (event,) = [event for event in bench.events if event.code is Code.UNMEASURED]
    assert event.numbers == numbers
    assert {0.0: "joints[2].effort", 1.0: "watch.force"}[numbers[0]] in describe(event)
    assert not bench.driver.goals


def test_an_effort_that_is_not_measured_any_more_stops_the_arm(monkeypatch):
    joints = [joint | {"effort": 50.0} for joint in robot().tree()["joints"]]
    bench = Bench(robot(joints=joints)).ready()
    read = bench.driver.read

    def broken(out):
        fresh = read(out)
        out.effort[2] = np.nan
        return fresh

    monkeypatch.setattr(bench.driver, "read", broken)
    bench.run(0.04)
    assert Code.OVERLOADED not in bench.codes()
    bench.run(0.02)
    assert Code.OVERLOADED in bench.codes()


def test_lost_power_is_a_fault():
    bench = Bench().ready()
    bench.driver._armed = False
    bench.run(0.03)
    assert bench.state is State.FAULT
    assert Code.POWER_LOST in bench.codes()


def test_an_arm_that_is_held_back_is_stopped():
    bench = Bench().ready()
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    bench.run(0.2, each)
    bench.driver.device.model.jnt_range[0] = [-0.1, bench.driver.device.q[0]]  # a wall
    bench.driver.device.model.actuator_forcerange[0] = [-0.1, 0.1]
    bench.run(2.0, each)
    lost = [event for event in bench.events if event.code is Code.TRACKING_LOST]
    assert lost
    assert lost[0].numbers[0] == 0
    assert bench.state is State.FAULT  # it is not drawn to where it cannot go
    assert StopLevel.STOP in bench.driver.calls
    written = len(bench.driver.goals)
    bench.run(0.1, each)
    assert len(bench.driver.goals) == written
    bench.say(Command.RESET, 1)
    bench.run(0.02)
    bench.say(Command.ARM)
    bench.run(0.1)
    assert bench.state is State.ARMED
    assert abs(bench.q[0] - bench.driver.device.q[0]) < 0.03
    bench.driver.check()


def test_after_a_stop_the_command_goes_on_from_where_it_was():
    bench = Bench().ready()
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    bench.run(0.4, each)
    bench.say(Command.STOP)
    bench.run(0.5, each)
    assert bench.state is State.ARMED
    goals = np.array([goal[1] for goal in bench.driver.goals])  # over the stop too
    assert np.abs(np.diff(goals, n=2, axis=0)).max() <= 15.0 * 0.01**2 * (1 + 1e-6)


# T11


@pytest.mark.parametrize("command", [Command.HOLD, Command.STOP, Command.QUIT])
def test_the_operator_is_obeyed_in_the_next_tick(command):
    bench = Bench().ready()
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    bench.run(0.4, each)
    fast = np.abs(bench.dq).max()
    bench.say(command)
    bench.run(0.01, each)
    assert np.abs(bench.dq).max() < fast - 0.1
    bench.run(1.0, each)
    assert bench.state is (State.HOLD if command is Command.HOLD else State.ARMED)
    assert bench.servo.done == (command is Command.QUIT)
    assert bench.driver.check()
    if command is Command.HOLD:
        bench.say(Command.RUN)
        bench.run(0.3, each)
        assert bench.state is State.RUNNING


def test_quitting_writes_nothing_after_the_device_was_stopped():
    bench = Bench().ready()
    bench.say(Command.QUIT)
    bench.run(0.01)
    assert bench.servo.done
    assert bench.driver.calls[-1] is StopLevel.REST
    assert bench.driver.goals[-1][0] < bench.clock.now()  # in this tick there was the stop alone


def test_abort_is_the_devices_protective_stop():
    bench = Bench().ready()
    bench.say(Command.ABORT)
    bench.run(0.02)
    assert bench.state is State.FAULT
    assert bench.driver.calls[-1] is StopLevel.ABORT


def test_a_released_deadman_holds_and_nobody_speaks_until_told():
    bench = Bench(robot(watch={"deadman": 0.1}))
    bench.held_at = bench.clock.now()

    def held():
        bench.held_at = bench.clock.now()

    bench.run(0.05)
    bench.say(Command.ARM)
    bench.run(0.1)
    bench.say(Command.RUN)  # not held: refused by the alarm in the same tick
    bench.send(bench.q + RAMP)
    bench.run(0.2)
    assert bench.state is State.ARMED
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    held()
    bench.say(Command.RUN)
    bench.run(0.4, lambda: (held(), each()))
    assert bench.state is State.RUNNING
    t = bench.clock.now()
    bench.run(0.13, each)
    lost = [event for event in bench.events if event.code is Code.DEADMAN_LOST][-1]
    assert lost.t - t <= 110 * MS
    assert bench.state is State.HOLD
    bench.run(0.3, lambda: (held(), each()))
    assert bench.state is State.HOLD
    bench.say(Command.RUN)
    bench.run(0.3, lambda: (held(), each()))
    assert bench.state is State.RUNNING
    bench.driver.check()


@pytest.mark.parametrize("wanted", [Command.RUN, Command.HUMAN])
def test_without_a_supervisor_who_hears_a_word_to_stop_the_arm_holds_until_told(wanted):
    """T5 of one that is suspended, or waits: it is there again, and what was said before counts for nothing."""
    bench = Bench().ready()
    bench.say(wanted)
    send = bench.send if wanted is Command.RUN else bench.send_human
    each = lambda: send(bench.q + RAMP)  # noqa: E731
    bench.run(0.2, each)
    assert bench.state in MOVING
    t = bench.attended_at = bench.clock.now()
    bench.run(0.5, each)
    assert bench.state in MOVING
    bench.run(0.02, each)
    assert bench.state is State.HOLD
    (silent,) = [event for event in bench.events if event.code is Code.SUPERVISOR_SILENT]
    assert 500 * MS < silent.t - t <= 510 * MS
    bench.say(wanted)  # by a device: refused by the alarm in the same tick
    bench.run(0.2, each)
    assert bench.state is State.HOLD
    bench.attended_at = None
    bench.run(0.2, each)
    assert bench.state is State.HOLD
    bench.say(wanted)
    bench.run(0.2, each)
    assert bench.state in MOVING
    bench.driver.check()


# Time


def test_late_ticks_are_skipped_and_too_many_of_them_hold():
    bench = Bench().ready()
    bench.send(bench.q + RAMP)
    bench.run(0.1)
    for _ in range(3):
        bench.t += 4 * bench.robot.period_ns
        bench.clock.sleep_until(bench.t)
        bench.servo.tick(bench.t, 3)
    assert bench.codes().count(Code.DEADLINE_MISSED) == 3
    assert bench.state is State.RUNNING
    bench.send(bench.q + RAMP)
    bench.t += 4 * bench.robot.period_ns
    bench.clock.sleep_until(bench.t)
    bench.servo.tick(bench.t, 3)
    assert Code.TOO_MANY_MISSED in bench.codes()
    assert bench.state is State.HOLD
    bench.driver.check()  # each of the goals is one period's step from the one before


def test_ticks_that_were_missed_while_it_was_armed_do_not_undo_the_word_to_run(monkeypatch):
    bench = Bench()
    bench.run(0.05)
    arm = bench.driver.arm

    def slowly():
        arm()
        bench.clock.sleep_until(bench.clock.now() + 300 * MS)

    monkeypatch.setattr(bench.driver, "arm", slowly)
    bench.say(Command.ARM)
    bench.run(0.01)
    assert bench.state is State.ARMED
    bench.say(Command.RUN)
    bench.t += 30 * bench.robot.period_ns
    bench.clock.sleep_until(bench.t)
    bench.servo.tick(bench.t, 29)
    assert Code.TOO_MANY_MISSED in bench.codes()
    bench.send(bench.q + RAMP)
    bench.run(0.02)
    assert bench.state is State.RUNNING


def test_after_a_gap_nothing_is_written_by_what_was_true_before():
    bench = Bench().ready()
    bench.send(bench.q + RAMP)
    bench.run(0.2)
    assert bench.state is State.RUNNING
    bench.driver.fault = Status.EMERGENCY_STOP
    goals = len(bench.driver.goals)
    bench.t += 9 * bench.robot.period_ns
    bench.clock.sleep_until(bench.t)
    bench.servo.tick(bench.t, 8)
    assert bench.state is State.ESTOP
    assert len(bench.driver.goals) == goals


def test_the_schedule_is_absolute():
    bench = Bench()
    late, t = [0, 3, 25, 47, 0, 1], []
    bench.servo._publish = lambda row: t.append(int(row["t"][0]))
    sleep = bench.clock.sleep_until

    def sleep_badly(when):
        begins = (when - start) % bench.robot.period_ns == 0  # the other sleeps are those before the arm is read
        sleep(when + (late.pop(0) * MS if late and begins else 0))
        if not late:
            bench.servo.life.quitting = True

    start = bench.clock.now()
    bench.clock.sleep_until = sleep_badly
    bench.servo.run()
    assert [(when - start) // MS for when in t] == [10, 20, 50, 100, 110, 120]


def test_five_failed_writes_are_a_fault():
    bench = Bench().ready()
    bench.driver.write_error = RobotError("bus off")
    bench.run(0.04)
    assert bench.state is State.ARMED
    bench.run(0.02)
    assert bench.state is State.FAULT


def test_an_arm_of_another_kind_is_refused():
    tree = robot().tree()
    tree["joints"] = tree["joints"][:4]
    with pytest.raises(RobotError, match="5 joints"):
        Bench(type(robot()).model_validate(tree, strict=False))


def test_limits_beyond_those_of_the_arm_or_its_model_are_refused_in_words(tmp_path):
    """Or else what is within robot.joints would be refused by the driver, five times, and then be a fault."""
    tree = robot().tree()
    wide = tree["joints"][1] | {"high": 1.8}
    with pytest.raises(RobotError, match=r"shoulder_lift may be commanded to -1.6 ... 1.8 rad, and the arm .* 1.7453"):
        Bench(robot(joints=[tree["joints"][0], wide, *tree["joints"][2:]]))
    narrow = models.so101().replace(
        'name="elbow_flex" axis="0 1 0" range="-1.69', 'name="elbow_flex" axis="0 1 0" range="-1'
    )
    (tmp_path / "narrow.xml").write_text(narrow)
    with pytest.raises(RobotError, match=r"elbow_flex .*robot.geometry.model takes -1 .*robot.joints\[2\]"):
        Bench(robot(geometry={"model": str(tmp_path / "narrow.xml")}))


# T15


def test_a_human_takes_over_twice_within_the_limits():
    bench = Bench().ready()
    each = feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    stale = None
    for _ in range(2):
        bench.run(0.4, each)
        assert bench.state is State.RUNNING
        stale = bench.chunk(bench.q + RAMP)  # in flight
        bench.say(Command.HUMAN)
        bench.run(0.01)
        bench.policy.message = stale.pack()
        for _ in range(20):
            bench.send_human(bench.q - 0.03, step=20 * MS, t_first=bench.clock.now() + 40 * MS)
            bench.run(0.02)
        assert bench.state is State.HUMAN
        epoch = bench.epoch
        bench.say(Command.RUN)
        bench.run(0.01)
        bench.policy.message = bench.chunk(bench.q + RAMP, epoch=epoch, seq=bench.seq).pack()
        bench.run(0.02)
        assert bench.codes()[-1] is Code.CHUNK_EPOCH
    bench.run(0.3, each)
    assert bench.state is State.RUNNING
    sources = [int(row["source"]) for row in bench.rows if row["written"]]
    runs = [a for a, b in zip(sources, [*sources[1:], None], strict=True) if a != b]
    assert [Source(a) for a in runs if a in (Source.POLICY, Source.HUMAN)] == [0, 1, 0, 1, 0]
    assert bench.driver.check() > 100
