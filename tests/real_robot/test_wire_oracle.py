"""The witness at the wire finds what it is there to find, and nothing else."""

import numpy as np
import pytest
from lockstep import robot

from robopol.errors import RobotError
from robopol.real_robot.emulators.bus import TICK
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.oracle import Oracle

T = 10_000_000


def oracle(speed=1.0, accel=10.0, tick=TICK):
    return Oracle(np.full(1, -1.0), np.full(1, 1.0), np.full(1, speed), np.full(1, accel), tick)


def feed(one, positions, period=T):
    for i, position in enumerate(positions):
        one.goal(i * period, 0, float(position), (positions[0], positions[0]))
    return one


def trapezoid(speed, accel, length, dt=0.01):
    """Positions of a motion from rest to rest that touches both limits."""
    v, positions = 0.0, [0.0]
    while positions[-1] < length:
        left = length - positions[-1]
        v = min(v + accel * dt, speed, np.sqrt(2 * accel * left + (accel * dt / 2) ** 2) - accel * dt / 2 + 1e-12)
        if left < 1e-6:
            break
        positions.append(positions[-1] + v * dt)
    return np.array(positions)


def test_a_motion_within_its_limits_is_let_pass_rounded_or_not():
    positions = trapezoid(1.0, 10.0, 0.8)
    assert len(positions) > 60
    assert feed(oracle(tick=0.0), positions).violations == []
    assert feed(oracle(), np.round(positions / TICK) * TICK).violations == []


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([0.0, np.nan], "not finite"),
        ([0.0, np.inf], "not finite"),
        ([0.999, 1.0012], "not in"),
        ([0.0, 0.0117], "speed"),
        ([0.0, 0.0, 0.0044], "acceleration"),
        ([0.0, 0.004, 0.008, 0.0075], "acceleration"),
    ],
)
def test_each_kind_of_violation_is_found(positions, words):
    found = feed(oracle(accel=1e9 if words == "speed" else 10.0), positions)
    assert found.count == 1
    assert words in found.violations[0]
    assert len(found.log) == len(positions)


def test_limits_are_exact_without_rounding():
    assert feed(oracle(tick=0.0, accel=1e9), [0.0, 0.01]).count == 0
    assert feed(oracle(tick=0.0, accel=1e9), [0.0, 0.010001]).count == 1


def test_with_a_period_goals_are_judged_by_their_schedule():
    for period, jitters in ((0.0, True), (0.01, False)):
        one = Oracle(np.full(1, -1.0), np.full(1, 1.0), np.full(1, 1.0), np.full(1, 10.0), 0.0, period)
        for t, position in ((0.0, 0.0), (0.01, 0.0), (0.021, 0.001), (0.0305, 0.003), (0.041, 0.006), (0.0495, 0.009)):
            one.goal(round(t * 1e9), 0, position, (0.0, 0.0))
        assert (one.count > 0) is jitters
    one.goal(
        69_000_000, 0, 0.0291, (0.0, 0.0)
    )  # two periods later, and more than two periods' way at the limit of speed
    assert "speed 1.005" in one.violations[0]


def test_after_a_rest_a_motion_begins_anew():
    """Not from anywhere: from rest, from where the arm stands or is held."""
    for stands, far in (((0.0, 0.0), 0.9), ((0.0, 0.05), 0.06), ((0.05, 0.0), -0.01)):
        one = feed(oracle(), [0.0])
        one.period = 0.01
        one.rest()
        one.goal(T, 0, max(stands), stands)
        assert one.count == 0
        one.rest()
        one.goal(2 * T, 0, far, stands)
        assert one.count > 0


def test_after_a_silence_no_more_is_allowed_than_one_period_of_acceleration():
    """A goal that is sent again and again is seen again and again: a step after it is a step."""
    one = oracle(tick=0.0)
    one.period = 0.01
    for k in range(20):
        one.goal(k * T, 0, 0.0, (0.0, 0.0))
    assert one.count == 0
    one.goal(20 * T, 0, 0.01, (0.0, 0.0))
    assert "acceleration" in one.violations[0]


def test_a_joint_out_of_range_may_only_come_in():
    one = oracle()
    for k, position in enumerate((1.2, 1.2, 1.1985, 1.197)):
        one.goal(k * T, 0, position, (1.2, 1.2))
    assert one.count == 0
    one.goal(4 * T, 0, 1.2, (1.2, 1.2))
    assert "not in -1 to 1.197" in one.violations[0]


def test_the_limits_of_a_robot_go_through_words_to_another_process():
    config = robot(speed=0.5)
    one = Oracle.of(config, TICK, (-0.2, 1.8))
    again = Oracle.read(one.declared(), TICK, 6)
    for name, value in (("speed", 1.5), ("accel", 15.0), ("high", 1.8)):
        assert getattr(again, name)[0] == value
    assert (again.speed[5], again.accel[5], again.high[5], again.period) == (4.0, 80.0, 1.8, 0.01)
    for text, servos in (("{", 6), ('{"low": 1}', 6), (one.declared(), 5)):
        with pytest.raises(RobotError, match="limits are"):
            Oracle.read(text, TICK, servos)


def test_faults_are_the_same_in_every_run_and_unknown_ones_are_refused():
    fates = []
    for _ in range(2):
        faults = Faults(seed=5, drop=0.3, corrupt=0.3, duplicate=0.3, truncate=0.2)
        fates.append([faults.pass_on(bytes(range(10))) for _ in range(200)])
    assert fates[0] == fates[1]
    assert 30 < sum(not fate for fate in fates[0]) < 90
    faults = Faults()
    assert faults.pass_on(b"abc") == [(0, b"abc")]
    faults.set("delay_once=3")
    assert [faults.pass_on(b"abc") for _ in range(2)] == [[(3_000_000, b"abc")], [(0, b"abc")]]
    faults.set("stall=10")
    assert (faults.deaf(0), faults.deaf(9_999_999), faults.deaf(10_000_000)) == (True, True, False)
    faults.set("error_bits=0x20")
    faults.set("frozen=1")
    assert (faults.error_bits, faults.frozen) == (32, True)
    for line in ("drops=1", "drop", "drop=much", "_random=1"):
        with pytest.raises(RobotError, match="NAME=NUMBER"):
            faults.set(line)
