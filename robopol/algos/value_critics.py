"""What IQL and Cal-QL share: a value that says what is imitated, and, while acting, which proposal is tried."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from robopol.algos.algorithm import Explored
from robopol.algos.critics import Critics, CriticsConfig, exponential_weights
from robopol.algos.drawing import drawing
from robopol.checkpoint import describe
from robopol.data.windows import newest
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.value import ValueModel
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.steering.best_of import BestOf, BestOfConfig
from robopol.steering.objectives.value import Value, ValueConfig
from robopol.steering.steered import SteeredPolicy


class ValueCriticsConfig(CriticsConfig):
    """How a value says what is imitated and tried.

    Attributes:
        beta: Inverse temperature of the policy's weights min(exp(beta A), max_weight), in one over the unit of the
            return; 0 is behaviour cloning. 10 for mazes, 3 for locomotion, 0.5 for kitchens.
        max_weight: Largest weight of a sample.
        proposals: Proposals of the averaged policy of which the one of greatest min_k Q'_k is taken, when acting to
            learn and when deployed (with beta = 0, IDQL; Hansen-Estruch et al. 2023); 1 takes what the policy says.
    """

    beta: float = Field(3.0, ge=0)
    max_weight: float = Field(100.0, ge=1)
    proposals: int = Field(1, ge=1)


class ValueCritics(Critics[ValueModel]):
    """A value and its target, and, if there is one, a policy that imitates with weights, and acts.

    Acting to learn, the averaged policy draws samples, also one that is deployed with its mean.
    """

    config: ValueCriticsConfig

    def __init__(
        self, config: ValueCriticsConfig, model: ValueModel, policy: Policy | None, total_updates: int, runtime: Runtime
    ) -> None:
        """Put together what acts; see `Critics`.

        Raises:
            ConfigError: If proposals are to be chosen among and nobody makes them, or they are too short.
        """
        super().__init__(config, model, policy, total_updates, runtime)
        self._acting: Policy | None = None
        self._deployed: Policy | None = None
        if self.cloning is not None:
            self._acting, self._deployed = self._actors(self.cloning.deployed())
        if config.proposals > 1 and policy is None:
            raise ConfigError(f"algo.proposals={config.proposals} are made by a policy, and none was named")

    def _actors(self, averaged: Policy) -> tuple[Policy, Policy]:
        """Return who acts to learn, and who is deployed."""
        sampling = drawing(averaged)
        if self.config.proposals == 1:
            return sampling, averaged
        if averaged.spec.chunk < self.model.spec.chunk:
            raise ConfigError(
                f"the policy proposes {averaged.spec.chunk} actions and the value judges {self.model.spec.chunk}: set "
                f"model.n_action_steps={averaged.spec.chunk} or less"
            )
        judge = Value(ValueConfig(critic=describe(self.target)), self.target, averaged.spec.n_obs_steps)
        best = BestOf(BestOfConfig(n=self.config.proposals), judge, None)
        steered = SteeredPolicy(sampling, [best])
        return steered, steered

    def weights(self, batch: Mapping[str, Any]) -> Tensor:
        """See `Critics.weights`."""
        return advantage_weights(self.target, batch, self.config.beta, self.config.max_weight)

    def explore(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.Explores`; as many actions as the policy executes."""
        assert self._acting is not None
        spec = self._acting.spec
        with torch.no_grad(), self.runtime.autocast():
            chunk = self._acting.act(newest(obs, spec.n_obs_steps), 1, generator)[:, 0, : spec.n_action_steps]
        return Explored(chunk.float())

    def warm_up(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.WarmsUp`; as it goes on."""
        return self.explore(obs, generator)

    def deployed(self) -> Policy | None:
        """See `Algorithm.deployed`; the averaged policy, with its best proposal if there are several."""
        return self._deployed


def advantage_weights(value: ValueModel, batch: Mapping[str, Any], beta: float, largest: float) -> Tensor:
    """Return min(exp(beta (min_k Q_k(s, a) - V(s))), largest), (B,)."""
    advantage = value.q(batch["obs"], value.actions(batch)).amin(0) - value.v(batch["obs"])
    return exponential_weights(advantage, beta, largest)


def value_model(model: Model, algo: str) -> ValueModel:
    """Check that a model is a value.

    Raises:
        ConfigError: If it is not.
    """
    if not isinstance(model, ValueModel):
        raise ConfigError(f"algo={algo} trains a value, not a {model.config.tree()['kind']} model: set model=value")
    return model
