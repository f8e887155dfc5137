"""Ways to steer a frozen policy, one a file, and the steered policy that they make of it."""

from robopol.steering.agreement import AgreementConfig
from robopol.steering.best_of import BestOfConfig
from robopol.steering.biased_start import BiasedStartConfig
from robopol.steering.composition import CompositionConfig
from robopol.steering.goal_weight import GoalWeightConfig
from robopol.steering.guide import GuideConfig
from robopol.steering.inner_steps import InnerStepsConfig
from robopol.steering.inpainting import InpaintingConfig
from robopol.steering.mixture import MixtureConfig
from robopol.steering.nudge import NudgeConfig
from robopol.steering.real_time_chunking import RealTimeChunkingConfig
from robopol.steering.start_noise import StartNoiseConfig
from robopol.steering.steered import SteeredConfig, SteeredPolicy
from robopol.steering.steering import Planning, Steering, SteeringConfig
from robopol.steering.warm_start import WarmStartConfig

__all__ = [
    "AgreementConfig",
    "BestOfConfig",
    "BiasedStartConfig",
    "CompositionConfig",
    "GoalWeightConfig",
    "GuideConfig",
    "InnerStepsConfig",
    "InpaintingConfig",
    "MixtureConfig",
    "NudgeConfig",
    "Planning",
    "RealTimeChunkingConfig",
    "StartNoiseConfig",
    "SteeredConfig",
    "SteeredPolicy",
    "Steering",
    "SteeringConfig",
    "WarmStartConfig",
]
