"""Who chooses the actions of an episode: an executor of a policy (`robopol.execution`), or a scripted expert."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robopol.envs import VectorEnv, make_expert
from robopol.errors import EnvError


class Actor(Protocol):
    """Chooses actions for the slots of a vector environment."""

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin an episode in each slot, with all of its randomness drawn from its seed."""

    def act(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Tensor:
        """Return actions (len(slots), A) for observations key -> (len(slots), ...)."""


class ExpertActor:
    """Lets the scripted expert of a task act."""

    def __init__(self, env: VectorEnv, way: str | None = None, noise: float | None = None) -> None:
        """Make one expert for each slot.

        Args:
            env: The environment it acts in, whose simulator state it may read.
            way: The way it takes; None draws one for each episode.
            noise: Standard deviation of its disturbance; None for the task's default.

        Raises:
            EnvError: If the task has no expert or no such way.
        """
        self._worlds: list[Any] = list(env.envs)
        if len(self._worlds) < env.num_envs:
            raise EnvError(
                f"an expert looks inside each {env.spec.id}, and these are stepped where it cannot: say env.workers=0 "
                "and env.backend=serial"
            )
        self.experts = [make_expert(env.spec.id, way=way, noise=noise) for _ in range(env.num_envs)]

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """See `Actor.reset`."""
        for slot, seed in zip(slots, seeds, strict=True):
            # a stream of its own: the environment draws its start from the same seed
            self.experts[slot].reset(self._worlds[slot], np.random.default_rng([seed, 1]))

    def act(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Tensor:
        """See `Actor.act`."""
        actions = [self.experts[slot].act(self._worlds[slot]) for slot in slots]
        return torch.as_tensor(np.stack(actions), dtype=torch.float32)
