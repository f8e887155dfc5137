"""Cameras of a simulated arm without processes of their own: in lock-step with a virtual clock, or by default."""

from collections import deque
from collections.abc import Callable
from functools import partial

from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.real_robot.camera import Frame
from robopol.real_robot.cameras.rendered import RenderedCamera, RenderedConfig
from robopol.real_robot.capture import Capture
from robopol.real_robot.clock import Clock
from robopol.real_robot.events import Event
from robopol.real_robot.film import Film
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.sight import Sight, seen_by
from robopol.real_robot.stage import Stage
from robopol.real_robot.world import World

FPS = 30.0
"""Of the cameras of a simulated robot that has none of its own."""


class Eyes:
    """All cameras of a simulated robot, which take a picture whenever they are asked to and one is due.

    Attributes:
        films: Name of a camera -> its pictures, as far as they have arrived at the policy.
        sight: What the policy sees.
    """

    def __init__(
        self,
        robot: RobotConfig,
        stage: Stage,
        clock: Clock,
        world: Callable[[], World],
        latency: int,
        matched: bool,
        report: Callable[[Event], None],
    ) -> None:
        """Open the cameras.

        Args:
            robot: The robot.
            stage: Its scene.
            clock: Time.
            world: Returns where everything in the scene is now.
            latency: Time that pictures take beyond that of their camera, ns.
            matched: Whether they say truly when they were taken; if not, they say when they arrived.
            report: Told when a camera becomes stale, and when it is back.

        Raises:
            ConfigError: If a camera is not one of the simulation.
        """
        real = [name for name, camera in robot.cameras.items() if not isinstance(camera, RenderedConfig)]
        if real:
            raise ConfigError(
                f"a rehearsal sees its simulation only: make the cameras {', '.join(real)} kind=rendered, or leave "
                f"them out, ~robot.cameras.{real[0]}"
            )
        stage.world = world
        self._clock, self._latency, self._matched = clock, latency, matched
        self.films = {name: Film.new(camera) for name, camera in robot.cameras.items()}
        self._cameras: dict[str, RenderedCamera] = {}
        self._captures: dict[str, Capture] = {}
        self._under_way: dict[str, deque[tuple[int, Frame]]] = {name: deque() for name in self.films}
        for name, config in robot.cameras.items():
            camera = self._cameras[name] = config.build(clock, stage)
            camera.open()
            self._captures[name] = Capture(camera, config, clock, partial(self._send, name), self.films[name].beat)
        places = {name: place for place, name in enumerate(robot.cameras)}
        self.sight = Sight(self.films, places, robot.gate.max_age, report)

    def look(self) -> None:
        """Take the pictures that are due, and let those arrive whose time has come."""
        now = self._clock.now()
        for name, camera in self._cameras.items():
            while camera.due <= now:
                self._captures[name].step()
            under_way = self._under_way[name]
            while under_way and under_way[0][0] <= now:
                frame = under_way.popleft()[1]
                self.films[name].put(frame if self._matched else Frame(now, frame.image))

    def close(self) -> None:
        """Let go of the cameras."""
        for name, camera in self._cameras.items():
            camera.close()
            self.films[name].close()

    def _send(self, name: str, frame: Frame) -> None:
        self._under_way[name].append((self._clock.now() + self._latency, frame))


def with_cameras(robot: RobotConfig, spec: PolicySpec, fps: float) -> RobotConfig:
    """Return a robot in the scene of a policy's task with the cameras of that task, if it has none of its own."""
    if robot.cameras:
        return robot
    cameras = {
        name: RenderedConfig(camera=name, size=(shape[0], shape[1]), fps=fps) for name, shape in seen_by(spec).items()
    }
    return robot.model_copy(update={"cameras": cameras})
