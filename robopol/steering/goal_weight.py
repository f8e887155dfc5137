"""How far a goal pulls: the weight of classifier-free guidance (Ho & Salimans 2022; CFGRL, Frans et al. 2025).

A policy that learned to act with and without its goal is extrapolated from one to the other. Where the goal says that
an action was better than usual, a larger weight is a stronger policy improvement (CFGRL); where it is a task, this is
PoCo's task-level composition (Wang et al. 2024, eq. 9).
"""

from typing import Literal, cast

from pydantic import Field as Bound

from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.policies.field import Field
from robopol.policies.generative import GenerativePolicy
from robopol.policies.guidance import GoalEncoder, GuidedField
from robopol.steering.steering import Planning, Steering, SteeringConfig, generative, of_means


class GoalWeightConfig(SteeringConfig):
    """Let the goal pull otherwise than the policy was saved with.

    Attributes:
        weight: 0 as if there were no goal, 1 as it was learned, above 1 farther.
    """

    kind: Literal["goal_weight"] = "goal_weight"
    weight: float = Bound(1.5, ge=0, allow_inf_nan=False)

    def build(self, policy: Policy) -> "GoalWeight":
        """See `SteeringConfig.build`."""
        found = generative(policy, "goal_weight")
        if found.config.guidance is None or not isinstance(found.observation, GoalEncoder):
            raise ConfigError(
                "goal_weight finds no goal that the policy learned to do without: train one with policy.guidance"
            )
        if self.weight not in (0, 1):
            of_means(policy, f"goal_weight={self.weight}, neither 0 nor 1,")
        if found.config.guidance.drop == 0 and self.weight != 1:
            raise ConfigError(
                "the policy never learned to act without its goal: train it with policy.guidance.drop=0.1"
            )
        return GoalWeight(self)


class GoalWeight(Steering):
    """See `GoalWeightConfig`."""

    config: GoalWeightConfig

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        policy = cast(GenerativePolicy, planning.policy)
        plain = field.field if isinstance(field, GuidedField) else field
        if plain is not policy.field:
            raise ConfigError("goal_weight guides the policy's own field: put it first among the steerings")
        return GuidedField(plain, cast(GoalEncoder, policy.observation).without, self.config.weight)
