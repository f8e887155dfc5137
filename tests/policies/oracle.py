"""A ring of Gaussians whose denoiser is known in closed form, and a network that says what a perfect one would."""

import math

import torch
from torch import Tensor

from robopol.networks.denoiser import Denoiser
from robopol.policies.field import Field
from robopol.policies.paths import Path
from robopol.policies.paths.cosine_vp import CosineVPConfig
from robopol.policies.paths.discrete_vp import DiscreteVPConfig
from robopol.policies.paths.linear_vp import LinearVPConfig
from robopol.policies.paths.rectified_flow import RectifiedFlowConfig
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.prediction import target
from robopol.policies.samplers import Hook, Sampler

PATHS: dict[str, Path] = {
    "vp": DiscreteVPConfig().build(),
    "vp-linear": DiscreteVPConfig(train_steps=1000, schedule="linear").build(),
    "cosine": CosineVPConfig().build(),
    "sde": LinearVPConfig().build(),
    "flow": RectifiedFlowConfig().build(),
    "flow-noise-at-0": RectifiedFlowConfig(noise_at=0).build(),
    "flow-sigma-min": RectifiedFlowConfig(sigma_min=0.01).build(),
    "edm": VarianceExplodingConfig(sigma_min=0.02, sigma_max=80.0).build(),
    "beso": VarianceExplodingConfig(sigma_min=0.05).build(),
}


class Ring:
    """Eight equal Gaussians on a ring."""

    def __init__(self, radius: float = 0.8, std: float = 0.05) -> None:
        angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
        self.means = radius * torch.stack([angles.cos(), angles.sin()], -1)
        self.std = std

    def x0(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for x (B, 2)."""
        x = x.double()
        var = (alpha * self.std) ** 2 + sigma**2
        log_weight = -((x[:, None] - alpha * self.means) ** 2).sum(-1) / (2 * var)
        gain = alpha * self.std**2 / var
        posterior = self.means + gain * (x[:, None] - alpha * self.means)
        return (log_weight.softmax(-1)[..., None] * posterior).sum(1)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        var = (alpha * self.std) ** 2 + sigma**2
        return torch.logsumexp(-((x[:, None] - alpha * self.means) ** 2).sum(-1) / (2 * var), -1)

    def axis_std(self) -> float:
        """Standard deviation of the data along one axis."""
        return math.sqrt((self.means**2).mean().item() + self.std**2)

    def hits(self, x: Tensor) -> tuple[float, float]:
        """Share within 3 std of a mode, and rms distance per axis to the nearest mode."""
        distance = (x.double()[:, None] - self.means).norm(dim=-1).min(-1).values
        return (distance < 3 * self.std).double().mean().item(), (distance**2 / 2).mean().sqrt().item()

    def imbalance(self, x: Tensor) -> float:
        """Total variation between the modes' shares and equal ones."""
        mode = (x.double()[:, None] - self.means).norm(dim=-1).argmin(-1)
        return ((torch.bincount(mode, minlength=8) / len(mode) - 1 / 8).abs().sum() / 2).item()


class Oracle(Denoiser):
    """A network that says exactly what a perfectly trained one would; it finds its time from what it is told."""

    def __init__(self, path: Path, prediction: str) -> None:
        super().__init__()
        self.ring, self.path, self.prediction = Ring(), path, prediction

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        told = t[:1].double() / self.path.time_scale
        time = (4 * told).exp() if self.path.ends[0] == self.path.kappa_range[1] else told
        level = self.path.level(time)
        flat = x[:, 0].double() / self.path.input_scale(level)
        x0 = self.ring.x0(flat, level.alpha, level.sigma)
        eps = (flat - level.alpha * x0) / level.sigma
        return target(self.prediction, x0, eps, level, self.path).to(x.dtype)[:, None]


def oracle(path: Path, prediction: str) -> Field:
    return Field(Oracle(path, prediction), path, prediction)


def walk(
    sampler: Sampler, path: Path, prediction: str, count: int = 4000, seed: int = 0, hook: Hook | None = None
) -> Tensor:
    """Sample the ring; (count, 2)."""
    rng = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(count, 1, 2, generator=rng)

    return sampler.sample(oracle(path, prediction), draw(), torch.zeros(count, 1, 1), draw, hook=hook)[:, 0]


class Wave(Denoiser):
    """Some network, whose output depends on state and time."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return 0.9 * x + 0.05 * torch.sin(5 * x + t[:, None, None])
