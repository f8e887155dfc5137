"""Preconditioned denoisers on a variance-exploding path (Karras et al. 2022; for actions: BESO, Reuss et al. 2023)."""

from typing import Annotated, Any, Literal

from robopol.config import OneOf
from robopol.networks.unet import UNetConfig
from robopol.policies.generative import GenerativeConfig, Prediction
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.samplers.first_order import DDIMConfig


class EDMConfig(GenerativeConfig):
    """A policy with EDM's preconditioning."""

    kind: Literal["edm"] = "edm"
    path: Annotated[Any, OneOf("path")] = VarianceExplodingConfig()
    prediction: Prediction = "edm"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = DDIMConfig()
