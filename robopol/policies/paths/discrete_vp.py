"""The variance-preserving chain of DDPM (Ho et al. 2020)."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies.paths.path import Level, Path, PathConfig, end_in_noise

CHAIN_SPACINGS = ("leading", "trailing", "linspace")


class DiscreteVPConfig(PathConfig):
    """A chain of noising steps; time is the index 0..T-1.

    Attributes:
        train_steps: Length of the chain, T.
        schedule: ``"squaredcos_cap_v2"`` (Nichol & Dhariwal 2021) or ``"linear"`` (betas 1e-4 to 0.02 as in Ho et al.
            2020).
    """

    kind: Literal["discrete_vp"] = "discrete_vp"
    train_steps: int = Field(100, ge=2)
    schedule: Literal["squaredcos_cap_v2", "linear"] = "squaredcos_cap_v2"

    def build(self) -> "DiscreteVP":
        """Return the path.

        Raises:
            ConfigError: If the chain does not end close enough to pure noise to be started from N(0, I).
        """
        return DiscreteVP(self)


class DiscreteVP(Path):
    """See `DiscreteVPConfig`.

    Between indices the half log-SNR ln(alpha / sigma) is interpolated linearly, so a fractional index has a
    well-defined level.

    Attributes:
        betas: Variance added by each step, (T,) float64.
        log_snr: Half log-SNR of each index, descending, (T,) float64.
    """

    spacing = "leading"

    def __init__(self, config: DiscreteVPConfig) -> None:
        """Tabulate the chain; see `DiscreteVPConfig.build`."""
        steps = config.train_steps
        if config.schedule == "squaredcos_cap_v2":
            edges = torch.arange(steps + 1, dtype=torch.float64) / steps
            bar = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
            self.betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
        else:
            self.betas = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)
        alpha_bar = torch.cumprod(1 - self.betas, 0)
        self.train_steps = steps
        self.ends = (steps - 1, 0)
        self.log_snr = 0.5 * torch.log(alpha_bar / (1 - alpha_bar))
        end_in_noise(
            math.exp(-self.log_snr[-1].item()),
            f"the {config.schedule} schedule over {steps} steps",
            "use squaredcos_cap_v2 or 1000 steps",
        )

    def level(self, t: Tensor) -> Level:
        """See `Path.level`."""
        t = t.double()
        table = self.log_snr.to(t.device)
        low = t.floor().long().clamp(0, self.train_steps - 2)
        slope = table[low + 1] - table[low]
        half = table[low] + (t - low) * slope
        # alpha^2 = sigmoid(2 half); derivatives by the chain rule of the interpolated half log-SNR
        alpha, sigma = torch.sigmoid(2 * half).sqrt(), torch.sigmoid(-2 * half).sqrt()
        return Level(alpha, sigma, alpha * sigma**2 * slope, -sigma * alpha**2 * slope)

    def time_of(self, kappa: Tensor) -> Tensor:
        """See `Path.time_of`; levels outside the table are clamped to its ends."""
        half = -torch.log(kappa.double())
        table = self.log_snr.to(half.device)
        high = torch.searchsorted(-table, -half.contiguous()).clamp(1, self.train_steps - 1)
        share = (half - table[high - 1]) / (table[high] - table[high - 1])
        return (high - 1 + share).clamp(0, self.train_steps - 1)

    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw indices uniformly."""
        return torch.randint(self.train_steps, (count,), generator=generator, device=device).float()

    def grid(self, steps: int | None, spacing: str | None) -> Tensor:
        """See `Path.grid`; the chain's own spacings are of indices.

        Args:
            steps: How many; at most T of indices, None for all of them.
            spacing: Also ``"leading"`` (multiples of T // steps, from 0: published diffusion_policy, never reaches
                T-1), ``"trailing"`` (ends at T-1) or ``"linspace"`` (both ends).
        """
        spacing, top = spacing or self.spacing, self.train_steps
        if spacing not in CHAIN_SPACINGS:
            return super().grid(steps, spacing)
        steps = top if steps is None else steps
        if not 1 <= steps <= top:
            raise ConfigError(f"a chain of {top} training steps can be walked in 1 to {top} steps, not {steps}")
        if spacing == "leading":
            grid = torch.arange(steps, dtype=torch.float64) * (top // steps)
        elif spacing == "trailing":
            grid = (top - torch.arange(steps, dtype=torch.float64).flip(0) * (top / steps)).round() - 1
        else:
            grid = torch.linspace(0, top - 1, steps, dtype=torch.float64).round()
        return grid.flip(0)
