"""Diffusion-QL (Wang et al. 2023, arXiv 2208.06193) and, of a consistency policy, CPQL: Q through the whole walk.

CPQL (Chen et al. 2024, arXiv 2310.06343), or Consistency-AC (Ding & Jin 2024, arXiv 2309.16984), is the same of a
policy that jumps once or twice.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers
from robopol.algos.chunk_actor import ChunkActor
from robopol.algos.off_policy import OffPolicyConfig
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QConfig, QModel
from robopol.networks.ema import Polyak
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy
from robopol.policies.observation import LowDimObservation

_LEAST = 1e-6  # of a mean |Q| that is divided by


class DiffusionQLConfig(OffPolicyConfig):
    """A policy imitates, and its walk from noise to actions is pulled to where more is earned.

    With a(s, z) the end of the walk from noise z, a whole chunk of which h actions are executed, R their reward and
    Gamma their discount (`robopol.data.windows.Batch`), Q' the target and a' the walk of the averaged policy:

        y = R + Gamma min_k Q'_k(s', a'(s', z'))
        L_Q = sum_k (Q_k(s, a) - y)^2
        L_pi = L_imitation - weight mean Q(s, a(s, z)) / mean |Q(s, a(s, z))|

    where Q is the mean of the heads, of which the authors take one of two at random. The gradient goes through every
    step of the walk, so that an update costs about as many times more as there are steps: five are published, and one
    or two of a consistency policy.

    Chunks, histories and the scale of observations of the critics are the policy's, whatever ``model`` says of them.

    Attributes:
        weight: eta, how much Q counts; 0 is imitation alone. Published: 0.005 (kitchens) to 4.5 (large mazes).
        policy_polyak: Share by which the averaged policy follows in an update; 0.5 % every five are published.
    """

    kind: Literal["diffusion_ql"] = "diffusion_ql"
    weight: float = Field(1.0, ge=0)
    policy_polyak: float = Field(0.001, ge=0, le=1)

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "DiffusionQL":
        """Return the algorithm.

        Args:
            policy: A policy that walks a field, on its device.
            model: Says what critics are like; they are made anew.
            total_updates: When the expectile has come down.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the policy is no such one or looks at pictures, or the model is no Q.
        """
        if not isinstance(policy, GenerativePolicy):
            kind = policy.config.tree()["kind"]
            raise ConfigError(
                f"algo=diffusion_ql goes through a walk from noise to actions, which a {kind} policy does not have: "
                "set policy=diffusion, flow, edm or consistency"
            )
        if not isinstance(model, QModel):
            raise ConfigError(f"algo=diffusion_ql trains a q, not a {model.config.tree()['kind']} model: set model=q")
        if not isinstance(policy.observation, LowDimObservation):
            raise ConfigError("algo=diffusion_ql trains policies that look at vectors, and this one looks at more")
        return DiffusionQL(self, policy, model.config, total_updates, runtime)


class DiffusionQL(ChunkActor):
    """See `DiffusionQLConfig`.

    Attributes:
        average: The policy's copy that follows, and says what comes next.
    """

    config: DiffusionQLConfig

    def __init__(
        self,
        config: DiffusionQLConfig,
        policy: GenerativePolicy,
        critics: QConfig,
        total_updates: int,
        runtime: Runtime,
    ) -> None:
        """Make critics and the average; see `DiffusionQLConfig.build`."""
        super().__init__(config, policy, critics, total_updates, runtime)
        self.average: GenerativePolicy = copy.deepcopy(policy).eval().requires_grad_(False)
        self._average_following = Polyak(self.average, policy)

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | {"average": self.average}

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the critics, the policy, then what follows them."""
        own, windows = self.views(batch)
        q_loss = self.fit_critics(own, step, generator)
        told = {"train/loss": q_loss, "train/q_loss": q_loss} | self.improve(windows, generator)
        self.follow()
        self._average_following.update(self.config.policy_polyak)
        return told

    def improve(self, batch: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
        """Take a step with the policy, in the states of a batch of whole windows."""
        policy = self.policy
        with self.actor_learns, self.runtime.autocast():
            cloning = (policy.loss(batch, generator) * batch["weight"]).mean()
            cond = policy.observation(batch["obs"], policy.spec.n_obs_steps)

            def draw() -> Tensor:
                return torch.randn(len(cond), *policy.noise_shape, generator=generator, device=cond.device)

            walked = policy.sampler.sample(policy.walked, draw(), cond, draw)
            worth = self.model.q(batch["obs"], self.taken(walked), generator).mean(0)
            scale = self.over_all(worth.detach().abs().mean()).clamp(min=_LEAST)
            loss = cloning - self.config.weight * worth.mean() / scale
        told = {"train/cloning_loss": cloning.detach(), "train/q": worth.mean().detach()}
        return {"train/policy_loss": self.fit_policy(loss), **told}

    def goals(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """See `OffPolicy.goals`."""
        obs = batch["next_obs"]
        worth = self.least(obs, self.sampled(self.average, obs, generator), generator)
        goal: Tensor = batch["reward"] + batch["discount"] * worth
        return goal
