"""`robopol deploy` on a simulated arm in real time, and what is left of it when one of its processes is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from robopol.checkpoint import save_part
from robopol.data import load_episodes
from robopol.policies import PolicySpec
from robopol.policies.deterministic import DeterministicConfig
from robopol.real_robot.recorder import load
from robopol.real_robot.states import State
from robopol.real_robot.ticks import tick_type

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
# the machine that tests run on may be busy: what is late is not what is tested here
CALM = ["robot.watch.missed=100", "robot.watch.stale=2", "robot.watch.lost=5", "robot.watch.supervisor=20"]
SIMULATED = ["robot=so101_simulated", "robot.driver.watchdog=0"]
CALM += ["robot.gate.max_age=3", "robot.gate.max_latency=2", "robot.watch.rejections=1000"]

pytestmark = pytest.mark.slow


def untrained(folder, seed=0, **fields):
    """Write a policy without training: small changes of the joints, the same ones for ever."""
    spec = PolicySpec(
        obs_shapes={"state": (6,)},
        action_names=NAMES,
        action_low=(-0.03,) * 5 + (0.0,),
        action_high=(0.03,) * 5 + (1.0,),
        action_space="joint_delta",
        control_hz=10.0,
        n_obs_steps=1,
        horizon=16,
        n_action_steps=4,
    ).model_copy(update=fields)
    torch.manual_seed(seed)
    folder.mkdir(exist_ok=True)
    save_part(DeterministicConfig(n_obs_steps=1, horizon=16, n_action_steps=4).build(spec), folder)
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("policy"))


class Deployment:
    """The program, what it says and what it is told."""

    def __init__(self, policy, folder, *words, robot=SIMULATED, out=None):
        self.record, told = folder / "record", (folder / "said.txt").open("wb")
        command = [sys.executable, "-m", "robopol.cli", "deploy", f"checkpoint={policy}", *robot]
        command += ["observe={state: [q, gripper]}", f"record={self.record}", *CALM, *words]
        self._said = folder / "said.txt"
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out or told, stderr=told)
        told.close()

    @property
    def said(self):
        return self._said.read_text()

    def until(self, words, times=1, patience=300.0):
        end = time.monotonic() + patience
        while self.said.count(words) < times:
            assert time.monotonic() < end, self.said
            assert self.process.poll() is None or words in self.said, self.said
            time.sleep(0.02)

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def moving(self):
        self.until("DISCONNECTED -> CONNECTED")
        self.say("arm")
        self.until("CONNECTED -> ARMED")
        self.say("run")
        self.until("-> RUNNING")
        time.sleep(0.5)
        return self.children()

    def state(self):
        """Return the state of the arm that was recorded last."""
        (folder,) = self.record.glob(".incomplete-*")
        return State(int(np.fromfile(folder / "ticks.bin", tick_type(5))["state"][-1]))

    def children(self):
        """Return module -> pid of the processes that it started."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == self.process.pid and b"-m" in words:
                found[words[words.index(b"-m") + 1].decode().rpartition(".")[2]] = int(path.name)
        return found

    def ends(self, children, status):
        """It ends with a status, and so do all that it started."""
        assert self.process.wait(30) == status, self.said
        self.process.stdin.close()
        end = time.monotonic() + 10
        while any(Path("/proc", str(pid)).exists() for pid in children.values()):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert "Traceback" not in self.said


@pytest.fixture
def shared():
    """What is shared under a name, before."""
    return set(os.listdir("/dev/shm")) if Path("/dev/shm").exists() else set()


def left(shared):
    return (set(os.listdir("/dev/shm")) if Path("/dev/shm").exists() else set()) - shared


def test_a_policy_that_was_killed_is_started_anew_by_a_word(policy, tmp_path, shared):
    """T3: the arm stops when the chunks do, within its limits, and goes on when there is a new one."""
    one = Deployment(policy, tmp_path)
    children = one.moving()
    assert set(children) == {"policy_process", "servo_process", "recorder"}
    os.kill(children["policy_process"], signal.SIGKILL)
    one.until("ALARM: policy_process has died")
    one.until("RUNNING -> HOLD")
    time.sleep(0.5)
    one.say("restart policy")
    one.until("ALARM: the policy is back")
    one.until("HOLD -> RUNNING")
    time.sleep(0.3)
    children |= one.children()
    one.say("quit")
    one.ends(children, 0)
    assert not left(shared)
    (folder,) = one.record.glob("2*")
    ticks = load(folder)[0]["ticks"]
    states = ticks["state"]
    held = np.flatnonzero(states == State.HOLD)
    assert np.abs(ticks["command_speed"][held[-1]]).max() < 1e-6  # at rest until the policy was back
    assert (states[held[-1] + 1 :] == State.RUNNING).any()
    assert np.abs(np.diff(ticks["command"], axis=0)).max() <= 2.0 * 0.01 * (1 + 1e-9)
    assert np.abs(np.diff(ticks["command"], n=2, axis=0)).max() <= 10.0 * 0.01**2 * (1 + 1e-6)
    assert np.abs(ticks["command_speed"][states == State.RUNNING]).max() > 0.01


def test_a_recorder_that_was_killed_is_told_of_and_the_arm_goes_on(policy, tmp_path, shared):
    one = Deployment(policy, tmp_path, "seconds=4")
    one.until("-> RUNNING")
    children = one.children()
    os.kill(children["recorder"], signal.SIGKILL)
    one.until("ALARM: recorder has died: nothing more is recorded")
    one.ends(children, 1)
    assert "STOPPING -> ARMED" in one.said
    assert not left(shared)


def test_an_arm_that_cannot_be_armed_is_not_waited_for(policy, tmp_path, shared):
    one = Deployment(policy, tmp_path, "seconds=600", "robot.watch.force=5")  # no sensor of the arm measures it
    one.until("DISCONNECTED -> CONNECTED")
    one.ends(one.children(), 1)
    assert "the arm cannot ARM" in one.said
    assert not left(shared)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_servo_loop_that_is_killed_or_hangs_ends_everything(policy, tmp_path, shared, how):
    """T4, the supervisor's part; one that hangs is told of at once, and killed when it does not come back."""
    one = Deployment(policy, tmp_path, "seconds=60")  # where nobody types who could have it started anew
    one.until("-> RUNNING")
    children = one.children()
    os.kill(children["servo_process"], how)
    t = time.monotonic()
    one.until("ALARM: " + ("servo_process has died" if how is signal.SIGKILL else "the servo loop has not ticked"))
    assert time.monotonic() - t < 5.0
    one.ends(children, 1)
    assert "the servo loop has ended" in one.said
    assert not left(shared)
    (folder,) = one.record.glob("2*")  # what was recorded is kept
    assert json.loads((folder / "episode.json").read_text())["success"] is None


def test_a_supervisor_that_is_suspended_is_missed(policy, tmp_path, shared):
    """T5; and Ctrl-Z does not suspend it."""
    one = Deployment(policy, tmp_path, "robot.watch.supervisor=0.5")
    children = one.moving()
    assert one.state() is State.RUNNING
    os.kill(one.process.pid, signal.SIGSTOP)
    one.say("run")
    end = time.monotonic() + 60
    while one.state() is not State.HOLD:
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(one.process.pid, signal.SIGCONT)
    one.until("supervisor silent")
    one.until("HOLD -> RUNNING")
    os.kill(one.process.pid, signal.SIGTSTP)
    one.ends(children, 130)
    assert "STOPPING -> ARMED" in one.said
    assert not left(shared)


def test_a_terminal_that_stalls_keeps_no_word_from_the_arm(policy, tmp_path, shared):
    reading, writing = os.pipe()
    one, said = Deployment(policy, tmp_path, out=writing), b""
    os.close(writing)

    def until(words):
        nonlocal said
        while words not in said:
            found = os.read(reading, 65536)
            assert found, said
            said += found

    until(b"DISCONNECTED -> CONNECTED")
    children = one.children()
    one.say("arm")
    until(b"CONNECTED -> ARMED")
    one.say("run")
    until(b"-> RUNNING")
    for _ in range(20):  # what is answered is much more than a pipe holds, and nobody reads it
        one.say("no word\n" * 40)
        time.sleep(0.1)
    one.say("stop success")
    end = time.monotonic() + 60
    while not list(one.record.glob("2*")):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert one.process.poll() is None
    one.say("quit")
    until(b"1 new episodes")
    one.ends(children, 0)
    os.close(reading)
    assert not left(shared)


def test_new_weights_are_swapped_in_and_bad_ones_are_not(policy, tmp_path, shared):
    """Hot: the arm moves, and goes on moving, whatever comes of them."""
    new = untrained(tmp_path / "New", seed=1)
    slow = untrained(tmp_path / "slow", control_hz=5.0)
    one, refused = (
        Deployment(policy, tmp_path, "execution.n_action_steps=12"),
        "the new weights are refused, and those before go on",
    )
    one.moving()
    one.say(f"swap {new}")  # nothing was recorded so far
    one.until(refused)
    assert "has no recorded episodes" in one.said
    one.say("stop success")
    one.until("STOPPING -> ARMED")
    one.say("run")
    one.until("ARMED -> RUNNING", 2)
    one.say(f"swap {slow}")
    one.until(refused, 2)
    assert "control_hz: 5.0 instead of 10.0" in one.said
    one.say(f"swap {tmp_path / 'nowhere'}")
    one.until(refused, 3)
    one.say(f"swap {new}")
    one.until("new weights act from their next plan on")
    one.until("policy swapped")
    time.sleep(1.5)
    assert "policy_process has died" not in one.said
    children = one.children()
    assert set(children) == {"policy_process", "servo_process", "recorder"}
    one.say("stop success")
    one.until("STOPPING -> ARMED", 2)
    time.sleep(0.5)
    one.say("quit")
    one.ends(children, 0)
    assert not left(shared)
    _, second = sorted(one.record.glob("2*"))
    found, about = load(second)
    steps, ticks = found["steps"], found["ticks"]
    made = {int(step["seq"]): about["policies"][step["policy"].tobytes().hex()] for step in steps if step["seq"]}
    seqs = [seq for seq in ticks["chunk"].tolist() if seq in made]
    moves = ticks["command_speed"][np.isin(ticks["chunk"], list(made))]
    assert np.abs(np.diff(ticks["command"], n=2, axis=0)).max() <= 10.0 * 0.01**2 * (1 + 1e-6)
    assert np.abs(moves[-100:]).max() > 0.01
    followed = [made[seq]["speaker"]["checkpoint"] for seq in seqs]
    assert followed == [str(policy)] * followed.count(str(policy)) + [str(new)] * followed.count(str(new))
    assert set(followed) == {str(policy), str(new)}
    assert about["policy"]["speaker"]["checkpoint"] == str(new)


def test_new_weights_take_the_place_of_a_policy_that_has_died(policy, tmp_path, shared):
    one = Deployment(policy, tmp_path)
    children = one.moving()
    time.sleep(1.0)
    one.say("stop success")
    one.until("STOPPING -> ARMED")
    one.say("run")
    one.until("ARMED -> RUNNING", 2)
    os.kill(children["policy_process"], signal.SIGKILL)
    one.until("RUNNING -> HOLD")
    one.say(f"swap {untrained(tmp_path / 'New', seed=1)}")
    one.until("new weights act from their next plan on")
    one.until("HOLD -> RUNNING")
    children |= one.children()
    one.say("quit")
    one.ends(children, 0)
    assert not left(shared)


def test_a_session_of_demonstrations_from_the_first_key_to_the_dataset(tmp_path, shared):
    """`robopol record`: an arm led by a leader that sways, keys from a pipe."""
    out, said = tmp_path / "demos.hdf5", tmp_path / "said.txt"
    command = [sys.executable, "-m", "robopol.cli", "record", "robot=so101_simulated", f"out={out}", "episodes=1"]
    command += ["operator={kind: leader, driver: {kind: swaying}}", "reset=0", *CALM, *SIMULATED[1:]]
    with said.open("wb") as told:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=told, stderr=told)

    def until(words):
        end = time.monotonic() + 90
        while words not in said.read_text():
            assert time.monotonic() < end, said.read_text()
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)

    def press(key):
        process.stdin.write(key)
        process.stdin.flush()

    until("ready for episode 1")
    press(b"T")
    until("recording episode 1")
    time.sleep(1.5)
    press(b"S")  # stop: success
    assert process.wait(60) == 0, said.read_text()
    process.stdin.close()
    assert "episode 1: success" in said.read_text()
    episodes = load_episodes(out)
    assert episodes.success.tolist() == [True]
    assert episodes.num_steps >= 5
    assert np.ptp(episodes.action.numpy(), axis=0).max() > 0.02
    assert not left(shared)
