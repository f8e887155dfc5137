"""A bus of emulated servos: registers, half-duplex timing and faults; what a packet looks like is the maker's file."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from robopol.real_robot.drivers.calibration import Calibration, Gripper, Joint
from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.emulators.wire import NOMINAL, Device, Latency, Unplugged

COUNTS = 4096
"""Ticks a revolution of both makers' servos."""
TICK = 2 * np.pi / COUNTS
"""rad."""


class Mount(NamedTuple):
    """How a servo sits on its joint: ticks = zero + sign * angle / TICK.

    Attributes:
        sign: 1 or -1.
        zero: Ticks at the joint's zero.
    """

    sign: int = 1
    zero: int = 2048


class Servo:
    """The registers of one servo and the joint that it turns.

    Attributes:
        index: Of the joint in the arm.
        mount: How it sits there.
        memory: Its registers, little-endian.
    """

    def __init__(self, index: int, mount: Mount, size: int, initial: Mapping[tuple[int, int], int]) -> None:
        """Fill the memory of ``size`` bytes with ``initial`` values by (address, length)."""
        self.index, self.mount = index, mount
        self.memory = bytearray(size)
        for (address, length), value in initial.items():
            self.put(address, length, value)

    def get(self, address: int, length: int) -> int:
        """Return a register as an unsigned number."""
        return int.from_bytes(self.memory[address : address + length], "little")

    def put(self, address: int, length: int, value: int) -> None:
        """Set a register, cutting off what does not fit."""
        self.memory[address : address + length] = (value & ((1 << 8 * length) - 1)).to_bytes(length, "little")

    def ticks(self, angle: float) -> int:
        """Return the count at an angle, rad."""
        return round(self.mount.zero + self.mount.sign * angle / TICK)

    def angle(self, ticks: float) -> float:
        """Return the angle at a count, rad."""
        return self.mount.sign * (ticks - self.mount.zero) * TICK


class ServoBus(Device):
    """Servos on one wire.

    Attributes:
        arm: What they turn.
        faults: What goes wrong.
        oracle: Witness of the goals.
        servos: By id.
        told: Packets that were heard.
    """

    def __init__(
        self, arm: Arm, servos: Mapping[int, Servo], oracle: Oracle, faults: Faults, latency: Latency = NOMINAL
    ) -> None:
        """Put servos on a wire."""
        self.arm, self.servos, self.oracle, self.faults, self.latency = arm, dict(servos), oracle, faults, latency
        self.told = 0
        self._heard = bytearray()
        self._busy_until = 0
        self._t = arm.t
        for servo in self.servos.values():
            arm.power(servo.index, False)

    @abstractmethod
    def _take(self) -> Any:
        """Cut the next sound packet off `_heard`; None if there is none yet."""

    @abstractmethod
    def _handle(self, packet: Any, t: int) -> list[bytes]:
        """Do what a packet says at ``t``, ns, and return the answers, in order."""

    @abstractmethod
    def _refresh(self) -> None:
        """Bring the registers up to what the arm does."""

    def advance(self, t: int) -> None:
        """See `Device.advance`."""
        self._t = max(t, self._t)
        if self.faults.torque_lost:
            for servo in self.servos.values():
                self._lose_torque(servo)
        if not self.faults.frozen:
            self.arm.advance(self._t)

    def _stands(self, servo: Servo) -> tuple[float, float]:
        """Return where a servo is and where it holds itself to be, rad; one that hangs holds nothing."""
        i = servo.index
        here = float(self.arm.q[i])
        return here, float(self.arm.goal[i]) if self.arm.powered[i] else here

    @abstractmethod
    def _lose_torque(self, servo: Servo) -> None:
        """Make a servo hang, and its registers say so."""

    def receive(self, data: bytes, t: int) -> list[tuple[int, bytes]]:
        """See `Device.receive`."""
        if self.faults.closed:
            raise Unplugged("the emulated bus was unplugged")
        self.advance(t)
        if self.faults.deaf(t):
            self._heard.clear()
            return []
        self._heard += data
        t = max(t, self._busy_until) + self.latency.on_wire(len(data))
        answers = []
        while (packet := self._take()) is not None:
            self.told += 1
            self.advance(t)
            self._refresh()
            for answer in self._handle(packet, t):
                t += self.latency.turnaround + self.latency.on_wire(len(answer))
                for later, bytes_ in self.faults.pass_on(answer):
                    answers.append((t + self.latency.adapter + later, bytes_))
            self._busy_until = t
        return answers


def calibration_of(bus: ServoBus, name: str, gripper: str | None) -> Calibration:
    """Return the calibration that is true of an emulated arm.

    Args:
        bus: The emulated arm.
        name: What to call it.
        gripper: Which of its servos is the gripper; None if none is.
    """
    joints, hand = [], None
    for number, servo in bus.servos.items():
        i = servo.index
        ends = [servo.ticks(float(angle)) for angle in (bus.arm.low[i], bus.arm.high[i])]
        if bus.arm.names[i] == gripper:
            hand = Gripper(id=number, closed=ends[0], open=ends[1])
        else:
            joints.append(
                Joint(
                    name=bus.arm.names[i],
                    id=number,
                    sign=1 if servo.mount.sign > 0 else -1,
                    zero=servo.mount.zero,
                    low=min(ends),
                    high=max(ends),
                )
            )
    return Calibration(name=name, joints=tuple(joints), gripper=hand)
