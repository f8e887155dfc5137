"""What a network predicts: how the clean sample is read from its output, and nothing else.

Every prediction is linear: x0 = p x + q output, with p and q functions of the noise level. The noise it implies,
eps = (x - alpha x0) / sigma, and the target it is trained on, (x0 - p x) / q, follow. Read as late as possible: from
eps, x0 is ill conditioned at pure noise.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies.paths import Level, Path


class Estimate(NamedTuple):
    """The clean sample and the noise that a field sees in x_t, each shaped like x_t."""

    x0: Tensor
    eps: Tensor


class Reading(NamedTuple):
    """How (x, output) means (x0, eps): coefficients shaped like the level they are for, float64.

    Attributes:
        x0_x: p of x0 = p x + q output.
        x0_out: q.
        eps_x: The same for eps.
        eps_out: The same for eps.
    """

    x0_x: Tensor
    x0_out: Tensor
    eps_x: Tensor
    eps_out: Tensor

    def estimate(self, x: Tensor, output: Tensor) -> Estimate:
        """Read a network's output at x; the coefficients broadcast over its leading axis."""
        p, q, r, s = (_over(value, x) for value in self)
        return Estimate(p * x + q * output, r * x + s * output)


Rule = Callable[[Level, Path], tuple[Tensor, Tensor]]
"""(level, path) -> (p, q), each shaped like the level."""


def _eps(at: Level, path: Path) -> tuple[Tensor, Tensor]:
    return 1 / at.alpha, -at.sigma / at.alpha


def _x0(at: Level, path: Path) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(at.alpha), torch.ones_like(at.alpha)


def _v(at: Level, path: Path) -> tuple[Tensor, Tensor]:
    """Read alpha eps - sigma x0 (Salimans & Ho 2022, appendix D)."""
    norm = at.alpha**2 + at.sigma**2
    return at.alpha / norm, -at.sigma / norm


def _velocity(at: Level, path: Path) -> tuple[Tensor, Tensor]:
    """Read dx/dt = alpha' x0 + sigma' eps (Lipman et al. 2023)."""
    return at.d_sigma / at.wronskian, -at.sigma / at.wronskian


def _score(at: Level, path: Path) -> tuple[Tensor, Tensor]:
    """Read grad log p_t by Tweedie's formula."""
    return 1 / at.alpha, at.sigma**2 / at.alpha


def _edm(at: Level, path: Path) -> tuple[Tensor, Tensor]:
    """Read the raw network of a preconditioned denoiser, D = c_skip y + c_out F (Karras et al. 2022, table 1)."""
    var = at.sigma**2 + (at.alpha * path.data_std) ** 2
    return at.alpha * path.data_std**2 / var, at.sigma * path.data_std / var.sqrt()


def _consistency(at: Level, path: Path) -> tuple[Tensor, Tensor]:
    """Read the raw network of a consistency function, f = c_skip y + c_out F (Song et al. 2023, appendix C).

    It is the identity at the path's smallest noise level e, where it is anchored: c_skip = s^2 / ((kappa - e)^2 + s^2)
    and c_out = s (kappa - e) / sqrt(kappa^2 + s^2), y = x / alpha and s the standard deviation of the data. What it
    reads as x0 is the sample at the level e to which x belongs, not the mean of the clean ones.
    """
    std, above = at.alpha * path.data_std, at.sigma - at.alpha * path.kappa_range[0]
    return at.alpha * path.data_std**2 / (above**2 + std**2), above * path.data_std / (at.sigma**2 + std**2).sqrt()


PREDICTIONS: dict[str, Rule] = {
    "eps": _eps,
    "x0": _x0,
    "v": _v,
    "velocity": _velocity,
    "score": _score,
    "edm": _edm,
    "consistency": _consistency,
}
"""Name -> rule; the names are the ones a checkpoint stores."""


def reading(prediction: str, level: Level, path: Path) -> Reading:
    """Return how a prediction is read at a level of its path.

    Args:
        prediction: A name of `PREDICTIONS`.
        level: Any shape.
        path: The path of the level.

    Raises:
        ConfigError: If the prediction is unknown.
    """
    p, q = _rule(prediction)(level, path)
    return Reading(p, q, (1 - level.alpha * p) / level.sigma, -level.alpha * q / level.sigma)


def target(prediction: str, x0: Tensor, eps: Tensor, level: Level, path: Path) -> Tensor:
    """Return what a network is trained to say of x = alpha x0 + sigma eps, shaped like x0.

    Args:
        prediction: A name of `PREDICTIONS`.
        x0: Clean samples (B, ...).
        eps: Their noise, of the same shape.
        level: One for each row, (B,).
        path: The path of the level.

    Raises:
        ConfigError: If the prediction is unknown.
    """
    p, q = _rule(prediction)(level, path)
    # the difference is taken between coefficients, in float64: between float32 samples it would cancel
    return _over((1 - level.alpha * p) / q, x0) * x0 - _over(level.sigma * p / q, x0) * eps


def _rule(prediction: str) -> Rule:
    if prediction not in PREDICTIONS:
        raise ConfigError(f"unknown prediction '{prediction}'; known: {', '.join(PREDICTIONS)}")
    return PREDICTIONS[prediction]


def _over(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a coefficient (), (1,) or (B,) to broadcast over ``x`` (B, ...), in its dtype and on its device."""
    return coefficient.to(x).reshape(-1, *(1,) * (x.ndim - 1))
