"""A bus of Dynamixel X servos that speak protocol 2.0.

Packets: FF FF FD 00, id, length (2), instruction, parameters, CRC-16 (2). Registers, units, errors and the bus
watchdog: ROBOTIS e-manual, "DYNAMIXEL Protocol 2.0" and "XL330-M288".
"""

from typing import NamedTuple

import numpy as np

from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.bus import Mount, Servo, ServoBus
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.emulators.wire import NOMINAL, Latency

PING, READ, WRITE, REG_WRITE, ACTION, REBOOT, STATUS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x55
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ, BULK_READ, BULK_WRITE = 0x82, 0x83, 0x8A, 0x92, 0x93
BROADCAST = 0xFE
UNKNOWN, RANGE, LENGTH, LIMIT, ACCESS, ALERT = 2, 4, 5, 6, 7, 0x80
"""Errors in a status packet."""
SIZE, RAM = 148, 64
MODEL, FIRMWARE, ID, MODE, HOMING = (0, 2), (6, 1), (7, 1), (11, 1), (20, 4)
VELOCITY_LIMIT, HIGH, LOW, TORQUE, HARDWARE_ERROR, WATCHDOG = (44, 4), (48, 4), (52, 4), (64, 1), (70, 1), (98, 1)
GOALS, PROFILE_ACCEL, PROFILE_VELOCITY, GOAL, CLOCK = range(100, 120), (108, 4), (112, 4), (116, 4), (120, 2)
CURRENT, VELOCITY, POSITION, VOLTS, CELSIUS = (126, 2), (128, 4), (132, 4), (144, 2), (146, 1)
SPEED_UNIT = 0.229 * 2 * np.pi / 60
"""rad/s."""
ACCEL_UNIT = 214.577 * 2 * np.pi / 3600
"""rad/s^2."""
_INITIAL = {MODEL: 1200, FIRMWARE: 52, MODE: 3, VELOCITY_LIMIT: 445, VOLTS: 50, CELSIUS: 30}
_HEADER = b"\xff\xff\xfd\x00"


class Packet(NamedTuple):
    """One instruction."""

    id: int
    instruction: int
    parameters: bytes


class DynamixelBus(ServoBus):
    """XL330 servos; ids are 1 to n in the order of the arm's servos."""

    def __init__(
        self, arm: Arm, oracle: Oracle, faults: Faults, latency: Latency = NOMINAL, mounts: tuple[Mount, ...] = ()
    ) -> None:
        """Put one servo on each joint of the arm, by default with its zero in the middle of the servo's range."""
        servos = {}
        for i, mount in enumerate(mounts or (Mount(),) * len(arm.names)):
            servo = Servo(i, mount, SIZE, _INITIAL | {ID: i + 1})
            ends = sorted(servo.ticks(float(angle)) for angle in (arm.low[i], arm.high[i]))
            servo.put(*LOW, max(ends[0], 0))
            servo.put(*HIGH, min(ends[1], 4095))
            servos[i + 1] = servo
        super().__init__(arm, servos, oracle, faults, latency)
        self._registered: dict[int, bytes] = {}
        self._spoken = self._t

    def advance(self, t: int) -> None:
        """See `Device.advance`; the watchdogs bite at their own time, not when somebody looks."""
        for servo in self.servos.values():
            limit = signed(servo.get(*WATCHDOG), 1)
            due = self._spoken + limit * 20_000_000
            if limit > 0 and t > due:
                super().advance(due)
                servo.put(*WATCHDOG, 0xFF)
                self._hold(servo)
        super().advance(t)

    def _hold(self, servo: Servo) -> None:
        """Make a servo stay where it is."""
        self.arm.hold(servo.index)
        servo.put(*GOAL, servo.ticks(float(self.arm.goal[servo.index])))

    def _take(self) -> Packet | None:
        heard = self._heard
        while True:
            start = heard.find(_HEADER)
            if start < 0:
                del heard[: max(0, len(heard) - 3)]
                return None
            del heard[:start]
            if len(heard) < 7 or len(heard) < 7 + (length := int.from_bytes(heard[5:7], "little")):
                return None
            packet = bytes(heard[: 7 + length])
            if length < 3 or crc16(packet[:-2]) != int.from_bytes(packet[-2:], "little"):
                del heard[0]
                continue
            del heard[: len(packet)]
            body = packet[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
            return Packet(packet[4], body[0], body[1:])

    def _handle(self, packet: Packet, t: int) -> list[bytes]:
        self._spoken = t
        told, p = packet.instruction, packet.parameters
        if told in (SYNC_READ, FAST_SYNC_READ) and len(p) >= 4:
            address, length = _word(p, 0), _word(p, 2)
            data = [(servo, self._read(servo, address, length)) for servo in p[4:] if servo in self.servos]
            return [self._together(data)] if told == FAST_SYNC_READ else [self._answer(s, 0, d) for s, d in data]
        if told == BULK_READ:
            asked = [p[at : at + 5] for at in range(0, len(p) - 4, 5)]
            here = [a for a in asked if a[0] in self.servos]
            return [self._answer(a[0], 0, self._read(a[0], _word(a, 1), _word(a, 3))) for a in here]
        if told == SYNC_WRITE and len(p) >= 4:
            address, length = _word(p, 0), _word(p, 2)
            for at in range(4, len(p) - length, length + 1):
                if p[at] in self.servos:
                    self._write(p[at], address, p[at + 1 : at + 1 + length], t)
            return []
        if told == BULK_WRITE:
            at = 0
            while at + 5 <= len(p):
                length = _word(p, at + 3)
                if p[at] in self.servos:
                    self._write(p[at], _word(p, at + 1), p[at + 5 : at + 5 + length], t)
                at += 5 + length
            return []
        if told == ACTION:
            for number, held in self._registered.items():
                self._write(number, _word(held, 0), held[2:], t)
            self._registered.clear()
        ids = list(self.servos) if packet.id == BROADCAST else [packet.id] if packet.id in self.servos else []
        answers = [self._one(servo, told, p, t) for servo in ids]
        return answers if packet.id != BROADCAST or told == PING else []

    def _one(self, number: int, told: int, p: bytes, t: int) -> bytes:
        """Do what one servo is told, and return its answer."""
        servo = self.servos[number]
        if told == PING:
            return self._answer(number, 0, bytes(servo.memory[0:2]) + bytes(servo.memory[6:7]))
        if told == READ and len(p) == 4:
            return self._answer(number, 0, self._read(number, _word(p, 0), _word(p, 2)))
        if told == WRITE and len(p) >= 3:
            return self._answer(number, self._write(number, _word(p, 0), p[2:], t))
        if told == REG_WRITE and len(p) >= 3:
            self._registered[number] = p
        elif told == REBOOT:
            self._lose_torque(servo)
        elif told != ACTION:
            return self._answer(number, UNKNOWN)
        return self._answer(number, 0)

    def _answer(self, servo: int, error: int, data: bytes = b"") -> bytes:
        alert = ALERT if self.servos[servo].get(*HARDWARE_ERROR) else 0
        if self.faults.chance(self.faults.wrong_id):
            servo = servo % len(self.servos) + 1
        return frame(servo, STATUS, bytes([error | alert]) + data)

    def _together(self, data: list[tuple[int, bytes]]) -> bytes:
        """Make one packet of all answers, each with the CRC of all that went before it."""
        length = 1 + sum(len(d) + 4 for _, d in data)
        packet = _HEADER + bytes([BROADCAST]) + length.to_bytes(2, "little") + bytes([STATUS])
        for servo, d in data:
            packet += bytes([ALERT if self.servos[servo].get(*HARDWARE_ERROR) else 0, servo]) + d
            packet += crc16(packet).to_bytes(2, "little")
        return packet

    def _read(self, servo: int, address: int, length: int) -> bytes:
        return bytes(self.servos[servo].memory[address : address + length]).ljust(length, b"\0")

    def _write(self, number: int, address: int, data: bytes, t: int) -> int:
        """Write registers and do what follows from it, or return the error that forbids it."""
        servo, i = self.servos[number], self.servos[number].index
        written = range(address, address + len(data))
        expired = servo.get(*WATCHDOG) == 0xFF
        if not written or written[-1] >= CLOCK[0] or (address < RAM and servo.get(*TORQUE)):
            return ACCESS
        if WATCHDOG[0] in written and (data[WATCHDOG[0] - address] > 127 or (expired and data[WATCHDOG[0] - address])):
            return RANGE
        if expired and WATCHDOG[0] not in written and any(at in GOALS for at in written):
            return RANGE
        if GOAL[0] in written:
            goal = signed(int.from_bytes(data[GOAL[0] - address : GOAL[0] - address + 4], "little"), 4)
            self.oracle.goal(t, i, servo.angle(goal), self._stands(servo))
            if servo.get(*MODE) == 3 and not servo.get(*LOW) <= goal <= servo.get(*HIGH):
                return LIMIT
        was = servo.get(*TORQUE)
        servo.memory[address : address + len(data)] = data
        if TORQUE[0] in written and servo.get(*TORQUE) != was:
            self.oracle.rest()
            if servo.get(*HARDWARE_ERROR):
                servo.put(*TORQUE, 0)
            self.arm.power(i, bool(servo.get(*TORQUE)))
            self._hold(servo)
        self.arm.max_accel[i] = servo.get(*PROFILE_ACCEL) * ACCEL_UNIT or np.inf
        self.arm.max_speed[i] = servo.get(*PROFILE_VELOCITY) * SPEED_UNIT or np.inf
        if servo.get(*TORQUE) and GOAL[0] in written:
            self.arm.goal[i] = servo.angle(signed(servo.get(*GOAL), 4))
        return 0

    def _refresh(self) -> None:
        q, dq, effort = self.arm.q.tolist(), self.arm.dq.tolist(), self.arm.effort.tolist()
        broken = self.faults.error_bits | 4 * self.faults.overheated | 32 * self.faults.overload
        for servo in self.servos.values():
            i, sign = servo.index, servo.mount.sign
            servo.put(*POSITION, servo.ticks(q[i]) + signed(servo.get(*HOMING), 4))
            servo.put(*VELOCITY, round(sign * dq[i] / SPEED_UNIT))
            servo.put(*CURRENT, round(sign * 1000 * effort[i]))
            servo.put(*CELSIUS, 85 if self.faults.overheated else 30)
            if broken:  # as the factory setting of the register Shutdown has it
                servo.put(*HARDWARE_ERROR, broken)
                self._cut(servo)
            if not self.faults.frozen:
                servo.put(*CLOCK, self._t // 1_000_000 % 32768)

    def _cut(self, servo: Servo) -> None:
        servo.put(*TORQUE, 0)
        self.arm.power(servo.index, False)

    def _lose_torque(self, servo: Servo) -> None:
        """Forget what is kept in RAM, as after a moment without supply."""
        servo.memory[RAM:] = bytes(SIZE - RAM)
        self.arm.power(servo.index, False)


def frame(servo: int, instruction: int, parameters: bytes) -> bytes:
    """Make a packet, with FF FF FD in its body stuffed."""
    body = (bytes([instruction]) + parameters).replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    packet = _HEADER + bytes([servo]) + (len(body) + 2).to_bytes(2, "little") + body
    return packet + crc16(packet).to_bytes(2, "little")


def signed(value: int, length: int) -> int:
    """Read an unsigned number of ``length`` bytes as two's complement."""
    return value - (1 << 8 * length) if value >> (8 * length - 1) else value


def _row(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


_CRC = tuple(_row(byte) for byte in range(256))


def crc16(data: bytes) -> int:
    """Compute CRC-16 with polynomial 8005 and initial value 0."""
    crc = 0
    for byte in data:
        crc = (crc << 8 ^ _CRC[crc >> 8 ^ byte]) & 0xFFFF
    return crc


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")
