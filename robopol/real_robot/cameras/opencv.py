"""A camera by OpenCV: what is on USB (UVC), a stream of the network, or, to try things, a video file."""

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from robopol.errors import MissingExtraError, RobotError
from robopol.real_robot.camera import Camera, CameraConfig, Frame, Image
from robopol.real_robot.clock import Clock
from robopol.real_robot.stage import Stage

FIRST = 5
"""Pictures within which one tells when it was taken, if the device ever tells it."""


class OpenCVConfig(CameraConfig):
    """What OpenCV's ``VideoCapture`` opens.

    Attributes:
        source: Number of the device, its path (/dev/v4l/by-id/... stays the same when cables are changed), address of a
            stream, or a video file, which is played at ``fps``.
        width: Width in which it takes pictures, pixels; None leaves it as it is.
        height: Height in which it does; None leaves it as it is.
        format: Four letters, such as MJPG, without which many cameras do not reach their rate; None leaves it.
        crop: Part that is kept: top, left, height, width, pixels. None is the largest part in the middle with the
            proportions of ``size``. What is kept is scaled to ``size``.
        order: Order of the colours as they come; OpenCV's is bgr.
    """

    kind: Literal["opencv"] = "opencv"
    source: int | str = 0
    width: int | None = Field(None, gt=0)
    height: int | None = Field(None, gt=0)
    format: str | None = Field(None, min_length=4, max_length=4)
    crop: tuple[int, int, int, int] | None = None
    order: Literal["bgr", "rgb"] = "bgr"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together: give both, or neither")
        if self.crop is not None and (min(self.crop) < 0 or min(self.crop[2:]) < 1):
            raise ValueError(f"crop is top, left, height, width of a part of the picture, got {list(self.crop)}")
        return self

    def build(self, clock: Clock, stage: Stage | None) -> "OpenCVCamera":
        """Return the camera; nothing is opened."""
        return OpenCVCamera(self, clock)


class OpenCVCamera(Camera):
    """See `OpenCVConfig`.

    A picture's time is the one that the driver gave it where it gives one (Video4Linux does), otherwise that of its
    arrival, less the configured latency. Which of both it is is decided once, by the first pictures, which are left out
    until then: one that has waited somewhere for long is old from then on, and never taken for new.
    """

    def __init__(self, config: OpenCVConfig, clock: Clock) -> None:
        """See `OpenCVConfig.build`."""
        self._config, self._clock = config, clock
        self._capture: Any = None
        self._due: int | None = None
        self._unsure = FIRST

    def open(self) -> str:
        """See `Camera.open`."""
        config, source = self._config, self._config.source
        self._cv = cv = _opencv()
        cv.utils.logging.setLogLevel(cv.utils.logging.LOG_LEVEL_SILENT)  # what goes wrong is said in words of ours
        capture = self._capture = cv.VideoCapture(source)
        if not capture.isOpened():
            self.close()
            raise RobotError(f"there is no camera at source={source!r}, or another program has it")
        if config.format is not None:
            capture.set(cv.CAP_PROP_FOURCC, cv.VideoWriter.fourcc(*config.format))
        if config.width is not None and config.height is not None:
            capture.set(cv.CAP_PROP_FRAME_WIDTH, config.width)
            capture.set(cv.CAP_PROP_FRAME_HEIGHT, config.height)
        capture.set(cv.CAP_PROP_FPS, config.fps)
        capture.set(cv.CAP_PROP_BUFFERSIZE, 1)  # old pictures are of no use
        width, height = (int(capture.get(p)) for p in (cv.CAP_PROP_FRAME_WIDTH, cv.CAP_PROP_FRAME_HEIGHT))
        if config.width is not None and (width, height) != (config.width, config.height):
            self.close()
            raise RobotError(
                f"the camera at source={source!r} gives {width} x {height} pixels, asked for were "
                f"{config.width} x {config.height}: set width and height to what it can do"
            )
        self._part = _part(config, height, width)
        self._due = self._clock.now() if isinstance(source, str) and Path(source).is_file() else None
        return f"{source}, {width} x {height} by {capture.getBackendName()}"

    def read(self) -> Frame | None:
        """See `Camera.read`."""
        if self._due is not None:  # a file does not wait for its pictures by itself
            self._clock.sleep_until(self._due)
            self._due = max(self._due + self._config.period_ns, self._clock.now())
        if not self._capture.grab():
            if self._due is None:
                self._clock.sleep_until(self._clock.now() + self._config.period_ns)  # some fail at once
            return None
        t = self._taken(self._clock.now())
        good, image = self._capture.retrieve()
        if not good or image is None or t is None:
            return None
        return Frame(t, self._picture(image))

    def close(self) -> None:
        """See `Camera.close`."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _taken(self, now: int) -> int | None:
        """Return when the picture that has just arrived was taken; None if that is not known, or cannot be."""
        latency = round(self._config.latency * 1e9)
        if self._due is not None:
            return now - latency
        told = round(self._capture.get(self._cv.CAP_PROP_POS_MSEC) * 1e6)
        if self._unsure:
            # Video4Linux tells the monotonic clock; others something else, or nothing
            self.stamps = 0 <= now - told < 1_000_000_000
            self._unsure = 0 if self.stamps else self._unsure - 1
            if self._unsure:
                return None
        if not self.stamps:
            return now - latency
        return told - latency if told <= now else None

    def _picture(self, image: Image) -> Image:
        """Return the part that is kept in the size and with the colours that are wanted."""
        if image.ndim == 2 or image.shape[2] == 1:
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        top, left, height, width = self._part
        image = image[top : top + height, left : left + width]
        size = self._config.size
        if image.shape[:2] != size:
            smaller = size[0] < height
            way = self._cv.INTER_AREA if smaller else self._cv.INTER_LINEAR
            image = self._cv.resize(image, size[::-1], interpolation=way)
        return np.ascontiguousarray(image[..., ::-1] if self._config.order == "bgr" else image, np.uint8)


def _part(config: OpenCVConfig, height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part of a picture that is kept.

    Raises:
        RobotError: If it is not within the picture.
    """
    if config.crop is None:
        scale = min(height / config.size[0], width / config.size[1])
        rows, columns = (max(1, round(scale * side)) for side in config.size)
        return (height - rows) // 2, (width - columns) // 2, rows, columns
    top, left, rows, columns = config.crop
    if top + rows > height or left + columns > width:
        raise RobotError(f"crop={list(config.crop)} is not within the camera's {height} x {width} pixels")
    return config.crop


def _opencv() -> Any:
    """Return OpenCV's module.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python", "opencv", "a camera of kind opencv") from error
    return cv2
