"""Emulated arms in lock-step with drivers, for the tests of this folder."""

import threading
from contextlib import contextmanager

import numpy as np

from robopol.real_robot.clock import MonotonicClock, VirtualClock
from robopol.real_robot.driver import Reading
from robopol.real_robot.emulators import models
from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.bus import TICK, calibration_of
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.emulators.wire import LockStepLine, RealTimeLine

MS = 1_000_000
TEN = 10 * MS


class Ramp(Arm):
    """An arm whose every joint is elsewhere at every millisecond, so that a value tells whose and when it is."""

    @property
    def q(self):
        if not hasattr(self, "t"):
            return super().q
        return (self.t // MS % 400) * TICK + 0.2 * np.arange(len(self.names)) - 0.5

    @property
    def dq(self):
        return np.full(len(self.names), 0.123)

    def advance(self, t):
        self.t = t


def oracle_of(arm, speed=np.inf, accel=np.inf, tick=TICK):
    return Oracle(arm.low, arm.high, np.full(len(arm.names), speed), np.full(len(arm.names), accel), tick)


class Rig:
    """A driver, the emulator that it talks to, and the time between them."""

    def __init__(self, bus_class, config_class, folder, arm=Arm, robot=None, mounts=(), **options):
        """The limits that goals are judged by are those of ``robot``; without one only their range is."""
        self.clock = VirtualClock(7 * MS)
        self.arm = arm(models.so101(), self.clock.now())
        self.faults = Faults()
        ends = float(self.arm.low[5]), float(self.arm.high[5])
        self.oracle = oracle_of(self.arm) if robot is None else Oracle.of(robot, TICK, ends)
        self.bus = bus_class(self.arm, self.oracle, self.faults, mounts=mounts)
        self.line = LockStepLine(self.bus, self.clock)
        self.calibration = calibration_of(self.bus, "rig", "gripper")
        self.calibration.save(folder / "rig.json")
        options = {"max_speed": 3.0, "max_accel": 60.0} | options
        config = config_class(port="lock-step", calibration=str(folder / "rig.json"), **options)
        driver_class = type(config.build(self.clock, 0.01))
        self.driver = driver_class(config, self.clock, open_line=lambda *_: self.line)
        self.state = Reading(5)

    def start(self):
        self.info = self.driver.connect()
        self.driver.arm()
        return self

    def tick(self):
        self.clock.sleep_until(self.clock.now() // TEN * TEN + TEN)

    def run(self, goal, gripper=0.0, ms=1000):
        """Write a goal every tick."""
        for _ in range(ms // 10):
            self.tick()
            self.driver.write(np.asarray(goal, float), gripper)


@contextmanager
def served(device, tcp=None):
    """Serve a device in real time, in a thread; yields its address."""
    line = RealTimeLine(device, MonotonicClock(), tcp)
    running = threading.Event()
    running.set()
    thread = threading.Thread(target=line.serve, args=(running.is_set,))
    thread.start()
    try:
        yield line.address
    finally:
        running.clear()
        thread.join()
