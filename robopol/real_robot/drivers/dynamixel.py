"""Arms of Dynamixel X servos (Koch, ViperX and others), through the package dynamixel-sdk 4.

Registers, units and the bus watchdog: ROBOTIS e-manual, "XL330-M288" and its like. The watchdog stops a servo that has
heard no packet for 100 ms; it is armed with the torque, and every packet feeds it, reads as well as goals.
"""

from typing import Any, Literal

import numpy as np

from robopol.errors import MissingExtraError, RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import Reading, Status
from robopol.real_robot.drivers.calibration import Ticks
from robopol.real_robot.drivers.servo_bus import Answer, ServoBusConfig, ServoBusDriver, worst

MODEL, DRIVE_MODE, MODE, HOMING, VELOCITY_LIMIT = (0, 2), (10, 1), (11, 1), (20, 4), (44, 4)
TORQUE, WATCHDOG, ACCELERATION, SPEED, GOAL = (64, 1), (98, 1), (108, 4), (112, 4), (116, 4)
CLOCK, CURRENT, VELOCITY, POSITION, HARDWARE_ERROR = 120, 126, 128, 132, 70
LENGTHS = range(38, 46)
"""Bytes from the watchdog's register to the position, and up to seven more."""
ERROR_LENGTHS = range(1, 5)
"""Bytes from the hardware error register, and up to three more."""
WATCHDOG_TICKS, WATCHDOG_TICK = 5, 0.02
"""The watchdog's setting, and its unit in s."""

MODELS = {
    1020: ("XM430-W350", 0.00269),
    1030: ("XM430-W210", 0.00269),
    1060: ("XL430-W250", np.nan),
    1070: ("XC430-W150", np.nan),
    1120: ("XM540-W270", 0.00269),
    1190: ("XL330-M077", 0.001),
    1200: ("XL330-M288", 0.001),
}
"""Model number -> name, and amperes of one count of current (NaN: it measures none)."""
SPEED_UNIT = 0.229 * 2 * np.pi / 60
"""rad/s."""
ACCEL_UNIT = 214.577 * 2 * np.pi / 3600
"""rad/s^2."""
_COUNTS = 4096 / (2 * np.pi)
_ALERT = 0x80
_ERRORS = {4: Status.OVERHEATED, 32: Status.OVERLOAD}
"""Bits of the hardware error register; the others are voltage, encoder and electrical shock."""


class DynamixelConfig(ServoBusConfig):
    """An arm of Dynamixel X servos."""

    kind: Literal["dynamixel"] = "dynamixel"

    def build(self, clock: Clock, period: float) -> "DynamixelDriver":
        """Return the driver; nothing is opened."""
        return DynamixelDriver(self, clock)


class DynamixelDriver(ServoBusDriver):
    """See `DynamixelConfig`."""

    def _client(self) -> tuple[Any, type]:
        try:
            import dynamixel_sdk
        except ImportError as error:
            raise MissingExtraError("dynamixel-sdk", "dynamixel", "an arm of Dynamixel servos") from error
        return dynamixel_sdk.PacketHandler(2.0), dynamixel_sdk.PortHandler

    @property
    def _watchdog(self) -> float:
        return WATCHDOG_TICKS * WATCHDOG_TICK

    def _receive(self, what: str) -> Answer:
        packet, result = self._handler.rxPacket(self._port, False)
        self._sound(result, what)
        length = packet[5] | packet[6] << 8  # the vendor takes stuffing out of the packet, and leaves its end
        return Answer(packet[4], packet[8], bytes(packet[9 : 5 + length]))

    def _check(self, servo: int, offset: int) -> str:
        number = self._register(servo, *MODEL)
        if number not in MODELS:
            raise RobotError(f"servo {servo} is of model {number}; known are {', '.join(map(str, MODELS))}")
        if (mode := self._register(servo, *MODE)) not in (3, 4, 5):
            raise RobotError(f"servo {servo} is in mode {mode}: set register {MODE[0]} to 3, position")
        if self._register(servo, *DRIVE_MODE) & 4:
            raise RobotError(f"servo {servo} has time-based profiles: clear bit 2 of register {DRIVE_MODE[0]}")
        own = _signed(self._register(servo, *HOMING), 4)
        if own != offset:
            raise RobotError(
                f"servo {servo} has the homing offset {own}, the calibration is for {offset}: "
                "it is another arm's, or the arm was calibrated again"
            )
        name, self._amperes[servo] = MODELS[number]
        return name

    def connect(self) -> Any:
        """See `Driver.connect`."""
        self._amperes: dict[int, float] = {}
        self._clocks: list[int] | None = None
        self._passed: list[int] = []
        return super().connect()

    def _enable(self, goals: Ticks) -> None:
        scales = [joint.ticks_per_rad for joint in self.calibration.joints] + [_COUNTS]
        for servo, goal, scale in zip(self.calibration.ids, goals, scales, strict=False):
            gear = scale / _COUNTS
            fastest = self._register(servo, *VELOCITY_LIMIT)
            self._set(servo, *WATCHDOG, 0)  # also clears one that has bitten
            # 0 would be no limit
            self._set(servo, *ACCELERATION, int(np.clip(gear * self.config.max_accel / ACCEL_UNIT, 1, 32767)))
            self._set(servo, *SPEED, int(np.clip(gear * self.config.max_speed / SPEED_UNIT, 1, fastest)))
            self._set(servo, *TORQUE, 1)
            self._set(servo, *GOAL, int(goal) & 0xFFFFFFFF)
        for servo in self.calibration.ids:
            self._set(servo, *WATCHDOG, WATCHDOG_TICKS)

    def _disable(self) -> None:
        for servo in self.calibration.ids:
            self._set(servo, *TORQUE, 0)

    def _state(self, out: Reading) -> bool:
        asked = self.clock.now()
        answers = self._ask(WATCHDOG[0], LENGTHS)
        bits = [_status(answer) for answer in answers]
        if any(answer.error & _ALERT for answer in answers):  # then it is worth a question what the matter is
            self._port.until = self._deadline
            try:
                bits += [_trouble(answer) for answer in self._ask(HARDWARE_ERROR, ERROR_LENGTHS)]
            except RobotError:
                bits.append(Status.DEVICE_FAULT)
        clocks = _column(answers, CLOCK, 2).tolist()
        if self._clocks is None:
            self._passed = [asked] * len(clocks)
        else:
            steps = [(new - old) % 32768 for new, old in zip(clocks, self._clocks, strict=True)]
            if 0 in steps:  # one that stands still makes none of it fresh
                return False
            self._passed = [t + 1_000_000 * step for t, step in zip(self._passed, steps, strict=True)]
        self._clocks = clocks
        q, gripper = self.calibration.to_angles(_column(answers, POSITION, 4))
        out.q[:], out.gripper, out.t_device = q, gripper, min(self._passed)
        out.dq[:] = self.calibration.to_speeds(_column(answers, VELOCITY, 4).astype(np.float64) * SPEED_UNIT * _COUNTS)
        scale = [joint.sign * self._amperes[joint.id] for joint in self.calibration.joints]
        out.effort[:] = _column(answers, CURRENT, 2)[: len(scale)] * np.array(scale)
        out.status = worst(bits)
        return True

    def _positions(self) -> Ticks:
        return _column(self._ask(WATCHDOG[0], LENGTHS), POSITION, 4)

    def _ask(self, start: int, lengths: range) -> list[Answer]:
        ids = self.calibration.ids
        return self._ask_all(
            ids, start, lengths, lambda s, n: self._handler.syncReadTx(self._port, s, n, ids, len(ids), False)
        )

    def _send_goals(self, goals: Ticks) -> None:
        packed = []
        for servo, goal in zip(self.calibration.ids, goals, strict=True):
            packed += [servo, *int(goal).to_bytes(4, "little", signed=True)]
        self._sound(self._handler.syncWriteTxOnly(self._port, *GOAL, packed, len(packed)), "goals")


def _signed(value: int, length: int) -> int:
    return value - (1 << 8 * length) if value >> (8 * length - 1) else value


def _column(answers: list[Answer], address: int, length: int) -> Ticks:
    """Take one signed register of each answer that begins at the watchdog's register."""
    at = address - WATCHDOG[0]
    return np.array([int.from_bytes(a.data[at : at + length], "little", signed=True) for a in answers], np.int64)


def _status(answer: Answer) -> Status:
    """Translate an answer that begins at the watchdog's register.

    That is 0 after a servo lost its supply, and 255 once the watchdog has bitten; what else takes the torque alerts.
    """
    listening = answer.data[0] == WATCHDOG_TICKS and not answer.error & _ALERT
    return Status.POWERED if listening else Status(0)


def _trouble(answer: Answer) -> Status:
    """Translate an answer that begins at the hardware error register."""
    broken = answer.data[0]
    status = Status.DEVICE_FAULT if broken & ~36 or (answer.error & _ALERT and not broken) else Status(0)
    for bit, meaning in _ERRORS.items():
        if broken & bit:
            status |= meaning
    return status
