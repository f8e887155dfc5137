"""What actor-critic methods share whose actor is a generative policy of whole chunks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from robopol.algos.algorithm import Explored
from robopol.algos.off_policy import OffPolicy, OffPolicyConfig
from robopol.algos.sharing import executed, sharing
from robopol.data.windows import narrowed, newest
from robopol.models.q import QConfig
from robopol.networks.precision import Runtime
from robopol.policies import Needs
from robopol.policies.generative import GenerativePolicy


class ChunkActor(OffPolicy[Any]):
    """A policy that plans chunks, and critics that judge what is executed of them and look at the world as it does.

    Attributes:
        policy: Who acts, as it stands.
        low: Bounds of an action, (A,).
        high: The same.
    """

    policy: GenerativePolicy

    def __init__(
        self, config: OffPolicyConfig, policy: GenerativePolicy, critics: QConfig, total_updates: int, runtime: Runtime
    ) -> None:
        """Make the critics; see `OffPolicy`."""
        super().__init__(config, policy, sharing(critics, policy, executed(policy)), total_updates, runtime)
        low, high = torch.tensor([policy.spec.action_low, policy.spec.action_high], device=policy.device)
        self.low, self.high = low, high

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return self.model.needs.joined(self.policy.needs)

    def views(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a batch as the critics see it, with the actions that they judge, and as the policy does."""
        spec = self.model.spec
        own = narrowed(batch, spec.n_obs_steps, spec.horizon)
        own["action"] = self.model.actions(own)
        return own, narrowed(batch, self.policy.spec.n_obs_steps, self.policy.spec.horizon)

    def taken(self, chunk: Tensor) -> Tensor:
        """Return the executed actions (B, h, A), within their bounds, of normalised chunks (B, Tp, A)."""
        first = self.policy.spec.n_obs_steps - 1
        whole = self.policy.action_normalizer.unnormalize(chunk)[:, first : first + self.model.spec.chunk]
        return torch.minimum(torch.maximum(whole, self.low), self.high)

    @torch.no_grad()
    def tried(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """See `OffPolicy.tried`; one sample."""
        return self.sampled(self.policy, obs, generator)

    @torch.no_grad()
    def sampled(self, policy: GenerativePolicy, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """Return what a policy would execute (B, h, A), within the bounds of the actions."""
        chunk = policy.act(newest(obs, policy.spec.n_obs_steps), 1, generator)[:, 0, : self.model.spec.chunk]
        return torch.minimum(torch.maximum(chunk, self.low), self.high)

    def warm_up(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.WarmsUp`; the policy."""
        return self.explore(obs, generator)
