"""Diffusion policies (Chi et al. 2023): a denoising chain over action chunks."""

from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.config import OneOf
from robopol.networks.unet import UNetConfig
from robopol.policies.generative import GenerativeConfig, GenerativePolicy
from robopol.policies.path import DiscreteVP
from robopol.policies.policy import PolicySpec
from robopol.policies.sampler import DDPMConfig


class DiffusionConfig(GenerativeConfig):
    """A diffusion policy.

    Attributes:
        net: The denoiser network.
        sampler: How a chunk is walked from noise.
        train_steps: Length of the chain, T.
        schedule: Noise schedule.
        prediction: What the network predicts: the noise, the clean action or v (Salimans & Ho 2022).
    """

    kind: Literal["diffusion"] = "diffusion"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = DDPMConfig()
    train_steps: int = Field(100, ge=2)
    schedule: Literal["squaredcos_cap_v2", "linear"] = "squaredcos_cap_v2"
    prediction: Literal["eps", "x0", "v"] = "eps"

    def build(self, spec: PolicySpec) -> GenerativePolicy:
        """Return the policy, its weights untrained.

        Args:
            spec: The contract with the world.

        Raises:
            ConfigError: If the parts do not fit each other.
        """
        return GenerativePolicy(self, spec, DiscreteVP(self.train_steps, self.schedule), self.prediction)
