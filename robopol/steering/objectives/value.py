"""The value of a plan's next actions, by a critic that was learned offline (V-GPS; Nakamoto et al. 2024)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field as Bound
from torch import Tensor

from robopol.checkpoint import PartOf, describe, restore
from robopol.models.value import ValueModel
from robopol.policies import Policy
from robopol.steering.objectives.objective import Objective, ObjectiveConfig, check_actions


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
        critic = cast(ValueModel, restore(self.critic, "model", policy.device))
        check_actions(policy.spec, critic.spec, "the critic")
        return Value(self.model_copy(update={"critic": describe(critic)}), critic, policy.spec.n_obs_steps)


class Value(Objective):
    """See `ValueConfig`."""

    config: ValueConfig

    def __init__(self, config: ValueConfig, critic: ValueModel, n_obs_steps: int) -> None:
        """Take over the critic; see `ValueConfig.build`."""
        super().__init__(config)
        self.critic = critic.requires_grad_(False)
        self.now = n_obs_steps - 1
        self.obs_shapes = dict(critic.spec.obs_shapes)

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        spec = self.critic.spec
        seen = {key: obs[key][:, -spec.n_obs_steps :] for key in spec.obs_shapes}
        heads = self.critic.q(seen, windows[:, :, self.now : self.now + spec.chunk])  # (E, B, K)
        if self.config.pessimism is None:
            return heads.amin(0)
        return heads.mean(0) - self.config.pessimism * heads.std(0, correction=0)
