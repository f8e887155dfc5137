"""FQL (Park et al. 2025, arXiv 2502.02538), and QC-FQL (Li et al. 2025, arXiv 2507.07969): a jump that earns."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers, Trained, owned
from robopol.algos.bc import BC, BESIDE, BCConfig
from robopol.algos.chunk_actor import ChunkActor
from robopol.algos.distill import SameNoise, SameNoiseConfig
from robopol.algos.off_policy import OffPolicyConfig
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QConfig, QModel
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.consistency import ConsistencyPolicy
from robopol.policies.flow import FlowConfig
from robopol.policies.observation import LowDimObservation
from robopol.policies.samplers.first_order import EulerConfig


class FQLConfig(OffPolicyConfig):
    """A flow imitates; a policy of one step learns to jump where it flows, and to where more is earned.

    With g(s, z) the jump from noise z, flow(s, z) the walk of the flow policy from the same noise, both of whole
    chunks in normalised units, of which h actions are executed, R their reward and Gamma their discount
    (`robopol.data.windows.Batch`), Q' the target, and mean_k or min_k as ``trusts`` says:

        y = R + Gamma mean_k Q'_k(s', g(s', z'))
        L_Q = sum_k (Q_k(s, a) - y)^2
        L_g = alpha |g(s, z) - flow(s, z)|^2 - mean_k Q_k(s, g(s, z))
        L_flow = the flow policy's own loss

    the square a mean over the entries of the chunk. The flow is never differentiated for Q, and never asked when
    acting: a plan costs one call of the network. With chunks of one action it is FQL, with more QC-FQL. In a warm-up
    the policy acts as it stands.

    Chunks, histories and the scale of observations of the critics are the policy's, whatever ``model`` says of them;
    the flow's network is like the policy's.

    Attributes:
        alpha: How near to the flow it stays, against the unit of the reward; what is published is between 1 and 1000.
        trusts: Which heads are believed, here and of what comes next: their ``mean``, or the ``least``.
        steps: Euler steps of the flow.
        cloning: How the flow is trained.
    """

    kind: Literal["fql"] = "fql"
    alpha: float = Field(10.0, ge=0)
    trusts: Literal["least", "mean"] = "mean"
    steps: int = Field(10, ge=1)
    cloning: BCConfig = BESIDE

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "FQL":
        """Return the algorithm.

        Args:
            policy: The policy of one step, on its device.
            model: Says what critics are like; they are made anew.
            total_updates: Length of the flow's learning-rate schedule; the other rates stay.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the policy is no such one or looks at pictures, or the model is no Q.
        """
        if not isinstance(policy, ConsistencyPolicy):
            kind = policy.config.tree()["kind"]
            raise ConfigError(f"algo=fql trains a policy of one step, not a {kind} policy: set policy=consistency")
        if not isinstance(model, QModel):
            raise ConfigError(f"algo=fql trains a q, not a {model.config.tree()['kind']} model: set model=q")
        if self.target_heads is not None and self.trusts == "mean":
            raise ConfigError("algo.target_heads draws the heads whose least is believed: set algo.trusts=least too")
        if not isinstance(policy.observation, LowDimObservation):
            raise ConfigError("algo=fql trains policies that look at vectors, and this one looks at more")
        return FQL(self, policy, model.config, total_updates, runtime)


class FQL(ChunkActor):
    """See `FQLConfig`.

    Attributes:
        policy: Who jumps, as it stands.
        flow: Who imitates, as it stands.
        cloning: What trains the flow.
    """

    config: FQLConfig
    policy: ConsistencyPolicy

    def __init__(
        self, config: FQLConfig, policy: ConsistencyPolicy, critics: QConfig, total_updates: int, runtime: Runtime
    ) -> None:
        """Make flow and critics; see `FQLConfig.build`."""
        super().__init__(config, policy, critics, total_updates, runtime)
        sampler = EulerConfig(steps=config.steps)
        told = {name: value for name, value in policy.config if name in _SAME}
        self.flow = FlowConfig(sampler=sampler, **told).build(policy.spec).to(policy.device)
        self.flow.observation.load_state_dict(policy.observation.state_dict())
        self.flow.action_normalizer.load_state_dict(policy.action_normalizer.state_dict())
        self.cloning = BC(config.cloning, self.flow, total_updates, runtime)
        self.same = SameNoise(SameNoiseConfig(sampler=sampler), policy, self.flow)

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return super().trained | owned("cloning", self.cloning.trained)

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | owned("cloning", self.cloning.beside)

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the critics, the flow, the policy, then the target."""
        own, windows = self.views(batch)
        q_loss = self.fit_critics(own, step, generator)
        told = {"train/loss": q_loss, "train/q_loss": q_loss}
        told["train/cloning_loss"] = self.cloning.update(windows, step, generator)["train/loss"]
        told |= self.improve(windows, generator)
        self.follow()
        return told

    def improve(self, batch: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
        """Take a step with the policy, in the states of a batch of whole windows."""
        obs = batch["obs"]
        with self.actor_learns, self.runtime.autocast():
            cond = self.policy.observation(obs, self.policy.spec.n_obs_steps)
            shape = (len(batch["weight"]), self.policy.spec.horizon, self.policy.spec.action_dim)
            noise = torch.randn(shape, generator=generator, device=cond.device)
            jumped = self.policy.jump(noise, cond)
            apart = ((jumped - self.same.walk(noise, cond)) ** 2).mean()
            said = self.model.q(obs, self.taken(jumped), generator)
            worth = (said.mean(0) if self.config.trusts == "mean" else said.amin(0)).mean()
        loss = self.fit_policy(self.config.alpha * apart - worth)
        return {"train/policy_loss": loss, "train/apart": apart.detach(), "train/q": worth.detach()}

    def goals(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """See `OffPolicy.goals`."""
        obs = batch["next_obs"]
        chunk = self.tried(obs, generator)
        mean = self.config.trusts == "mean"
        worth = self.target.q(obs, chunk, generator).mean(0) if mean else self.least(obs, chunk, generator)
        goal: Tensor = batch["reward"] + batch["discount"] * worth
        return goal


_SAME = (
    "net",
    "encoder",
    "obs_normalization",
    "action_normalization",
    "n_obs_steps",
    "horizon",
    "n_action_steps",
    "loss_on_padding",
)
"""What the flow is told as the policy is."""
