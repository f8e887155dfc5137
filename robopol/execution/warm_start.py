"""Warm start: the next plan is the last one, shifted and refined by a few steps of the sampler (RTI-DP)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.errors import ConfigError
from robopol.execution.executor import Executor, ExecutorConfig
from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy


class WarmStartConfig(ExecutorConfig):
    """Refine the last plan instead of sampling anew (RTI-DP, arXiv 2508.05396).

    The first plan of an episode is a full walk from noise, and so is one after an old plan has run out.

    Attributes:
        steps: How many of the last steps of the sampler's walk each later plan takes.
        renoise: Whether the old plan is noised to the level at which they begin; as published, it is not.
        n_action_steps: Control steps between two plans.
    """

    kind: Literal["warm_start"] = "warm_start"
    steps: int = Field(3, ge=1)
    renoise: bool = False
    n_action_steps: int = Field(1, ge=1)

    def build(self, policy: Policy) -> "WarmStart":
        """Return the executor of a policy.

        Raises:
            ConfigError: If the policy cannot refine a plan, or its plans do not last so long.
        """
        return WarmStart(policy, self.steps, self.renoise, self.n_action_steps, self.latency)


class WarmStart(Executor):
    """Executes the newest plan, refined from the one before."""

    policy: GenerativePolicy

    def __init__(
        self, policy: Policy, steps: int = 3, renoise: bool = False, n_action_steps: int = 1, latency: int = 0
    ) -> None:
        """See `WarmStartConfig`."""
        if not isinstance(policy, GenerativePolicy):
            raise ConfigError(
                "execution=warm_start refines a plan by the sampler of a generative policy (diffusion, flow, ...), "
                f"and a {policy.config.tree()['kind']} policy has none: choose another execution"
            )
        walk = len(policy.sampler.times(policy.field.path))
        if steps > walk:
            raise ConfigError(
                f"execution.steps={steps} last steps cannot be walked: the policy's sampler walks {walk} in all"
            )
        super().__init__(policy, n_action_steps, latency)
        self.steps, self.renoise = steps, renoise

    def _windows(self, slots: Sequence[int]) -> dict[int, Tensor]:
        fresh = [slot for slot in slots if not self._episodes[slot].plans]
        return self._sample(fresh) | self._in_blocks([slot for slot in slots if slot not in fresh], self._refine)

    def _refine(self, slots: Sequence[int], obs: Mapping[str, Tensor], generators: Sequence[torch.Generator]) -> Tensor:
        """Refine the newest plan of some slots, (n, Tp, A)."""
        guesses = torch.stack([self._guess(slot) for slot in slots]).to(self.policy.device)
        return self.policy.refine(obs, guesses, self.steps, self.renoise, generators)

    def _guess(self, slot: int) -> Tensor:
        """Shift a slot's newest plan (Tp, A) to this step; its last action is repeated."""
        episode = self._episodes[slot]
        plan = episode.plans[-1]
        passed = episode.step - plan.step
        return torch.cat([plan.window[passed:], plan.window[-1:].expand(passed, -1)])
