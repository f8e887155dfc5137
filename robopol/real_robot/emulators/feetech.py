"""A bus of Feetech STS3215 servos.

Packets: FF FF, id, length, instruction, parameters, ~sum. Registers and units: Feetech, memory table of the STS series,
as used by huggingface/lerobot (motors/feetech/tables.py).
"""

from typing import NamedTuple

import numpy as np

from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.bus import TICK, Mount, Servo, ServoBus
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.emulators.wire import NOMINAL, Latency

PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x82, 0x83
BROADCAST = 0xFE
RAM = 40
"""Registers below it are kept without power, and are written only while `LOCK` is 0."""
SIZE = 87
MODEL, ID, RETURN_DELAY, LOW, HIGH, HOMING, MODE = (3, 2), (5, 1), (7, 1), (9, 2), (11, 2), (31, 2), (33, 1)
TORQUE, ACCEL, GOAL, SPEED, TORQUE_LIMIT, LOCK = (40, 1), (41, 1), (42, 2), (46, 2), (48, 2), (55, 1)
POSITION, VELOCITY, LOAD, VOLTS, CELSIUS, STATUS, MOVING, CURRENT = (
    (56, 2), (58, 2), (60, 2), (62, 1), (63, 1), (65, 1), (66, 1), (69, 2),
)  # fmt: skip
STALL_TORQUE, AMPERES_PER_NM = 2.94, 1.0
"""Nominal, of the STS3215 at 12 V: N m, and what a current of a torque is taken to be."""


class Packet(NamedTuple):
    """One instruction."""

    id: int
    instruction: int
    parameters: bytes


class FeetechBus(ServoBus):
    """STS3215 servos; ids are 1 to n in the order of the arm's servos."""

    def __init__(
        self, arm: Arm, oracle: Oracle, faults: Faults, latency: Latency = NOMINAL, mounts: tuple[Mount, ...] = ()
    ) -> None:
        """Put one servo on each joint of the arm, by default with its zero in the middle of the servo's range."""
        servos = {}
        for i, mount in enumerate(mounts or (Mount(),) * len(arm.names)):
            servo = Servo(i, mount, SIZE, {MODEL: 777, ID: i + 1, LOCK: 1, TORQUE_LIMIT: 1000, VOLTS: 120, CELSIUS: 30})
            ends = sorted(servo.ticks(angle) for angle in (arm.low[i], arm.high[i]))
            servo.put(*LOW, max(ends[0], 0))
            servo.put(*HIGH, min(ends[1], 4095))
            servos[i + 1] = servo
        super().__init__(arm, servos, oracle, faults, latency)
        self._registered: dict[int, bytes] = {}

    def _take(self) -> Packet | None:
        heard = self._heard
        while True:
            start = heard.find(b"\xff\xff")
            if start < 0:
                del heard[: max(0, len(heard) - 1)]
                return None
            del heard[:start]
            if len(heard) < 4 or len(heard) < 4 + heard[3]:
                return None
            packet = bytes(heard[: 4 + heard[3]])
            if heard[2] == 0xFF or heard[3] < 2 or ~sum(packet[2:-1]) & 0xFF != packet[-1]:
                del heard[0]
                continue
            del heard[: len(packet)]
            return Packet(packet[2], packet[4], packet[5:-1])

    def _handle(self, packet: Packet, t: int) -> list[bytes]:
        told, p = packet.instruction, packet.parameters
        if told == SYNC_READ and len(p) >= 2:
            return [self._answer(servo, self._read(servo, p[0], p[1])) for servo in p[2:] if servo in self.servos]
        if told == SYNC_WRITE and len(p) >= 2:
            step = p[1] + 1
            for at in range(2, len(p) - p[1], step):
                if p[at] in self.servos:
                    self._write(p[at], p[0], p[at + 1 : at + step], t)
            return []
        if told == ACTION:
            for servo, data in self._registered.items():
                self._write(servo, data[0], data[1:], t)
            self._registered.clear()
        ids = list(self.servos) if packet.id == BROADCAST else [packet.id] if packet.id in self.servos else []
        answers = []
        for servo in ids:
            data = b""
            if told == READ and len(p) == 2:
                data = self._read(servo, p[0], p[1])
            elif told == WRITE and p:
                self._write(servo, p[0], p[1:], t)
            elif told == REG_WRITE and p:
                self._registered[servo] = p
            elif told not in (PING, ACTION):
                continue
            answers.append(self._answer(servo, data))
        return answers if packet.id != BROADCAST else []

    def _answer(self, servo: int, data: bytes) -> bytes:
        if self.faults.chance(self.faults.wrong_id):
            servo = servo % len(self.servos) + 1
        error = self.faults.error_bits | 4 * self.faults.overheated | 32 * self.faults.overload
        body = bytes([servo, len(data) + 2, error & 0x7F]) + data
        return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])

    def _read(self, servo: int, address: int, length: int) -> bytes:
        return bytes(self.servos[servo].memory[address : address + length]).ljust(length, b"\0")

    def _write(self, number: int, address: int, data: bytes, t: int) -> None:
        """Write registers and do what follows from it; those of the EEPROM are not written while locked."""
        servo = self.servos[number]
        for at, byte in enumerate(data, address):
            if at < SIZE and (at >= RAM or not servo.memory[LOCK[0]]) and not POSITION[0] <= at <= CURRENT[0] + 1:
                servo.memory[at] = byte
        written = range(address, address + len(data))
        i = servo.index
        if TORQUE[0] in written:
            if self.arm.powered[i] != bool(servo.get(*TORQUE)):
                self.oracle.rest()
            self.arm.power(i, bool(servo.get(*TORQUE)))
        if GOAL[0] + 1 in written:
            ticks = signed(servo.get(*GOAL))
            self.oracle.goal(t, i, servo.angle(ticks), self._stands(servo))
        self.arm.max_accel[i] = servo.get(*ACCEL) * 100 * TICK or np.inf
        self.arm.max_speed[i] = (servo.get(*SPEED) & 0x7FFF) * TICK or np.inf
        self.arm.limit_effort(i, min(servo.get(*TORQUE_LIMIT), 1000) / 1000)
        if servo.get(*TORQUE):
            low, high = servo.get(*LOW), servo.get(*HIGH)
            self.arm.goal[i] = servo.angle(min(max(signed(servo.get(*GOAL)), low), high))

    def _refresh(self) -> None:
        q, dq, effort = self.arm.q.tolist(), self.arm.dq.tolist(), self.arm.effort.tolist()
        for servo in self.servos.values():
            i, sign = servo.index, servo.mount.sign
            servo.put(*POSITION, magnitude(servo.ticks(q[i]) - signed(servo.get(*HOMING), 11)))
            servo.put(*VELOCITY, magnitude(round(sign * dq[i] / TICK)))
            servo.put(*LOAD, magnitude(round(sign * 1000 * effort[i] / STALL_TORQUE), 10))
            servo.put(*CURRENT, magnitude(round(sign * effort[i] * AMPERES_PER_NM / 0.0065)))
            servo.put(*CELSIUS, 85 if self.faults.overheated else 30)
            servo.put(*STATUS, self.faults.error_bits | 4 * self.faults.overheated | 32 * self.faults.overload)
            servo.put(*MOVING, int(abs(dq[i]) > 0.01))

    def _lose_torque(self, servo: Servo) -> None:
        servo.put(*TORQUE, 0)
        self.arm.power(servo.index, False)


def signed(value: int, bit: int = 15) -> int:
    """Decode sign and magnitude, the sign being bit ``bit``."""
    size = value & ((1 << bit) - 1)
    return -size if value >> bit & 1 else size


def magnitude(value: int, bit: int = 15) -> int:
    """Encode sign and magnitude."""
    size = min(abs(value), (1 << bit) - 1)
    return size | (1 << bit if value < 0 else 0)
