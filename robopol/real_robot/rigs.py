"""Where a rehearsal's arm is: in this process, or at the other end of an emulated wire, behind the vendor's client."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from robopol.errors import RobotError
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.driver import DeviceInfo, Driver, Reading, StopLevel, Vector
from robopol.real_robot.drivers.simulated import SimulatedDriver
from robopol.real_robot.drivers.ur import URConfig, URDriver
from robopol.real_robot.emulators import models
from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.bus import TICK, calibration_of
from robopol.real_robot.emulators.dynamixel import DynamixelBus
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.feetech import FeetechBus
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.emulators.wire import Latency, LockStepLine
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.world import World
from robopol.registry import lookup

BEGIN = 1_000_000_000
"""Of the virtual clocks, ns, so that times before the first tick are not negative."""
BUSES = {"feetech": FeetechBus, "dynamixel": DynamixelBus}
_TURN = np.pi - 2 * TICK
_SETTLED = 0.05  # from the end of a stop until the program is sure to have told the client that it is ready, s
PATIENCE = 10.0
"""Longest time that a client takes to see a state, s of the machine's time."""


class Rig(Protocol):
    """Where the arm is.

    Attributes:
        goals: Goals that its witness at the wire has seen in all episodes.
        outside: How many of them were outside the robot's limits.
    """

    goals: int
    outside: int

    def fit(self, robot: RobotConfig) -> RobotConfig:
        """Return the robot as far as the arm here can be it."""

    def place(self, robot: RobotConfig) -> tuple[Driver, VirtualClock]:
        """Put an arm into the scene of an episode, ``robot.driver.model``; return its driver and the time there."""

    def world(self, t: int) -> World:
        """Return where all is now, at time ``t``, ns."""

    def leave(self) -> None:
        """End the episode; its driver is closed."""


class InProcess:
    """The simulated driver, with no wire at all."""

    goals = outside = 0

    def fit(self, robot: RobotConfig) -> RobotConfig:
        """See `Rig.fit`."""
        return robot

    def place(self, robot: RobotConfig) -> tuple[Driver, VirtualClock]:
        """See `Rig.place`."""
        clock = VirtualClock(BEGIN)
        self._driver: SimulatedDriver = robot.driver.build(clock, robot.period)
        return self._driver, clock

    def world(self, t: int) -> World:
        """See `Rig.world`."""
        assert self._driver.device is not None
        return World.of(self._driver.device.data, t)

    def leave(self) -> None:
        """See `Rig.leave`."""


class OnBus:
    """Servos on a bus in this process, in lock-step: every joint of the arm, and its gripper, is one.

    Attributes:
        goals: See `Rig`.
        outside: See `Rig`.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        """Emulate a bus.

        Args:
            kind: "feetech" or "dynamixel".
            folder: Where calibrations go.
        """
        self._kind, self._folder, self.goals, self.outside = kind, folder, 0, 0

    def fit(self, robot: RobotConfig) -> RobotConfig:
        """See `Rig.fit`: a servo turns once."""
        joints = tuple(
            joint.model_copy(update={"low": max(joint.low, -_TURN), "high": min(joint.high, _TURN)})
            for joint in robot.joints
        )
        return robot.model_copy(update={"joints": joints})

    def place(self, robot: RobotConfig) -> tuple[Driver, VirtualClock]:
        """See `Rig.place`."""
        clock, path = VirtualClock(BEGIN), self._folder / "calibration.json"
        arm = self._arm = Arm(models.read(robot.driver.model), clock.now())
        arm.low, arm.high = np.clip(arm.low, -_TURN, _TURN), np.clip(arm.high, -_TURN, _TURN)
        self.oracle = Oracle.of(robot, TICK, (float(arm.low[-1]), float(arm.high[-1])))
        speed, accel = self.oracle.speed, self.oracle.accel
        bus = BUSES[self._kind](arm, self.oracle, Faults(), Latency(2_000_000))
        calibration_of(bus, robot.name, robot.driver.gripper).save(path)
        config = lookup("driver", self._kind)(
            port="lock-step", calibration=str(path), max_speed=2 * speed.max(), max_accel=2 * accel.max()
        )
        line = LockStepLine(bus, clock)
        return type(config.build(clock, robot.period))(config, clock, open_line=lambda *_: line), clock

    def world(self, t: int) -> World:
        """See `Rig.world`."""
        return World.of(self._arm.data, t)

    def leave(self) -> None:
        """See `Rig.leave`."""
        self.goals, self.outside = self.goals + len(self.oracle.log), self.outside + self.oracle.count


class OnUR:
    """A controller of Universal Robots in a process of its own, which the unmodified ur-rtde speaks to over sockets.

    The client has threads of its own and knows no clock but the machine's. So the controller stands still, and is let
    pass one period after the other: what the client has sent is heard first, and the servo loop goes on once the client
    has received the state at the end. Connecting, arming and stopping wait for the controller inside the client; for
    these its time is the machine's. A UR's driver moves no gripper: the hand stays as the scene has it.

    Attributes:
        goals: See `Rig`.
        outside: See `Rig`.
    """

    def __init__(self, robot: RobotConfig, host: str = "127.0.0.77") -> None:
        """Start the controller.

        Args:
            robot: Its limits and period are those of the witness.
            host: Its address, one of 127.0.0.N that is free.
        """
        words = [sys.executable, "-m", "robopol.real_robot.emulators", "ur", "--host", host]
        words += ["--limits", Oracle.of(robot).declared()]
        self._host, self.free, self.goals, self.outside = host, True, 0, 0
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def fit(self, robot: RobotConfig) -> RobotConfig:
        """See `Rig.fit`."""
        return robot

    def place(self, robot: RobotConfig) -> tuple[Driver, VirtualClock]:
        """See `Rig.place`."""
        self.time(f"scene {robot.driver.model}")
        clock = _Stepped(self)
        # arming and stopping take the machine's time, of which there may be little: watchdog and client are patient
        config = URConfig(host=self._host, watchdog=1.0, timeout=5.0)
        clock.driver = _Behind(config, clock, robot.period, self)
        return clock.driver, clock

    def world(self, t: int) -> World:
        """See `Rig.world`."""
        return World(t, *(np.array(part, np.float64) for part in self._world))

    def leave(self) -> None:
        """See `Rig.leave`."""
        self.goals, self.outside = self.heard(), json.loads(self.tell("state"))["outside"]

    def heard(self) -> int:
        """Return how many goals the controller has heard."""
        return int(json.loads(self.tell("state"))["goals"])

    def tell(self, line: str) -> str:
        """Say a line to the controller's process and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def time(self, line: str) -> int:
        """Say a line about time, and return of when the newest state is that the controller has sent, ns."""
        t, *self._world = json.loads(self.tell(line))
        return int(t)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the controller's time be the machine's meanwhile."""
        before, self.free = self.free, True
        self.time("free")
        try:
            yield
        finally:
            self.free = before
            if not before:
                self.time("hold")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RobotError("the emulated controller has ended: is its address taken?")
        return line.strip()


class _Stepped(VirtualClock):
    """Time that passes at the controller, and has passed once the client has seen the state of then."""

    driver: URDriver

    def __init__(self, rig: OnUR) -> None:
        super().__init__(BEGIN)
        self._rig = rig

    def sleep_until(self, t: int) -> None:
        """See `Clock.sleep_until`."""
        if t <= self.t:
            return
        if self._rig.free:
            time.sleep((t - self.t) * 1e-9)
        else:
            stamp, end = self._rig.time(f"pass {t - self.t}"), time.monotonic() + PATIENCE
            receive = self.driver._receive
            while round(receive.getTimestamp() * 1e9) < stamp:
                if time.monotonic() > end:
                    raise RobotError(f"the client has not seen the state of {stamp} ns after {PATIENCE} s")
                time.sleep(0.0)
        self.t = t


class _Behind(URDriver):
    """A UR's driver, for whose calls that wait the controller's time is the machine's; and a hand that stays."""

    def __init__(self, config: URConfig, clock: _Stepped, period: float, rig: OnUR) -> None:
        super().__init__(config, clock, period)
        self._rig = rig

    def connect(self) -> DeviceInfo:
        with self._rig.running():
            info = super().connect()
        self._rig.free = False
        self._rig.time("hold")
        return info._replace(gripper=True)

    def arm(self) -> None:
        with self._rig.running():
            super().arm()

    def read(self, out: Reading) -> bool:
        fresh = super().read(out)
        out.gripper = 0.0  # nobody measures it
        return fresh

    def write(self, q: Vector, gripper: float) -> None:
        """Send a goal, and wait until it was heard: what is sent may still be on its way, and time does not pass."""
        before, end = self._rig.heard(), time.monotonic() + PATIENCE
        super().write(q, gripper)
        while not self._rig.free and self._rig.heard() == before and time.monotonic() < end:
            time.sleep(0.0)

    def stop(self, level: StopLevel) -> None:
        with self._rig.running():
            super().stop(level)
            end, stamp = time.monotonic() + PATIENCE, self._receive.getTimestamp() + _SETTLED
            while self._receive.getTimestamp() < stamp and time.monotonic() < end:
                time.sleep(0.001)

    def close(self) -> None:
        with self._rig.running():
            super().close()
        self._rig.free = True
        self._rig.time("free")
