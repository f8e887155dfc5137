"""BESO (Reuss et al. 2023): a goal-conditioned policy that learns from play and denoises an action in a few steps."""

from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.config import OneOf
from robopol.networks.transformer import TransformerConfig
from robopol.policies.generative import GenerativeConfig, Prediction
from robopol.policies.guidance import GuidanceConfig
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.samplers.first_order import DDIMConfig


class BESOConfig(GenerativeConfig):
    """A policy with EDM's preconditioning, few steps and a goal that can be left out.

    The window is the published one for block pushing: five observations, and the last of their five actions is
    executed. Goals come from hindsight (``data.NAME.sampling.kind=hindsight``) or from the world; without any the
    policy is conditioned on its observations alone.

    Two things are not as published. There, acting puts the four actions that were executed last into the window as they
    are, and only the newest one begins from noise; here all five do, as in training, where one noise level holds for
    the whole window. And the goal pulls by 1.5 (kitchen) or 2 (block pushing) there, by ``guidance.weight=1`` here, as
    it was learned.
    """

    kind: Literal["beso"] = "beso"
    n_obs_steps: int = Field(5, ge=1)
    horizon: int = Field(5, ge=1)
    n_action_steps: int = Field(1, ge=1)
    path: Annotated[Any, OneOf("path")] = VarianceExplodingConfig(sigma_min=0.05)
    prediction: Prediction = "edm"
    net: Annotated[Any, OneOf("net")] = TransformerConfig()
    sampler: Annotated[Any, OneOf("sampler")] = DDIMConfig(steps=5, clip="last")
    guidance: GuidanceConfig | None = GuidanceConfig()
