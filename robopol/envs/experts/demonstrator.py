"""What every expert is, whatever world it is for."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Demonstrator(Protocol):
    """A script that solves a task by looking inside the world; one for each environment.

    Attributes:
        way: The way of the present episode, an index into the task's way names; -1 if there is one way.
        clean: The action that it meant at the last `act`, without noise, (A,) float32.
    """

    way: int
    clean: NDArray[np.float32]

    def reset(self, env: Any, rng: np.random.Generator) -> None:
        """Prepare for an episode of an environment that was just reset; all that is random is drawn from ``rng``."""

    def act(self, env: Any) -> NDArray[np.float32]:
        """Return the action to execute now, (A,) float32, in environment units."""
