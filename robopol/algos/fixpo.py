"""FixPO (Zentner et al. 2023, arXiv 2312.05405): a penalty, then steps that mend every state where it was too weak."""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers, Trained
from robopol.algos.on_policy import Lesson, blocks
from robopol.algos.optimizer import AdamW
from robopol.algos.ppo import PPO, PPOConfig, clip_gradients, means
from robopol.algos.scoring import Said
from robopol.algos.surrogates import UnclippedConfig
from robopol.config import OneOf
from robopol.models import Model
from robopol.networks.precision import Runtime
from robopol.policies import Policy


class FixPOConfig(PPOConfig):
    """Fixup policy optimisation: after every update KL(old || new) <= max_kl in every state of the rollout.

        L = -mean r A + beta mean_s KL_s + ...,   L_beta = beta (max_kl - target_coefficient max_s KL_s)

    After each pass, and until all states keep the bound, steps are taken with beta KL alone. Should they not get there
    in ``patience`` passes over the rollout, the policy goes back to what it was before the update.

    Attributes:
        surrogate: r A.
        max_kl: The bound, nats.
        target_coefficient: C; beta is adapted for a bound that is C times narrower, which leaves some slack.
        beta: Weight of the divergence to begin with.
        beta_lr: Its learning rate.
        patience: Passes of mending until the policy goes back.
        normalize_advantage: As in the authors' code, advantages do not get standard deviation 1.
        scale_rewards: Advantages are of scaled rewards here, theirs of rewards as they are, and only what V is taught
            is scaled: beta weighs more here against r A, by the spread of the returns, until it is adapted.
    """

    kind: Literal["fixpo"] = "fixpo"  # type: ignore[assignment]
    surrogate: Annotated[Any, OneOf("surrogate")] = UnclippedConfig()
    max_kl: float = Field(0.5, gt=0)
    target_coefficient: float = Field(3.0, ge=1)
    beta: float = Field(1.0, ge=0)
    beta_lr: float = Field(0.01, ge=0)
    patience: int = Field(50, ge=1)
    value_weight: float = Field(0.1, gt=0)
    value_clip: float | None = Field(0.2, gt=0)
    normalize_advantage: Literal["minibatch", "rollout", "no"] = "no"
    scale_rewards: bool = True
    anneal: bool = True

    @model_validator(mode="after")
    def _bounds_by_mending(self) -> Self:
        if self.target_kl is not None:
            raise ValueError(
                f"target_kl={self.target_kl} ends PPO's passes early, and here every pass is mended until max_kl is "
                "kept: set max_kl, and leave target_kl out"
            )
        return self

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "FixPO":
        """Return the algorithm; see `PPOConfig.build`."""
        return FixPO(self, policy, model, total_updates, runtime)


class FixPO(PPO):
    """See `FixPOConfig`.

    Attributes:
        beta: Weight of the divergence, a scalar.
    """

    config: FixPOConfig

    def __init__(self, config: FixPOConfig, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> None:
        """See `PPOConfig.build`."""
        super().__init__(config, policy, model, total_updates, runtime)
        self.written_out = None  # it knows no divergence
        self.beta = torch.tensor(config.beta, device=model.device, requires_grad=True)
        self.beta_optimizer = AdamW([self.beta], (0.9, 0.999), 0.0)

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return super().trained | {"beta": self.beta}

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | {"beta_optimizer": self.beta_optimizer}

    def improve(self, lesson: Lesson, step: int, generator: Generator, minibatch: int) -> dict[str, Tensor]:
        """See `OnPolicy.improve`."""
        before = [weight.detach().clone() for weight in self.actor_weights]
        told: list[dict[str, Tensor]] = []
        mended = 0
        for _ in range(self.config.epochs):
            told.append(self.pass_over(lesson, step, generator, minibatch))
            if step >= self.config.warmup:
                mended += self.mend(lesson, self.rate(step), before)
        return means(told) | {
            "train/mending_steps": torch.tensor(float(mended)),
            "train/beta": self.beta.detach().clone(),
        }

    def bound(self, said: Said, part: Lesson) -> Tensor:
        """See `PPO.bound`; beta is adapted to what is found."""
        divergence = self.scoring.kl(said, part.old)
        self.adapt(divergence.detach())
        return self.beta.detach() * divergence.mean()

    def adapt(self, divergence: Tensor) -> None:
        """Raise beta if ``target_coefficient`` times the largest divergence exceeds the bound; else lower it."""
        config = self.config
        self.beta.backward(config.max_kl - config.target_coefficient * divergence.max())
        self.beta_optimizer.step(config.beta_lr)
        with torch.no_grad():
            self.beta.clamp_(min=0)

    def mend(self, lesson: Lesson, rate: float, before: list[Tensor]) -> int:
        """Take steps until every state keeps the bound, or go back to the weights before; return the steps."""
        steps = 0
        for _ in range(self.config.patience):
            kept = True
            for part in lesson.split(blocks(lesson.size)):
                divergence = self.scoring.kl(self.say(part), part.old)
                if bool((divergence <= self.config.max_kl).all()):
                    continue
                kept, steps = False, steps + 1
                (self.beta.detach() * divergence.mean()).backward(inputs=self.actor_weights)
                if self.config.clip_norm is not None:
                    clip_gradients(self.actor_weights, self.config.clip_norm)
                self.policy_optimizer.step(self.config.lr * rate)
                self.adapt(divergence.detach())
            if kept:
                return steps
        with torch.no_grad():
            torch._foreach_copy_(self.actor_weights, before)
        return steps
