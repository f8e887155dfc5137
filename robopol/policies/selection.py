"""Choosing one of several proposals by their scores: one rule for acting, for TD targets and for evaluation."""

import torch
from torch import Tensor


def choose(scores: Tensor, temperature: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """Choose among N proposals.

    Args:
        scores: (..., N), higher is better; NaN is worse than everything.
        temperature: 0 takes the best one, the first of equals; otherwise proposal i is taken with probability
            proportional to exp(score_i / temperature), by the Gumbel-max rule; inf takes any.
        noise: Standard normal (..., N), needed if the temperature is not 0.

    Returns:
        (...) int64.
    """
    if temperature == 0:
        return _ordered(scores).argmax(-1)
    assert noise is not None
    gumbel = -torch.log(-torch.special.log_ndtr(noise.double()))
    return (_logits(scores, temperature) + gumbel).argmax(-1)


def effective_number(scores: Tensor, temperature: float) -> Tensor:
    """Return how many of N proposals the rule really chooses among, (sum w)^2 / sum w^2.

    Args:
        scores: (..., N).
        temperature: As for `choose`; at 0 it is 1.

    Returns:
        (...), from 1 to N.
    """
    if temperature == 0:
        return torch.ones_like(scores[..., 0])
    weights = _logits(scores, temperature).softmax(-1)
    return (1 / weights.square().sum(-1)).nan_to_num(nan=1.0)  # where all are the worst, the first is taken


def _ordered(scores: Tensor) -> Tensor:
    """Return scores that can be compared: what is not a number is -inf, and the best is finite."""
    return scores.double().nan_to_num(nan=-torch.inf, posinf=torch.finfo(torch.float64).max, neginf=-torch.inf)


def _logits(scores: Tensor, temperature: float) -> Tensor:
    """Return the logarithm of each proposal's weight, up to a constant; -inf where it is never taken."""
    scores = _ordered(scores)
    # relative to the best, so that no scale of scores overflows, and at an infinite temperature all are 0 but the worst
    logits = (scores - scores.amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).min)) / temperature
    return torch.where(scores == -torch.inf, -torch.inf, logits)
