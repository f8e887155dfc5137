"""How wide a walk begins: the noise that it starts from, scaled.

With less noise plans lie closer to the most likely ones, with none a deterministic walk gives one plan for an
observation (low-temperature sampling; Ajay et al. 2023, section 3.1). It acts on any policy that takes its noise from
outside, also one that is served elsewhere.
"""

from typing import Literal

from pydantic import Field as Bound
from torch import Tensor

from robopol.policies import Policy
from robopol.steering.steering import Planning, Steering, SteeringConfig


class StartNoiseConfig(SteeringConfig):
    """Scale the noise that a walk begins from.

    Attributes:
        scale: 1 is the base policy.
    """

    kind: Literal["start_noise"] = "start_noise"
    scale: float = Bound(0.5, ge=0, allow_inf_nan=False)

    def build(self, policy: Policy) -> "StartNoise":
        """See `SteeringConfig.build`."""
        return StartNoise(self)


class StartNoise(Steering):
    """See `StartNoiseConfig`."""

    config: StartNoiseConfig

    def noise(self, noise: Tensor, planning: Planning) -> Tensor:
        """See `Steering.noise`."""
        return self.config.scale * noise
