"""The emulated controller, in virtual time and without a client: its program's contract, its watchdog, its safety."""

import numpy as np
import pytest
from arms_on_wires import MS, oracle_of

from robopol.real_robot.emulators import models
from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.ur import DONE, PAUSED, PLAYING, READY, STOPPED, Controller

PROGRAM = "def rtde_control():\n  pass\nend\n"


@pytest.fixture(scope="module")
def xml():
    return models.read("ur5e")


@pytest.fixture
def controller(xml):
    arm = Arm(xml, 0)
    controller = Controller(arm, oracle_of(arm, tick=0.0), Faults())
    controller.upload(PROGRAM)
    return controller


def tell(controller, command, *numbers):
    controller.inputs["input_int_register_0"] = command
    for i, number in enumerate(numbers):
        controller.inputs[f"input_double_register_{i}"] = number
    controller.written(["input_int_register_0"])


def run(controller, ms):
    controller.advance(controller.t + ms * MS)
    return controller.outputs["output_int_register_0"]


def drive(controller, speed, ms, q=0.0):
    """Send a goal every 8 ms that moves the first joint at a speed."""
    for _ in range(ms // 8):
        q += speed * 0.008
        tell(controller, 11, q, 0, 0, 0, 0, 0)
        run(controller, 8)
    return q


def test_the_contract_of_its_registers(controller):
    assert controller.runtime == PLAYING
    assert run(controller, 2) == READY
    tell(controller, 35, 20.0)
    assert run(controller, 2) == DONE
    assert run(controller, 10) == DONE  # once, until the register was 0
    tell(controller, 0)
    assert run(controller, 2) == READY
    tell(controller, 11, *[0.1] * 6)
    assert run(controller, 2) == READY
    tell(controller, 255)
    run(controller, 2)
    assert controller.runtime == STOPPED


def test_it_follows_goals_and_repeats_the_last(controller):
    q = drive(controller, 0.5, 800)
    run(controller, 1000)
    assert controller.arm.q[0] == pytest.approx(q, abs=2e-3)
    assert controller.runtime == PLAYING


def test_a_goal_that_is_sent_again_is_witnessed_again(controller):
    """Or else a step after it would be judged by all the time that it stood."""
    oracle = controller.oracle
    oracle.period, oracle.speed[:], oracle.accel[:] = 0.008, 1.0, 10.0
    tell(controller, 11, *[0.0] * 6)
    run(controller, 8)
    drive(controller, 0.0, 160)
    assert len(oracle.log) == 21 * 6
    assert oracle.count == 0
    tell(controller, 11, 0.1, *[0.0] * 5)  # 20 periods' way at the limit of speed would be 0.16
    assert [words.split()[4] for words in oracle.violations] == ["speed", "acceleration"]


def test_a_stop_says_that_it_is_done_when_the_arm_rests(controller):
    drive(controller, 1.0, 400)
    tell(controller, 16, 5.0)
    done = [run(controller, 2) for _ in range(200)]
    first = done.index(DONE)
    assert 1.0 / 5.0 * 0.5 < first * 0.002 < 1.0 / 5.0 + 0.1
    assert abs(controller.arm.dq[0]) < 0.3
    run(controller, 500)
    assert abs(controller.arm.dq[0]) < 1e-3


def test_the_watchdog_stops_it_when_the_computer_dies(controller):
    """T4, the device's side: within the watchdog's period, 50 ms and v/a after the last goal."""
    tell(controller, 35, 20.0)
    run(controller, 2)
    tell(controller, 0)
    run(controller, 2)
    drive(controller, 1.0, 400)
    last, at = controller.t - 8 * MS, None
    for _ in range(500):
        run(controller, 2)
        at = at or (controller.t if controller.runtime == STOPPED else None)
        if at is not None and controller.arm.at_rest:
            break
    assert at is not None
    assert at - last <= 52 * MS
    assert controller.t - last <= (50 + 50 + 1000 * 1.0 / 10.0) * MS
    tell(controller, 11, *[1.0] * 6)
    before = controller.arm.goal.copy()
    run(controller, 100)
    np.testing.assert_array_equal(controller.arm.goal, before)  # nobody listens any more


@pytest.mark.parametrize(
    ("knob", "bit", "runtime"),
    [("protective_stop", 2, PAUSED), ("emergency_stop", 7, STOPPED), ("overheated", 9, STOPPED)],
)
def test_safety_ends_motion_and_says_why(controller, knob, bit, runtime):
    drive(controller, 1.0, 400)
    setattr(controller.faults, knob, True)
    run(controller, 2)
    assert controller.state()["safety_status_bits"] == 1 << bit
    assert controller.runtime == runtime
    run(controller, 300)
    assert controller.arm.at_rest
    controller.upload(PROGRAM)
    assert controller.runtime != PLAYING
    setattr(controller.faults, knob, False)
    controller.upload(PROGRAM)
    assert controller.runtime == PLAYING
    assert controller.state()["safety_status_bits"] == 1


def test_what_is_no_number_ends_the_program_and_is_witnessed(controller):
    tell(controller, 11, np.nan, 0, 0, 0, 0, 0)
    run(controller, 2)
    assert controller.runtime == STOPPED
    assert controller.oracle.count == 1
    assert "not finite" in controller.oracle.violations[0]


def test_a_frozen_controller_says_the_same_for_ever(controller):
    was = controller.state()
    controller.faults.frozen = True
    drive(controller, 1.0, 80)
    assert controller.state() is was
