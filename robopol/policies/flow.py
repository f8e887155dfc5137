"""Flow policies: the velocity of a straight path from noise to action chunks (Lipman et al. 2023)."""

from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.config import OneOf
from robopol.networks.unet import UNetConfig
from robopol.policies.generative import GenerativeConfig, GenerativePolicy
from robopol.policies.path import RectifiedFlow
from robopol.policies.policy import PolicySpec
from robopol.policies.sampler import EulerConfig


class FlowConfig(GenerativeConfig):
    """A flow-matching policy; time is 1 at noise.

    Attributes:
        net: The network that predicts the velocity.
        sampler: How a chunk is walked from noise.
        time_law: How training times are drawn: ``"uniform"``, or ``"beta"`` with more mass near noise (Black et
            al. 2024).
        time_scale: The network is given ``time_scale * t``, so that its sinusoids resolve [0, 1].
    """

    kind: Literal["flow"] = "flow"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = EulerConfig()
    time_law: Literal["uniform", "beta"] = "uniform"
    time_scale: float = Field(100.0, gt=0)

    def build(self, spec: PolicySpec) -> GenerativePolicy:
        """Return the policy, its weights untrained.

        Args:
            spec: The contract with the world.

        Raises:
            ConfigError: If the parts do not fit each other.
        """
        return GenerativePolicy(self, spec, RectifiedFlow(self.time_law), "velocity", self.time_scale)
