"""What every camera is: pictures in colour, each with the time at which it was taken."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robopol.config import Config

Image = NDArray[np.uint8]


class Frame(NamedTuple):
    """A picture.

    Attributes:
        t: When it was taken, ns of the clock.
        image: RGB (H, W, 3), uint8.
    """

    t: int
    image: Image


class CameraConfig(Config):
    """What is said about every camera.

    Attributes:
        size: Height and width of its pictures as they are handed on, pixels: what the policy was trained on.
        fps: Pictures a second.
        latency: Time from when a picture is taken until it arrives, s, less what the camera's own timestamps tell.
        patience: Time without a new picture after which the camera is begun anew, s.
        repeats: Whether a picture that is equal to the one before to the last bit is a new one. With a sensor, which is
            never without noise, it is not: the device repeats itself.
    """

    size: tuple[int, int] = (96, 96)
    fps: float = Field(30.0, gt=0, le=1000)
    latency: float = Field(0.0, ge=0)
    patience: float = Field(3.0, gt=0)
    repeats: bool = False

    @property
    def period_ns(self) -> int:
        """Time between two pictures, ns."""
        return round(1e9 / self.fps)


class Camera(ABC):
    """A camera. One process owns it, and calls it in the order open, read*, close.

    A kind of camera is a `CameraConfig` with a ``kind`` and ``build(clock, stage)``, which returns a `Camera`;
    ``stage`` is the scene of a simulated arm (`robopol.real_robot.stage.Stage`), None of a real one.

    Attributes:
        stamps: Whether it tells by itself when its pictures were taken, which is known with the first that it gives; if
            not, that is when they arrived, less the configured latency.
    """

    stamps = False

    @abstractmethod
    def open(self) -> str:
        """Begin to take pictures, and say what the camera is.

        Raises:
            RobotError: If it is absent, or does not do what it is told.
        """

    @abstractmethod
    def read(self) -> Frame | None:
        """Wait for the next picture; return None if none came when one was due.

        Raises:
            RobotError: If the camera is gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the camera; never raises, and may be called twice."""
