"""The simulated arm keeps the contract of a driver, in lock-step with a virtual clock."""

import subprocess
import sys

import numpy as np
import pytest

from robopol.errors import RobotError
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.driver import Reading, Status, StopLevel
from robopol.real_robot.drivers.simulated import SimulatedConfig
from robopol.registry import lookup

MS = 1_000_000


def started(**options):
    clock = VirtualClock(5 * MS)
    driver = SimulatedConfig(**options).build(clock, 0.01)
    info = driver.connect()
    driver.arm()
    return clock, driver, info, Reading(info.joints)


def run(clock, driver, goal, gripper, ms):
    for _ in range(ms // 10):
        driver.write(np.asarray(goal), gripper)
        clock.sleep_until(clock.now() + 10 * MS)


def test_it_goes_where_it_is_told_and_says_so():
    clock, driver, info, state = started()
    assert (info.joints, info.gripper, info.watchdog) == (5, True, 0.1)
    goal = [0.3, -0.2, 0.4, -0.1, 0.5]
    run(clock, driver, goal, 0.5, 1500)
    assert driver.read(state)
    np.testing.assert_allclose(state.q, goal, atol=5e-3)
    assert abs(state.gripper - 0.5) < 5e-3
    assert np.abs(state.dq).max() < 1e-2
    assert state.t_received == clock.now()
    assert state.status == Status.POWERED


def test_arming_does_not_move_it_and_before_it_nothing_is_followed():
    clock = VirtualClock()
    driver = SimulatedConfig().build(clock, 0.01)
    state = Reading(driver.connect().joints)
    driver.write(np.full(5, 0.5), 0.0)
    clock.sleep_until(500 * MS)
    driver.read(state)
    before = state.q.copy()
    assert Status.POWERED not in state.status
    driver.arm()
    clock.sleep_until(600 * MS)
    driver.read(state)
    assert np.abs(state.q - before).max() < 2e-3
    assert np.abs(state.q).max() < 2e-3


def test_a_state_is_fresh_once():
    clock, driver, _, state = started()
    clock.sleep_until(clock.now() + 10 * MS)
    assert driver.read(state)
    was = state.t_device
    assert not driver.read(state)
    assert not driver.read(Reading(5))  # whatever the reading that it is given knew
    clock.sleep_until(clock.now() + 2 * MS)
    assert driver.read(state)
    assert state.t_device == was + 2 * MS


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e6, 2.0])
def test_a_goal_that_is_none_is_refused_and_the_one_before_stays(value):
    clock, driver, _, state = started()
    goal = np.full(5, 0.1)
    run(clock, driver, goal, 0.0, 500)
    with pytest.raises(RobotError, match="nothing was sent"):
        driver.write(np.where(np.arange(5) == 2, value, 0.1), 0.0)
    run(clock, driver, goal, 0.0, 500)
    driver.read(state)
    np.testing.assert_allclose(state.q, goal, atol=5e-3)


def test_without_goals_the_watchdog_holds_it():
    clock, driver, _, state = started(watchdog=0.05)
    driver.write(np.array([1.5, 0, 0, 0, 0]), 0.0)
    for _ in range(3):  # a single goal far away, then silence
        clock.sleep_until(clock.now() + 500 * MS)
        driver.read(state)
    device = driver.device
    assert device.goal[0] == pytest.approx(1.5)  # without speed limits its set point was there at once
    clock, driver, _, state = started(watchdog=0.05)
    driver.device.max_speed[:] = 1.0
    driver.write(np.array([1.5, 0, 0, 0, 0]), 0.0)
    clock.sleep_until(clock.now() + 1000 * MS)
    driver.read(state)
    assert state.q[0] == pytest.approx(0.05, abs=5e-3)


def test_stop_brakes_and_abort_also_lets_nothing_through():
    for level, follows in ((StopLevel.STOP, True), (StopLevel.ABORT, False)):
        clock, driver, _, state = started(watchdog=0)
        driver.device.max_speed[:], driver.device.max_accel[:] = 1.0, 10.0
        run(clock, driver, [1.0, 0, 0, 0, 0], 0.0, 500)
        driver.stop(level)
        at = driver.device.q[0]
        clock.sleep_until(clock.now() + 1000 * MS)
        driver.read(state)
        assert state.q[0] < at + 1.0**2 / 20 + 0.05
        run(clock, driver, [-0.5, 0, 0, 0, 0], 0.0, 3000)
        driver.read(state)
        assert bool(abs(state.q[0] + 0.5) < 5e-3) is follows


def test_a_fault_stops_it_and_a_frozen_one_is_not_fresh():
    clock, driver, _, state = started(watchdog=0)
    driver.fault = Status.OVERHEATED
    run(clock, driver, np.full(5, 0.5), 0.0, 500)
    assert driver.read(state)
    assert state.status == Status.OVERHEATED
    assert np.abs(state.q).max() < 5e-3
    with pytest.raises(RobotError, match="OVERHEATED"):
        driver.arm()
    driver.frozen = True
    clock.sleep_until(clock.now() + 100 * MS)
    assert not driver.read(state)


def test_the_same_twice():
    ends = []
    for _ in range(2):
        clock, driver, _, state = started()
        run(clock, driver, [0.3, -0.2, 0.4, -0.1, 0.5], 0.5, 200)
        driver.read(state)
        ends.append(state.q.copy())
    np.testing.assert_array_equal(*ends)


def test_what_is_not_there_is_said():
    for options, words in (
        ({"model": "nowhere.xml"}, "no model 'nowhere.xml'"),
        ({"gripper": "claw"}, "no servo 'claw'"),
        ({"model": "ur5e"}, "ur5e.xml"),
    ):
        with pytest.raises(RobotError, match=words):
            SimulatedConfig(**options).build(VirtualClock(), 0.01).connect()
    with pytest.raises(RobotError, match="not connected"):
        SimulatedConfig().build(VirtualClock(), 0.01).arm()


def test_drivers_import_no_torch():
    code = (
        "import sys\n"
        "from robopol.registry import KINDS, lookup\n"
        "for kind in KINDS['driver']: lookup('driver', kind)\n"
        "import robopol.real_robot.clock, robopol.real_robot.driver\n"
        "assert 'torch' not in sys.modules and 'robopol.envs' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert lookup("driver", "simulated") is SimulatedConfig
