"""Consistency models: one network call from any noise level to the data (Song et al. 2023).

f(x, t) is where the trajectory of the probability-flow ODE through x at time t ends, at the smallest noise level. It is
learned from pairs of neighbours on one trajectory: f at the noisier one is to be what f is at the cleaner one. Here
both are one sample with one noise (consistency training, with the pseudo-Huber distance and without a second, averaged
network: Song & Dhariwal 2024); `robopol.algos.distill` takes them from a teacher's ODE instead.
"""

import math
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Generator, Tensor

from robopol.config import OneOf
from robopol.errors import ConfigError
from robopol.networks.unet import UNetConfig
from robopol.policies.generative import GenerativeConfig, GenerativePolicy
from robopol.policies.part import PolicySpec
from robopol.policies.paths import Path
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.samplers.first_order import ConsistencyConfig as JumpConfig


class ConsistencyConfig(GenerativeConfig):
    """A policy that jumps.

    Attributes:
        path: It needs a smallest noise level, where f is anchored. The default's is one that a diffusion policy of 100
            steps knows, so that it can teach.
        levels: Noise levels between which f is made consistent. With more of them pairs are closer: less bias, more
            variance. Published schedules raise their number in training; here it stays.
        jumps: Most jumps that the policy learned to take; None is any number. A student of the same noise says 1.
    """

    kind: Literal["consistency"] = "consistency"
    path: Annotated[Any, OneOf("path")] = VarianceExplodingConfig(sigma_min=0.03, sigma_max=80.0)
    prediction: Literal["consistency"] = "consistency"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = JumpConfig()
    levels: int = Bound(160, ge=2)
    jumps: int | None = Bound(None, ge=1)

    @model_validator(mode="after")
    def _jumps_as_learned(self) -> Self:
        if self.jumps is not None and (self.sampler.steps or math.inf) > self.jumps:
            raise ValueError(
                f"sampler.steps={self.sampler.steps} is more than the {self.jumps} that the policy learned to take: it "
                "knows no noise level in between"
            )
        return self

    @model_validator(mode="after")
    def _pulls_no_jumps(self) -> Self:
        if self.guidance is not None and self.guidance.weight not in (0, 1):
            raise ValueError(
                f"guidance.weight={self.guidance.weight} extrapolates between the means that a network says with and "
                "without a goal, and a consistency model says where a walk ends: set it to 0 or 1, or learn from a "
                "teacher that is guided so"
            )
        return self

    def build(self, spec: PolicySpec) -> "ConsistencyPolicy":
        """Return the policy, its weights untrained.

        Args:
            spec: The contract with the world.

        Raises:
            ConfigError: If the parts do not fit each other.
        """
        return ConsistencyPolicy(self, spec)


class ConsistencyPolicy(GenerativePolicy):
    """See `ConsistencyConfig`."""

    config: ConsistencyConfig

    def __init__(self, config: ConsistencyConfig, spec: PolicySpec) -> None:
        """Assemble the parts; see `ConsistencyConfig.build`."""
        super().__init__(config, spec)
        self.ladder = ladder(self.field.path, config.levels)

    def gap(self, x: Tensor, t: Tensor, y: Tensor, s: Tensor, cond: Tensor, mask: Tensor) -> Tensor:
        """Return how much f differs between two points of one trajectory; f at the cleaner one is held fixed.

        (sqrt(|f(x, t) - f(y, s)|^2 + c^2) - c) / (kappa_t - kappa_s), c = 0.00054 sqrt(Tp A) (Song & Dhariwal 2024).

        Args:
            x: Noisier states, (B, Tp, A).
            t: Their path times, (B,) float64.
            y: Cleaner states, (B, Tp, A).
            s: Their path times, (B,) float64.
            cond: Encoded observation history, (B, To, D).
            mask: 1 for the steps that count, 0 for the others, (B, Tp).

        Returns:
            (B,).
        """
        with torch.no_grad():
            goal = self.field(y, s, cond).x0
        square = ((self.field(x, t, cond).x0 - goal) ** 2).sum(-1)
        c = 0.00054 * math.sqrt(x[0].numel())
        distance = ((square * mask).sum(-1) + c**2).sqrt() - c
        apart = self.field.path.level(t).kappa - self.field.path.level(s).kappa
        return distance / apart.to(distance)

    def jump(self, noise: Tensor, cond: Tensor) -> Tensor:
        """Return f at the start of the sampler's walk, with its gradient.

        Args:
            noise: Standard normal, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).

        Returns:
            Normalised chunks, (B, Tp, A), not clipped.
        """
        start = self.sampler.times(self.field.path)[0]
        x = self.sampler.table(self.field).start_std * noise
        return self.field(x, start.to(x.device).expand(len(x)), cond).x0

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        t, s = draw_pairs(self.ladder, len(action), generator, action.device)
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        path = self.field.path
        return self.gap(noised(path, action, noise, t), t, noised(path, action, noise, s), s, cond, mask)


def ladder(path: Path, count: int) -> Tensor:
    """Return times whose kappa^(1/7) is spaced evenly over the whole path (Karras et al. 2022, eq. 5).

    Args:
        path: The path.
        count: How many.

    Returns:
        (count,) float64, cleanest first.

    Raises:
        ConfigError: If the path has no smallest or no largest noise level.
    """
    low, high = path.kappa_range
    if low <= 0 or not math.isfinite(high):
        raise ConfigError(
            "a consistency model needs a smallest and a largest noise level, and this path has sigma/alpha in "
            f"[{low:.3g}, {high:.3g}]: set policy/path=variance_exploding"
        )
    share = torch.linspace(0, 1, count, dtype=torch.float64)
    kappa = (low ** (1 / 7) + (high ** (1 / 7) - low ** (1 / 7)) * share) ** 7
    kappa[0], kappa[-1] = low, high  # to the bit: f is the identity at the lowest
    return path.time_of(kappa)


def draw_pairs(times: Tensor, count: int, generator: Generator | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw neighbours of a ladder of times (S,), each pair as often: the noisier ones (count,) and the cleaner ones."""
    rung = torch.randint(1, len(times), (count,), generator=generator, device=device)
    times = times.to(device)
    return times[rung], times[rung - 1]


def noised(path: Path, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return alpha x0 + sigma eps at times (B,), shaped like x0 (B, ...)."""
    level = path.level(t)
    alpha, sigma = (value.to(x0).reshape(-1, *(1,) * (x0.ndim - 1)) for value in (level.alpha, level.sigma))
    return alpha * x0 + sigma * eps
