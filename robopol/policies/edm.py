"""Preconditioned denoisers on a variance-exploding path (Karras et al. 2022; for actions: BESO, Reuss et al. 2023)."""

from typing import Annotated, Any, Literal

from robopol.config import OneOf
from robopol.networks.unet import UNetConfig
from robopol.policies.generative import GenerativeConfig, Prediction
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.samplers.first_order import DDIMConfig


class EDMConfig(GenerativeConfig):
    """A policy with EDM's preconditioning.

    Walks start from noise alone, but a network that knows noise of 1 at most believes that it sees the action through
    it. Where actions are as far apart as an open and a closed gripper, -1 and 1, plans then come out wrong. BESO, which
    plans anew in every step, puts up with 1.
    """

    kind: Literal["edm"] = "edm"
    path: Annotated[Any, OneOf("path")] = VarianceExplodingConfig(sigma_max=10.0)
    prediction: Prediction = "edm"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = DDIMConfig()
