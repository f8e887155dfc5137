"""TD3+BC (Fujimoto & Gu 2021, arXiv 2106.06860): TD3 that stays close to what was recorded."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from robopol.algos.off_policy import actor_and_critics
from robopol.algos.td3 import TD3, TD3Config
from robopol.models import Model
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.deterministic import DeterministicPolicy

_LEAST = 1e-6  # of a mean |Q| that is divided by


class TD3BCConfig(TD3Config):
    """TD3 whose policy also imitates; for records, for acting, or for one after the other.

    With actions in units of half the width of their bounds, the imitation's error a mean over their entries:

        L_mu = -lambda mean Q_1(s, mu(s)) + mean |mu(s) - a|^2,  lambda = alpha / mean |Q_1(s, mu(s))|

    Attributes:
        alpha: How much Q counts; 0 is behaviour cloning.
    """

    kind: Literal["td3_bc"] = "td3_bc"  # type: ignore[assignment]
    alpha: float = Field(2.5, ge=0)

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "TD3BC":
        """Return the algorithm; see `TD3Config.build`."""
        both = actor_and_critics(policy, DeterministicPolicy, model, "td3_bc", "deterministic")
        return TD3BC(self, *both, total_updates, runtime)


class TD3BC(TD3):
    """See `TD3BCConfig`."""

    config: TD3BCConfig

    def policy_loss(self, batch: Mapping[str, Any], action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TD3.policy_loss`."""
        worth = self.model.first(batch["obs"], action)
        scale = self.config.alpha / self.over_all(worth.detach().abs().mean()).clamp(min=_LEAST)
        errors = (((action - batch["action"]) / self.half) ** 2).mean((-2, -1))
        cloning = (errors * batch["weight"]).mean()
        return cloning - scale * worth.mean(), {"train/cloning_loss": cloning.detach(), "train/q_weight": scale}
