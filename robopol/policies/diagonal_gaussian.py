"""A Gaussian whose spread is the same in every state: the actor of policy-gradient methods (Schulman et al. 2015)."""

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from robopol.networks.mlp import Activation, orthogonal
from robopol.policies.actor import Actor, ActorConfig
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators, standard_normal


class DiagonalGaussianConfig(ActorConfig):
    """N(mean(s), std^2) with a free std for each action entry; the world clips what leaves the bounds, the density not.

    With ``obs_normalization=running`` set ``encoder.limit=10``, beyond which an observation is an outlier.

    Attributes:
        log_std: Logarithm of the standard deviation to begin with, in normalised units (those of the bounds).
        deterministic: Act with the mean instead of a sample. It explores by samples in any case.
    """

    kind: Literal["diagonal_gaussian"] = "diagonal_gaussian"
    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    log_std: float = 0.0
    deterministic: bool = True

    def build(self, spec: PolicySpec) -> "DiagonalGaussianPolicy":
        """Return the policy, its weights untrained."""
        return DiagonalGaussianPolicy(self, spec)


class DiagonalGaussianPolicy(Actor):
    """See `DiagonalGaussianConfig`.

    Attributes:
        log_std: (Tp, A).
    """

    config: DiagonalGaussianConfig

    def __init__(self, config: DiagonalGaussianConfig, spec: PolicySpec) -> None:
        """Make the network, its weights orthogonal and its last layer small; see `Actor`."""
        super().__init__(config, spec, 1)
        orthogonal(self.net, 0.01)
        self.log_std = nn.Parameter(torch.full((spec.horizon, spec.action_dim), config.log_std))

    def gaussian(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, Tp, A) and log standard deviation, broadcast to it, of the window in normalised units.

        Args:
            cond: Encoded observations, (B, To, D).
        """
        (mean,) = self._say(cond)
        return mean, self.log_std

    def executed(self, latent: Tensor) -> Tensor:
        """Return what is executed, in environment units, where the Gaussian drew ``latent`` (..., A)."""
        return self.action_normalizer.unnormalize(latent)

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        mean, log_std = self.gaussian(cond)
        if self.config.deterministic:
            return mean[:, None].expand(-1, n, -1, -1)
        noise = standard_normal((len(mean), n, *mean.shape[1:]), generator, mean.device)
        return mean[:, None] + log_std.exp() * noise

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """Return -log p of the steps that count, over their number of entries."""
        mean, log_std = self.gaussian(cond)
        log_prob = -0.5 * ((action - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
        return -(log_prob.mean(-1) * mask).sum(-1) / mask.sum(-1)
