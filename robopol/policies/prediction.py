"""What a network predicts, and how every prediction is read as the pair (x0, eps).

At a level with x = alpha x0 + sigma eps all predictions are linear in (x0, eps), so each is two short formulas
and its own inverse. Keep the network's native output and convert as late as possible: eps -> x0 is ill
conditioned at pure noise, x0 -> eps at the data.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from robopol.policies.path import Level


class Estimate(NamedTuple):
    """The clean sample and the noise that a field sees in x_t, each shaped like x_t."""

    x0: Tensor
    eps: Tensor


class Prediction(NamedTuple):
    """One kind of network output.

    Attributes:
        target: (x0, eps, level) -> what the network is trained to say.
        read: (output, x, level) -> the pair it means.
    """

    target: Callable[[Tensor, Tensor, Level], Tensor]
    read: Callable[[Tensor, Tensor, Level], Estimate]


def _read_eps(eps: Tensor, x: Tensor, at: Level) -> Estimate:
    return Estimate((x - at.sigma * eps) / at.alpha, eps)


def _read_x0(x0: Tensor, x: Tensor, at: Level) -> Estimate:
    return Estimate(x0, (x - at.alpha * x0) / at.sigma)


def _read_v(v: Tensor, x: Tensor, at: Level) -> Estimate:
    return Estimate(at.alpha * x - at.sigma * v, at.sigma * x + at.alpha * v)


def _read_velocity(u: Tensor, x: Tensor, at: Level) -> Estimate:
    return Estimate((at.d_sigma * x - at.sigma * u) / at.wronskian, (at.alpha * u - at.d_alpha * x) / at.wronskian)


def _read_score(score: Tensor, x: Tensor, at: Level) -> Estimate:
    return Estimate((x + at.sigma**2 * score) / at.alpha, -at.sigma * score)


PREDICTIONS: dict[str, Prediction] = {
    "eps": Prediction(lambda x0, eps, at: eps, _read_eps),
    "x0": Prediction(lambda x0, eps, at: x0, _read_x0),
    # Salimans & Ho 2022, for paths with alpha^2 + sigma^2 = 1
    "v": Prediction(lambda x0, eps, at: at.alpha * eps - at.sigma * x0, _read_v),
    "velocity": Prediction(lambda x0, eps, at: at.d_alpha * x0 + at.d_sigma * eps, _read_velocity),
    # score = grad_x log p_t; for one (x0, eps) it is -eps / sigma
    "score": Prediction(lambda x0, eps, at: -eps / at.sigma, _read_score),
}
"""Name -> prediction; the names are the ones a checkpoint stores."""
