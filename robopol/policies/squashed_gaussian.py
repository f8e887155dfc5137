"""A Gaussian squashed by tanh to the bounds of the actions: the actor of SAC (Haarnoja et al. 2018)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from robopol.policies.actor import Actor, ActorConfig
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators, Previous, check_noise, standard_normal

EDGE = 1e-5
"""Recorded actions are taken to lie so far inside their bounds: at the bounds the density has no end."""


_CONSTANT = 0.5 * math.log(2 * math.pi) + 2 * math.log(2)


class SquashedGaussianConfig(ActorConfig):
    """tanh(u) with u ~ N(mean, std^2), both said by one network, stretched to the bounds of the actions.

    Attributes:
        log_std: Least and greatest logarithm of the standard deviation before the squash.
        deterministic: Act with tanh(mean) instead of a sample. It explores by samples in any case.
    """

    kind: Literal["squashed_gaussian"] = "squashed_gaussian"
    log_std: tuple[float, float] = (-20.0, 2.0)
    deterministic: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.log_std[0] < self.log_std[1]:
            raise ValueError(f"log_std is (least, greatest), got {self.log_std}")
        return self

    def build(self, spec: PolicySpec) -> "SquashedGaussianPolicy":
        """Return the policy, its weights untrained."""
        return SquashedGaussianPolicy(self, spec)


class Sample(NamedTuple):
    """What was drawn, differentiable in the weights.

    Attributes:
        action: (B, Tp, A) in environment units.
        log_prob: (B,), the logarithm of the density in normalised units, in which the bounds are -1 and 1.
    """

    action: Tensor
    log_prob: Tensor


class SquashedGaussianPolicy(Actor):
    """See `SquashedGaussianConfig`."""

    config: SquashedGaussianConfig

    def __init__(self, config: SquashedGaussianConfig, spec: PolicySpec) -> None:
        """Make the network; see `Actor`."""
        super().__init__(config, spec, 2)

    @property
    def bounded(self) -> bool:
        """See `Policy.bounded`."""
        return True

    def sample(self, obs: Mapping[str, Tensor], generator: Generators = None) -> Sample:
        """Draw one window for every row, by its noise so that the gradient flows through it.

        Args:
            obs: Key -> (B, To, ...), environment units.
            generator: Source of the noise.
        """
        said = self._said(self.observation(obs, self.spec.n_obs_steps))
        noise = standard_normal(said.shape[:1] + said.shape[2:], generator, said.device)
        squashed, log_prob = _Squash.apply(said.to(noise.dtype), noise, *self.config.log_std)
        return Sample(self.action_normalizer.unnormalize(squashed), log_prob)

    @torch.no_grad()
    def draw(self, obs: Mapping[str, Tensor], generator: Generators = None) -> Tensor:
        """Draw a window for every row, (B, Tp, A) in environment units; as `sample`, for those who only act."""
        mean, log_std = self.gaussian(self.observation(obs, self.spec.n_obs_steps))
        noise = standard_normal(mean.shape, generator, mean.device)
        return self.action_normalizer.unnormalize((mean + log_std.exp() * noise).tanh())

    def log_prob(self, obs: Mapping[str, Tensor], action: Tensor) -> Tensor:
        """Return the density that `sample` draws from, at given actions.

        Args:
            obs: Key -> (B, To, ...), environment units.
            action: (B, Tp, A), environment units; taken to lie a little inside the bounds.

        Returns:
            (B,), in normalised units.
        """
        cond = self.observation(obs, self.spec.n_obs_steps)
        return self._entries(self.action_normalizer.normalize(action), cond).sum((-2, -1))

    def executed(self, latent: Tensor) -> Tensor:
        """Return what is executed, in environment units, where the Gaussian drew ``latent`` (..., A)."""
        return self.action_normalizer.unnormalize(latent.tanh())

    def gaussian(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation before the squash, (B, Tp, A) each.

        Args:
            cond: Encoded observations, (B, To, D).
        """
        mean, log_std = self._say(cond)
        return mean, log_std.clamp(*self.config.log_std)

    def _entries(self, action: Tensor, cond: Tensor) -> Tensor:
        """Return the log-density of every entry of normalised actions, (B, Tp, A)."""
        mean, log_std = self.gaussian(cond)
        u = torch.atanh(action.clamp(EDGE - 1, 1 - EDGE))
        return _log_prob((u - mean) / log_std.exp(), log_std, u)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """See `Policy.noise_shape`."""
        return (self.spec.horizon, self.spec.action_dim)

    @torch.no_grad()
    def plan_from(
        self, obs: Mapping[str, Tensor], noise: Tensor, previous: Sequence[Previous | None] | None = None
    ) -> Tensor:
        """See `Policy.plan_from`; acting with its mean, it does not look at the noise."""
        cond = self.observation(obs, self.spec.n_obs_steps)
        check_noise(noise, len(cond), self.noise_shape)
        return self.action_normalizer.unnormalize(self._from(cond, noise))

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        if self.config.deterministic:
            return self._from(cond, cond.new_empty(len(cond), n, *self.noise_shape))
        return self._from(cond, standard_normal((len(cond), n, *self.noise_shape), generator, cond.device))

    def _from(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Return what is done in normalised units, of noise (B, n, Tp, A) and of that shape."""
        mean, log_std = (part[:, None] for part in self.gaussian(cond))
        return mean.tanh().expand_as(noise) if self.config.deterministic else (mean + log_std.exp() * noise).tanh()

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """Return -log p of the steps that count, over their number of entries."""
        return -(self._entries(action, cond).mean(-1) * mask).sum(-1) / mask.sum(-1)


class _Squash(torch.autograd.Function):
    """tanh of a sample and its log-density, whose gradients take a third of the operations when said by hand."""

    @staticmethod
    def forward(ctx: Any, said: Tensor, noise: Tensor, least: float, greatest: float) -> tuple[Tensor, Tensor]:
        mean, free = said.unbind(1)
        log_std = free.clamp(least, greatest)
        off = log_std.exp().mul_(noise)
        u = mean + off
        squashed = u.tanh()
        ctx.save_for_backward(free, off, squashed)
        ctx.ends = least, greatest
        return squashed, _log_prob(noise, log_std, u).sum((-2, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_log_prob: Tensor) -> tuple[Tensor | None, ...]:
        free, off, squashed = ctx.saved_tensors
        least, greatest = ctx.ends
        dense = grad_log_prob[:, None, None]
        to_mean = torch.addcmul(grad, 2 * dense - grad * squashed, squashed)  # with d log p / du = 2 tanh(u)
        to_log_std = (to_mean * off - dense).mul_((free >= least) & (free <= greatest))
        return torch.stack([to_mean, to_log_std], 1), None, None, None


def _log_prob(noise: Tensor, log_std: Tensor, u: Tensor) -> Tensor:
    """Return log N(noise) - log std - log(1 - tanh(u)^2), the last one without ever computing 1 - tanh(u)^2."""
    bent = u - 2 * softplus(u, beta=-2)  # log(1 - tanh(u)^2) = 2 log 2 - 2 bent
    return 2 * torch.addcmul(bent, noise, noise, value=-0.25) - log_std - _CONSTANT
