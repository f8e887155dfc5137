"""ur-rtde, unmodified, against an emulated controller in a process of its own: alone, where it is wrong, and driven."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from robopol.errors import RobotError
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.driver import Reading, Status, StopLevel
from robopol.real_robot.emulators import models

rtde_control = pytest.importorskip("rtde_control", reason="needs ur-rtde: pip install 'robopol[ur]'")
from robopol.real_robot.drivers.ur import URConfig  # noqa: E402
from robopol.real_robot.drivers.ur_by_hand import DASHBOARD, RTDE, SCRIPT  # noqa: E402

CLOCK = MonotonicClock()


class Emulated:
    """The process, and what it is told on its standard input."""

    def __init__(self, model, host):
        words = [sys.executable, "-m", "robopol.real_robot.emulators", "ur", "--host", host, "--model", model]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.host = host
        assert host in self.process.stdout.readline()

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def state(self):
        return json.loads(self.tell("state"))

    def end(self):
        self.process.stdin.close()
        said = self.process.stdout.read()
        self.process.wait(20)
        return said


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("ur") / "ur5e.xml"
    path.write_text(models.read("ur5e"))  # so that the process need not import torch
    return str(path)


@pytest.fixture(scope="module")
def emulated(model):
    one = Emulated(model, f"127.0.{os.getpid() % 200 + 1}.2")
    yield one
    one.end()


@pytest.fixture(scope="module")
def connected(emulated):
    config = URConfig(host=emulated.host, timeout=0.2, watchdog=1.0)  # 1 Hz, as the machine may be busy
    driver = config.build(CLOCK, 0.008)
    driver.info = driver.connect()
    yield driver
    driver.close()


@pytest.fixture
def driver(connected, emulated):
    """One that is armed, and an arm without faults."""
    for knob in ("protective_stop", "emergency_stop", "torque_lost", "program_stopped", "frozen"):
        assert emulated.tell(f"{knob}=0") == "ok"
    fresh(connected)
    armed(connected)
    return connected


def armed(driver):
    """Arm it; on a busy machine the time of the watchdog may pass before the first goal, which `arm` tells."""
    for _ in range(10):
        try:
            driver.arm()
            driver.write(fresh(driver).q, 0.0)
        except RobotError:
            continue
        return
    raise AssertionError("could not be armed in ten tries")


def fresh(driver):
    state = Reading(6)
    until = CLOCK.now() + 5_000_000_000
    stamp = driver._receive.getTimestamp()
    while CLOCK.now() < until:
        driver.read(state)
        if state.t_device > round(stamp * 1e9):
            return state
        time.sleep(0.002)
    raise AssertionError("no fresh state within 5 s")


def go(driver, goal, seconds=60.0):
    """Move straight to a goal at 0.5 rad/s; a program that ended, as the machine was busy, is begun anew."""
    q, until = fresh(driver).q.copy(), time.monotonic() + seconds
    while time.monotonic() < until:
        q += np.clip(np.asarray(goal) - q, -0.004, 0.004)
        try:
            driver.write(q, 0.0)
        except RobotError:
            armed(driver)
            q = fresh(driver).q.copy()
        time.sleep(0.008)
        state = fresh(driver)
        if np.abs(state.q - goal).max() < 5e-3:
            return state
    raise AssertionError(f"it did not come to {goal}")


def test_it_goes_where_it_is_told(driver, emulated):
    assert (driver.info.joints, driver.info.gripper, driver.info.watchdog) == (6, False, 1.0)
    state = go(driver, [0.1, -0.1, 0.1, 0.0, 0.05, -0.05])
    assert np.abs(np.array(emulated.state()["q"]) - state.q).max() < 0.02
    assert np.isfinite(state.effort).all()
    assert state.wrench.shape == (6,)


def test_arming_does_not_move_it(driver):
    before = fresh(driver).q.copy()
    armed(driver)
    assert np.abs(fresh(driver).q - before).max() < 2e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e6, 6.5])
def test_nothing_that_is_no_goal_is_on_the_wire(driver, emulated, value):
    """T8, the wire's side."""
    time.sleep(0.1)  # the last goal is there by then
    goals = emulated.state()["goals"]
    with pytest.raises(RobotError, match="nothing was sent"):
        driver.write(np.array([0, 0, 0, value, 0, 0]), 0.0)
    with pytest.raises(RobotError, match="nothing was sent"):
        driver.write(np.zeros(5), 0.0)
    after = emulated.state()
    assert (after["goals"], after["outside"]) == (goals, 0)


def test_without_goals_the_program_ends_and_it_is_said(driver):
    """The watchdog; what was armed is not any more, and does not resume by itself."""
    deadline = time.monotonic() + 10
    while Status.POWERED in fresh(driver).status:
        assert time.monotonic() < deadline
    with pytest.raises(RobotError, match="does not run"):
        driver.write(np.zeros(6), 0.0)
    with pytest.raises(RobotError, match="not armed"):
        driver.write(np.zeros(6), 0.0)
    armed(driver)


@pytest.mark.parametrize(
    ("knob", "says"),
    [("protective_stop", Status.PROTECTIVE_STOP), ("emergency_stop", Status.EMERGENCY_STOP)],
)
def test_stops_are_heard_and_nothing_is_sent_after(driver, emulated, knob, says):
    """T10, the driver's part: latched until the controller is free and `arm` is called."""
    emulated.tell(f"{knob}=1")
    fresh(driver)
    assert fresh(driver).status == says
    goals = emulated.state()["goals"]
    for _ in range(5):
        with pytest.raises(RobotError):
            driver.write(np.zeros(6), 0.0)
    with pytest.raises(RobotError, match=says.name):
        driver.arm()
    emulated.tell(f"{knob}=0")
    fresh(driver)
    with pytest.raises(RobotError, match="not armed"):
        driver.write(np.zeros(6), 0.0)
    assert emulated.state()["goals"] == goals
    assert Status.POWERED not in fresh(driver).status
    armed(driver)


@pytest.mark.parametrize("knob", ["program_stopped", "torque_lost"])
def test_a_program_that_ended_is_heard(driver, emulated, knob):
    emulated.tell(f"{knob}=1")
    fresh(driver)
    assert fresh(driver).status == Status(0)
    with pytest.raises(RobotError):
        driver.write(np.zeros(6), 0.0)


def test_a_frozen_controller_is_not_fresh_and_gets_no_goals(driver, emulated):
    """T9: the client says connected, gives the old state and takes every goal; only the timestamp stands still."""
    q = fresh(driver).q.copy()
    emulated.tell("frozen=1")
    time.sleep(0.05)
    state = Reading(6)
    driver.read(state)
    assert driver._receive.isConnected()
    assert driver._control.servoJ(q.tolist(), 0.0, 0.0, 0.008, 0.1, 300.0)  # the raw client
    deadline = time.monotonic() + 10
    while True:
        assert time.monotonic() < deadline
        assert not driver.read(state)
        assert not driver.read(Reading(6))  # whatever the reading that it is given knew
        try:
            driver.write(q, 0.0)
        except RobotError as error:
            message = str(error)
            break
        time.sleep(0.008)
    assert "older than" in message or "does not run" in message
    emulated.tell("frozen=0")
    fresh(driver)


def test_a_controller_that_stalls_makes_nothing_stale_look_fresh(driver, emulated):
    """T9: no call waits for it, and it does not go on by itself."""
    state = fresh(driver)
    emulated.tell("stall=1000")  # after 2.5 s the client would close the connection
    time.sleep(0.05)
    driver.read(state)
    time.sleep(0.15)
    stamp = driver._receive.getTimestamp()
    for _ in range(20):
        assert not driver.read(state)
        with pytest.raises(RobotError, match=r"older than|does not run|not armed"):
            driver.write(state.q, 0.0)
    assert driver._receive.getTimestamp() == stamp  # it has not come back while the calls were made
    fresh(driver)
    deadline = time.monotonic() + 5
    while Status.POWERED in fresh(driver).status:  # its watchdog ended the program when it came back
        assert time.monotonic() < deadline


def test_stop_and_abort(driver, emulated):
    driver.stop(StopLevel.STOP)
    time.sleep(0.3)
    assert max(map(abs, emulated.state()["dq"])) < 0.02
    armed(driver)
    driver.stop(StopLevel.ABORT)
    with pytest.raises(RobotError):
        driver.write(np.zeros(6), 0.0)
    deadline = time.monotonic() + 5
    while Status.PROTECTIVE_STOP not in fresh(driver).status:
        assert time.monotonic() < deadline
    driver.stop(StopLevel.STOP)  # works in this state too


def test_the_raw_client_sends_what_is_no_number(driver, emulated):
    """And says that all is well. Last, as the witness does not forget it."""
    before = emulated.state()["outside"]
    assert driver._control.servoJ([float("nan")] * 6, 0.0, 0.0, 0.008, 0.1, 300.0)
    deadline = time.monotonic() + 5
    while emulated.state()["outside"] == before:
        assert time.monotonic() < deadline
    assert emulated.state()["outside"] == before + 6


def test_servoj_is_given_the_time_until_the_next_goal():
    """That of the loop, which is said once: `robot.period`."""
    driver, told = URConfig(host="127.0.0.250").build(CLOCK, 0.002), []
    driver._control = SimpleNamespace(servoJ=lambda *arguments: told.append(arguments) or True)
    well = {"isConnected": lambda: True, "getRuntimeState": lambda: 2, "getSafetyStatusBits": lambda: 0}
    driver._receive, driver._armed, driver._fresh = SimpleNamespace(**well), True, CLOCK.now()
    driver.write(np.zeros(6), 0.0)
    assert [time for _, _, _, time, *_ in told] == [0.002]


def test_another_controller_is_not_driven(emulated):
    with pytest.raises(RobotError, match="serial number 20195500001, not 7"):
        URConfig(host=emulated.host, serial="7").build(CLOCK, 0.008).connect()
    with pytest.raises(RobotError, match="there is no controller"):
        URConfig(host="127.0.0.250").build(CLOCK, 0.008).connect()


def test_one_that_streams_nothing_is_not_waited_for():
    """The client's constructor would wait for ever, with Python's lock in its hand."""
    host = f"127.0.{os.getpid() % 200 + 1}.3"
    listeners = [socket.create_server((host, port)) for port in (DASHBOARD, SCRIPT, RTDE)]

    def answer():
        for reply in (b"hello\n20195500001\n", b"hello\nUR5\n", b"hello\ntrue\n"):
            line, _ = listeners[0].accept()
            line.sendall(reply)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with pytest.raises(RobotError, match="sends no states"):
        URConfig(host=host).build(CLOCK, 0.008).connect()
    thread.join()
    for listener in listeners:
        listener.close()


def test_one_whose_connection_is_lost_is_stopped_by_hand():
    """The line of its state is gone; that of programs may still be there."""
    host = f"127.0.{os.getpid() % 200 + 1}.6"

    class Gone:
        def isConnected(self):
            return False

    with socket.create_server((host, SCRIPT)) as listener:
        driver = URConfig(host=host).build(CLOCK, 0.008)
        with pytest.raises(RobotError, match="not connected"):
            driver.stop(StopLevel.STOP)
        driver._receive = Gone()
        driver.stop(StopLevel.STOP)
        line, _ = listener.accept()
        with line:
            line.settimeout(5.0)
            assert b"stopj(10.0)" in line.recv(4096)
    with pytest.raises(RobotError, match="cannot be told to stop"):
        driver.stop(StopLevel.STOP)


def test_one_that_closes_is_an_error_and_another_can_be_connected_to(model):
    host = f"127.0.{os.getpid() % 200 + 1}.4"
    first = Emulated(model, host)
    driver = URConfig(host=host).build(CLOCK, 0.008)
    driver.connect()
    state = fresh(driver)
    first.tell("closed=1")
    deadline = time.monotonic() + 10
    while driver._receive.isConnected():
        assert time.monotonic() < deadline
    with pytest.raises(RobotError, match="closed the connection"):
        driver.read(state)
    with pytest.raises(RobotError):
        driver.connect()
    first.end()
    second = Emulated(model, host)
    assert driver.connect().joints == 6
    assert fresh(driver).status == Status(0)
    driver.close()
    second.end()
