"""Whatever is killed, an emulated arm is told nothing out of limits, and rests (T3, T5, T9).

All of it in real time over the vendor's client: emulator, `robopol deploy` and its children, and a policy's server. No
figure of time is asserted tightly; the exact ones are asserted in lock-step, in test_servo.py and others.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_deployments import Deployment, untrained
from test_processes import PATIENT, Alone

from robopol.config import parse
from robopol.configs import load_config
from robopol.real_robot.emulators.bus import TICK
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.process import Child
from robopol.real_robot.recorder import load
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import Command, State

pytest.importorskip("scservo_sdk", reason="needs the vendor's client: pip install 'robopol[feetech]'")
pytestmark = pytest.mark.slow
HAND = (-0.17453, 1.74533)


class Emulated:
    """An arm in a process of its own, whose witness judges by a robot's limits."""

    def __init__(self, robot, folder):
        self.calibration = folder / "arm.json"
        words = [sys.executable, "-m", "robopol.real_robot.emulators", "feetech", "--baud", "2000000"]
        words += ["--calibration", str(self.calibration), "--limits", Oracle.of(robot, TICK, HAND).declared()]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self.process.stdout.readline().split()[-1]

    def state(self):
        self.process.stdin.write("state\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def until(self, wanted, patience=60.0):
        end = time.monotonic() + patience
        while not wanted(state := self.state()):
            assert time.monotonic() < end, state
            time.sleep(0.02)

    def rests(self):
        """It comes to rest, and stays."""
        self.until(lambda state: max(map(abs, state["dq"])) < 5e-3)
        time.sleep(0.3)
        before = self.state()["q"]
        time.sleep(0.3)
        np.testing.assert_allclose(self.state()["q"], before, atol=5e-3)

    def moves(self):
        self.until(lambda state: max(map(abs, state["dq"])) > 0.02)

    def end(self):
        """End it; nothing of what it was told was out of limits."""
        said, _ = self.process.communicate()
        assert " 0 outside the declared limits" in said, said
        assert int(said.split()[0]) > 100


# patient, as emulator and loop may share one processor with much else
WORDS = ["robot=so101", "robot.speed=1.0", "robot.geometry=null", "robot.period=0.05", "robot.driver.timeout=1.0"]


@pytest.fixture
def wired(tmp_path):
    words = [*WORDS, "robot.driver.port=x", "robot.driver.calibration=x"]
    made = Emulated(parse(RobotConfig, load_config("deploy", ["checkpoint=x", *words])["robot"]), tmp_path)
    made.words = [*WORDS, f"robot.driver.port={made.port}", f"robot.driver.calibration={made.calibration}"]
    yield made
    made.process.kill()


def test_a_policy_is_killed_and_started_anew(wired, tmp_path):
    one = Deployment(untrained(tmp_path / "policy"), tmp_path, robot=wired.words)
    children = one.moving()
    wired.moves()
    os.kill(children["policy_process"], signal.SIGKILL)
    one.until("RUNNING -> HOLD")
    wired.rests()
    one.say("restart policy")
    one.until("HOLD -> RUNNING")
    wired.moves()
    one.say("quit")
    one.ends(children | one.children(), 0)
    wired.end()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_servo_loop_dies_or_hangs_and_its_client_is_built_anew(wired, tmp_path, how):
    """Nothing is sent before somebody arms the arm again, whatever was said while it was gone (T4, T9)."""
    one = Deployment(untrained(tmp_path / "policy"), tmp_path, robot=wired.words)
    children = one.moving()
    wired.moves()
    os.kill(children["servo_process"], how)
    one.until("ALARM: servo_process has died")
    wired.rests()
    goals = wired.state()["goals"]
    one.say("run")
    time.sleep(0.5)
    one.say("restart servo")
    one.until("the servo loop is back and its arm connected")
    one.until("DISCONNECTED -> CONNECTED", 2)
    wired.rests()
    assert wired.state()["goals"] == goals
    children |= one.children()
    one.say("arm")
    one.until("CONNECTED -> ARMED", 2)
    one.say("run")
    one.until("ARMED -> RUNNING", 2)
    wired.moves()
    one.say("quit")
    one.ends(children, 0)
    assert len(list(one.record.glob("2*"))) == 2
    wired.end()


def test_the_supervisor_is_killed(wired, tmp_path):
    one = Deployment(untrained(tmp_path / "policy"), tmp_path, robot=wired.words)
    children = one.moving()
    wired.moves()
    one.process.kill()
    one.ends(children, -signal.SIGKILL)
    goals = wired.state()["goals"]
    wired.rests()
    assert wired.state()["goals"] == goals  # nobody is there to send any
    (folder,) = one.record.glob("2*")
    states = load(folder)[0]["ticks"]["state"]
    assert states[-1] in (State.STOPPING, State.ARMED)
    wired.end()


def test_the_server_of_the_policy_is_killed_and_comes_back(wired, tmp_path):
    untrained(tmp_path / "policy")
    words = [sys.executable, "-m", "robopol.cli", "serve", f"checkpoint={tmp_path / 'policy'}", "device=cpu"]
    with subprocess.Popen([*words, "port=0"], stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        one = Deployment(url, tmp_path, robot=wired.words)
        children = one.moving()
        wired.moves()
        server.kill()
    one.until("policy away")
    one.until("RUNNING -> HOLD")
    wired.rests()
    with subprocess.Popen([*words, f"port={url.rpartition(':')[2]}"], stdout=subprocess.PIPE, text=True) as server:
        one.until("policy back")
        one.until("HOLD -> RUNNING")
        wired.moves()
        one.say("quit")
        one.ends(children, 0)
        server.kill()
    wired.end()


def test_who_holds_the_switch_is_killed(tmp_path):
    """The process of the operator's device, which says that the deadman's switch is held."""
    base = load_config("deploy", ["checkpoint=x", *WORDS, "robot.driver.port=x", "robot.driver.calibration=x"])["robot"]
    wired = Emulated(parse(RobotConfig, base), tmp_path)
    base["driver"] |= {"port": wired.port, "calibration": str(wired.calibration)}
    fields = {key: base[key] for key in ("driver", "joints", "period", "latency", "gripper")}
    alone = Alone(**fields, watch=PATIENT | {"deadman": 1.0, "tracking": 0.5})
    keys, typing = os.pipe()
    device = {"kind": "leader", "driver": {"kind": "swaying"}, "commands": {"kind": "keyboard"}}
    setup = {"robot": alone.robot.tree(), "channels": alone.channels.handles(), "operator": device, "terminal": keys}
    child = Child("operator_process", setup, [*alone.channels.descriptors, keys])
    try:
        child.ready()
        alone.until(lambda row: row["state"] == State.CONNECTED)
        os.write(typing, b"A")
        alone.until(lambda row: row["state"] == State.ARMED)
        os.write(typing, b"T")
        alone.until(lambda row: row["state"] == State.HUMAN)
        wired.moves()
        child.process.kill()
        alone.until(lambda row: row["state"] == State.HOLD and np.abs(row["command_speed"]).max() == 0)
        wired.rests()
        alone.channels.order(Command.QUIT)
        assert alone.child.process.wait(10) == 0
        wired.end()
    finally:
        child.end(0.0)
        alone.close()
        wired.process.kill()
