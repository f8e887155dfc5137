"""A gamepad, by Linux's joystick interface: a switch that says at once when it is let go.

Events of ``/dev/input/js*`` are 8 bytes: time, value, type, number (Linux's Documentation/input/joydev/joystick-api).
Which stick and which button has which number is that of Xbox pads under the driver xpad; pads of others differ, so the
numbers can be given.
"""

import os
import select
import struct
from typing import Literal

import numpy as np
from pydantic import Field

from robopol.config import Config
from robopol.errors import ConfigError, RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.operator import Operator, OperatorConfig, Saying, Typed, Vector
from robopol.real_robot.operators.jog import Jog, jog_of
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import Command

EVENT = struct.Struct("<IhBB")
BUTTON, AXIS, FIRST = 1, 2, 0x80
"""Types of events; `FIRST` is set in those that say how things stand when it is opened."""
FULL = 32767
LONGEST = 0.1
"""Most time that a stick moves by at once, s."""
COMMANDS: dict[str, tuple[Command, int]] = {
    "take": (Command.HUMAN, 0),
    "give": (Command.RUN, 0),
    "hold": (Command.HOLD, 0),
    "success": (Command.STOP, 2),
    "failure": (Command.STOP, 1),
    "discard": (Command.STOP, 3),
}


class ButtonsConfig(Config):
    """Number of the button that commands each; null is none.

    Attributes:
        take: The person leads.
        give: The policy goes on.
        hold: The arm stands.
        success: The episode ends, and succeeded.
        failure: It ends, and did not.
        discard: It ends, and is forgotten.
    """

    take: int | None = 7
    give: int | None = 6
    hold: int | None = 4
    success: int | None = 2
    failure: int | None = 1
    discard: int | None = 8

    def numbers(self) -> dict[str, int]:
        """Return command -> button, of those that have one."""
        return {word: number for word, number in self if number is not None}


class GamepadConfig(OperatorConfig):
    """A gamepad on Linux. Sticks lead the tool where the robot has a model with ``site``, else its first four joints.

    Attributes:
        device: Its joystick device.
        site: The tool in the model, `robopol.real_robot.geometry.GeometryConfig.model`.
        speed: Of the tool at full deflection, m/s.
        turn: Of its yaw, or of the joints, rad/s.
        grip: Of the gripper, strokes/s.
        dead: Share of the way of a stick in which it counts as at rest.
        axes: Number of the stick's axis that leads x (or the first joint), y, z and yaw.
        signs: 1 or -1 for each of them; sticks count from the upper left on.
        switch: Number of the button that is the deadman's switch.
        opens: Of the button that opens the gripper.
        closes: Of the one that closes it.
        buttons: Numbers of those that command.
    """

    kind: Literal["gamepad"] = "gamepad"
    device: str = "/dev/input/js0"
    site: str = "tool"
    speed: float = Field(0.1, gt=0)
    turn: float = Field(0.5, gt=0)
    grip: float = Field(1.0, gt=0)
    dead: float = Field(0.15, ge=0, lt=1)
    axes: tuple[int, int, int, int] = (1, 0, 4, 3)
    signs: tuple[Literal[-1, 1], Literal[-1, 1], Literal[-1, 1], Literal[-1, 1]] = (-1, -1, -1, -1)
    switch: int = 5
    opens: int = 3
    closes: int = 0
    buttons: ButtonsConfig = ButtonsConfig()

    def build(self, robot: RobotConfig, clock: Clock, typed: Typed) -> "Gamepad":
        """See `OperatorConfig.build`."""
        numbers = [self.switch, self.opens, self.closes, *self.buttons.numbers().values()]
        if len(set(numbers)) < len(numbers) or len(set(self.axes)) < len(self.axes):
            raise ConfigError(f"a button or axis of the gamepad has two meanings: buttons {numbers}, axes {self.axes}")
        return Gamepad(self, jog_of(robot, self.site), clock)


class Gamepad(Operator):
    """See `GamepadConfig`."""

    def __init__(self, config: GamepadConfig, jog: Jog, clock: Clock) -> None:
        """Prepare; nothing is opened."""
        self.config, self._jog, self._clock = config, jog, clock
        self._fd, self._last, self._part = -1, clock.now(), b""
        self._sticks: dict[int, float] = {}
        self._down: set[int] = set()
        self._orders = {number: COMMANDS[word] for word, number in config.buttons.numbers().items()}

    def connect(self) -> str:
        """See `Operator.connect`."""
        try:
            self._fd = os.open(self.config.device, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise RobotError(f"no gamepad at {self.config.device}: {error.strerror}") from error
        buttons = ", ".join(f"{number} {word}" for word, number in self.config.buttons.numbers().items())
        led = ", ".join(name for name, unit in self._jog.axes if unit != "stroke")
        config = self.config
        return (
            f"gamepad {config.device}: sticks lead {led}; buttons: {config.switch} switch, {config.opens} open, "
            f"{config.closes} close, {buttons}"
        )

    def listen(self, target: Vector) -> Saying:
        """See `Operator.listen`."""
        now, pressed = self._clock.now(), self._hear()
        seconds, self._last = min((now - self._last) * 1e-9, LONGEST), now
        config, way = self.config, np.zeros(len(self._jog.axes))
        for k, (number, sign) in enumerate(zip(config.axes, config.signs, strict=True)):
            if k < len(way) and (unit := self._jog.axes[k][1]) != "stroke":
                stick = self._sticks.get(number, 0.0)
                share = np.sign(stick) * max(0.0, abs(stick) - config.dead) / (1 - config.dead)
                way[k] = sign * share * (config.speed if unit == "m" else config.turn) * seconds
        if self._jog.axes[-1][1] == "stroke":
            way[-1] = config.grip * seconds * ((config.opens in self._down) - (config.closes in self._down))
        move = self._jog.move(target, way) if way.any() else None
        orders = tuple(self._orders[number] for number in pressed if number in self._orders)
        return Saying(config.switch in self._down, move, orders)

    def close(self) -> None:
        """See `Operator.close`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _hear(self) -> list[int]:
        """Take the events that have come; return the buttons that were pressed."""
        pressed = []
        while select.select([self._fd], [], [], 0)[0]:
            try:
                found = os.read(self._fd, 64 * EVENT.size)
            except OSError as error:
                raise RobotError(f"the gamepad {self.config.device} is gone: {error.strerror}") from error
            if not found:
                raise RobotError(f"the gamepad {self.config.device} is gone")
            whole = len(self._part + found) // EVENT.size * EVENT.size
            events, self._part = (self._part + found)[:whole], (self._part + found)[whole:]
            for _, value, kind, number in EVENT.iter_unpack(events):
                if kind & ~FIRST == AXIS:
                    self._sticks[number] = value / FULL
                elif kind & ~FIRST == BUTTON and not value:
                    self._down.discard(number)
                elif kind & ~FIRST == BUTTON:
                    self._down.add(number)
                    if not kind & FIRST:
                        pressed.append(number)
        return pressed
