"""SAC (Haarnoja et al. 2018, arXiv 1812.05905): an actor that is paid, at a learned price, for staying random."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from robopol.algos.algorithm import by_owner, owned
from robopol.algos.off_policy import OffPolicy, OffPolicyConfig, actor_and_critics
from robopol.algos.optimizer import AdamW
from robopol.models import Model
from robopol.models.q import QModel
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.squashed_gaussian import Sample, SquashedGaussianPolicy


class SACConfig(OffPolicyConfig):
    """Soft actor-critic with a learned temperature.

    With Q' the target, Gamma the discount (0 where the episode terminated) and a' ~ pi(s'):

        y = r + Gamma (min_k Q'_k(s', a') - alpha log pi(a'|s'))
        L_Q = sum_k (Q_k(s, a) - y)^2
        L_pi = alpha log pi(a|s) - min_k Q_k(s, a),  a ~ pi(s)
        L_alpha = -log alpha (log pi(a|s) + H)

    log pi is in normalised units, in which an action entry lies in (-1, 1). a may be a chunk of h actions, which are
    drawn, executed and judged at once; then r is its reward and Gamma its discount (`robopol.data.windows.Batch`).

    Attributes:
        alpha: Temperature, in the unit of the reward; where training begins if it is learned.
        target_entropy: H, what the policy's entropy is brought to; None is `entropy_per_entry` for each action entry.
        entropy_per_entry: What it is brought to then.
        learn_alpha: Whether the temperature is learned.
        alpha_lr: Learning rate of its logarithm.
        delay: Updates of the critics for one of policy and temperature.
        paid: Whether what comes next is worth its entropy, too; False leaves alpha log pi(a'|s') out of y (Ball et al.
            2023, RLPD, for sparse rewards).
        trusts: Which heads the policy trusts: the ``least`` of all, or their ``mean``.
    """

    kind: Literal["sac"] = "sac"
    alpha: float = Field(1.0, gt=0)
    target_entropy: float | None = None
    entropy_per_entry: float = -1.0
    learn_alpha: bool = True
    alpha_lr: float = Field(3e-4, gt=0)
    delay: int = Field(1, ge=1)
    paid: bool = True
    trusts: Literal["least", "mean"] = "least"

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


class SAC(OffPolicy[SquashedGaussianPolicy]):
    """See `SACConfig`.

    Attributes:
        log_alpha: Logarithm of the temperature, a scalar.
    """

    config: SACConfig

    def __init__(
        self, config: SACConfig, policy: SquashedGaussianPolicy, model: QModel, total_updates: int, runtime: Runtime
    ) -> None:
        """Make the temperature; see `SACConfig.build`."""
        super().__init__(config, policy, model, total_updates, runtime)
        self.log_alpha = torch.tensor(math.log(config.alpha), device=model.device, requires_grad=True)
        self.alpha_optimizer = AdamW([self.log_alpha], (0.9, 0.999), 0.0)
        entropy = config.target_entropy
        entries = policy.spec.horizon * policy.spec.action_dim
        self.target_entropy = config.entropy_per_entry * entries if entropy is None else entropy

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the critics, then policy and temperature, then the target."""
        q_loss = self.fit_critics(batch, step, generator)
        told = {"train/loss": q_loss, "train/q_loss": q_loss}
        if (step + 1) % self.config.delay == 0:
            told |= self.improve(self.model, batch["obs"], generator)
        self.follow()
        return told

    def improve(self, model: QModel, obs: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """Take a step with the policy, towards what some critics hold for good, and one with the temperature."""
        alpha = self.log_alpha.detach().exp()
        with self.runtime.autocast():
            drawn = self.drawn(obs, generator)
            said = model.q(obs, drawn.action, generator)
            worth = said.amin(0) if self.config.trusts == "least" else said.mean(0)
            losses = alpha * drawn.log_prob - worth
        log_prob = drawn.log_prob.detach().mean()
        loss = self.fit_policy(losses.mean())
        if self.config.learn_alpha:
            self.fit_temperature(log_prob)
        return {"train/policy_loss": loss, "train/entropy": -log_prob, "train/alpha": alpha}

    def drawn(self, obs: Mapping[str, Tensor], generator: Generator) -> Sample:
        """Draw from the policy, differentiable in its weights, in states of histories key -> (B, To, ...)."""
        return self.policy.sample(obs, generator)

    def fit_temperature(self, log_prob: Tensor) -> None:
        """Raise the temperature where the entropy, minus the mean log-density, is below its target; else lower it."""
        self.log_alpha.grad = -(log_prob + self.target_entropy)
        self.alpha_optimizer.step(self.config.alpha_lr)

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
        return self.drawn(obs, generator).action

    def state(self) -> dict[str, Tensor]:
        """See `Algorithm.state`."""
        memory = owned("alpha_optimizer", self.alpha_optimizer.state())
        return super().state() | memory | {"log_alpha": self.log_alpha.detach()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Algorithm.load_state`."""
        super().load_state(state)
        self.alpha_optimizer.load_state(by_owner(state)["alpha_optimizer"])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
