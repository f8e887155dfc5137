"""What soft actor-critics share (Haarnoja et al. 2018): an actor that is paid, at a learned price, to stay random."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers, Trained
from robopol.algos.off_policy import OffPolicy, OffPolicyConfig
from robopol.algos.optimizer import AdamW
from robopol.models.q import QModel
from robopol.networks.precision import Runtime
from robopol.policies.squashed_gaussian import SquashedGaussianConfig, SquashedGaussianPolicy

SAMPLING = SquashedGaussianConfig(hidden=(256, 256, 256), deterministic=False)
"""An actor beside a policy, which acts by samples when it is evaluated, too."""


class SoftConfig(OffPolicyConfig):
    """How an actor is improved that is paid for staying random.

    Attributes:
        alpha: Temperature, in the unit of the reward; where training begins if it is learned.
        target_entropy: H, what the policy's entropy is brought to; None is `entropy_per_entry` for each action entry.
        entropy_per_entry: What it is brought to then.
        learn_alpha: Whether the temperature is learned.
        alpha_lr: Learning rate of its logarithm.
        delay: Updates of the critics for one of policy and temperature.
        trusts: Which heads the policy trusts: the ``least`` of all, or their ``mean``.
    """

    alpha: float = Field(1.0, gt=0)
    target_entropy: float | None = None
    entropy_per_entry: float = -1.0
    learn_alpha: bool = True
    alpha_lr: float = Field(3e-4, gt=0)
    delay: int = Field(1, ge=1)
    trusts: Literal["least", "mean"] = "least"

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        usual = type(self).model_fields["entropy_per_entry"].default
        if self.target_entropy is not None and self.entropy_per_entry != usual:
            raise ValueError(
                f"entropy_per_entry counts where target_entropy is null, and it is {self.target_entropy}: say one of "
                "them only"
            )
        return self


class Soft(OffPolicy[SquashedGaussianPolicy]):
    """An actor with a temperature, and critics; a subclass says what they are taught, and what the actor is judged by.

    Attributes:
        log_alpha: Logarithm of the temperature, a scalar.
    """

    config: SoftConfig

    def __init__(
        self, config: SoftConfig, policy: SquashedGaussianPolicy, model: QModel, total_updates: int, runtime: Runtime
    ) -> None:
        """Make the temperature; see `OffPolicy`."""
        super().__init__(config, policy, model, total_updates, runtime)
        self.log_alpha = torch.tensor(math.log(config.alpha), device=model.device, requires_grad=True)
        self.alpha_optimizer = AdamW([self.log_alpha], (0.9, 0.999), 0.0)
        entropy = config.target_entropy
        entries = policy.spec.horizon * policy.spec.action_dim
        self.target_entropy = config.entropy_per_entry * entries if entropy is None else entropy

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return super().trained | {"log_alpha": self.log_alpha}

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | {"alpha_optimizer": self.alpha_optimizer}

    @abstractmethod
    def judged(self, batch: Mapping[str, Any], generator: Generator) -> tuple[Tensor, Tensor]:
        """Let the actor choose; return the log-density (B,) of its choices, and what all heads say of them, (E, B)."""

    def improve(self, batch: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
        """Take a step with the actor, towards what critics hold for good, and one with the temperature."""
        alpha = self.log_alpha.detach().exp()
        with self.actor_learns, self.runtime.autocast():
            log_prob, said = self.judged(batch, generator)
            worth = said.amin(0) if self.config.trusts == "least" else said.mean(0)
            losses = alpha * log_prob - worth
        mean = log_prob.detach().mean()
        loss = self.fit_policy(losses.mean())
        if self.config.learn_alpha:
            self.fit_temperature(mean)
        return {"train/policy_loss": loss, "train/entropy": -mean, "train/alpha": alpha}

    def fit_temperature(self, log_prob: Tensor) -> None:
        """Raise the temperature where the entropy, minus the mean log-density, is below its target; else lower it."""
        self.log_alpha.grad = -(self.over_all(log_prob) + self.target_entropy)
        self.alpha_optimizer.step(self.config.alpha_lr)
