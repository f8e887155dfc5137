"""The continuous variance-preserving cosine path, alpha = cos(pi t / 2) (Salimans & Ho 2022)."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.policies.paths.path import Level, Path, PathConfig, inside


class CosineVPConfig(PathConfig):
    """Alpha = cos(pi t / 2), sigma = sin(pi t / 2), t in [0, 1], 1 at noise.

    Attributes:
        time_scale: The network is given ``time_scale`` times the time, so that its sinusoids resolve [0, 1].
    """

    kind: Literal["cosine_vp"] = "cosine_vp"
    time_scale: float = Field(100.0, gt=0)

    def build(self) -> "CosineVP":
        """Return the path."""
        return CosineVP(self)


class CosineVP(Path):
    """See `CosineVPConfig`."""

    def __init__(self, config: CosineVPConfig) -> None:
        """Take over the choice."""
        self.time_scale = config.time_scale

    def level(self, t: Tensor) -> Level:
        """See `Path.level`."""
        angle = t.double() * (math.pi / 2)
        alpha, sigma = angle.cos(), angle.sin()
        return Level(alpha, sigma, -sigma * (math.pi / 2), alpha * (math.pi / 2))

    def time_of(self, kappa: Tensor) -> Tensor:
        """See `Path.time_of`."""
        return torch.atan(kappa.double()) * (2 / math.pi)

    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw times uniformly."""
        return inside(torch.rand(count, generator=generator, device=device))
