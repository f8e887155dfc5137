"""The variance-exploding path x = x0 + sigma eps with the preconditioning of EDM (Karras et al. 2022)."""

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robopol.policies.paths.path import Level, Path, PathConfig


class VarianceExplodingConfig(PathConfig):
    """Alpha = 1; time is sigma itself. Networks see x / sqrt(sigma^2 + sigma_data^2) and ln(sigma) / 4.

    The defaults are those of BESO (Reuss et al. 2023): actions in [-1, 1] need no sigma of 80, and with 1 three steps
    are enough.

    Attributes:
        sigma_min: Smallest noise.
        sigma_max: Largest noise; a walk starts from N(0, sigma_max^2 + sigma_data^2).
        sigma_data: Standard deviation that the data are taken to have.
        time_law: How training noise is drawn, between sigma_min and sigma_max: ``"log_logistic"`` around sigma_data
            with scale 0.5 (BESO), or ``"log_normal"``, ln sigma ~ N(-1.2, 1.2^2) (Karras et al. 2022).
        time_scale: The network is given ``time_scale`` times ln(sigma) / 4.
    """

    kind: Literal["variance_exploding"] = "variance_exploding"
    sigma_min: float = Field(0.005, gt=0)
    sigma_max: float = Field(1.0, gt=0)
    sigma_data: float = Field(0.5, gt=0)
    time_law: Literal["log_logistic", "log_normal"] = "log_logistic"
    time_scale: float = Field(100.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "VarianceExplodingConfig":
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} must be below sigma_max={self.sigma_max}")
        return self

    def build(self) -> "VarianceExploding":
        """Return the path."""
        return VarianceExploding(self)


class VarianceExploding(Path):
    """See `VarianceExplodingConfig`."""

    spacing = "exponential"

    def __init__(self, config: VarianceExplodingConfig) -> None:
        """Take over the choices."""
        self.config = config
        self.data_std = config.sigma_data
        self.time_scale = config.time_scale
        self.ends = (config.sigma_max, config.sigma_min)

    def level(self, t: Tensor) -> Level:
        """See `Path.level`."""
        t = t.double()
        one = torch.ones_like(t)
        return Level(one, t, torch.zeros_like(t), one)

    def time_of(self, kappa: Tensor) -> Tensor:
        """See `Path.time_of`."""
        return kappa.double()

    def network_time(self, t: Tensor) -> Tensor:
        """Return ``time_scale`` ln(sigma) / 4."""
        return self.time_scale * torch.log(t) / 4

    def input_scale(self, level: Level) -> Tensor:
        """Return 1 / sqrt(sigma^2 + sigma_data^2)."""
        return 1 / self.start_std(level)

    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw noise by the inverse distribution function of the law, cut off at both ends."""
        low, high = math.log(self.config.sigma_min), math.log(self.config.sigma_max)
        u = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        if self.config.time_law == "log_logistic":
            loc, scale = math.log(self.data_std), 0.5
            first, last = (1 / (1 + math.exp(-(edge - loc) / scale)) for edge in (low, high))
            log_sigma = loc + scale * torch.logit(first + (last - first) * u)
        else:
            loc, scale = -1.2, 1.2
            first, last = (0.5 * (1 + math.erf((edge - loc) / scale / math.sqrt(2))) for edge in (low, high))
            log_sigma = loc + scale * math.sqrt(2) * torch.erfinv(2 * (first + (last - first) * u) - 1)
        return log_sigma.clamp(low, high).exp().float()
