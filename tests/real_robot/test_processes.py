"""The servo loop and the recorder in processes of their own, in real time: no figure of time is asserted tightly."""

import json
import os
import resource
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from lockstep import MS, POLICY, robot

from robopol.errors import RobotError
from robopol.real_robot.channels import EVENT_ROW, Channels, event_of
from robopol.real_robot.chunk import Chunk
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.events import Code
from robopol.real_robot.process import Child
from robopol.real_robot.recorder import Recorder, load, load_before, record
from robopol.real_robot.states import Command, State
from robopol.real_robot.supervisor import Supervisor
from robopol.real_robot.ticks import Source, tick_type

DT = 50 * MS
STEPS = np.dtype([("t", np.int64)])


PATIENT = {"missed": 1000, "lost": 10.0, "stale": 5.0, "supervisor": 1e6}
UNWATCHED = {"kind": "simulated", "watchdog": 0}


class Alone:
    """A servo process whose supervisor and policy the test is."""

    def __init__(self, **fields):
        self.robot = robot(**fields)
        self.channels, self.clock = Channels.new(self.robot), MonotonicClock()
        self.child = self.child_of("servo_process", policy=POLICY.hex())
        self.child.ready()
        self.rows, self.events, self.seq = [], [], 0

    def child_of(self, module, **setup):
        common = {"robot": self.robot.tree(), "channels": self.channels.handles()}
        return Child(module, common | setup, self.channels.descriptors)

    def look(self):
        self.rows += list(self.channels.ticks.take())
        self.events += [event_of(row) for row in self.channels.events.take()]
        return self.rows[-1] if self.rows else None

    def until(self, wanted, patience=20.0):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            row = self.look()
            if row is not None and wanted(row):
                return row
            time.sleep(0.005)
        raise AssertionError(f"it never came to that: {self.events[-5:]}")

    def start(self):
        self.channels.order(Command.ARM)
        before = self.until(lambda row: row["state"] == State.ARMED)["epoch"]
        self.channels.order(Command.RUN)
        epoch = self.until(lambda row: row["epoch"] > before)["epoch"]
        self.send(int(epoch), 40)
        self.until(lambda row: row["state"] == State.RUNNING)
        return self

    def send(self, epoch, rows):
        now, q = self.clock.now(), self.rows[-1]["command"]
        way = q + 0.03 * np.arange(1, rows + 1)[:, None] * np.array([1, 0.5, -0.5, 1, -1])
        data = np.concatenate([way, np.full((rows, 1), 0.5)], 1)
        self.seq += 1
        self.channels.policy.put(Chunk(POLICY, self.seq, epoch, now, now, now + 2 * DT, DT, data).pack())

    def check(self):
        """The commands that were written stay within speed and acceleration."""
        self.look()
        written = np.array([row["command"] for row in self.rows if row["written"]])
        assert np.all(np.abs(np.diff(written, axis=0)) <= 3.0 * self.robot.period * (1 + 1e-9))
        assert np.all(np.abs(np.diff(written, n=2, axis=0)) <= 15.0 * self.robot.period**2 * (1 + 1e-6))

    def close(self):
        self.child.end(5.0)
        self.channels.close()


@pytest.fixture
def alone():
    # the machine that tests run on may be busy: what is late is not what is tested here
    made = Alone(watch=PATIENT, driver=UNWATCHED)
    yield made
    made.close()


def test_when_the_supervisor_is_gone_the_arm_is_braked_and_the_process_ends(alone):
    alone.start()
    alone.child.process.stdin.close()  # what the kernel does when the supervisor is killed
    assert alone.child.process.wait(10) == 0
    alone.child.process.stdin = None
    alone.check()
    codes = [event.code for event in alone.events]
    assert Code.SUPERVISOR_LOST in codes
    states = [State(int(event.numbers[1])) for event in alone.events if event.code is Code.STATE_CHANGED]
    assert states[-2:] == [State.STOPPING, State.ARMED]
    lost = codes.index(Code.SUPERVISOR_LOST)
    assert alone.events[-1].t - alone.events[lost].t < 2_000 * MS


def test_sigterm_stops_the_arm_as_well(alone):
    alone.start()
    os.kill(alone.child.process.pid, signal.SIGTERM)
    assert alone.child.process.wait(10) == 0
    alone.check()


def test_without_a_policy_it_comes_to_rest_and_goes_on_with_the_next_chunk(alone):
    alone.start()
    alone.until(lambda row: row["state"] == State.HOLD)
    assert Code.STARVED in [event.code for event in alone.events]
    alone.send(int(alone.rows[-1]["epoch"]), 10)
    alone.until(lambda row: row["state"] == State.RUNNING)
    alone.channels.order(Command.QUIT)
    assert alone.child.process.wait(10) == 0
    alone.check()


def test_a_device_in_a_process_of_its_own_leads_the_arm_which_rests_when_that_is_killed(alone):
    keys, typing = os.pipe()
    leader = {"kind": "leader", "driver": {"kind": "swaying"}, "commands": {"kind": "keyboard"}}
    setup = {"robot": alone.robot.tree(), "channels": alone.channels.handles(), "operator": leader, "terminal": keys}
    device = Child("operator_process", setup, [*alone.channels.descriptors, keys])
    assert "lead it by hand" in device.ready()["help"]
    alone.until(lambda row: row["state"] == State.CONNECTED)
    os.write(typing, b"A")
    begin = alone.until(lambda row: row["state"] == State.ARMED)["command"]
    os.write(typing, b"T")
    alone.until(lambda row: row["state"] == State.HUMAN and np.abs(row["command"] - begin).max() > 0.05)
    assert alone.rows[-1]["source"] == Source.HUMAN
    device.process.kill()
    alone.until(lambda row: row["state"] == State.HOLD and np.abs(row["command_speed"]).max() == 0)
    alone.check()
    device.end(0.0)
    os.close(keys)
    os.close(typing)


def test_a_robot_that_cannot_be_connected_is_an_error_in_words():
    config = robot(driver={"kind": "simulated", "model": "/nowhere.xml"})
    channels = Channels.new(config)
    setup = {"robot": config.tree(), "channels": channels.handles(), "policy": POLICY.hex()}
    child = Child("servo_process", setup, channels.descriptors)
    with pytest.raises(RobotError, match="nowhere"):
        child.ready()
    child.end(1.0)
    channels.close()


def test_one_that_has_ended_is_told_for_nothing_and_ends_as_any_other(alone):
    alone.child.process.kill()
    alone.child.process.wait()
    alone.child.tell(leave=True)
    alone.child.end(0.0)
    assert not alone.child.alive


def test_one_that_says_what_is_wrong_is_not_waited_for_while_it_ends(tmp_path, monkeypatch):
    """Meanwhile a supervisor would not hear a word to stop; as when new weights are refused."""
    slow, saying = tmp_path / "slow", """os.write(int(sys.argv[3]), b'{"error": "no weights"}\\n')"""
    slow.write_text(f"#!{sys.executable}\nimport os, sys, time\ninput()\n{saying}\ntime.sleep(600)\n")
    slow.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(slow))
    child = Child("policy_process", {}, [])
    with pytest.raises(RobotError, match="no weights"):
        child.heard(60.0)
    assert child.alive
    child.end(0.0)
    assert child.process.wait(60) == -signal.SIGKILL


class Obstinate:
    """A process that comes up, and raises when it is to be ended."""

    ended: ClassVar[list] = []

    def __init__(self, name):
        self.name = name

    def ready(self):
        spec = {"control_hz": 10.0}
        return {"id": POLICY.hex(), "latency": 0.0, "executed": 1, "spec": spec, "steps": [], "scheduling": ""}

    def end(self, patience):
        self.ended.append(self.name)
        raise OSError(self.name)


def test_whatever_goes_wrong_as_one_process_ends_the_others_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(Supervisor, "_child", lambda self, module, **setup: Obstinate(setup.get("camera", module)))
    cameras = {name: {"kind": "opencv", "source": "x"} for name in ("front", "wrist")}
    made = Supervisor(robot(cameras=cameras), {}, tmp_path)
    with pytest.raises(OSError, match="policy_process"):
        made.close()
    assert Obstinate.ended == ["servo_process", "wrist", "front", "recorder", "policy_process"]
    with pytest.raises(ValueError, match="released"):
        made.channels.ticks.take()


CHATTY = """
from typing import Literal

from robopol.errors import RobotError
from robopol.real_robot.drivers.simulated import SimulatedConfig, SimulatedDriver

print("a driver's greeting")


class ChattyConfig(SimulatedConfig):
    kind: Literal["chatty"] = "chatty"

    def build(self, clock, period):
        print(f"a goal every {period} s")
        return Chatty(self, clock)


class Chatty(SimulatedDriver):
    def arm(self):
        raise RobotError("it is on its stop: move it by hand")

    def read(self, out):
        print("x" * 4095)
        return super().read(out)
"""


def test_a_driver_that_prints_stops_nothing_and_why_it_could_not_is_heard(tmp_path, monkeypatch, capfd):
    """Neither what comes before the word that it is ready, nor more than a pipe holds; the driver is a package's."""
    (tmp_path / "chatty_arm.py").write_text(CHATTY)
    about = tmp_path / "chatty_arm-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: chatty-arm\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[robopol.driver]\nchatty = chatty_arm:ChattyConfig\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(tmp_path)
    alone = Alone(watch=PATIENT, driver=UNWATCHED | {"kind": "chatty"})
    alone.channels.order(Command.ARM)
    alone.until(lambda row: len(alone.rows) > 40)
    alone.channels.order(Command.QUIT)
    assert alone.child.process.wait(10) == 0
    assert alone.channels.complaints.take()["words"].tolist() == [b"it is on its stop: move it by hand"]
    alone.close()
    said = capfd.readouterr().err
    assert "a driver's greeting" in said
    assert "a goal every 0.01 s" in said
    assert said.count("x" * 4095) > 40


# T16: the recorder


def test_a_recorder_that_is_stopped_or_killed_costs_the_loop_nothing(alone, tmp_path):
    recorder = alone.child_of(
        "recorder", folder=str(tmp_path), policy={"id": POLICY.hex()}, steps=np.lib.format.dtype_to_descr(STEPS)
    )
    recorder.ready()
    alone.start()
    alone.channels.order(Command.STOP, 2)
    alone.until(lambda row: row["state"] == State.ARMED)
    end = time.monotonic() + 10
    while not list(tmp_path.glob("2*")) and time.monotonic() < end:
        time.sleep(0.05)
    (folder,) = tmp_path.glob("2*")
    alone.start()
    os.kill(recorder.process.pid, signal.SIGSTOP)
    count = len(alone.rows)
    time.sleep(0.3)
    alone.look()
    assert len(alone.rows) > count
    os.kill(recorder.process.pid, signal.SIGKILL)
    recorder.end(0.0)
    time.sleep(0.1)
    alone.look()
    assert alone.child.alive
    found, about = load(folder)  # the first episode is whole, the second is not there
    assert len(list(tmp_path.glob("2*"))) == 1
    assert about["success"] is True
    assert about["robot"]["name"] == "so101"
    assert set(found["ticks"]["state"].tolist()) >= {State.RUNNING, State.ARMED}
    assert Code.COMMANDED in found["events"]["code"]
    np.testing.assert_array_equal(np.diff(found["ticks"]["t"]) % alone.robot.period_ns, 0)


def test_what_a_recorder_could_not_write_is_an_alarm_also_as_everything_ends(alone, tmp_path, capsys):
    setup = {"policy": {"id": POLICY.hex()}, "steps": np.lib.format.dtype_to_descr(STEPS)}
    (tmp_path / "file").write_text("")
    refused = alone.child_of("recorder", folder=str(tmp_path / "file"), **setup)
    with pytest.raises(RobotError, match="nothing can be recorded in"):
        refused.ready()
    refused.end(1.0)
    recorder = alone.child_of("recorder", folder=str(tmp_path / "record"), **setup)
    recorder.ready()
    (tmp_path / "record").rmdir()
    (tmp_path / "record").write_text("")
    alone.start()
    heard = Supervisor.__new__(Supervisor)
    heard.channels, heard._children, heard._words, heard.recorded = alone.channels, {"recorder": recorder}, [], {}
    end = time.monotonic() + 20
    while not heard._words and time.monotonic() < end:
        heard._hear_complaints()
        time.sleep(0.01)
    assert "the recorder: this motion is not recorded" in heard._words[0]
    alone.channels.order(Command.STOP, 2)
    epoch = alone.until(lambda row: row["state"] == State.ARMED)["epoch"]
    heard._hear_out()
    assert heard.recorded == {epoch: False}
    assert "ALARM: the recorder: this motion is not recorded" in capsys.readouterr().err
    recorder.end(1.0)


def tick(state):
    row = np.zeros(1, tick_type(5))
    row["state"] = state
    return row


def rows_of(ticks):
    return {"ticks": ticks, "events": np.zeros(0, EVENT_ROW), "steps": np.zeros(0, STEPS)}


def recorder_in(folder):
    return Recorder(folder, {"ticks": tick_type(5), "events": EVENT_ROW, "steps": STEPS}, {"robot": {}})


@contextmanager
def files_of_at_most(size):
    """Let the system refuse what makes a file longer than ``size`` bytes, as a full disk does: by halves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def many(start, count):
    rows = np.concatenate([tick(State.RUNNING)] * count)
    rows["t"] = np.arange(start, start + count)
    return rows


@pytest.mark.parametrize("most", [0, 3, 40])
def test_a_full_disk_is_counted_and_what_fits_afterwards_is_recorded(tmp_path, most):
    """Blocks that are longer than a buffer end within a row; what comes later is not shifted by that."""
    made, size = recorder_in(tmp_path), tick_type(5).itemsize
    made.add(rows_of(many(0, 1)), 0)
    with files_of_at_most((1 + most) * size + size // 2):
        made.add(rows_of(many(1, 60)), 0)
        made.add(rows_of(many(61, 60)), 0)
    made.add(rows_of(tick(State.ARMED)), 3)  # and three were lost by the ring
    (folder,) = made.written
    found, about = load(folder)
    assert found["ticks"]["t"].tolist() == [*range(1 + most), 0]
    assert found["ticks"]["state"][-1] == State.ARMED
    assert about["dropped"] == 120 - most + 3


def test_a_disk_that_takes_no_files_is_tried_now_and_then(tmp_path, monkeypatch):
    made, now = recorder_in(tmp_path), [100.0]
    monkeypatch.setattr("robopol.real_robot.recorder.time.monotonic", lambda: now[0])
    monkeypatch.setattr(Recorder, "_write_before", lambda *args: (_ for _ in ()).throw(OSError(28, "full")))
    for k in range(100):
        now[0] += 0.05
        made.add(rows_of(many(k, 1)), 0)
    assert made.dropped == 3
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    made._again = 0.0
    made.add(rows_of(many(100, 1)), 0)
    made.add(rows_of(tick(State.ARMED)), 0)
    (folder,) = made.written
    assert len(load(folder)[0]["ticks"]) == 2
    assert len(load_before(folder)["ticks"]) > 0


def test_a_folder_that_cannot_be_written_is_counted_too(tmp_path):
    (tmp_path / "file").write_text("")
    made = recorder_in(tmp_path / "file" / "below")
    made.add(rows_of(tick(State.RUNNING)), 0)
    made.add(rows_of(tick(State.ARMED)), 0)
    assert made.dropped > 0
    assert not made.written


@pytest.mark.parametrize("ends", [True, False])
def test_an_episode_is_what_lies_between_motion_and_stop(tmp_path, ends, monkeypatch):
    """Also where the supervisor is gone meanwhile, and where nothing more is heard of the arm."""
    monkeypatch.setattr("robopol.real_robot.recorder._LINGER", 0.1)
    made, times = recorder_in(tmp_path), iter([True, True])

    class Slow:
        lost = 0

        def __init__(self, none, *parts):
            self.none, self.parts = none, list(parts)

        def take(self):
            return self.parts.pop(0) if self.parts else self.none

    ticks = Slow(
        tick(State.ARMED)[:0],
        np.concatenate([tick(s) for s in (State.CONNECTED, State.ARMED)]),
        np.concatenate([tick(s) for s in (State.ARMED, State.RUNNING, State.HOLD)]),
        tick(State.RUNNING),
        tick(State.STOPPING),
        *[tick(State.ARMED)] * ends,
    )
    record(made, {"ticks": ticks, "events": Slow(np.zeros(0, EVENT_ROW))}, lambda: next(times, False))
    (folder,) = made.written
    found = np.fromfile(Path(folder, "ticks.bin"), tick_type(5))
    states = [State.ARMED, State.RUNNING, State.HOLD, State.RUNNING, State.STOPPING, *[State.ARMED] * ends]
    assert found["state"].tolist() == states
    assert json.loads(Path(folder, "episode.json").read_text())["success"] is None
