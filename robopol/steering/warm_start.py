"""Begin from the plan that is under way, moved on to now, and walk the last steps only (RTI-DP; Duan et al. 2025).

Replanning costs a few evaluations of the network, and successive plans hang together. It is a low-pass filter on the
plan: the fewer steps, the slower it follows the observation. An episode's first plan begins from noise, and so does
one after the last plan has run out.
"""

from typing import ClassVar, Literal, cast

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy
from robopol.steering.steering import Planning, Steering, SteeringConfig, last_steps


class WarmStartConfig(SteeringConfig):
    """Refine the last plan instead of sampling anew.

    Attributes:
        steps: How many of the last steps of the sampler's walk are walked; None is all of them from noise, the base
            policy.
        renoise: Whether the old plan is noised to the level at which they begin (Meng et al. 2022); as published, it is
            taken as it is.
    """

    kind: Literal["warm_start"] = "warm_start"
    steps: int | None = Bound(3, ge=1)
    renoise: bool = False

    def build(self, policy: Policy) -> "WarmStart":
        """See `SteeringConfig.build`."""
        last_steps(policy, self.steps, "warm_start")
        return WarmStart(self)


class WarmStart(Steering):
    """See `WarmStartConfig`."""

    config: WarmStartConfig
    goes_on: ClassVar[bool] = True

    def starts(self, planning: Planning) -> Tensor | None:
        """See `Steering.starts`."""
        if self.config.steps is None:
            return None
        return torch.tensor([old is not None for old in planning.previous], device=planning.device)

    def start(self, planning: Planning) -> tuple[Tensor, int]:
        """See `Steering.start`."""
        policy, spec = cast(GenerativePolicy, planning.policy), planning.policy.spec
        assert self.config.steps is not None
        times = policy.sampler.times(policy.field.path)
        first = max(len(times) - self.config.steps, 0)
        nothing = torch.zeros(spec.horizon, spec.action_dim)
        windows = torch.stack([nothing if old is None else old.shifted() for old in planning.previous])
        x = policy.action_normalizer.normalize(windows.to(planning.device)).repeat_interleave(planning.proposals, 0)
        if self.config.renoise:
            level = policy.field.path.level(times[first])
            x = level.alpha.item() * x + level.sigma.item() * planning.draw()
        return x, first
