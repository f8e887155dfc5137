"""DSRL's other variant (Wagenmaker et al. 2025, arXiv 2506.15799): SAC whose actions are noises."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Generator, Tensor

from robopol.algos.algorithm import Explored
from robopol.algos.latent import LatentSAC, LatentSACConfig, noise_spec
from robopol.data.windows import Transition, narrowed
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QConfig
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Policy


class DSRLSACConfig(LatentSACConfig):
    """DSRL-SAC: values of the noise that was chosen, and nothing else.

    Beside what `LatentSACConfig` says, with R the reward and Gamma the discount of a decision, w' ~ pi(s') and Q' the
    target:

        y = R + Gamma min_k Q'_k(s', w')  [- Gamma alpha log pi(w'|s'), if paid]
        L_Q = sum_k (Q_k(s, w) - y)^2, of the noises of its own decisions
        L_pi = alpha log pi(w|s) - min_k Q_k(s, w),  w ~ pi(s)

    No update asks the base policy for a plan, which is worth it where that takes long. But what is learned of a noise
    counts for no other that leads to the same plan, and records of somebody else's actions are of no use.
    """

    kind: Literal["dsrl_sac"] = "dsrl_sac"  # type: ignore[assignment]

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "DSRLSAC":
        """Return the algorithm; see `robopol.algos.dsrl.DSRLConfig.build`."""
        critics = self.critics(model)
        if critics.return_steps is not None:
            raise ConfigError(
                "algo=dsrl_sac judges decisions, each by what its own steps earn: leave model.return_steps out"
            )
        return DSRLSAC(self, policy, critics, total_updates, runtime)


class DSRLSAC(LatentSAC):
    """See `DSRLSACConfig`."""

    config: DSRLSACConfig

    def __init__(
        self, config: DSRLSACConfig, base: Policy, critics: QConfig, total_updates: int, runtime: Runtime
    ) -> None:
        """Make actor and critics; see `DSRLSACConfig.build`."""
        super().__init__(config, base, critics, noise_spec(base, config), total_updates, runtime)

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`; decisions, with the noise that was chosen."""
        config = self.model.config
        taken = Transition(self.base.spec.n_action_steps, config.discount, whole=config.discounted == "decision")
        return Needs(transition=taken, trace={"noise": (self.model.spec.action_dim,)})

    def warm_up(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.WarmsUp`; the base policy, its noise clipped to what the actor can choose.

        As released: of other noises the critics would learn what the actor never asks.
        """
        noise = self.normal(len(next(iter(obs.values()))), generator)
        return self._tries(obs, noise.clamp(-self.config.magnitude, self.config.magnitude))

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`; as SAC's, of noises."""
        spec = self.base.spec
        own = narrowed(batch, spec.n_obs_steps, spec.horizon)
        own["action"] = batch["trace"]["noise"][:, None]
        return super().update(own, step, generator)
