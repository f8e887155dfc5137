"""Probability paths between noise and data: x_t = alpha(t) x0 + sigma(t) eps, eps ~ N(0, I).

A noise level is identified by kappa = sigma / alpha alone, so that is how fields that were trained on different
paths meet (Karras et al. 2022; Lipman et al. 2023). Time may run either way.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from robopol.config import Config
from robopol.errors import ConfigError

WIDEST = (0.02, 80.0)
"""Noise levels between which a grid in kappa lies, where the path's own range is wider (Karras et al. 2022)."""

EDGE = 2.0**-24
"""Nearest that a drawn time in [0, 1] comes to either end, in shares of the whole; the spacing of float32 below 1."""


class Level(NamedTuple):
    """One noise level of a path, or one for each row.

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


DATA_END = Level(*(torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.0, 0.0, 0.0)))
"""The level at which a walk ends: no noise left. Its derivatives are never read."""


class Path(ABC):
    """A path: its levels, how times are drawn in training, and which times a sampler visits.

    Attributes:
        data_std: Standard deviation that the data are taken to have.
        time_scale: The network is given this times the path's time, unless `network_time` says otherwise.
        spacing: How a sampler's times are spaced where it does not say.
        ends: Path times at the noise end and at the data end.
    """

    data_std: float = 1.0
    time_scale: float = 1.0
    spacing: str = "uniform"
    ends: tuple[float, float] = (1.0, 0.0)

    @abstractmethod
    def level(self, t: Tensor) -> Level:
        """Return the level at times ``t`` (any shape), in float64."""

    @abstractmethod
    def time_of(self, kappa: Tensor) -> Tensor:
        """Return the time at which sigma / alpha equals ``kappa`` (any shape), in float64."""

    @abstractmethod
    def draw_time(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw ``count`` training times, (count,) float32."""

    def network_time(self, t: Tensor) -> Tensor:
        """Return what a network is told of the times ``t`` (any shape)."""
        return self.time_scale * t

    def input_scale(self, level: Level) -> Tensor:
        """Return the factor by which x_t is scaled before a network sees it, shaped like the level."""
        return torch.ones_like(level.alpha)

    @property
    def kappa_range(self) -> tuple[float, float]:
        """Smallest and largest noise level of the path; networks know nothing outside it."""
        noise, data = (self.level(torch.tensor(end, dtype=torch.float64)).kappa.item() for end in self.ends)
        return data, noise

    def start_std(self, level: Level) -> Tensor:
        """Return the standard deviation of x_t at a level, which is how a walk is started there."""
        return ((self.data_std * level.alpha) ** 2 + level.sigma**2).sqrt()

    def grid(self, steps: int | None, spacing: str | None) -> Tensor:
        """Return the times a sampler visits, from noise to data, (steps,) float64.

        Args:
            steps: How many; None for every step of a path that was trained as a chain.
            spacing: ``"uniform"`` in the path's time; ``"linear"``, ``"exponential"`` (uniform in ln kappa) or
                ``"karras"`` (uniform in kappa^(1/7); Karras et al. 2022, eq. 5) from the largest to the smallest
                noise level; what else the path itself knows. None is the path's own choice.

        Raises:
            ConfigError: If the path cannot be walked so.
        """
        if steps is None or steps < 1:
            raise ConfigError(f"this path has no training chain to walk: say a number of steps >= 1, got {steps}")
        spacing = spacing or self.spacing
        share = torch.arange(steps, dtype=torch.float64) / steps
        if spacing == "uniform":
            return self.ends[0] + (self.ends[1] - self.ends[0]) * share
        low, high = max(self.kappa_range[0], WIDEST[0]), min(self.kappa_range[1], WIDEST[1])
        share = torch.linspace(0, 1, steps, dtype=torch.float64)
        if spacing == "linear":
            kappa = high + (low - high) * share
        elif spacing == "exponential":
            kappa = high * (low / high) ** share
        elif spacing == "karras":
            kappa = (high ** (1 / 7) + (low ** (1 / 7) - high ** (1 / 7)) * share) ** 7
        else:
            raise ConfigError(
                f"this path has no '{spacing}' spacing; it has uniform, linear, exponential and karras "
                "(leading, trailing and linspace are for the discrete chains of diffusion policies)"
            )
        return self.time_of(kappa)


def end_in_noise(kappa: float, what: str, remedy: str) -> None:
    """Check that a path ends close enough to pure noise to be started from N(0, I).

    Args:
        kappa: Its largest sigma / alpha.
        what: The path, in words.
        remedy: What to do.

    Raises:
        ConfigError: If it does not.
    """
    if kappa < 20:
        raise ConfigError(
            f"{what} ends at sigma/alpha = {kappa:.2f}, which is not noise: sampling starts from N(0, I) and needs at "
            f"least 20; {remedy}"
        )


def inside(share: Tensor) -> Tensor:
    """Keep shares of [0, 1] off its ends, where sigma or alpha vanishes and most predictions have no target.

    A generator of float32 draws exactly 0 once in 2^24 times; every draw farther from the ends keeps its bits.

    Args:
        share: Any shape.

    Returns:
        The same shape, in [EDGE, 1 - EDGE].
    """
    return share.clamp(EDGE, 1 - EDGE)


class PathConfig(Config):
    """What all paths' configs are."""
