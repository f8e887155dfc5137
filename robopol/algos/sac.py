"""SAC (Haarnoja et al. 2018, arXiv 1812.05905): an actor that is paid, at a learned price, for staying random."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Generator, Tensor

from robopol.algos.off_policy import actor_and_critics
from robopol.algos.soft import Soft, SoftConfig
from robopol.models import Model
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.squashed_gaussian import Sample, SquashedGaussianPolicy


class SACConfig(SoftConfig):
    """Soft actor-critic with a learned temperature.

    With Q' the target, Gamma the discount (0 where the episode terminated) and a' ~ pi(s'):

        y = r + Gamma (min_k Q'_k(s', a') - alpha log pi(a'|s'))
        L_Q = sum_k (Q_k(s, a) - y)^2
        L_pi = alpha log pi(a|s) - min_k Q_k(s, a),  a ~ pi(s)
        L_alpha = -log alpha (log pi(a|s) + H)

    log pi is in normalised units, in which an action entry lies in (-1, 1). a may be a chunk of h actions, which are
    drawn, executed and judged at once; then r is its reward and Gamma its discount (`robopol.data.windows.Batch`).

    Attributes:
        paid: Whether what comes next is worth its entropy, too; False leaves alpha log pi(a'|s') out of y (Ball et al.
            2023, RLPD, for sparse rewards).
    """

    kind: Literal["sac"] = "sac"
    paid: bool = True

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "SAC":
        """Return the algorithm.

        Args:
            policy: The policy to train, on its device.
            model: The critics to train, on the same device.
            total_updates: When the expectile has come down; the rates stay.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the policy is no squashed Gaussian that executes all that it draws, or the model is no Q of
                as many actions.
        """
        both = actor_and_critics(policy, SquashedGaussianPolicy, model, "sac", "squashed_gaussian", chunks=True)
        return SAC(self, *both, total_updates, runtime)


class SAC(Soft):
    """See `SACConfig`."""

    config: SACConfig

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the critics, then policy and temperature, then the target."""
        q_loss = self.fit_critics(batch, step, generator)
        told = {"train/loss": q_loss, "train/q_loss": q_loss}
        if (step + 1) % self.config.delay == 0:
            told |= self.improve(batch, generator)
        self.follow()
        return told

    def judged(self, batch: Mapping[str, Any], generator: Generator) -> tuple[Tensor, Tensor]:
        """See `Soft.judged`; by the critics, of actions."""
        drawn = self.drawn(batch["obs"], generator)
        return drawn.log_prob, self.model.q(batch["obs"], drawn.action, generator)

    def drawn(self, obs: Mapping[str, Tensor], generator: Generator) -> Sample:
        """Draw from the policy, differentiable in its weights, in states of histories key -> (B, To, ...)."""
        return self.policy.sample(obs, generator)

    def goals(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """See `OffPolicy.goals`."""
        drawn = self.drawn(batch["next_obs"], generator)
        worth = self.least(batch["next_obs"], drawn.action, generator)
        if self.config.paid:
            worth = worth - self.log_alpha.exp() * drawn.log_prob
        goal: Tensor = batch["reward"] + batch["discount"] * worth
        return goal

    def tried(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """See `OffPolicy.tried`; samples."""
        return self.policy.draw(obs, generator)
