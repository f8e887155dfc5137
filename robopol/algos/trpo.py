"""TRPO (Schulman et al. 2015, arXiv 1502.05477): one natural-gradient step, as long as a divergence allows."""

from collections.abc import Callable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from robopol.algos.on_policy import Lesson, OnPolicy, OnPolicyConfig
from robopol.algos.scoring.scoring import Reduction
from robopol.models import Model
from robopol.networks.precision import Runtime
from robopol.policies import Policy

RESIDUAL = 1e-10
"""Conjugate gradients end where the squared residual is smaller."""


class TRPOConfig(OnPolicyConfig):
    """Trust-region policy optimisation; the defaults are those of sb3-contrib.

    The step raises mean r A, subject to mean KL(old || new) <= max_kl: along x with F x = g, F the Fisher matrix and g
    the gradient, sqrt(2 max_kl / x F x) far, and back by a factor until the divergence and the objective are as they
    should be. If they never are, the policy stays. Then V is fitted alone.

    Attributes:
        max_kl: Mean divergence that a step may come to, nats.
        kl_reduction: Of the divergence over the entries of an executed chunk. Their ``mean`` is what sb3-contrib takes,
            of whose defaults and tuned values ``max_kl`` and ``cg_damping`` are: with A entries a step is sqrt(A) times
            as long as by their ``sum``, the divergence of the action, which the paper bounds.
        cg_steps: Most steps of conjugate gradients.
        cg_damping: Multiple of the identity that is added to F.
        backtracks: Lengths that are tried.
        shrink: Factor from each to the next.
        critic_epochs: Passes over a rollout with which V is fitted.
        normalize_advantage: ``rollout`` or ``no``; the policy's step knows no minibatches.
    """

    kind: Literal["trpo"] = "trpo"
    max_kl: float = Field(0.01, gt=0)
    kl_reduction: Reduction = "mean"
    cg_steps: int = Field(15, ge=1)
    cg_damping: float = Field(0.1, ge=0)
    backtracks: int = Field(10, ge=1)
    shrink: float = Field(0.8, gt=0, lt=1)
    critic_epochs: int = Field(10, ge=1)
    critic_lr: float = Field(1e-3, gt=0)
    normalize_advantage: Literal["minibatch", "rollout", "no"] = "rollout"
    adam_eps: float = Field(1e-5, gt=0)

    @model_validator(mode="after")
    def _of_the_whole_rollout(self) -> Self:
        if self.normalize_advantage == "minibatch":
            raise ValueError(
                "normalize_advantage=minibatch: the policy's step is one, of the whole rollout; set it to rollout or no"
            )
        return self

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "TRPO":
        """Return the algorithm.

        Args:
            policy: The policy to train, on its device.
            model: The value network to train, on the same device.
            total_updates: Not used: the rates stay.
            runtime: Precision of the value network's matrix products; the policy's step is computed in float32.

        Raises:
            ConfigError: If the policy cannot be scored so, or the model is no value of states.
        """
        return TRPO(self, policy, model, runtime)


class TRPO(OnPolicy):
    """See `TRPOConfig`."""

    def __init__(self, config: TRPOConfig, policy: Policy, model: Model, runtime: Runtime) -> None:
        """See `TRPOConfig.build`."""
        super().__init__(config, policy, model, runtime)
        self.config = config

    def improve(self, lesson: Lesson, step: int, generator: Generator, minibatch: int) -> dict[str, Tensor]:
        """See `OnPolicy.improve`."""
        told = self.step(lesson)
        value_loss = self.fit_values(lesson, minibatch, self.config.critic_epochs, generator)
        return told | {"train/loss": value_loss, "train/value_loss": value_loss}

    def step(self, lesson: Lesson) -> dict[str, Tensor]:
        """Move the policy; return scalars to log."""
        weights, config = self.actor_weights, self.config
        objective, divergence = self.judged(lesson)
        gradient = flat(torch.autograd.grad(objective, weights, retain_graph=True))
        fisher = self.fisher(divergence)
        direction = conjugate_gradients(fisher, gradient, config.cg_steps)
        curvature = direction @ fisher(direction)
        stood = {"train/policy_loss": -objective.detach(), "train/backtracks": torch.tensor(float(config.backtracks))}
        if not bool(curvature.isfinite()) or curvature <= 0:
            return stood | {"train/stepped": torch.zeros(())}
        longest = (2 * config.max_kl / curvature).sqrt()
        before = [weight.detach().clone() for weight in weights]
        for tried in range(config.backtracks):
            with torch.no_grad():
                put(weights, before, config.shrink**tried * longest * direction)
                reached, moved = self.judged(lesson)
            if bool(moved < config.max_kl) and bool(reached > objective):
                told = {"train/policy_loss": -reached, "train/backtracks": torch.tensor(float(tried))}
                return told | {"train/stepped": torch.ones(())}
        with torch.no_grad():
            torch._foreach_copy_(weights, before)
        return stood | {"train/stepped": torch.zeros(())}

    def judged(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """Return the objective, mean r A, and the mean divergence from the old policy, reduced, as it stands."""
        said = self.say(lesson)
        log_ratio = self.scoring.log_ratio(said, lesson.old, lesson.trace)
        gained = self.surrogate.objective(log_ratio, self.row_advantages(lesson), None)
        shared = self.scoring.entries if self.config.kl_reduction == "mean" else 1
        return gained.mean(), self.scoring.kl(said, lesson.old).mean() / shared

    def fisher(self, divergence: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v -> (F + damping) v, F the second derivative of the divergence where it is 0."""
        slope = flat(torch.autograd.grad(divergence, self.actor_weights, create_graph=True))

        def product(vector: Tensor) -> Tensor:
            parts = torch.autograd.grad(slope @ vector, self.actor_weights, retain_graph=True)
            return flat(parts) + self.config.cg_damping * vector

        return product


def conjugate_gradients(product: Callable[[Tensor], Tensor], wanted: Tensor, steps: int) -> Tensor:
    """Return about F^-1 b (Hestenes & Stiefel 1952).

    Args:
        product: v -> F v, F symmetric and positive definite.
        wanted: b, (P,).
        steps: Most steps that are taken.
    """
    found, rest = torch.zeros_like(wanted), wanted.clone()
    along, square = rest.clone(), rest @ rest
    for _ in range(steps):
        if square < RESIDUAL:
            break
        image = product(along)
        length = square / (along @ image)
        found += length * along
        rest -= length * image
        smaller = rest @ rest
        along = rest + smaller / square * along
        square = smaller
    return found


def flat(parts: tuple[Tensor, ...]) -> Tensor:
    """Return tensors side by side as one vector."""
    return torch.cat([part.reshape(-1) for part in parts])


def put(weights: list[Tensor], base: list[Tensor], change: Tensor) -> None:
    """Set weights to a base plus a change, given as one vector."""
    parts = change.split([weight.numel() for weight in weights])
    for weight, begin, part in zip(weights, base, parts, strict=True):
        weight.copy_(begin + part.view_as(begin))
