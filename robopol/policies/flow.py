"""Flow policies: the velocity of a straight path from noise to action chunks (Lipman et al. 2023)."""

from typing import Annotated, Any, Literal

from robopol.config import OneOf
from robopol.networks.unet import UNetConfig
from robopol.policies.generative import GenerativeConfig, Prediction
from robopol.policies.paths.rectified_flow import RectifiedFlowConfig
from robopol.policies.samplers.first_order import EulerConfig


class FlowConfig(GenerativeConfig):
    """A flow-matching policy."""

    kind: Literal["flow"] = "flow"
    path: Annotated[Any, OneOf("path")] = RectifiedFlowConfig()
    prediction: Prediction = "velocity"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = EulerConfig()
