"""The base of the experts for environments that are not robopol's."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.foreign.world import World
from robopol.errors import EnvError


class ForeignExpert(ABC):
    """A script for a `World`; see `robopol.envs.experts.demonstrator.Demonstrator`.

    Attributes:
        way: -1, there is one way.
        clean: The action that it meant at the last `act`, without noise, (A,) float32.
    """

    def __init__(self, way: str | None = None, noise: float | None = None) -> None:
        """Choose how the expert works.

        Args:
            way: None; these tasks have one way.
            noise: Standard deviation of the noise on the executed action, in shares of half the width of its bounds;
                None is none.

        Raises:
            EnvError: If a way is asked for, or the noise is not a number of at least 0.
        """
        if way is not None:
            raise EnvError(f"there is no way '{way}'; the ways are: none (one way only, way=None)")
        self._noise = 0.0 if noise is None else noise
        if not 0 <= self._noise < np.inf:
            raise EnvError(f"the noise of an expert must be at least 0 and finite, got {noise}")
        self.way = -1
        self.clean: NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def reset(self, env: World, rng: np.random.Generator) -> None:
        """See `Demonstrator.reset`."""
        self._rng = rng
        self.start(env, rng)

    def act(self, env: World) -> NDArray[np.float32]:
        """See `Demonstrator.act`."""
        box: Any = env.action_space
        meant = np.clip(self.plan(env), box.low, box.high)
        self.clean = meant.astype(np.float32)
        if self._noise == 0:
            return self.clean
        disturbed = meant + self._rng.normal(0.0, self._noise, meant.shape) * (box.high - box.low) / 2
        return np.clip(disturbed, box.low, box.high).astype(np.float32)

    @abstractmethod
    def start(self, env: World, rng: np.random.Generator) -> None:
        """Prepare for an episode."""

    @abstractmethod
    def plan(self, env: World) -> NDArray[np.float64]:
        """Return the action, (A,); it is clipped to the bounds."""
