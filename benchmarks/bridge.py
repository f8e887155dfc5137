"""The bridge in real time: how punctual the servo loop is, how fast it obeys, what is left when parts are killed.

    python benchmarks/bridge.py [--seconds 20] [--soak 60] [--orders 100] [--busy 2] [--checkpoint RUN]
        [--kept FILE.json] [--out FILE.json]

The servo loop runs in its own process, as in `robopol deploy`: with the simulated SO-101, and over each vendor's client
to an emulated arm (bridge_arms.py). While it is measured how punctual it is, ``--busy`` processes that only compute
take the processors besides; in the other cases those who answer it, an emulator above all, are to have them. With a
checkpoint of a task of the arm suite that leaves the gripper where it is, such as Push, its engines are timed, and its
success is compared in the simulator and through bridge, ur-rtde and emulated controller, with plans that are in time
and late, over the same seeds, in virtual time (bridge_tasks.py). Figures of time are this machine's, which is printed
with them: load and scheduling decide. Beside each stands its limit, and whether the run is long enough to be held
against it (bridge_limits.py). What the cases T1 to T20 are: docs/bridge-checks.md.
"""

import argparse
import os
import platform
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bridge_arms
import bridge_limits
import bridge_tasks
import numpy as np
import torch

from robopol.config import parse
from robopol.configs import load_config
from robopol.files import write_json
from robopol.real_robot.channels import Channels
from robopol.real_robot.chunk import Chunk
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.process import Child
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import Command, State

TOLERANT = {"watch.missed": 99, "watch.lost": 5, "watch.stale": 5, "watch.supervisor": 1e6, "driver.watchdog": 0}
POLICY = b"benchmark".ljust(16, b"\0")


class Loop:
    """A servo process that is fed with chunks of a sine."""

    def __init__(self, **overrides: Any) -> None:
        """Start the process; overrides are of the robot."""
        words = ["checkpoint=x", "robot=so101_simulated", "robot.geometry=null"]
        words += [f"robot.{key}={value}" for key, value in overrides.items()]
        self.robot = parse(RobotConfig, load_config("deploy", words)["robot"])
        self.channels, self.clock = Channels.new(self.robot), MonotonicClock()
        setup = {"robot": self.robot.tree(), "channels": self.channels.handles(), "policy": POLICY.hex()}
        self.child = Child("servo_process", setup, self.channels.descriptors)
        self.scheduling = self.child.ready()["scheduling"]
        self.rows: list[Any] = []
        self._sent = 0

    def run(self, seconds: float) -> list[Any]:
        """Send a chunk every 100 ms and return the rows of that time."""
        start, end = len(self.rows), time.monotonic() + seconds
        while time.monotonic() < end:
            now = self.clock.now()
            self.channels.beat(now)
            self.rows += list(self.channels.ticks.take())
            if self.rows and now - self._sent > 100_000_000:
                self._sent, times = now, now + np.arange(1, 13) * 50_000_000
                wave = 0.3 * np.sin(2 * np.pi * 0.5 * times * 1e-9)[:, None] * np.ones(5)
                data = np.concatenate([wave, np.full((12, 1), 0.5)], 1)
                epoch = int(self.rows[-1]["epoch"])
                self.channels.policy.put(Chunk(POLICY, now, epoch, now, now, int(times[0]), 50_000_000, data).pack())
            time.sleep(0.01)
        return self.rows[start:]

    def begin(self) -> None:
        """Arm the arm and let the sine move it."""
        self.run(0.3)
        self.channels.order(Command.ARM)
        self.run(0.5)
        self.channels.order(Command.RUN)
        self.run(1.0)
        if self.rows[-1]["state"] != State.RUNNING:
            raise SystemExit(f"the loop does not run: it is {State(int(self.rows[-1]['state'])).name}")

    def close(self) -> None:
        """End the process."""
        self.child.end(5.0)
        self.channels.close()


def lateness(rows: list[Any], period_ns: int) -> dict[str, Any]:
    """Return how late the ticks were, and the share of those that were missed."""
    steps = np.diff([int(row["t"]) for row in rows]) // period_ns
    late = np.array([int(row["late"]) for row in rows]) * 1e-6
    return {
        "late_ms": {"p50": float(np.median(late)), "p99": float(np.percentile(late, 99))},
        "missed": float((steps - 1).sum() / steps.sum()),
    }


def punctuality(period: float, seconds: float, orders: int) -> dict[str, Any]:
    """Lateness of ticks and share of the missed ones (T1); time from an order to the first braking command (T11)."""
    loop = Loop(period=period, **TOLERANT)
    try:
        loop.begin()
        ticks = lateness(loop.run(seconds), loop.robot.period_ns)
        obeyed = []
        for _ in range(orders):
            told = loop.clock.now()
            loop.channels.order(Command.HOLD)
            after = loop.run(0.2)
            held = next((row for row in after if row["state"] == State.HOLD and row["t"] + row["late"] >= told), None)
            if held is not None:
                obeyed.append((int(held["t"]) + int(held["late"]) - told) * 1e-6)
            loop.channels.order(Command.RUN)
            loop.run(0.5)
    finally:
        loop.close()
    return {
        "hz": round(1 / period),
        "scheduling": loop.scheduling,
        **ticks,
        "order_to_braking_ms": {"p50": float(np.median(obeyed)), "worst": float(max(obeyed)), "orders": len(obeyed)},
    }


def killed() -> dict[str, Any]:
    """Time from SIGKILL, and from SIGSTOP, of the servo process until its supervisor knows (T4)."""
    found = {}
    for name, how in (("killed_alarm_ms", signal.SIGKILL), ("hangs_alarm_ms", signal.SIGSTOP)):
        loop = Loop()
        try:
            loop.begin()
            os.kill(loop.child.process.pid, how)
            found[name] = bridge_arms.alarm(loop) * 1e3
            loop.child.process.kill()
        finally:
            loop.close()
    return found


def recorded(seconds: float) -> dict[str, Any]:
    """Lateness of ticks while they are recorded, and once the recorder hangs or is dead (T16)."""
    loop, found = Loop(**TOLERANT), {}
    with TemporaryDirectory() as folder:
        setup = {"robot": loop.robot.tree(), "channels": loop.channels.handles(), "policy": {"id": POLICY.hex()}}
        steps = np.lib.format.dtype_to_descr(np.dtype([("t", np.int64)]))
        recorder = Child("recorder", setup | {"folder": folder, "steps": steps}, loop.channels.descriptors)
        try:
            recorder.ready()
            loop.begin()
            for name, how in (("at work", None), ("hangs", signal.SIGSTOP), ("killed", signal.SIGKILL)):
                if how is not None:
                    os.kill(recorder.process.pid, how)
                found[name] = lateness(loop.run(seconds), loop.robot.period_ns)
        finally:
            recorder.end(0.0)
            loop.close()
    return found


def soak(seconds: float) -> dict[str, Any]:
    """What the servo process has more of after some time, and how far its schedule has drifted (T20)."""
    loop = Loop(**TOLERANT)
    try:
        loop.begin()
        loop.run(2.0)
        pid = loop.child.process.pid

        def held() -> tuple[int, int, int]:
            status = Path(f"/proc/{pid}/status").read_text().split("\n")
            find = {line.split(":")[0]: line.split()[1] for line in status if ":" in line and len(line.split()) > 1}
            return len(os.listdir(f"/proc/{pid}/fd")), int(find["Threads"]), int(find["VmRSS"])

        before, rows = held(), loop.run(seconds)
        after = held()
        phase = {int(row["t"] - rows[0]["t"]) % loop.robot.period_ns for row in rows}
    finally:
        loop.close()
    names = ("descriptors", "threads", "rss_kb")
    more = {name: b - a for name, a, b in zip(names, before, after, strict=True)}
    return {"seconds": seconds, "ticks": len(rows), "more": more, "drift_ns": max(phase)}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    machine, soak = tree["machine"], tree.get("soak")
    lines = [
        "## The bridge in real time",
        "",
        f"The servo loop in its own process; {tree['busy']} others compute while its lateness is measured; "
        "emulated arms run ahead of these, where real-time scheduling is permitted. "
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load'][0]:.1f}. {tree.get('note', '')} "
        "`python benchmarks/bridge.py`",
        "",
        "| loop | scheduling | late, p50 / p99 | ticks missed | order to braking, p50 / worst |",
        "|---|---|---|---|---|",
    ]
    for row in (tree["loop_100_hz"], tree["loop_250_hz"]):
        late, braking = row["late_ms"], row["order_to_braking_ms"]
        lines.append(
            f"| {row['hz']} Hz | {row['scheduling']} | {late['p50']:.2f} / {late['p99']:.2f} ms | "
            f"{row['missed']:.2%} | {braking['p50']:.1f} / {braking['worst']:.1f} ms, {braking['orders']} orders |"
        )
    dead = ", ".join(f"{ms:.0f} ms ({name.split('_')[0]})" for name, ms in tree["killed"].items())
    lines += ["", f"Its supervisor knows that it is dead, or hangs, after {dead}."]
    if soak:
        more = ", ".join(f"{count:+} {name}" for name, count in soak["more"].items())
        lines.append(f"After {soak['seconds']:.0f} s it holds {more}; its schedule drifted by {soak['drift_ns']} ns.")
    if "recorder" in tree:
        told = (
            f"{row['late_ms']['p99']:.2f} ms, {row['missed']:.2%} ({name})" for name, row in tree["recorder"].items()
        )
        lines.append(f"Late at most (p99) and missed at 100 Hz while a recorder is {', '.join(told)}.")
    lines.append("")
    lines += bridge_arms.table(tree.get("arms", []))
    lines += bridge_limits.table(tree.get("verdicts", []))
    if "engines" in tree:
        told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in tree["engines"]["p99_ms"].items())
        lines += [f"A plan, p99 beside a servo loop: {told}; {tree['engines']['allowed_ms']:.0f} ms are allowed."]
        done = ", ".join(f"{name} {rate:.0%}" for name, rate in tree["engines"]["success_rate"].items())
        lines += [f"Success of each, in its simulator, in the episodes of the table below: {done}.", ""]
    if "success" in tree:
        lines += bridge_tasks.table(tree["success"])
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--soak", type=float, default=60.0)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--checkpoint")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--orders", type=int, default=10, help="to hold; a hundred for a 99th percentile")
    parser.add_argument("--kept", type=Path, help="where episodes are written; those that are there are not run again")
    parser.add_argument("--probes", type=int, default=50, help="of the time from a step of the arm to a goal")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in cpu.splitlines() if "model name" in line), platform.machine())
    found: dict[str, Any] = {
        "machine": {"kernel": platform.release(), "cores": os.cpu_count(), "cpu": model, "load": os.getloadavg()},
        "busy": args.busy,
        "seconds": args.seconds,
    }
    for period in (0.01, 0.004):
        with bridge_arms.computing(args.busy):
            found[f"loop_{round(1 / period)}_hz"] = punctuality(period, args.seconds, args.orders)
    found["killed"] = killed()
    found["recorder"] = recorded(args.seconds)
    found["arms"] = bridge_arms.arms(args.seconds, args.probes, args.busy)
    if args.soak:
        found["soak"] = soak(args.soak)
    if args.checkpoint:
        torch.set_num_threads(1)
        loop = Loop(**TOLERANT)
        try:
            loop.begin()
            found["engines"] = bridge_tasks.engines(args.checkpoint, loop.run, args.episodes)
        finally:
            loop.close()
        found["success"] = bridge_tasks.successes(args.checkpoint, args.episodes, args.kept)
    found["verdicts"] = bridge_limits.judged(found)
    for key, value in found.items():
        if key != "verdicts":
            print(f"{key}: {value}")
    print("\n".join(bridge_limits.table(found["verdicts"])))
    if args.out is not None:
        write_json(args.out, found)


if __name__ == "__main__":
    main()
