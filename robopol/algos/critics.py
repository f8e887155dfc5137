"""What algorithms share that fit a critic to recorded transitions and let a policy imitate what it finds good."""

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Algorithm, AlgorithmConfig, Remembers, Trained, owned
from robopol.algos.bc import BC, BCConfig
from robopol.algos.learning import Learning
from robopol.algos.optimizer import AdamW
from robopol.data.windows import narrowed
from robopol.models import Model
from robopol.networks.ema import polyak
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Part, Policy

M = TypeVar("M", bound=Model)


class CriticsConfig(AlgorithmConfig):
    """How critics are fitted, and how a policy imitates.

    Attributes:
        lr: Learning rate of the critics; it stays.
        polyak: Share by which the target follows at each update. What is saved, and what ranks, is the target.
        cloning: How the policy is trained, apart from its weights.
    """

    lr: float = Field(3e-4, gt=0)
    polyak: float = Field(0.005, gt=0, le=1)
    cloning: BCConfig = BCConfig()

    trains: ClassVar[tuple[str, ...]] = ("model",)
    may_train: ClassVar[tuple[str, ...]] = ("policy",)


class Critics(Algorithm, Generic[M]):
    """A critic with a target that follows it, and, if there is one, a policy that is cloned with weights.

    The weights multiply the policy's own loss of every sample, so any policy can be trained: for a diffusion policy it
    is the weighted regression of EDP and IDQL, for a density the advantage-weighted regression of AWR and IQL.
    The policy goes first, with the critics as they stand: no gradient of its loss reaches them, and what it draws at
    random is what cloning alone would draw.

    Attributes:
        model: The critic that learns.
        target: Its copy that follows: what is asked for weights and what is saved.
        cloning: What trains the policy; None without one.
    """

    def __init__(
        self, config: CriticsConfig, model: M, policy: Policy | None, total_updates: int, runtime: Runtime
    ) -> None:
        """Make the target and the optimiser.

        Args:
            config: How they are fitted.
            model: The critic, on its device.
            policy: The policy, on the same device, if one is trained.
            total_updates: Length of the policy's learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.
        """
        self.config, self.model, self.runtime = config, model, runtime
        self.target: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.learning = Learning(model)
        self.optimizer = AdamW(list(model.parameters()), (0.9, 0.999), 0.0)
        self.cloning = None if policy is None else BC(config.cloning, policy, total_updates, runtime)

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        own: dict[str, Trained] = {"model": self.model}
        return own if self.cloning is None else own | owned("cloning", self.cloning.trained)

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        own: dict[str, nn.Module | Remembers] = {"target": self.target, "optimizer": self.optimizer}
        return own if self.cloning is None else own | owned("cloning", self.cloning.beside)

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return self.model.needs if self.cloning is None else self.model.needs.joined(self.cloning.needs)

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the policy, the critics, the target."""
        own = narrowed(batch, self.model.spec.n_obs_steps, self.model.spec.horizon)
        losses, told = {}, {}
        if self.cloning is not None:
            with torch.no_grad(), self.runtime.autocast():
                weight = self.weights(own)
            spec = self.cloning.policy.spec
            weighted = narrowed(batch, spec.n_obs_steps, spec.horizon) | {"weight": batch["weight"] * weight}
            cloned = self.cloning.update(weighted, step, generator)
            losses["train/policy_loss"] = cloned.pop("train/loss")
            told = cloned | {
                "train/weight": weight.mean(),
                # the share of the batch that the policy learns from
                "train/effective_share": weight.sum() ** 2 / (len(weight) * (weight**2).sum()).clamp(min=1e-12),
            }
        with self.learning:
            losses |= self.learn(own, batch, generator)
        polyak(self.target, self.model, cast(CriticsConfig, self.config).polyak)
        return {"train/loss": torch.stack(list(losses.values())).sum()} | losses | told

    @abstractmethod
    def learn(self, batch: Mapping[str, Any], wide: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
        """Take a gradient step with every loss of the critics.

        Args:
            batch: Cut to the model's windows.
            wide: The batch as it came, for what the policy is asked.
            generator: Source of the losses' randomness.

        Returns:
            Name -> loss, without gradients.
        """

    @abstractmethod
    def weights(self, batch: Mapping[str, Any]) -> Tensor:
        """Return how much the policy is to imitate each sample, (B,), at least 0; ``batch`` as for `learn`."""

    def descend(self, losses: Tensor, weight: Tensor) -> Tensor:
        """Take a gradient step with the weighted mean of some losses.

        Args:
            losses: (B,).
            weight: (B,).

        Returns:
            The mean, without gradients.
        """
        loss = (losses * weight).mean()
        loss.backward()
        self.optimizer.step(cast(CriticsConfig, self.config).lr)
        return loss.detach()

    def deployed(self) -> Policy | None:
        """See `Algorithm.deployed`; the averaged policy."""
        return None if self.cloning is None else self.cloning.deployed()

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the target, and the averaged policy."""
        return super().parts() | {"model": self.target}


def usable(batch: Mapping[str, Any]) -> Tensor:
    """Return the weights of the rows whose target is known, (B,); those that lack a next observation get 0."""
    known: Tensor = batch["next_mask"] | (batch["discount"] == 0)
    return batch["weight"] * known


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Return |tau - 1(u < 0)| u^2; for u = Q - V its minimiser in V is the tau-expectile of Q (Newey & Powell 1987).

    Args:
        difference: u.
        expectile: tau.
    """
    return torch.where(difference < 0, 1 - expectile, expectile) * difference**2


def exponential_weights(advantage: Tensor, beta: float, largest: float) -> Tensor:
    """Return min(exp(beta A), largest), clamped through the exponent so that nothing overflows.

    Args:
        advantage: A.
        beta: Inverse temperature.
        largest: The cap.
    """
    return (beta * advantage.float()).clamp(max=math.log(largest)).exp().clamp(max=largest)
