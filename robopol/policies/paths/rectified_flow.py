"""Straight paths: rectified flow (Liu et al. 2023) and flow matching with a smallest noise (Lipman et al. 2023)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.policies.paths.path import Level, Path, PathConfig, inside


class RectifiedFlowConfig(PathConfig):
    """The straight path x = (1 - s) x0 + (s + (1 - s) sigma_min) eps, where s is 1 at noise and 0 at data.

    Attributes:
        noise_at: Whether the stored time is s (Black et al. 2024) or 1 - s (Lipman et al. 2023). It decides what the
            network is told and the sign of a velocity.
        sigma_min: Noise that is left at the data end.
        time_law: How training times are drawn: ``"uniform"``, or ``"beta"``: s = 0.001 + 0.999 Beta(1.5, 1), more
            mass near noise (Black et al. 2024).
        time_scale: The network is given ``time_scale`` times the time, so that its sinusoids resolve [0, 1].
    """

    kind: Literal["rectified_flow"] = "rectified_flow"
    noise_at: Literal[0, 1] = 1
    sigma_min: float = Field(0.0, ge=0, lt=1)
    time_law: Literal["uniform", "beta"] = "uniform"
    time_scale: float = Field(100.0, gt=0)

    def build(self) -> "RectifiedFlow":
        """Return the path."""
        return RectifiedFlow(self)


class RectifiedFlow(Path):
    """See `RectifiedFlowConfig`."""

    def __init__(self, config: RectifiedFlowConfig) -> None:
        """Take over the choices."""
        self.config = config
        self.time_scale = config.time_scale
        self.ends = (1.0, 0.0) if config.noise_at == 1 else (0.0, 1.0)

    def _toward_noise(self, t: Tensor) -> Tensor:
        """Return s for stored times, or stored times for s: the mirror is its own inverse."""
        return t if self.config.noise_at == 1 else 1 - t

    def level(self, t: Tensor) -> Level:
        """See `Path.level`."""
        s, left = self._toward_noise(t.double()), self.config.sigma_min
        one = torch.ones_like(s) if self.config.noise_at == 1 else -torch.ones_like(s)
        return Level(1 - s, s + (1 - s) * left, -one, (1 - left) * one)

    def time_of(self, kappa: Tensor) -> Tensor:
        """See `Path.time_of`."""
        beyond = kappa.double() - self.config.sigma_min
        s = torch.where(beyond.isinf(), 1.0, beyond / (1 + beyond))
        return self._toward_noise(s)

    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw times by the law."""
        u = torch.rand(count, generator=generator, device=device)
        # the distribution function of Beta(1.5, 1) is s^1.5
        s = u if self.config.time_law == "uniform" else 0.001 + 0.999 * u ** (1 / 1.5)
        return self._toward_noise(inside(s))
