"""What every device of a person is to the loop that reads it: how far the hand moved, the switch, the words."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.config import Config
from robopol.real_robot.clock import Clock
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import Command

Vector = NDArray[np.float64]
Typed = Callable[[], bytes | None]
"""Returns what was typed since the last call, without waiting; None once nothing can come any more."""


class Saying(NamedTuple):
    """What a person says at one moment.

    Attributes:
        held: Whether the deadman's switch is held now.
        move: How the target moves on from where it is (A,), rad, and behind the joints the gripper's opening; None if
            the device says no place.
        orders: Commands that were given since the last call, each with its argument.
    """

    held: bool
    move: Vector | None = None
    orders: tuple[tuple[Command, int], ...] = ()


class OperatorConfig(Config):
    """What every operator's configuration has besides a ``kind`` of its own."""

    @property
    def terminal(self) -> bool:
        """Whether keys typed at the terminal are for this device."""
        return False

    @abstractmethod
    def build(self, robot: RobotConfig, clock: Clock, typed: Typed) -> "Operator":
        """Return the operator; nothing is opened.

        Args:
            robot: The robot that is led.
            clock: Time.
            typed: What is typed, if it is for this device.

        Raises:
            ConfigError: If the device cannot lead such a robot.
        """


class Operator(ABC):
    """A person's device. One process owns it and calls it from one thread: connect, listen again and again, close.

    A device says changes of the target, never places: when it takes over, the target is where the arm goes by itself,
    so no device can make an arm jump, whatever its own pose was. It need not care for limits either.
    """

    @abstractmethod
    def connect(self) -> str:
        """Open the device.

        Returns:
            How it is used, for the person: a line or more.

        Raises:
            RobotError: If it is absent, does not answer, or is another one.
        """

    @abstractmethod
    def listen(self, target: Vector) -> Saying:
        """Say what the person wants now; called some fifty times a second, and does not wait.

        Args:
            target: Where the arm is led to now, joints and, if there is one, gripper (A,), rad and the opening.

        Raises:
            RobotError: If the device is lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device; never raises, and may be called twice."""
