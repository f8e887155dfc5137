"""The expert of MultiGoal: the shortest way to one goal."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.expert import advance
from robopol.envs.multi_goal import MultiGoal
from robopol.errors import EnvError

_STEP = 0.04  # m a control step


class MultiGoalExpert:
    """Follows the shortest way around walls and disc; see `robopol.envs.experts.demonstrator.Demonstrator`.

    It plans anew in every step, so it corrects what the noise disturbed.

    Attributes:
        default_noise: Standard deviation of the noise unless another is asked for.
        way: The goal of the present episode.
        clean: The action that it meant at the last `act`, without noise, (2,) float32.
    """

    default_noise: ClassVar[float] = 0.01

    def __init__(self, way: str | None = None, noise: float | None = None) -> None:
        """Choose how the expert works.

        Args:
            way: The name of a goal; None goes to the one that counts, or, where any does, draws one at every reset,
                each equally likely.
            noise: Standard deviation of the noise on the place that an action moves to, m; None is the default.

        Raises:
            EnvError: If the noise is not a number of at least 0.
        """
        self._noise = self.default_noise if noise is None else noise
        if not 0 <= self._noise < np.inf:
            raise EnvError(f"the noise of an expert must be at least 0 m and finite, got {noise}")
        self._wish = way
        self.way = -1
        self.clean: NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def reset(self, env: MultiGoal, rng: np.random.Generator) -> None:
        """See `Demonstrator.reset`.

        Raises:
            EnvError: If the world has no such way; how many it has is an option of the world.
        """
        if self._wish is not None and self._wish not in env.way_names:
            raise EnvError(f"there is no way '{self._wish}'; the ways are: {', '.join(env.way_names)}")
        self._rng = rng
        if self._wish is not None:
            self.way = env.way_names.index(self._wish)
        else:
            self.way = int(rng.integers(len(env.goals))) if env.wanted is None else env.wanted

    def act(self, env: MultiGoal) -> NDArray[np.float32]:
        """See `Demonstrator.act`."""
        target = advance(env.position, env.detours.turn(env.position, self.way) - env.position, _STEP)
        self.clean = env.action_to(target)
        if self._noise == 0:
            return self.clean
        return env.action_to(target + self._rng.normal(0.0, self._noise, 2))
