"""DDPG (Lillicrap et al. 2015, arXiv 1509.02971): a deterministic actor under one critic."""

from typing import Literal

from pydantic import Field

from robopol.algos.off_policy import OffPolicyConfig, actor_and_critics
from robopol.algos.td3 import TD3, TD3Config
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.deterministic import DeterministicPolicy


class DDPGConfig(OffPolicyConfig):
    """Deep deterministic policy gradients: `TD3Config` without what TD3 added.

        L_Q = (Q(s, a) - r - Gamma Q'(s', mu'(s')))^2
        L_mu = -Q(s, mu(s))

    The noise on what is tried is independent from step to step, where the original's was an Ornstein-Uhlenbeck process.

    Attributes:
        exploration: Standard deviation of the noise on what is tried, in units of half the width of an action's bounds.
    """

    kind: Literal["ddpg"] = "ddpg"
    exploration: float = Field(0.1, ge=0)

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> TD3:
        """Return the algorithm; see `TD3Config.build`.

        Raises:
            ConfigError: As there, or if the model has several heads.
        """
        actor, critic = actor_and_critics(policy, DeterministicPolicy, model, "ddpg", "deterministic")
        if critic.config.ensemble != 1:
            raise ConfigError(
                f"algo=ddpg has one critic, not {critic.config.ensemble}: set model.ensemble=1, or algo=td3"
            )
        given = self.model_dump(exclude={"kind"})
        return TD3(TD3Config(**given, target_noise=0.0, delay=1), actor, critic, total_updates, runtime)
