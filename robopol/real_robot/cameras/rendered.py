"""A camera of the simulated arm's scene: to try everything without hardware."""

from collections import deque
from typing import Literal

from robopol.errors import RobotError
from robopol.real_robot.camera import Camera, CameraConfig, Frame
from robopol.real_robot.clock import Clock
from robopol.real_robot.stage import Stage


class RenderedConfig(CameraConfig):
    """A camera of the simulated arm's MuJoCo scene. What it takes arrives ``latency`` seconds later.

    Attributes:
        camera: Its name in the model; of the arm suite "front" and "wrist".
    """

    kind: Literal["rendered"] = "rendered"
    camera: str = "front"
    repeats: bool = True

    def build(self, clock: Clock, stage: Stage | None) -> "RenderedCamera":
        """Return the camera.

        Raises:
            RobotError: If there is no scene, or no such camera in it.
        """
        if stage is None:
            raise RobotError(
                f"camera '{self.camera}' is rendered, and the arm is not simulated: say kind=opencv, or another robot"
            )
        if self.camera not in stage.cameras:
            names = ", ".join(stage.cameras) or "none"
            raise RobotError(f"the scene has no camera '{self.camera}'; its cameras: {names}")
        return RenderedCamera(self, clock, stage)


class RenderedCamera(Camera):
    """See `RenderedConfig`."""

    stamps = True

    def __init__(self, config: RenderedConfig, clock: Clock, stage: Stage) -> None:
        """See `RenderedConfig.build`."""
        self._config, self._clock, self._stage = config, clock, stage
        self._latency = round(config.latency * 1e9)
        self._under_way: deque[Frame] = deque()
        self._last, self._next = -1, clock.now()

    @property
    def due(self) -> int:
        """When there is something to do next, ns: a picture to be taken, or one that arrives."""
        return min([self._next, *(frame.t + self._latency for frame in list(self._under_way)[:1])])

    def open(self) -> str:
        """See `Camera.open`."""
        self._stage.prepare(self._config.size)
        self._next = self._clock.now() + self._config.period_ns
        return f"camera '{self._config.camera}' of the simulation"

    def read(self) -> Frame | None:
        """See `Camera.read`; it waits until `due`, and does not make up for pictures that it came too late for."""
        self._clock.sleep_until(self.due)
        now, period = self._clock.now(), self._config.period_ns
        if now >= self._next:
            self._next += max(1, -(-(now - self._next) // period)) * period
            frame = self._stage.look(self._config.camera, self._config.size)
            if frame is not None and frame.t > self._last:
                self._last = frame.t
                self._under_way.append(frame)
        ripe = self._clock.now() - self._latency
        return self._under_way.popleft() if self._under_way and self._under_way[0].t <= ripe else None

    def close(self) -> None:
        """See `Camera.close`; the scene is not the camera's."""
        self._under_way.clear()
