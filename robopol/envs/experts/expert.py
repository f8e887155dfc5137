"""The base of the scripted experts: they choose where the tool goes next, in any action space."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopol.envs.task import Task
from robopol.errors import EnvError

Array = NDArray[np.float64]


class Expert(ABC):
    """A script that solves one task, reading the simulator's state.

    Its plan is closed loop: each step starts from where things are, so it corrects what the noise disturbed,
    and demonstrations hold recoveries (Laskey et al., "DART: Noise injection for robust imitation learning",
    CoRL 2017).

    Attributes:
        default_noise: Standard deviation of the noise unless another is asked for.
        way: The way of the present episode as an index into the task's ``way_names``; -1 if there is one way.
        clean: The action that the expert meant at the last `act`, without noise, (A,) float32.
    """

    default_noise: ClassVar[float] = 0.002

    def __init__(self, way_names: tuple[str, ...], way: str | None = None, noise: float | None = None) -> None:
        """Choose how the expert works.

        Args:
            way_names: The task's ways.
            way: One of ``way_names``; None draws one at every reset, each equally likely.
            noise: Standard deviation of the noise on the next tool position of the executed action, m (on the
                yaw: rad, twice that); None is the expert's default.

        Raises:
            EnvError: If the task has no such way, or the noise is not a number of at least 0.
        """
        if way is not None and way not in way_names:
            ways = ", ".join(way_names) or "none (one way only, way=None)"
            raise EnvError(f"there is no way '{way}'; the ways are: {ways}")
        self.noise = self.default_noise if noise is None else noise
        if not 0 <= self.noise < np.inf:
            raise EnvError(f"the noise of an expert must be at least 0 m and finite, got {noise}")
        self._way_names, self._wish = way_names, way
        self.way = -1
        self.clean: NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def reset(self, env: Task, rng: np.random.Generator) -> None:
        """Prepare for an episode of an environment that was just reset.

        Args:
            env: The environment.
            rng: Where the way and the noise are drawn from.
        """
        self._rng = rng
        if self._way_names:
            ways = len(self._way_names)
            self.way = int(rng.integers(ways)) if self._wish is None else self._way_names.index(self._wish)
        self.start(env)

    def act(self, env: Task) -> NDArray[np.float32]:
        """Return the action to execute now, (A,) float32, in the environment's action space."""
        pose, opening = self.plan(env)
        self.clean = env.control.action_for(pose, opening)
        if self.noise == 0:
            return self.clean
        disturbed = pose + self._rng.normal(0.0, self.noise, 4) * np.array([1.0, 1.0, 1.0, 2.0])
        return env.control.action_for(disturbed, opening)

    def start(self, env: Task) -> None:  # noqa: B027 - most experts keep nothing
        """Forget the last episode."""

    @abstractmethod
    def plan(self, env: Any) -> tuple[Array, float]:
        """Return the tool pose (x, y, z, yaw), (4,), and the opening that the reference should have next."""


def advance(reference: Array, direction: Array, step: float) -> Array:
    """Move a point along a direction, not beyond its end.

    Args:
        reference: Where the commanded point is, (D,) m.
        direction: Where to go from there, (D,) m.
        step: The farthest to go, m.

    Returns:
        The next point, (D,) m.
    """
    return reference + direction * min(1.0, step / max(float(np.linalg.norm(direction)), 1e-9))
