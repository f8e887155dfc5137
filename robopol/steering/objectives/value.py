"""The value of a plan's next actions, by a critic that was learned offline (V-GPS; Nakamoto et al. 2024)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field as Bound
from torch import Tensor

from robopol.checkpoint import PartOf
from robopol.models.value import ValueModel
from robopol.policies import Policy
from robopol.steering.objectives.model_objective import ModelObjective, fitting
from robopol.steering.objectives.objective import ObjectiveConfig


class ValueConfig(ObjectiveConfig):
    """Q of the actions from now on, as many as the critic looks at.

    Attributes:
        critic: A run, a checkpoint or a folder of a value model (`robopol train algo=iql`).
        pessimism: How far the heads' disagreement counts against a plan: None takes the lowest head, a number the mean
            less that many standard deviations.
    """

    kind: Literal["value"] = "value"
    critic: Annotated[Any, PartOf("model")]
    pessimism: float | None = Bound(None, ge=0)

    def build(self, policy: Policy) -> "Value":
        """See `ObjectiveConfig.build`."""
        critic, described = fitting(self.critic, ValueModel, policy)
        return Value(self.model_copy(update={"critic": described}), critic, policy.spec.n_obs_steps)


class Value(ModelObjective[ValueModel]):
    """See `ValueConfig`."""

    config: ValueConfig

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        heads = self.model.q(*self.asked(obs, windows))  # (E, B, K)
        if self.config.pessimism is None:
            return heads.amin(0)
        return heads.mean(0) - self.config.pessimism * heads.std(0, correction=0)
