"""The variance-preserving diffusion with a linear rate, beta(t) = b + (B - b) t (Song et al. 2021, appendix B)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.policies.paths.path import Level, Path, PathConfig, end_in_noise, inside


class LinearVPConfig(PathConfig):
    """Alpha^2 = exp(-b t - (B - b) t^2 / 2), t in [0, 1], 1 at noise.

    Attributes:
        beta_min: b, the rate at the data end.
        beta_max: B, the rate at the noise end; with the defaults sigma / alpha ends at 152, and 20 is the least.
        time_min: Smallest training time: the score is singular at 0.
        time_scale: The network is given ``time_scale`` times the time, so that its sinusoids resolve [0, 1].
    """

    kind: Literal["linear_vp"] = "linear_vp"
    beta_min: float = Field(0.1, gt=0)
    beta_max: float = Field(20.0, gt=0)
    time_min: float = Field(1e-3, ge=0, lt=1)
    time_scale: float = Field(100.0, gt=0)

    def build(self) -> "LinearVP":
        """Return the path.

        Raises:
            ConfigError: If it does not end close enough to pure noise to be started from N(0, I).
        """
        return LinearVP(self)


class LinearVP(Path):
    """See `LinearVPConfig`."""

    def __init__(self, config: LinearVPConfig) -> None:
        """Take over the choices; see `LinearVPConfig.build`."""
        self.config = config
        self.time_scale = config.time_scale
        self.ends = (1.0, config.time_min)
        rates = f"the path with beta from {config.beta_min:g} to {config.beta_max:g}"
        end_in_noise(self.kappa_range[1], rates, "raise beta_max, e.g. to 20")

    def level(self, t: Tensor) -> Level:
        """See `Path.level`."""
        t, low, rise = t.double(), self.config.beta_min, self.config.beta_max - self.config.beta_min
        integral, rate = low * t + rise * t**2 / 2, low + rise * t
        alpha, sigma = torch.exp(-integral / 2), torch.sqrt(-torch.expm1(-integral))
        # alpha' = -rate alpha / 2, and alpha alpha' + sigma sigma' = 0
        return Level(alpha, sigma, -rate * alpha / 2, rate * alpha**2 / (2 * sigma))

    def time_of(self, kappa: Tensor) -> Tensor:
        """See `Path.time_of`."""
        low, rise = self.config.beta_min, self.config.beta_max - self.config.beta_min
        integral = torch.log1p(kappa.double() ** 2)
        # the root of b t + rise t^2 / 2 = integral in the form that does not cancel for small integrals
        return 2 * integral / (low + torch.sqrt(low**2 + 2 * rise * integral))

    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw times uniformly."""
        u = inside(torch.rand(count, generator=generator, device=device))
        return self.config.time_min + (1 - self.config.time_min) * u
