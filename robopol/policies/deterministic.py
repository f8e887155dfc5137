"""A deterministic actor, for methods that follow the gradient of a critic (Silver et al. 2014)."""

from collections.abc import Mapping
from typing import Literal

from torch import Generator, Tensor

from robopol.policies.actor import Actor, ActorConfig
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators


class DeterministicConfig(ActorConfig):
    """tanh of a network's output, stretched to the bounds of the actions."""

    kind: Literal["deterministic"] = "deterministic"

    def build(self, spec: PolicySpec) -> "DeterministicPolicy":
        """Return the policy, its weights untrained."""
        return DeterministicPolicy(self, spec)


class DeterministicPolicy(Actor):
    """See `DeterministicConfig`; several proposals for a row are equal."""

    def __init__(self, config: DeterministicConfig, spec: PolicySpec) -> None:
        """Make the network; see `Actor`."""
        super().__init__(config, spec, 1)

    @property
    def bounded(self) -> bool:
        """See `Policy.bounded`."""
        return True

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return windows of actions, differentiable in the weights.

        Args:
            obs: Key -> (B, To, ...), environment units.

        Returns:
            (B, Tp, A) in environment units.
        """
        (output,) = self._say(self.observation(obs, self.spec.n_obs_steps))
        return self.action_normalizer.unnormalize(output.tanh())

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        (output,) = self._say(cond)
        return output.tanh()[:, None].expand(-1, n, -1, -1)

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """Return the mean squared error of the steps that count."""
        (output,) = self._say(cond)
        return (((output.tanh() - action) ** 2).mean(-1) * mask).sum(-1) / mask.sum(-1)
