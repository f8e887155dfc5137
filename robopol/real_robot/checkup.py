"""Measurements of a robot that does not move: how punctual its loop can be, how it answers, what a tick costs."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robopol.config import parse
from robopol.errors import RobotError
from robopol.real_robot.camera import Camera
from robopol.real_robot.capture import Capture
from robopol.real_robot.child import be_punctual
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.driver import Driver, Reading
from robopol.real_robot.motion import Motion
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.stage import Stage


class Punctuality(NamedTuple):
    """How late a loop's ticks were.

    Attributes:
        median: s.
        p99: s.
        missed: Share of the deadlines that were missed by a whole period.
    """

    median: float
    p99: float
    missed: float


class Answers(NamedTuple):
    """How an arm answered.

    Attributes:
        model: What it calls itself.
        fresh: New states a second.
        p99: Time that a read took, s.
        failed: Share of the reads that failed.
    """

    model: str
    fresh: float
    p99: float
    failed: float


class View(NamedTuple):
    """How a camera did.

    Attributes:
        about: What it is.
        fps: New pictures a second.
        age: Age of a picture when it arrived, the median, s; None if the camera does not tell when it was taken.
        missed: Pictures that never came.
        repeated: Pictures that were equal to the one before.
    """

    about: str
    fps: float
    age: float | None
    missed: int
    repeated: int


def punctuality(period: float, ticks: int = 200) -> Punctuality:
    """Tick so many times with nothing to do, and say how late it was."""
    clock, step = MonotonicClock(), round(period * 1e9)
    t = clock.now() + step
    late, missed = [], 0
    for _ in range(ticks):
        clock.sleep_until(t)
        late.append(clock.now() - t)
        skipped = late[-1] // step
        missed += skipped
        t += (skipped + 1) * step
    return Punctuality(float(np.median(late)) * 1e-9, float(np.percentile(late, 99)) * 1e-9, missed / (ticks + missed))


def answers(robot: RobotConfig, ticks: int = 100) -> Answers:
    """Connect an arm and read its state so many times; it is neither armed nor moved.

    Raises:
        RobotError: If it cannot be connected, or is another one than the configuration says.
    """
    clock, step = MonotonicClock(), robot.period_ns
    driver: Driver = robot.driver.build(clock, robot.period)
    try:
        info = driver.connect()
        robot.check_device(info)
        reading, took, fresh, failed = Reading(info.joints), [], 0, 0
        start = t = clock.now()
        for _ in range(ticks):
            t += step
            clock.sleep_until(t)
            before = clock.now()
            try:
                fresh += driver.read(reading)
            except RobotError:
                failed += 1
            took.append(clock.now() - before)
        seconds = (clock.now() - start) * 1e-9
    finally:
        driver.close()
    return Answers(info.model, fresh / seconds, float(np.percentile(took, 99)) * 1e-9, failed / ticks)


def view(robot: RobotConfig, name: str, seconds: float = 2.0) -> View:
    """Take pictures by one camera for so long; that of a simulation sees it as it begins.

    Raises:
        RobotError: If the camera cannot be opened, or is gone.
    """
    clock, config = MonotonicClock(), robot.cameras[name]
    stage = None
    if robot.driver.kind == "simulated":
        stage = Stage(robot.driver.model, lambda: None)
        stage.world = lambda: stage.start(clock.now())
    camera: Camera = config.build(clock, stage)
    ages: list[float] = []
    times: list[int] = []
    repeated = 0
    try:
        about = camera.open()
        capture = Capture(camera, config, clock, lambda frame: times.append(frame.t), lambda pulse: None)
        end = clock.now() + round(seconds * 1e9)
        while clock.now() < end:
            before = capture.repeated
            if (frame := capture.step()) is not None:
                ages.append((clock.now() - frame.t) * 1e-9)
            repeated += capture.repeated > before
    finally:
        camera.close()
        if stage is not None:
            stage.close()
    passed = (times[-1] - times[0]) * 1e-9 if len(times) > 1 else 0.0
    fps = (len(times) - 1) / passed if passed else 0.0
    age = float(np.median(ages)) if ages and camera.stamps else None
    return View(about, fps, age, capture.missed, repeated)


def cost_of_motion(robot: RobotConfig, ticks: int = 200) -> float:
    """Return how long plan, filter and limiter take for a tick, the 99th percentile, s."""
    motion, took = Motion(robot), []
    low, high = robot.joint("low"), robot.joint("high")
    motion.reset((low + high) / 2, 0.5, 0)
    for k in range(ticks):
        before = time.perf_counter()
        motion.follow(k * robot.period_ns)
        took.append(time.perf_counter() - before)
    return float(np.percentile(took, 99))


def verdict(robot: RobotConfig, latency: float, executed: int, spec: dict[str, Any]) -> str:
    """Say whether plans come in time.

    Args:
        robot: The robot.
        latency: Time that a plan takes, s.
        executed: Actions after which the next is asked for.
        spec: Tree of the policy's spec.
    """
    period = 1 / spec["control_hz"]
    chunk = (spec["horizon"] - spec["n_obs_steps"] + 1) * period
    cameras = [camera for name, camera in robot.cameras.items() if f"images.{name}" in spec["obs_shapes"]]
    seen = max((camera.latency + 1 / camera.fps for camera in cameras), default=0.0)
    said = f"a plan takes {latency * 1e3:.0f} ms, is asked for every {executed * period * 1e3:.0f} ms"
    said = f"pictures are up to {seen * 1e3:.0f} ms old, {said}" if cameras else said
    if seen + latency > robot.gate.max_latency:
        return f"{said}: TOO SLOW, as chunks later than gate.max_latency={robot.gate.max_latency} s are refused"
    if executed * period + seen + latency + robot.latency + 2 * robot.period > chunk:
        return f"{said}, and reaches {chunk * 1e3:.0f} ms: TOO SLOW, the arm will stop in between"
    return f"{said}, and reaches {chunk * 1e3:.0f} ms: in time"


def measure_loop(robot: RobotConfig) -> tuple[str, Punctuality, float]:
    """Return what scheduling is granted, `punctuality` and `cost_of_motion`, in a process such as the loop's own.

    Raises:
        ConfigError: If the robot's model cannot be used.
        RobotError: If a joint may be commanded to where its model cannot be.
    """
    from robopol.real_robot.placing import modelled  # by this torch is imported, which a loop is not to have

    command = [sys.executable, "-m", "robopol.real_robot.checkup"]
    with tempfile.TemporaryDirectory() as folder:
        robot = modelled(robot, Path(folder))
        Motion(robot)  # what is wrong with it is said here
        done = subprocess.run(command, input=json.dumps(robot.tree()), capture_output=True, text=True, check=True)
    granted, late, cost = json.loads(done.stdout)
    return granted, Punctuality(*late), cost


def main() -> None:
    """Measure; see `measure_loop`."""
    robot = parse(RobotConfig, json.load(sys.stdin))
    granted = be_punctual()
    print(json.dumps([granted, punctuality(robot.period), cost_of_motion(robot)]))


if __name__ == "__main__":
    main()
