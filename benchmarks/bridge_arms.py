"""The servo loop over the vendors' clients to emulated arms, in real time (T1, T2, T4, T5); used by bridge.py.

Emulator, servo loop and whoever stands for the policy are a process each, as with real arms. What is reported is what
the witness at the wire saw, by the clock that all processes of a machine share.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from robopol.config import parse
from robopol.configs import load_config
from robopol.errors import MissingExtraError, RobotError
from robopol.real_robot.channels import Channels
from robopol.real_robot.chunk import Chunk
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.process import Child
from robopol.real_robot.pulse import Pulse
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import Command, State

LOOKS = 0.05
"""Time between two looks of `robopol deploy` at its processes, s."""
POLICY = b"benchmark".ljust(16, b"\0")
STEP = 50_000_000
URGENCY = 40
"""Of an emulator, where real-time scheduling is permitted: just below that of the servo loop."""
FAR, BRISK = 0.5, 40.0
"""A probe's way, rad, and the joints' accelerations, rad/s^2: the first period's way is one that a servo resolves."""
ARMS = (("feetech", 0.01), ("dynamixel", 0.01), ("ur", 0.002), ("ur", 0.008))
TOLERANT = {"missed": 100, "lost": 5.0, "stale": 5.0, "tracking": 3.0, "supervisor": 1e6}
"""On a machine that is busy the loop is to go on, so that it can be seen how late it is."""


class Emulator:
    """An emulated arm in its own process, ahead of all that compute: a real one shares no processor with them."""

    def __init__(self, kind: str, folder: Path) -> None:
        """Start it; its limits are wide, as it is its times that matter here."""
        words = [sys.executable, "-m", "robopol.real_robot.emulators", kind]
        if kind == "ur":
            words += ["--host", "127.0.0.78"]
        else:
            words += ["--calibration", str(folder / "arm.json"), "--baud", "2000000"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with suppress(AttributeError, PermissionError):
            os.sched_setscheduler(self.process.pid, os.SCHED_FIFO, os.sched_param(URGENCY))
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split(" at ")[-1].strip()
        common = {"kind": kind}
        self.driver = common | (
            {"host": said, "timeout": 0.1, "watchdog": 20.0}
            if kind == "ur"
            else {"port": said, "calibration": str(folder / "arm.json"), "max_speed": 6.0, "max_accel": 60.0}
        )

    def tell(self, line: str) -> str:
        """Say a line and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def state(self) -> dict[str, Any]:
        """Return where the arm is, how many goals came, and when the last one did."""
        found: dict[str, Any] = json.loads(self.tell("state"))
        return found

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Loop:
    """A servo process that drives an emulated arm, and whoever feeds it."""

    def __init__(self, kind: str, period: float, folder: Path) -> None:
        """Start both."""
        name = "ur5e_simulated" if kind == "ur" else "so101_simulated"
        tree: Any = load_config("deploy", ["checkpoint=x", f"robot={name}"])["robot"]
        self.emulator = Emulator(kind, folder)
        tree |= {"period": period, "driver": self.emulator.driver, "geometry": None, "watch": TOLERANT}
        tree["joints"] = [joint | {"acceleration": BRISK} for joint in tree["joints"]]
        if kind == "ur":
            tree["gripper"] = None
        else:  # two tries of a read of six servos, on a machine that is busy
            tree["driver"] |= {"timeout": 0.05}
        self.robot = parse(RobotConfig, tree)
        self.channels, self.clock = Channels.new(self.robot), MonotonicClock()
        setup = {"robot": self.robot.tree(), "channels": self.channels.handles(), "policy": POLICY.hex()}
        self.child = Child("servo_process", setup, self.channels.descriptors)
        self.scheduling = self.child.ready()["scheduling"]
        self.rows: list[Any] = []

    def look(self) -> Any:
        """Take the new rows; return the newest of all."""
        self.rows += list(self.channels.ticks.take())
        return self.rows[-1] if self.rows else None

    def send(self, offset: float) -> None:
        """Send a chunk whose first joint goes ``offset`` rad away from where it is commanded to be."""
        now, row = self.clock.now(), self.rows[-1]
        data = np.tile(row["command"], (12, 1))
        data[:, 0] += np.linspace(offset / 12, offset, 12)
        if self.robot.gripper is not None:
            data = np.concatenate([data, np.full((12, 1), 0.5)], 1)
        self.channels.policy.put(Chunk(POLICY, now, int(row["epoch"]), now, now, now + STEP, STEP, data).pack())

    def until(self, state: State, seconds: float = 20.0) -> bool:
        """Wait for a state."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            row = self.look()
            if row is not None and row["state"] == state:
                return True
            time.sleep(0.002)
        return False

    def begin(self) -> bool:
        """Arm it and let it move; return whether it does."""
        for _ in range(5):  # a UR's program ends if its first goal comes too late
            row = self.look()
            if row is None or row["state"] not in (State.ARMED, State.HOLD, State.RUNNING):
                self.channels.order(Command.RESET, 1)
                self.channels.order(Command.ARM)
                if not self.until(State.ARMED, 5.0):
                    continue
            self.channels.order(Command.RUN)
            time.sleep(0.1)
            self.look()
            self.send(0.1)
            if self.until(State.RUNNING, 2.0):
                return True
        return False

    def sway(self, seconds: float) -> list[Any]:
        """Let it go to and fro, and return the rows of that time."""
        start, end, sign = len(self.rows), time.monotonic() + seconds, 1
        while time.monotonic() < end:
            self.look()
            self.send(0.15 * sign)
            sign = -sign
            time.sleep(0.1)
        self.look()
        return self.rows[start:]

    def close(self) -> None:
        """End both."""
        self.child.end(5.0)
        self.channels.close()
        self.emulator.close()


@contextmanager
def urgent(priority: int) -> Iterator[None]:
    """Let this process run ahead of all that compute, where that is permitted, but behind loop and emulator."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (AttributeError, PermissionError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def computing(count: int) -> Iterator[None]:
    """Let so many processes compute meanwhile, and nothing else."""
    alone = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # and nobody is left if this one is killed
    busy = [subprocess.Popen([sys.executable, "-c", alone]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def punctuality(loop: Loop, seconds: float) -> dict[str, Any]:
    """Lateness of ticks, share of the missed ones (T1)."""
    rows = loop.sway(seconds)
    steps = np.diff([int(row["t"]) for row in rows]) // loop.robot.period_ns
    late = np.array([int(row["late"]) for row in rows]) * 1e-6
    return {
        "ticks": len(rows),
        "late_ms": {"p50": float(np.median(late)), "p99": float(np.percentile(late, 99))},
        "missed": float((steps - 1).sum() / max(steps.sum(), 1)),
        "still_running": int(rows[-1]["state"]) in (State.RUNNING, State.HOLD),
    }


def probed(loop: Loop, times: int) -> dict[str, Any]:
    """Time from a step in the arm's state to the first goal at the wire that was made of it (T2).

    Whoever stands for the policy infers nothing: it waits for the step in the rows, and answers at once. It does not
    keep a core busy meanwhile, which the emulator may need. Of the buses, whose emulators go by this machine's clock,
    the time to the beginning of the tick that answers is told apart: that is the loop's, and what follows is the
    vendor's client's, which takes a millisecond or two to write. A UR's clock is its own, and its client is done at
    once.
    """
    found = []
    for k in range(times):
        time.sleep(1.3 + 0.0037 * (k % 10))  # at rest, and at another place of the period each time
        row = loop.look()
        if row["state"] not in (State.RUNNING, State.HOLD) and not loop.begin():
            break
        before, stood, far = float(row["q"][0]), row["command"][0], -FAR if row["command"][0] > 0 else FAR
        told = json.loads(loop.emulator.tell("push 0.1"))
        end = time.monotonic() + 1.0
        with urgent(URGENCY - 10):
            while time.monotonic() < end and abs(float(loop.look()["q"][0]) - before) < 0.05:
                time.sleep(0.0002)
            loop.send(far)
        time.sleep(0.3)
        first = json.loads(loop.emulator.tell(f"moved {told}"))
        loop.look()
        begun = [int(r["t"] + r["late"]) for r in loop.rows[-1000:] if r["t"] > told and r["command"][0] != stood]
        if first is not None and begun:
            found.append(((first - told) * 1e-6, (begun[0] - told) * 1e-6))
    if not found:
        return {"probes": 0}
    (p50, tick_p50), (p99, tick_p99) = np.percentile(found, [50, 99], axis=0).tolist()
    goals = {"probes": len(found), "p50_ms": p50, "p99_ms": p99}
    if loop.robot.driver.tree()["kind"] == "ur":
        return goals
    after = float(np.percentile([goal - tick for goal, tick in found], 99))
    return goals | {"to_tick_p50_ms": tick_p50, "to_tick_p99_ms": tick_p99, "in_tick_p99_ms": after}


def alarm(loop: Any) -> float:
    """Wait as a supervisor does until it knows that a loop is dead or silent; return how long that took, s."""
    begun, pulse = time.monotonic(), Pulse(loop.clock.now(), loop.robot.period)
    while True:
        for row in loop.channels.ticks.take():
            pulse.hear(State(int(row["state"])), int(row["t"] + row["late"]))
        if not loop.child.alive or pulse.alarm(loop.clock.now()):
            return time.monotonic() - begun
        time.sleep(LOOKS)


def at_full_speed(loop: Loop) -> tuple[float, float]:
    """Bring the arm to full speed; return when that is, by time.monotonic, and the speed, rad/s."""
    loop.sway(0.3)
    loop.send(1.5)
    time.sleep(0.45)
    begun = time.monotonic()
    return begun, max(map(abs, loop.emulator.state()["dq"]))


def rest(loop: Loop, begun: float) -> float | None:
    """Return how long it takes until the arm rests, ms; None if it goes on for three seconds."""
    while time.monotonic() - begun < 3.0:
        if max(map(abs, loop.emulator.state()["dq"])) < 0.02:
            return (time.monotonic() - begun) * 1e3
        time.sleep(0.002)
    return None


def killed(loop: Loop) -> dict[str, Any]:
    """Time from SIGKILL of the servo process at full speed until its supervisor knows, and until the arm rests (T4)."""
    begun, speed = at_full_speed(loop)
    loop.child.process.kill()
    while loop.child.alive:
        time.sleep(0.001)
    told = time.monotonic() - begun + LOOKS  # at the latest
    return {"speed": speed, "alarm_ms": told * 1e3, "rest_ms": rest(loop, begun)}


def orphaned(loop: Loop) -> dict[str, Any]:
    """Time until the arm rests when the supervisor dies at full speed (T5), of which the loop sees a closed pipe."""
    begun, speed = at_full_speed(loop)
    assert loop.child.process.stdin is not None
    loop.child.process.stdin.close()
    return {"speed": speed, "rest_ms": rest(loop, begun)}


def arms(seconds: float, probes: int, busy: int) -> list[dict[str, Any]]:
    """Measure all drivers, how punctual they are beside ``busy`` processes that compute.

    One whose client is not installed, or that does not run, says why.
    """
    found = []
    for kind, period in ARMS:
        row: dict[str, Any] = {"driver": kind, "hz": round(1 / period)}
        found.append(row)
        try:
            with driven(kind, period) as loop:
                row["scheduling"] = loop.scheduling
                with computing(busy):
                    row |= punctuality(loop, seconds)
                if loop.begin():
                    row["probe"] = probed(loop, probes)
                if loop.begin():
                    row["killed"] = killed(loop)
            with driven(kind, period) as loop:
                row["orphaned"] = orphaned(loop)
        except (RobotError, MissingExtraError) as error:
            row["failed"] = str(error)
        print(row, flush=True)
    return found


@contextmanager
def driven(kind: str, period: float) -> Iterator[Loop]:
    """Drive an emulated arm, which moves.

    Raises:
        RobotError: If it does not.
        MissingExtraError: If the vendor's client is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(kind, period, Path(folder))
        try:
            if not loop.begin():
                raise RobotError(f"it does not run: {State(int(loop.look()['state'])).name}")
            yield loop
        finally:
            loop.close()


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of docs/results.md."""
    lines = [
        "Over the vendors' clients to emulated arms, each a process of its own; times at the wire.",
        "",
        "| driver | scheduling | late, p50 / p99 | ticks missed | state to goal, p50 / p99 (to its tick) "
        "| killed: alarm, at rest | without a supervisor at rest |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['driver']} {row['hz']} Hz | {row['failed']} | | | | | |")
            continue
        late, probe, dead = row["late_ms"], row.get("probe", {}), row.get("killed", {})
        tick = f"({probe['to_tick_p50_ms']:.1f} / {probe['to_tick_p99_ms']:.1f})" if "to_tick_p50_ms" in probe else ""
        seen = f"{probe['p50_ms']:.1f} / {probe['p99_ms']:.1f} ms {tick}" if probe.get("probes") else "-"
        ends = f"{dead['alarm_ms']:.0f} ms, {_ms(dead)}" if dead else "-"
        lines.append(
            f"| {row['driver']} {row['hz']} Hz | {row['scheduling']} | {late['p50']:.2f} / {late['p99']:.2f} ms | "
            f"{row['missed']:.2%}{'' if row['still_running'] else ', then it stopped'} | {seen} | {ends} | "
            f"{_ms(row.get('orphaned', {}))} |"
        )
    return [*lines, ""]


def _ms(row: dict[str, Any]) -> str:
    """Return how long an arm took until it was at rest."""
    return "-" if row.get("rest_ms") is None else f"{row['rest_ms']:.0f} ms"
