"""What every arm is to the servo loop: state with timestamps in, joint positions out, a stop."""

from abc import ABC, abstractmethod
from enum import IntEnum, IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.errors import RobotError

Vector = NDArray[np.float64]


class Status(IntFlag):
    """What an arm says about itself; every driver translates its own bits into these."""

    POWERED = 1
    """Torque is on, or the program that listens to us runs: a written goal is followed."""
    PROTECTIVE_STOP = 2
    EMERGENCY_STOP = 4
    OVERLOAD = 8
    OVERHEATED = 16
    DEVICE_FAULT = 32
    """Any other fault that the arm reports."""


FAULTS = Status.PROTECTIVE_STOP | Status.EMERGENCY_STOP | Status.OVERLOAD | Status.OVERHEATED | Status.DEVICE_FAULT
"""Any of these ends motion until an operator resets."""


class StopLevel(IntEnum):
    """How an arm is stopped."""

    REST = 0
    """The arm is at rest at its last goal, and keeps it: end the motion as the arm's own stop command does."""
    STOP = 1
    """Brake at once, whatever the last goal was, and hold where that ends."""
    ABORT = 2
    """The arm's protective stop, or the nearest thing it has; never torque off where there are no brakes."""


class DeviceInfo(NamedTuple):
    """What a connected arm is.

    Attributes:
        model: What it calls itself.
        serial: Its number or address.
        joints: n, joints that it drives, the gripper apart.
        gripper: Whether there is a gripper.
        watchdog: The arm stops by itself after so many seconds without a command; 0 if it has no such thing.
        low: Lowest goals that it takes (n,), rad; nothing if it does not say.
        high: Highest goals (n,), rad.
    """

    model: str
    serial: str
    joints: int
    gripper: bool
    watchdog: float
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class Reading:
    """The newest state of an arm; a driver fills it in place.

    Attributes:
        t_received: When it arrived, ns of the clock.
        t_device: The arm's own timestamp, counter, or, where it has none, when it was asked, ns.
        q: Joint positions (n,), rad.
        dq: Joint speeds (n,), rad/s; NaN where the arm does not measure them.
        effort: Torques, N m, or currents, A (n,); NaN where there are none.
        wrench: Force and torque at the tool (6,), N and N m; NaN without a sensor.
        gripper: Opening, 0 closed to 1 open; NaN without one.
        status: `Status` bits.
    """

    def __init__(self, joints: int) -> None:
        """Make an empty one for ``joints`` joints: all NaN, and not powered."""
        self.t_received = self.t_device = 0
        self.q, self.dq, self.effort = (np.full(joints, np.nan) for _ in range(3))
        self.wrench = np.full(6, np.nan)
        self.gripper = np.nan
        self.status = Status(0)


class Driver(ABC):
    """An arm. One process owns it and calls it from one thread, in the order connect, arm, (write, read)*, close.

    It is read from `connect` on, and between two writes some time after the first of them, so that no write may depend
    on a read just before it.

    No call blocks longer than the timeout that the driver was built with, except `connect` and `arm`. What goes wrong
    on the wire raises `robopol.errors.RobotError`, whatever the vendor's client does; a `read` or `write` that failed
    may be called again.

    A vendor's client may hang for good all the same. That is why a driver has a process of its own in `robopol deploy`,
    whose supervisor says so, and kills it.
    """

    @abstractmethod
    def connect(self) -> DeviceInfo:
        """Open the arm's bus or socket, and check that it is the arm that the calibration is for.

        Raises:
            RobotError: If it is absent, does not answer, or is another one.
        """

    @abstractmethod
    def arm(self) -> None:
        """Make the arm follow goals, the first one being where it is: it must not move by this."""

    @abstractmethod
    def read(self, out: Reading) -> bool:
        """Fill in the newest state.

        Returns:
            Whether it is fresh: whether the arm's time advanced since the last fresh state, whatever ``out`` holds. If
            not, ``out`` is what it was.

        Raises:
            RobotError: If no sound answer came in time.
        """

    @abstractmethod
    def write(self, q: Vector, gripper: float) -> None:
        """Send a goal.

        Args:
            q: Joint positions (n,), rad; finite and within limits, which the driver checks again after converting them
                to what goes over the wire.
            gripper: Opening, 0 closed to 1 open; ignored without a gripper.

        Raises:
            RobotError: If it could not be sent, or would not be within limits on the wire; then nothing was sent.
        """

    @abstractmethod
    def feed_watchdog(self) -> None:
        """Tell the arm that all is well; does nothing where it has no watchdog, or where `write` feeds it."""

    @abstractmethod
    def stop(self, level: StopLevel) -> None:
        """Stop the arm; works in every state after `connect`, as far as the wire does.

        Raises:
            RobotError: If the arm could not be told.
        """

    def relax(self) -> None:
        """Let the joints of a connected arm hang, so that it can be led by hand; `arm` ends it.

        Raises:
            RobotError: If it is no arm that a hand holds, or could not be told.
        """
        raise RobotError(f"{type(self).__name__} drives no arm that can be led by hand")

    @abstractmethod
    def close(self) -> None:
        """Let go of the arm, which holds its position or has stopped; never raises, and may be called twice."""
