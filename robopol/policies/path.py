"""Probability paths between noise and data: x_t = alpha(t) x0 + sigma(t) eps, eps ~ N(0, I).

Time runs towards noise in every path. A noise level is identified by kappa = sigma / alpha alone, so that is
how fields trained on different paths meet (Karras et al. 2022; Lipman et al. 2023).
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from robopol.errors import ConfigError


class Level(NamedTuple):
    """One noise level of a path.

    Attributes:
        alpha: Scale of the data.
        sigma: Scale of the noise.
        d_alpha: Derivative of alpha with respect to the path's time.
        d_sigma: Derivative of sigma with respect to the path's time.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    @property
    def kappa(self) -> Tensor:
        """Sigma / alpha."""
        return self.sigma / self.alpha

    @property
    def wronskian(self) -> Tensor:
        """W = alpha sigma' - sigma alpha', positive where time runs towards noise."""
        return self.alpha * self.d_sigma - self.sigma * self.d_alpha

    def like(self, x: Tensor) -> "Level":
        """Return the level shaped to broadcast over ``x`` (B, ...), in its dtype and on its device."""
        return Level(*(v.to(x).reshape(-1, *(1,) * (x.ndim - 1)) for v in self))


DATA_END = Level(*(torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.0, 0.0, 0.0)))
"""The level at which a walk ends: no noise left. Its derivatives are never read."""


class Path(ABC):
    """A path: its levels, how times are drawn in training, and which times a sampler visits."""

    @abstractmethod
    def level(self, t: Tensor) -> Level:
        """Return the level at times ``t`` (any shape), in float64."""

    @abstractmethod
    def time_of(self, kappa: Tensor) -> Tensor:
        """Return the time at which sigma / alpha equals ``kappa`` (any shape), in float64."""

    @abstractmethod
    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw ``count`` training times, (count,) float32."""

    @abstractmethod
    def grid(self, steps: int | None, spacing: str) -> Tensor:
        """Return the times a sampler visits, from noise to data, (steps,) float64.

        Args:
            steps: How many; None for every step of a path that was trained as a chain.
            spacing: How they are spaced, where the path offers a choice.

        Raises:
            ConfigError: If the path cannot be walked in that many steps.
        """


class DiscreteVP(Path):
    """The variance-preserving chain of DDPM (Ho et al. 2020); time is the index 0..T-1, fractions allowed.

    Between indices the half log-SNR ln(alpha / sigma) is interpolated linearly, so a fractional index has a
    well-defined level.
    """

    def __init__(self, train_steps: int, schedule: str) -> None:
        """Tabulate the chain.

        Args:
            train_steps: Length T of the chain.
            schedule: ``"squaredcos_cap_v2"`` (Nichol & Dhariwal 2021) or ``"linear"`` (betas 1e-4 to 0.02 as in
                Ho et al. 2020).

        Raises:
            ConfigError: If the chain does not end close enough to pure noise to be started from N(0, I).
        """
        if schedule == "squaredcos_cap_v2":
            edges = torch.arange(train_steps + 1, dtype=torch.float64) / train_steps
            bar = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
        else:
            betas = torch.linspace(1e-4, 0.02, train_steps, dtype=torch.float64)
        alpha_bar = torch.cumprod(1 - betas, 0)
        self.train_steps = train_steps
        self.log_snr = 0.5 * torch.log(alpha_bar / (1 - alpha_bar))  # half log-SNR, descending in the index
        kappa_max = math.exp(-self.log_snr[-1].item())
        if kappa_max < 20:
            raise ConfigError(
                f"the {schedule} schedule over {train_steps} steps ends at sigma/alpha = {kappa_max:.2f}, which is "
                "not noise: sampling starts from N(0, I) and needs at least 20; use squaredcos_cap_v2 or 1000 steps"
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

    def grid(self, steps: int | None, spacing: str) -> Tensor:
        """Return indices spaced as the field names it.

        Args:
            steps: How many, at most T; None for all.
            spacing: ``"leading"`` (multiples of T // steps, from 0: published diffusion_policy, never reaches
                T-1), ``"trailing"`` (ends at T-1) or ``"linspace"`` (both ends).
        """
        top = self.train_steps
        steps = top if steps is None else steps
        if not 1 <= steps <= top:
            raise ConfigError(f"a chain of {top} training steps can be walked in 1 to {top} steps, not {steps}")
        if spacing == "leading":
            grid = torch.arange(steps, dtype=torch.float64) * (top // steps)
        elif spacing == "trailing":
            grid = (top - torch.arange(steps, dtype=torch.float64).flip(0) * (top / steps)).round() - 1
        elif spacing == "linspace":
            grid = torch.linspace(0, top - 1, steps, dtype=torch.float64).round()
        else:
            raise ConfigError(
                f"a diffusion chain has no '{spacing}' grid; known: leading, trailing, linspace "
                "(the ddim sampler is to a diffusion policy what euler is to a flow)"
            )
        return grid.flip(0)


class RectifiedFlow(Path):
    """The straight path x_t = (1 - t) x0 + t eps (Liu et al. 2023), t = 1 at noise."""

    def __init__(self, time_law: str) -> None:
        """Choose how training times are drawn.

        Args:
            time_law: ``"uniform"`` on [0, 1), or ``"beta"``: 0.001 + 0.999 Beta(1.5, 1), more mass near noise
                (Black et al. 2024).
        """
        self.time_law = time_law

    def level(self, t: Tensor) -> Level:
        """See `Path.level`."""
        t = t.double()
        one = torch.ones_like(t)
        return Level(1 - t, t, -one, one)

    def time_of(self, kappa: Tensor) -> Tensor:
        """See `Path.time_of`."""
        return kappa.double() / (1 + kappa.double())

    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw times by the law."""
        u = torch.rand(count, generator=generator, device=device)
        # the distribution function of Beta(1.5, 1) is t^1.5
        return u if self.time_law == "uniform" else 0.001 + 0.999 * u ** (1 / 1.5)

    def grid(self, steps: int | None, spacing: str) -> Tensor:
        """Return 1, 1 - 1/steps, ..., 1/steps, whatever the spacing."""
        if steps is None or steps < 1:
            raise ConfigError(f"a flow has no training chain to walk: say a number of steps >= 1, got {steps}")
        return 1 - torch.arange(steps, dtype=torch.float64) / steps
