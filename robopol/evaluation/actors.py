"""Who chooses the actions of an episode: a policy executed in receding horizon, or a scripted expert."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robopol.envs import VectorEnv, make_expert
from robopol.errors import EnvError
from robopol.policies import Policy

BLOCK = 16
"""Rows that a policy always plans for at once; see `PolicyActor`."""


class Actor(Protocol):
    """Chooses actions for the slots of a vector environment."""

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin an episode in each slot, with all of its randomness drawn from its seed."""

    def act(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Tensor:
        """Return actions (len(slots), A) for observations key -> (len(slots), ...)."""


class PolicyActor:
    """Executes a policy in receding horizon: plan a chunk, execute Ta actions of it, plan again.

    The plan of an episode depends on its seed and its observations alone. Its noise comes from a generator of
    its own; and as a matrix product may round differently for another number of rows, the policy always sees
    exactly `BLOCK` rows, filled up with copies where fewer episodes plan.
    """

    def __init__(self, policy: Policy) -> None:
        """Execute ``policy``, in evaluation mode."""
        self.policy = policy.eval()
        self._history: dict[int, dict[str, Tensor]] = {}
        self._plan: dict[int, list[Tensor]] = {}
        self._generator: dict[int, torch.Generator] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """See `Actor.reset`."""
        for slot, seed in zip(slots, seeds, strict=True):
            self._history.pop(slot, None)
            self._plan[slot] = []
            self._generator[slot] = torch.Generator().manual_seed(seed)

    def act(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Tensor:
        """See `Actor.act`."""
        for row, slot in enumerate(slots):
            self._remember(slot, {key: obs[key][row] for key in self.policy.spec.obs_shapes})
        planning = [slot for slot in slots if not self._plan[slot]]
        for start in range(0, len(planning), BLOCK):
            self._replan(planning[start : start + BLOCK])
        return torch.stack([self._plan[slot].pop(0) for slot in slots])

    def _remember(self, slot: int, newest: dict[str, Tensor]) -> None:
        """Shift the newest observation into the slot's history (To, ...); the first one fills it."""
        steps = self.policy.spec.n_obs_steps
        past = self._history.get(slot)
        self._history[slot] = {
            key: torch.stack([value] * steps) if past is None else torch.cat([past[key][1:], value[None]])
            for key, value in newest.items()
        }

    def _replan(self, slots: Sequence[int]) -> None:
        """Plan for up to `BLOCK` slots."""
        rows = [*slots, *[slots[0]] * (BLOCK - len(slots))]
        spare = torch.Generator().manual_seed(0)
        generators = [self._generator[slot] for slot in slots] + [spare] * (BLOCK - len(slots))
        device = self.policy.device
        history = {
            key: torch.stack([self._history[slot][key] for slot in rows]).to(device)
            for key in self.policy.spec.obs_shapes
        }
        chunks = self.policy.act(history, generator=generators)[:, 0].cpu()
        for slot, chunk in zip(slots, chunks, strict=False):
            self._plan[slot] = list(chunk[: self.policy.spec.n_action_steps])


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
