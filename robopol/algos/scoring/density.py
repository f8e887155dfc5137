"""A Gaussian's density: one row a choice, scored where it was drawn, before it was clipped or squashed."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, cast, runtime_checkable

from torch import Generator, Tensor

from robopol.algos.scoring.scoring import Said, Scoring, ScoringConfig
from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.policies.policy import standard_normal


@runtime_checkable
class Gaussian(Protocol):
    """A policy that draws from a Gaussian, and executes what it makes of that."""

    def gaussian(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, Tp, A) and log standard deviation, broadcast to it, given what is seen (B, To, D)."""

    def executed(self, latent: Tensor) -> Tensor:
        """Return actions in environment units, where the Gaussian drew ``latent`` (..., A)."""


class DensityConfig(ScoringConfig):
    """The density of a Gaussian policy."""

    kind: Literal["density"] = "density"

    def build(self, policy: Policy) -> "Density":
        """Return the scoring of a policy.

        Raises:
            ConfigError: If the policy is no Gaussian.
        """
        if not isinstance(policy, Gaussian):
            raise ConfigError(
                f"a {policy.config.tree()['kind']} policy has no density that could be compared: set "
                "policy=diagonal_gaussian, or, for a diffusion policy, algo.scoring=denoising, or, for a flow, "
                "algo.scoring=flow_matching"
            )
        return Density(self, policy)


class Density(Scoring):
    """See `DensityConfig`. Squashing cancels in a ratio and in a divergence, so both are of the Gaussian itself."""

    has_entropy: ClassVar[bool] = True

    def _draw(self, seen: Tensor, generator: Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        policy = cast(Gaussian, self.policy)
        mean, log_std = policy.gaussian(seen)
        latent = mean + log_std.exp() * standard_normal(mean.shape, generator, mean.device)
        return policy.executed(latent), {"latent": latent}

    def say(self, seen: Tensor, trace: Mapping[str, Tensor]) -> Said:
        """See `Scoring.say`."""
        mean, log_std = cast(Gaussian, self.policy).gaussian(seen)
        z = (trace["latent"] - mean) * (-log_std).exp()
        return {"mean": mean, "log_std": log_std.expand_as(mean), "log_prob": -0.5 * z.square() - log_std}

    def log_ratio(self, new: Said, old: Said, trace: Mapping[str, Tensor]) -> Tensor:
        """See `Scoring.log_ratio`."""
        return self._reduced(new["log_prob"] - old["log_prob"])[:, None]

    def kl(self, new: Said, old: Said) -> Tensor:
        """See `Scoring.kl`: log(s_n/s_o) + (s_o^2 + (m_o - m_n)^2) / (2 s_n^2) - 1/2, entry by entry."""
        wider = new["log_std"] - old["log_std"]
        moved = (old["mean"] - new["mean"]) / new["log_std"].exp()
        entries = wider + 0.5 * ((-2 * wider).exp() + moved**2) - 0.5
        return self._cut(entries).sum((-2, -1))

    def entropy(self, said: Said) -> Tensor:
        """See `Scoring.entropy`; before a squash."""
        return self._cut(said["log_std"] + 0.5 * math.log(2 * math.pi * math.e)).sum((-2, -1))
