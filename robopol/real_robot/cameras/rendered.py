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
    """See `RenderedConfig`.

    Attributes:
        due: When the next picture is to be taken, ns.
    """

    def __init__(self, config: RenderedConfig, clock: Clock, stage: Stage) -> None:
        """See `RenderedConfig.build`."""
        self._config, self._clock, self._stage = config, clock, stage
        self._under_way: deque[Frame] = deque()
        self._last = -1
        self.due = clock.now()

    def open(self) -> str:
        """See `Camera.open`."""
        self._stage.prepare(self._config.size)
        self.due = self._clock.now()
        return f"camera '{self._config.camera}' of the simulation"

    def read(self) -> Frame | None:
        """See `Camera.read`; it waits until `due`, and does not make up for pictures that it came too late for."""
        self._clock.sleep_until(self.due)
        now, period = self._clock.now(), self._config.period_ns
        self.due += max(1, -(-(now - self.due) // period)) * period
        frame = self._stage.look(self._config.camera, self._config.size)
        if frame is not None and frame.t > self._last:
            self._last = frame.t
            self._under_way.append(frame)
        ripe = self._clock.now() - round(self._config.latency * 1e9)
        return self._under_way.popleft() if self._under_way and self._under_way[0].t <= ripe else None

    def close(self) -> None:
        """See `Camera.close`; the scene is not the camera's."""
        self._under_way.clear()
