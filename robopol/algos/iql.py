"""IQL (Kostrikov et al. 2021, arXiv 2110.06169): values of the best of what the data did, without asking a policy."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from robopol.algos.critics import expectile_loss, usable
from robopol.algos.value_critics import ValueCritics, ValueCriticsConfig, value_model
from robopol.models import Model
from robopol.networks.precision import Runtime
from robopol.policies import Policy


class IQLConfig(ValueCriticsConfig):
    """Implicit Q-learning; without a policy, only its critic is trained.

    With s' the state after a chunk of h actions, G its reward and Gamma its discount
    (`robopol.data.windows.Batch`), and Q' the target:

        L_V = |tau - 1(u < 0)| u^2,  u = min_k Q'_k(s, a) - V(s)
        L_Q = mean_k (Q_k(s, a) - G - Gamma V(s'))^2
        L_pi = min(exp(beta (min_k Q'_k(s, a) - V'(s))), max_weight) loss of the policy

    In a phase that acts the losses are the same, on what is met beside what was recorded.

    Attributes:
        expectile: tau; 0.5 evaluates what the data did, towards 1 the best of it. 0.9 for mazes, 0.7 for locomotion.
    """

    kind: Literal["iql"] = "iql"
    expectile: float = Field(0.7, gt=0, lt=1)

    def build(self, model: Model, total_updates: int, runtime: Runtime, policy: Policy | None = None) -> "IQL":
        """Return the algorithm.

        Args:
            model: The value to train, on its device.
            total_updates: Length of the policy's learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.
            policy: The policy to train, on the same device.

        Raises:
            ConfigError: If the model is no value.
        """
        return IQL(self, value_model(model, "iql"), policy, total_updates, runtime)


class IQL(ValueCritics):
    """See `IQLConfig`."""

    config: IQLConfig

    def learn(self, batch: Mapping[str, Any], wide: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
        """See `Critics.learn`: V first, then Q towards the new V."""
        model, obs, actions = self.model, batch["obs"], self.model.actions(batch)
        with self.runtime.autocast():
            best = self.target.q(obs, actions).amin(0)
            v_losses = expectile_loss(best - model.v(obs, generator), self.config.expectile)
        v_loss = self.descend(v_losses, batch["weight"])
        with self.runtime.autocast():
            with torch.no_grad():
                goal = batch["reward"] + batch["discount"] * model.v(batch["next_obs"], generator)
            q_losses = ((model.q(obs, actions, generator) - goal) ** 2).mean(0)
        return {"train/v_loss": v_loss, "train/q_loss": self.descend(q_losses, usable(batch))}
