"""A person takes over by a device of theirs: bumplessly, within the limits, and the switch is what stops the arm."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from led import Led, Pad, Scripted, operator_of
from lockstep import Bench, robot
from test_servo import RAMP, feed

from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.emulators import models
from robopol.real_robot.events import Code
from robopol.real_robot.operator import Saying
from robopol.real_robot.operator_loop import PERIOD
from robopol.real_robot.operators.gamepad import AXIS, BUTTON
from robopol.real_robot.states import Command, State

TAKE, GIVE = (Command.HUMAN, 0), (Command.RUN, 0)
FAR = [0.8, 0.3, 0.3, 0.3, 0.3]


def led(config=None, start=None):
    bench = Bench(config, start)
    person = Led(bench, Scripted())
    person.run(0.05)
    person.operator.said = Saying(True, None, ((Command.ARM, 0),))
    return person.until(State.ARMED)


def order(person, *orders):
    person.operator.said = person.operator.said._replace(orders=orders)
    return person


def test_taking_over_and_giving_back_in_the_middle_of_a_chunk_is_bumpless():
    """Without a motion of the hand the arm brakes as it would anyway, and the policy's chunks in flight die."""
    person = order(led(), GIVE)
    bench = person.bench
    each = feed(bench, FAR)
    person.run(0.4, each)
    fast, q, dq = np.abs(bench.dq).max(), bench.q.copy(), bench.dq.copy()
    assert bench.state is State.RUNNING
    assert fast > 0.5
    epoch, stale = bench.epoch, bench.chunk(bench.q + RAMP)
    order(person, TAKE).run(0.05)
    assert bench.state is State.HUMAN
    assert bench.epoch == epoch + 1
    person.run(1.0, lambda: setattr(bench.policy, "message", stale.pack()))
    assert bench.state is State.HUMAN
    assert np.abs(bench.dq).max() < 1e-3
    rest = q + dq * fast / (0.9 * 15.0) / 2
    np.testing.assert_allclose(bench.q, rest, atol=0.02)
    order(person, GIVE).run(0.05)
    bench.policy.message = bench.chunk(bench.q + RAMP, epoch=epoch + 1).pack()
    person.run(0.02)
    assert bench.codes()[-1] is Code.CHUNK_EPOCH
    person.run(0.3, each)
    assert bench.state is State.RUNNING
    assert bench.driver.check() > 100


def test_a_steady_hand_is_followed_steadily_and_no_further_than_it_went():
    person = order(led(), TAKE)
    bench, start = person.bench, person.bench.q.copy()
    person.until(State.HUMAN)
    person.operator.said = Saying(True, np.array([0.01, 0, 0, 0, -0.005, 0.02]))  # a look, 50 looks a second
    person.run(0.2)
    begin = len(bench.rows)
    person.run(0.4)
    speeds = np.array([row["command_speed"][[0, 4]] for row in bench.rows[begin:]])
    np.testing.assert_allclose(speeds, np.tile([0.5, -0.25], (len(speeds), 1)), atol=0.02)
    person.operator.said = Saying(True)
    person.run(0.5)
    way = bench.q - start
    assert 0.28 <= way[0] <= 0.31  # 0.6 s at 0.5 rad/s
    assert np.abs(bench.dq).max() < 1e-3
    assert np.max(np.abs(way[1:4])) < 1e-6
    overshoot = max(row["command"][0] for row in bench.rows) - bench.q[0]
    assert overshoot < 0.005
    assert bench.servo.life.motion.opening > 0.5
    bench.driver.check()


def test_what_the_arm_cannot_follow_is_never_caught_up_with():
    """Faster than its speed, beyond its limits: when the hand is still, the arm is still after its lag."""
    slow = robot(speed=0.1, period=0.02)  # 0.3 rad/s
    person = order(led(slow), TAKE).until(State.HUMAN)
    bench, start = person.bench, person.bench.q.copy()
    person.operator.said = Saying(True, np.array([0.06, 0, 0, 0, 0, 0]))  # 3 rad/s
    person.run(0.5)
    person.operator.said = Saying(True)
    person.run(0.2)
    assert 0.1 < bench.q[0] - start[0] <= 0.3 * 0.6
    assert np.abs(bench.dq).max() < 1e-3
    quick = order(led(robot(period=0.02), start=[1.7, 0, 0, 0, 0]), TAKE).until(State.HUMAN)
    quick.operator.said = Saying(True, np.array([0.02, 0, 0, 0, 0, 0]))
    quick.run(1.0)
    assert quick.bench.q[0] == pytest.approx(1.8, abs=1e-3)
    quick.operator.said = Saying(True, np.array([-0.02, 0, 0, 0, 0, 0]))
    quick.run(0.3)
    assert quick.bench.q[0] < 1.65  # at once on its way back, though the hand had gone on by 0.9 rad
    assert Code.CHUNK_JUMP not in quick.bench.codes() + bench.codes()
    quick.bench.driver.check()


@pytest.mark.parametrize("state", [State.RUNNING, State.HUMAN])
def test_a_switch_that_is_let_go_brakes_in_the_next_tick(state):
    """T11, whoever leads; the person's word is needed to go on."""
    person = order(led(robot(watch={"deadman": 0.1})), GIVE if state is State.RUNNING else TAKE)
    bench = person.bench
    each = feed(bench, FAR)
    person.operator.said = Saying(True, np.array([0.01, 0, 0, 0, 0, 0]), person.operator.said.orders)
    person.run(0.4, each)
    assert bench.state is state
    fast = np.abs(bench.dq).max()
    assert fast > 0.3
    person.operator.said = Saying(False, np.array([0.01, 0, 0, 0, 0, 0]))
    person.next = 0  # the device is looked at just now
    person.run(bench.robot.period, each)
    assert bench.state is State.HOLD
    assert np.abs(bench.dq).max() < fast - 0.1
    assert bench.codes().count(Code.DEADMAN_LOST) == 1
    person.operator.said = Saying(True, np.array([0.01, 0, 0, 0, 0, 0]))
    person.run(0.4, each)
    assert bench.state is State.HOLD
    assert np.abs(bench.dq).max() == 0
    order(person, TAKE).run(0.1, each)
    assert bench.state is State.HUMAN
    bench.driver.check()


def test_a_device_that_says_no_more_lets_the_switch_run_out_and_the_arm_come_to_rest():
    person = order(led(robot(watch={"deadman": 0.1})), TAKE)
    person.operator.said = Saying(True, np.array([0.01, 0, 0, 0, 0, 0]), (TAKE,))
    person.run(0.4)
    assert person.bench.state is State.HUMAN
    person.bench.run(0.15)  # without the device's loop
    assert person.bench.state is State.HOLD
    assert person.bench.codes().count(Code.DEADMAN_LOST) == 1
    person.bench.run(0.3)
    assert np.abs(person.bench.dq).max() == 0


def test_a_hand_that_pushes_out_of_the_workspace_is_stopped_there_and_followed_back(tmp_path):
    (tmp_path / "arm.xml").write_text(models.so101())
    wall = {"kind": "half_space", "sites": ["tool"], "normal": [0, 1, 0], "offset": -0.1}
    bench = Bench(robot(period=0.02, geometry={"model": str(tmp_path / "arm.xml"), "workspace": [wall]}))
    person = Led(bench, Scripted())
    person.run(0.06)
    person.operator.said = Saying(True, None, ((Command.ARM, 0),))
    person.until(State.ARMED)
    order(person, TAKE).until(State.HUMAN)
    person.operator.said = Saying(True, np.array([-0.01, 0, 0, 0, 0, 0]))
    person.run(2.0)
    there = bench.q[0]
    assert -0.5 < there < -0.1
    assert bench.servo.life.motion.filter.geometry.look(bench.q).margins[0] > 0
    assert 3 <= bench.codes().count(Code.LEFT_WORKSPACE) <= 8  # told five times a second, not fifty
    person.operator.said = Saying(True, np.array([0.01, 0, 0, 0, 0, 0]))
    person.run(0.5)
    assert bench.state is State.HUMAN
    assert bench.q[0] > there + 0.1
    bench.driver.check()


numbers = st.one_of(st.floats(-0.5, 0.5), st.sampled_from([np.nan, np.inf, -np.inf, 1e9, -40.0]))
sayings = st.builds(
    Saying,
    st.sampled_from([True, True, True, False]),
    st.one_of(st.none(), st.lists(numbers, min_size=6, max_size=6).map(np.array)),
    st.lists(st.tuples(st.sampled_from(list(Command)[:-1]), st.integers(0, 3)), max_size=1).map(tuple),
)


@given(st.lists(sayings, min_size=5, max_size=12), st.booleans())
@settings(max_examples=5)
def test_whatever_a_person_says_the_wire_stays_within_the_limits(words, deadman):
    person = led(robot(period=0.02, watch={"deadman": 0.1 if deadman else None}))
    bench = person.bench
    each = feed(bench, FAR)
    for k, said in enumerate(words):
        person.operator.said = said if k % 3 else said._replace(orders=(TAKE,))
        person.run(0.06, each)
    assert np.isfinite(bench.q).all()
    assert bench.driver.check()
    assert Code.WRITE_REFUSED not in bench.codes()


def test_a_place_that_is_no_number_is_refused_and_told_and_forgotten():
    person = order(led(), TAKE).until(State.HUMAN)
    person.operator.said = Saying(True, np.array([np.nan, 0, 0, 0, 0, 0]))
    person.run(0.02)
    person.operator.said = Saying(True, np.array([0.01, 0, 0, 0, 0, 0]))
    person.run(0.2)
    assert person.bench.codes().count(Code.CHUNK_NOT_FINITE) == 1
    assert person.bench.state is State.HUMAN
    assert person.bench.dq[0] > 0.3


# the devices that come with it


def followed(leader, clock, target, seconds):
    """Return where a target is led to that follows at once, and where the leader is then, look by look."""
    targets, poses = [target], []
    for _ in range(round(seconds * 50)):
        clock.t += PERIOD
        said = leader.listen(targets[-1])
        targets.append(targets[-1] + (0.0 if said.move is None else said.move))
        poses.append(leader._pose)
    return np.array(targets[1:]), np.array(poses)


def leader_of(**fields):
    bench = SimpleNamespace(robot=robot(), clock=VirtualClock(PERIOD))
    tree = {"kind": "leader", "driver": {"kind": "swaying", "amplitude": 0.5, "period": 4.0}} | fields
    made = operator_of(tree, bench)
    made.connect()
    return made, bench.clock


@pytest.mark.parametrize("realign", [0.0, 0.5])
def test_a_leader_comes_to_agree_with_the_arm_by_its_own_motion_only(realign):
    leader, clock = leader_of(realign=realign)
    start = np.array([0.6, -0.3, 0.2, 0.0, 0.4, 0.5])
    targets, poses = followed(leader, clock, start, 4.0)
    apart = np.abs(targets - poses)
    moved = np.abs(np.diff(targets, axis=0)) <= (1 + realign) * np.abs(np.diff(poses, axis=0)) + 1e-12
    assert moved.all()
    np.testing.assert_array_equal(targets[0], start)  # taking over moves nothing
    if realign:
        assert apart[-1].max() < 1e-9
        assert np.all(np.diff(apart, axis=0) < 1e-12)
    else:
        np.testing.assert_allclose(apart, np.tile(apart[0], (len(apart), 1)), atol=1e-12)


def test_a_leader_that_turns_the_other_way_is_mapped():
    fields = {"scale": {"shoulder_pan": -2.0, "gripper": 0.5}, "offset": {"elbow_flex": 0.3}, "realign": 0.9}
    leader, clock = leader_of(**fields)
    targets, _ = followed(leader, clock, np.zeros(6), 8.0)
    pose = np.append(leader._reading.q, leader._reading.gripper)
    np.testing.assert_allclose(targets[-1], pose * [-2, 1, 1, 1, 1, 0.5] + [0, 0, 0.3, 0, 0, 0], atol=1e-9)


def test_a_gamepad_leads_and_its_switch_is_known_at_once(tmp_path):
    bench, pad = Bench(robot(watch={"deadman": 0.1})), Pad(tmp_path)
    person = Led(bench, operator_of({"kind": "gamepad", "device": str(pad.path)}, bench))
    pad.open()
    person.run(0.05)
    bench.say(Command.ARM)
    person.until(State.ARMED)
    pad.put(BUTTON, 5, 1)
    pad.put(BUTTON, 7, 1)
    pad.put(AXIS, 1, -32767)  # forwards
    pad.put(AXIS, 0, 3000)  # within what counts as at rest
    person.run(0.5)
    assert bench.state is State.HUMAN
    assert bench.dq[0] == pytest.approx(0.5, abs=0.02)
    assert np.abs(bench.dq[1:]).max() < 1e-6
    pad.put(BUTTON, 5, 0)
    person.next = 0
    person.run(bench.robot.period)
    assert bench.state is State.HOLD
    assert bench.dq[0] < 0.4
    bench.driver.check()
