"""Ways to steer a frozen policy, one a file, and the steered policy that they make of it."""

from robopol.steering.best_of import BestOfConfig
from robopol.steering.composition import CompositionConfig
from robopol.steering.goal_weight import GoalWeightConfig
from robopol.steering.guide import GuideConfig
from robopol.steering.inner_steps import InnerStepsConfig
from robopol.steering.steered import SteeredConfig, SteeredPolicy
from robopol.steering.steering import Planning, Steering, SteeringConfig
from robopol.steering.warm_start import WarmStartConfig

__all__ = [
    "BestOfConfig",
    "CompositionConfig",
    "GoalWeightConfig",
    "GuideConfig",
    "InnerStepsConfig",
    "Planning",
    "SteeredConfig",
    "SteeredPolicy",
    "Steering",
    "SteeringConfig",
    "WarmStartConfig",
]
