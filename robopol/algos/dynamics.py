"""Latent dynamics that are defined on noised actions, to guide a policy while it denoises (DynaGuide)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from robopol.algos.regression import Regression, RegressionConfig
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.dynamics import DynamicsModel
from robopol.networks.precision import Runtime
from robopol.policies import Needs
from robopol.policies.paths.discrete_vp import DiscreteVPConfig


class DynamicsConfig(RegressionConfig):
    """Regression of outcomes, some of the actions noised (Du & Song 2025, arXiv 2506.13922).

        L = mean over entries of (predict(obs, x) - embed(what was observed after the chunk))^2

    Chunks that the end of an episode cuts short have no loss: what follows in their windows was never done. With a
    probability that rises over training to ``noised``, x is not the chunk a but a state of
    ``path``, alpha_k a + sigma_k n of normalised actions, k geometric from 0 (clean): little noise often, much rarely.
    A walk on another path reads this model at the state that is scaled to this path's alpha at the same sigma / alpha.

    Attributes:
        noised: Largest share of noised chunks; at update i of N it is min(noised, i / N).
        stop: Probability that k is not larger still; k is 1 / stop - 1 on average.
        path: The path, one of indices; DDPM's chain of 100 steps as published.
    """

    kind: Literal["dynamics"] = "dynamics"
    noised: float = Field(0.5, ge=0, le=1)
    stop: float = Field(0.05, gt=0, lt=1)
    path: DiscreteVPConfig = DiscreteVPConfig()

    trains: ClassVar[tuple[str, ...]] = ("model",)

    def build(self, model: Model, total_updates: int, runtime: Runtime) -> "Dynamics":
        """Return the algorithm.

        Args:
            model: The dynamics to train, on their device.
            total_updates: Length of the learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the model has no dynamics.
        """
        if not isinstance(model, DynamicsModel):
            raise ConfigError(f"algo=dynamics trains no {model.config.tree()['kind']} model: set model=dynamics")
        return Dynamics(self, model, total_updates, runtime)


class Dynamics(Regression):
    """See `DynamicsConfig`."""

    config: DynamicsConfig

    def __init__(self, config: DynamicsConfig, model: DynamicsModel, total_updates: int, runtime: Runtime) -> None:
        """Make the path; see `DynamicsConfig.build`."""
        super().__init__(config, model, "model", total_updates, runtime)
        self.model, self.path = model, config.path.build()

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return self.model.needs

    def losses(self, batch: Mapping[str, Any], step: int, generator: Generator) -> Tensor:
        """See `Regression.losses`; 0 for rows whose chunk was cut short or whose outcome was not recorded."""
        model, actions = self.model, self.model.actions(batch)
        share = min(self.config.noised, step / self.total_updates)
        noised = torch.rand(len(actions), generator=generator, device=actions.device) < share
        x = torch.where(noised[:, None, None], self.noise(actions, generator), actions)
        error = (model.predict(batch["obs"], x, generator) - model.embed(batch["next_obs"])) ** 2
        whole = batch["mask"][:, -actions.shape[1] :].all(-1)
        return error.mean(-1) * (batch["next_mask"] & whole)

    def noise(self, actions: Tensor, generator: Generator) -> Tensor:
        """Return states of the path, (B, h, A), in environment units."""
        normalizer = self.model.action_normalizer
        uniform = torch.rand(len(actions), generator=generator, device=actions.device, dtype=torch.float64)
        k = torch.floor(torch.log1p(-uniform) / math.log1p(-self.config.stop)).clamp(max=self.path.train_steps - 1)
        level = self.path.level(k)
        noise = torch.randn(actions.shape, generator=generator, device=actions.device)
        alpha, sigma = (part.to(actions)[:, None, None] for part in (level.alpha, level.sigma))
        return normalizer.unnormalize(alpha * normalizer.normalize(actions) + sigma * noise)

    def deployed(self) -> None:
        """See `Algorithm.deployed`; there is no policy."""
