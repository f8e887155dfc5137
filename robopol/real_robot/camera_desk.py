"""The supervisor's part in cameras: it starts their processes, and begins those anew that died or hang."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Protocol

from robopol.real_robot.clock import Clock
from robopol.real_robot.film import Film
from robopol.real_robot.robot import RobotConfig

PAUSE = 5.0
"""From a camera's start to the next, at least, s; opening one takes a second or two."""
START = 30.0
"""A camera that has not asked for a picture for so long after its start hangs, s."""
HANG = 3.0
"""A camera that has not come back from asking for a picture for so long beyond its patience hangs, s."""


class Process(Protocol):
    """A camera's process; see `robopol.real_robot.supervisor.Child`."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""

    def end(self, patience: float) -> None:
        """End it."""


class CameraDesk:
    """All cameras of a robot.

    Attributes:
        restarts: Name of a camera -> how often it was begun anew.
    """

    def __init__(
        self, robot: RobotConfig, films: Mapping[str, Film], start: Callable[[str], Process], clock: Clock
    ) -> None:
        """Look after cameras.

        Args:
            robot: The robot.
            films: Name of a camera -> its pictures.
            start: Starts the process of a camera, without waiting for it.
            clock: Time.
        """
        self._robot, self._films, self._start, self._clock = robot, films, start, clock
        self._processes: dict[str, Process] = {}
        self._started: dict[str, int] = {}
        self.restarts = dict.fromkeys(robot.cameras, 0)

    def add(self, name: str, process: Process) -> None:
        """Take over the process of a camera."""
        self._processes[name], self._started[name] = process, self._clock.now()

    def tend(self) -> list[str]:
        """Begin those anew that died or hang, and say so; it never waits for one."""
        said, now = [], self._clock.now()
        for name, process in list(self._processes.items()):
            if now - self._started[name] < PAUSE * 1e9:
                continue
            asked, limit = self._films[name].pulse.t, HANG + self._robot.cameras[name].patience
            if asked <= self._started[name]:
                asked, limit = self._started[name], START
            hangs = now - asked > limit * 1e9
            if process.alive and not hangs:
                continue
            process.end(0.0)
            self.add(name, self._start(name))
            self.restarts[name] += 1
            said.append(f"camera {name} {'hangs' if hangs else 'has died'}: it is begun anew")
        return said

    def close(self) -> None:
        """End all of them, whatever goes wrong with one."""
        with ExitStack() as stack:
            for process in self._processes.values():
                stack.callback(process.end, 1.0)
            self._processes.clear()
