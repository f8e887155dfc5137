"""Diffusion policies (Chi et al. 2023): a denoising chain over action chunks."""

from typing import Annotated, Any, Literal

from robopol.config import OneOf
from robopol.networks.unet import UNetConfig
from robopol.policies.generative import GenerativeConfig, Prediction
from robopol.policies.paths.discrete_vp import DiscreteVPConfig
from robopol.policies.samplers.first_order import DDPMConfig


class DiffusionConfig(GenerativeConfig):
    """A diffusion policy; the defaults are the published ones."""

    kind: Literal["diffusion"] = "diffusion"
    path: Annotated[Any, OneOf("path")] = DiscreteVPConfig()
    prediction: Prediction = "eps"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = DDPMConfig()
