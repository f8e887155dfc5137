"""PPO (Schulman et al. 2017, arXiv 1707.06347): several passes over a rollout, by a surrogate that bounds the step."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers
from robopol.algos.gaussian_step import GaussianStep
from robopol.algos.on_policy import Lesson, OnPolicy, OnPolicyConfig
from robopol.algos.optimizer import AdamW
from robopol.algos.scoring import Said
from robopol.algos.surrogates import ClipConfig
from robopol.config import OneOf
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.networks.precision import Runtime
from robopol.policies import Policy


class PPOConfig(OnPolicyConfig):
    """Proximal policy optimisation; the defaults are those of Stable-Baselines3.

        L = -mean J(r, A) + value_weight mean (V(s) - G)^2 - entropy_weight H

    with r the likelihood ratio, A the generalised advantage, G = A + V_old, and J the surrogate.

    Attributes:
        surrogate: J: ``clip``, ``simple`` (SPO), ``discovered`` or ``unclipped``.
        lr: Learning rate of the policy.
        epochs: Passes over a rollout.
        value_weight: Weight of the value loss; as Adam is blind to scale, it counts in the common gradient norm only.
        value_clip: V moves at most so far from what it said, in the unit of the return; None does not bound it.
        entropy_weight: Weight of the entropy; only for scorings that know it, i.e. ``density``.
        clip_norm: Largest norm of the common gradient; None does not clip it.
        target_kl: The passes end as soon as a minibatch's mean of r - 1 - log r exceeds 1.5 times this; None never.
        anneal: Whether both learning rates fall linearly to 0 over the run.
        warmup: First updates that move V alone, for a policy that is good already while V knows nothing.
    """

    kind: Literal["ppo"] = "ppo"
    surrogate: Annotated[Any, OneOf("surrogate")] = ClipConfig()
    lr: float = Field(3e-4, gt=0)
    epochs: int = Field(10, ge=1)
    value_weight: float = Field(0.5, gt=0)
    value_clip: float | None = Field(None, gt=0)
    entropy_weight: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(0.5, gt=0)
    target_kl: float | None = Field(None, gt=0)
    anneal: bool = False
    warmup: int = Field(0, ge=0)

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "PPO":
        """Return the algorithm.

        Args:
            policy: The policy to train, on its device.
            model: The value network to train, on the same device.
            total_updates: Rollouts that will be learned from, for the rates.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the policy cannot be scored so or would never be moved, or the model is no value of states.
        """
        return PPO(self, policy, model, total_updates, runtime)


class PPO(OnPolicy):
    """See `PPOConfig`.

    Attributes:
        written_out: Its passes written out, where policy and value network are plain perceptrons.
    """

    def __init__(self, config: PPOConfig, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> None:
        """See `PPOConfig.build`."""
        super().__init__(config, policy, model, runtime)
        self.config, self.total_updates = config, total_updates
        if 0 < total_updates <= config.warmup:
            raise ConfigError(
                f"algo.warmup={config.warmup} leaves the policy none of the {total_updates} rollouts to learn from: "
                "set it lower, or let the run be longer"
            )
        self.policy_optimizer = AdamW(self.actor_weights, (0.9, 0.999), 0.0, config.adam_eps)
        if config.entropy_weight > 0 and not self.scoring.has_entropy:
            raise ConfigError(
                f"algo.entropy_weight={config.entropy_weight} pays for entropy, and algo.scoring={config.scoring.kind} "
                "knows none: set it to 0"
            )
        plain = config.value_clip is None and config.target_kl is None and runtime.precision == "fp32"
        optimizers = self.policy_optimizer, self.critic_optimizer
        weights = config.value_weight, config.entropy_weight
        told = (self.scoring, self.model, self.surrogate, optimizers, weights, config.clip_norm)
        possible = plain and GaussianStep.possible(self.scoring, self.model)
        self.written_out = GaussianStep(*told) if possible else None

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | {"policy_optimizer": self.policy_optimizer}

    def say(self, lesson: Lesson) -> Said:
        """See `OnPolicy.say`; in the run's precision, so that ratios are 1 until the weights have moved."""
        with self.runtime.autocast():
            said = super().say(lesson)
        return {name: rows.float() for name, rows in said.items()}

    def improve(self, lesson: Lesson, step: int, generator: Generator, minibatch: int) -> dict[str, Tensor]:
        """See `OnPolicy.improve`."""
        told: list[dict[str, Tensor]] = []
        for _ in range(self.config.epochs):
            told.append(self.pass_over(lesson, step, generator, minibatch))
            if "train/stopped" in told[-1]:
                break
        found = {name: torch.stack([line[name] for line in told if name in line]).mean() for name in told[0]}
        found.pop("train/stopped", None)
        return found | {"train/passes": torch.tensor(float(len(told)))}

    def pass_over(self, lesson: Lesson, step: int, generator: Generator, minibatch: int) -> dict[str, Tensor]:
        """Take a gradient step on every minibatch, once; return the mean losses."""
        config, rate = self.config, self.rate(step)
        told: list[Mapping[str, Tensor]] = []
        parts = self.minibatches(lesson, minibatch, generator)
        if self.written_out is not None and step >= config.warmup:
            return self.written_out.learn(parts, config.lr * rate, config.critic_lr * rate)
        for part in parts:
            losses, drifted = self.losses(part, acting=step >= config.warmup)
            told.append({name: loss.detach() for name, loss in losses.items()})
            if config.target_kl is not None and drifted.item() > 1.5 * config.target_kl:
                return means(told) | {"train/stopped": torch.ones(())}
            losses["train/loss"].backward()
            self.move(rate)
        return means(told)

    def rate(self, step: int) -> float:
        """Return the factor on the learning rates in the ``step``-th update."""
        return 1 - step / max(1, self.total_updates) if self.config.anneal else 1.0

    def losses(self, part: Lesson, acting: bool = True) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of a minibatch, and how far it is from the old policy, mean of r - 1 - log r.

        Args:
            part: The minibatch.
            acting: Whether the policy learns, too.
        """
        config = self.config
        with self.runtime.autocast():
            value = self.judge(part)
            errors = (value - part.goal) ** 2
            if config.value_clip is not None:
                near = part.value + (value - part.value).clamp(-config.value_clip, config.value_clip)
                errors = torch.maximum(errors, (near - part.goal) ** 2)
            value_loss = errors.mean()
            losses = {"train/value_loss": value_loss}
            total, drifted = config.value_weight * value_loss, torch.zeros(())
            if acting:
                said = self.say(part)
                log_ratio = self.scoring.log_ratio(said, part.old, part.trace)
                gained = self.surrogate.objective(log_ratio, self.row_advantages(part), self.scoring.row_clips)
                losses["train/policy_loss"] = -gained.mean()
                total = total + losses["train/policy_loss"]
                bound = self.bound(said, part)
                total = total if bound is None else total + bound
                if config.entropy_weight > 0 and self.scoring.has_entropy:
                    total = total - config.entropy_weight * self.scoring.entropy(said).mean()
                if config.target_kl is not None:
                    still = log_ratio.detach()
                    drifted = (still.exp() - 1 - still).mean()
        return {"train/loss": total} | losses, drifted

    def bound(self, said: Said, part: Lesson) -> Tensor | None:
        """Return what else is added to the loss to keep the policy near the old one."""
        return None

    def move(self, rate: float) -> None:
        """Move policy and value network by their gradients; ``rate`` is a factor on both learning rates."""
        config = self.config
        if config.clip_norm is not None:
            clip_gradients([*self.actor_weights, *self.critic_weights], config.clip_norm)
        self.policy_optimizer.step(config.lr * rate)
        self.critic_optimizer.step(config.critic_lr * rate)


def clip_gradients(weights: list[Tensor], largest: float) -> None:
    """Scale the gradients of some weights down to a common norm of at most ``largest``."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp_(max=1.0))


def means(told: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each figure that was told."""
    return {name: torch.stack([line[name] for line in told]).mean() for name in told[0]}
