"""Arms of Feetech STS and SMS servos (SO-100, SO-101 and others), through the package feetech-servo-sdk.

Registers: Feetech, memory table of the STS series; names as in huggingface/lerobot (motors/feetech/tables.py).
These servos have no watchdog: if the computer dies they go to the last goal and hold it. What the servos' own limits
of speed, acceleration and torque allow is therefore set each time they are armed.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from robopol.errors import MissingExtraError, RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import Reading, Status
from robopol.real_robot.drivers.calibration import Ticks
from robopol.real_robot.drivers.servo_bus import Answer, ServoBusConfig, ServoBusDriver, worst

MODEL, HOMING, MODE = (3, 2), (31, 2), (33, 1)
TORQUE, ACCELERATION, GOAL, SPEED, TORQUE_LIMIT = (40, 1), (41, 1), (42, 2), (46, 2), (48, 2)
LENGTHS = range(31, 41)
"""Bytes from the torque register to that of the current, and up to nine more."""
POSITION, VELOCITY, CURRENT = 56, 58, 69

MODELS = {777: "STS3215", 2825: "STS3250"}
"""Model numbers that share the memory table used here."""
AMPERES = 0.0065
"""Of one count of current."""
_ERRORS = {
    1: Status.DEVICE_FAULT,  # voltage
    2: Status.DEVICE_FAULT,  # angle sensor
    4: Status.OVERHEATED,
    8: Status.OVERLOAD,  # current
    32: Status.OVERLOAD,
}


class FeetechConfig(ServoBusConfig):
    """An arm of STS or SMS servos.

    Attributes:
        torque: Share of the servos' torque that they may use, 0 to 1.
    """

    kind: Literal["feetech"] = "feetech"
    torque: float = Field(1.0, gt=0, le=1)

    def build(self, clock: Clock, period: float) -> "FeetechDriver":
        """Return the driver; nothing is opened."""
        return FeetechDriver(self, clock)


class FeetechDriver(ServoBusDriver):
    """See `FeetechConfig`."""

    def _client(self) -> tuple[Any, type]:
        try:
            import scservo_sdk
        except ImportError as error:
            raise MissingExtraError("feetech-servo-sdk", "feetech", "an arm of Feetech servos") from error
        return scservo_sdk.PacketHandler(0), scservo_sdk.PortHandler

    @property
    def _watchdog(self) -> float:
        return 0.0

    def _receive(self, what: str) -> Answer:
        packet, result = self._handler.rxPacket(self._port)
        self._sound(result, what)
        return Answer(packet[2], packet[4], bytes(packet[5:-1]))

    def _check(self, servo: int, offset: int) -> str:
        number = self._register(servo, *MODEL)
        if number not in MODELS:
            raise RobotError(f"servo {servo} is of model {number}; known are {MODELS}")
        if mode := self._register(servo, *MODE):
            raise RobotError(f"servo {servo} is in mode {mode}: set register {MODE[0]} to 0, position")
        own = signed(self._register(servo, *HOMING), 11)
        if own != offset:
            raise RobotError(
                f"servo {servo} has the homing offset {own}, the calibration is for {offset}: "
                "it is another arm's, or the arm was calibrated again"
            )
        return MODELS[number]

    def _enable(self, goals: Ticks) -> None:
        scales = [joint.ticks_per_rad for joint in self.calibration.joints] + [4096 / (2 * np.pi)]
        for servo, goal, scale in zip(self.calibration.ids, goals, scales, strict=False):
            self._set(servo, *TORQUE_LIMIT, round(1000 * self.config.torque))
            # 0 would be no limit
            self._set(servo, *ACCELERATION, int(np.clip(self.config.max_accel * scale / 100, 1, 254)))
            self._set(servo, *SPEED, int(np.clip(self.config.max_speed * scale, 1, 32767)))
            self._set(servo, *GOAL, magnitude(int(goal), 15))
            self._set(servo, *TORQUE, 1)

    def _disable(self) -> None:
        for servo in self.calibration.ids:
            self._set(servo, *TORQUE, 0)

    def _state(self, out: Reading) -> bool:
        asked = self.clock.now()
        answers = self._ask()
        q, gripper = self.calibration.to_angles(_column(answers, POSITION))
        out.q[:], out.gripper, out.t_device = q, gripper, asked
        out.dq[:] = self.calibration.to_speeds(_column(answers, VELOCITY).astype(np.float64))
        signs = [joint.sign for joint in self.calibration.joints]
        out.effort[:] = AMPERES * _column(answers, CURRENT)[: len(signs)] * signs
        out.status = worst([_status(answer) for answer in answers])
        return True

    def _positions(self) -> Ticks:
        return _column(self._ask(), POSITION)

    def _ask(self) -> list[Answer]:
        ids = self.calibration.ids
        return self._ask_all(
            ids,
            TORQUE[0],
            LENGTHS,
            lambda start, length: self._handler.syncReadTx(self._port, start, length, ids, len(ids)),
        )

    def _send_goals(self, goals: Ticks) -> None:
        packed = []
        for servo, goal in zip(self.calibration.ids, goals, strict=True):
            packed += [servo, *magnitude(int(goal), 15).to_bytes(2, "little")]
        self._sound(self._handler.syncWriteTxOnly(self._port, *GOAL, packed, len(packed)), "goals")


def signed(value: int, bit: int) -> int:
    """Decode a number whose bit ``bit`` is its sign and whose lower bits are its magnitude."""
    size = value & ((1 << bit) - 1)
    return -size if value >> bit & 1 else size


def magnitude(value: int, bit: int) -> int:
    """Encode what `signed` decodes."""
    return -value | 1 << bit if value < 0 else value


def _column(answers: list[Answer], address: int) -> Ticks:
    """Take one two-byte register, signed by bit 15, of each answer that begins at the torque register."""
    at = address - TORQUE[0]
    return np.array([signed(int.from_bytes(answer.data[at : at + 2], "little"), 15) for answer in answers], np.int64)


def _status(answer: Answer) -> Status:
    status = Status.POWERED if answer.data[0] else Status(0)
    for bit, meaning in _ERRORS.items():
        if answer.error & bit:
            status |= meaning
    return status
