"""Taking pictures: one after the other from a camera, those left out that are no new ones."""

import os
from collections.abc import Callable

import numpy as np

from robopol.errors import RobotError
from robopol.real_robot.camera import Camera, CameraConfig, Frame
from robopol.real_robot.clock import Clock
from robopol.real_robot.film import Pulse

FIRST = 30.0
"""Time for a camera's first picture at least, s: a simulated one has none before its arm is there."""


class Capture:
    """Asks a camera for pictures.

    Attributes:
        repeated: How often, up to now, the newest picture has come again.
        missed: Pictures of the camera's rate that never came.
    """

    def __init__(
        self,
        camera: Camera,
        config: CameraConfig,
        clock: Clock,
        put: Callable[[Frame], None],
        beat: Callable[[Pulse], None],
    ) -> None:
        """Take the pictures of an open camera; ``put`` gets every new one, ``beat`` how it goes, each time."""
        self._camera, self._config, self._clock, self._put, self._beat = camera, config, clock, put, beat
        self._last: Frame | None = None
        self._since = clock.now()
        self.repeated = self.missed = 0

    def step(self) -> Frame | None:
        """Ask for one picture and hand it on, if it is a new one; return it.

        Raises:
            RobotError: If the camera is gone, gives pictures of another size, or gave no new one for so long that its
                configured patience is over, and, until the first one, `FIRST`.
        """
        frame = self._camera.read()
        now, last = self._clock.now(), self._last
        if frame is not None and frame.image.shape != (*self._config.size, 3):
            raise RobotError(f"the camera gave a picture {frame.image.shape}, wanted was {(*self._config.size, 3)}")
        new = frame if frame is not None and not self._old(frame) else None
        if new is not None:
            if last is not None:
                self.missed += max(0, round((new.t - last.t) / self._config.period_ns) - 1)
            self._last, self._since, self.repeated = new, now, 0
            self._put(new)
        self.repeated += frame is not None and new is None
        self._beat(Pulse(now, self.repeated, self.missed, os.getpid()))
        patience = self._config.patience if last is not None else max(FIRST, self._config.patience)
        if new is None and now - self._since > patience * 1e9:
            why = f"the same picture {self.repeated} times" if self.repeated else "no picture"
            raise RobotError(f"{why} in {(now - self._since) * 1e-9:.1f} s")
        return new

    def _old(self, frame: Frame) -> bool:
        last = self._last
        if last is None:
            return False
        return frame.t <= last.t or (not self._config.repeats and np.array_equal(frame.image, last.image))
