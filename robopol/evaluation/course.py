"""What is said of a curve of scores over environment steps: its end, what it earns on the way, how far it falls."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robopol.errors import DataError

LAST = 3
"""Evaluations that make an end, and a crossing."""
EARLY = 0.1
"""Share of the steps within which a fall counts as that of the switch to acting."""


class Course(NamedTuple):
    """Figures of a curve of scores, as in the comparisons of offline-to-online methods (Nakamoto et al. 2023, Cal-QL).

    Attributes:
        start: Score before the first step.
        end: Mean score of the last three evaluations.
        gain: How much the end is above the start.
        area: Mean score over environment steps, by trapezoids.
        regret: 1 less the mean score of the evaluations after the first step; of scores in [0, 1].
        drop: How far the score falls below the start within the first tenth of the steps, or at the first evaluation
            after the start if that is later; 0 if it does not.
        dip: Mean over environment steps of how far the score is below the start.
        recovery: Environment steps at which the start is reached again after the lowest score of that tenth; None if
            it is not, 0 if there was no drop.
    """

    start: float
    end: float
    gain: float
    area: float
    regret: float
    drop: float
    dip: float
    recovery: float | None


def course(steps: Sequence[float], scores: Sequence[float]) -> Course:
    """Return what is said of a curve.

    Args:
        steps: Environment steps of each evaluation, one of them 0; in any order. Evaluations at the same steps count
            once, by their mean.
        scores: Score of each.

    Returns:
        The figures.

    Raises:
        DataError: If there are fewer than two different steps, none at 0, or not as many scores.
    """
    at, score = _sorted(steps, scores)
    if at[0] != 0 or len(at) < 2:
        raise DataError(f"a curve begins with the score before the first step and has more, got steps {at.tolist()}")
    start, end, total = float(score[0]), float(score[-LAST:].mean()), float(at[-1])
    early = max(2, int((at <= EARLY * total).sum()))
    lowest = int(score[:early].argmin())
    drop = start - float(score[lowest])
    back = np.flatnonzero(score[lowest:] >= start)
    return Course(
        start=start,
        end=end,
        gain=end - start,
        area=float(np.trapezoid(score, at) / total),
        regret=1 - float(score[1:].mean()),
        drop=drop,
        dip=float(np.trapezoid(np.maximum(start - score, 0), at) / total),
        recovery=0.0 if drop == 0 else float(at[lowest + back[0]]) if len(back) else None,
    )


def steps_to(threshold: float, steps: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return the environment steps at which the mean of three evaluations first reaches a threshold, None if never.

    Args:
        threshold: The score.
        steps: As for `course`, without the need for a step 0.
        scores: As for `course`.
    """
    at, score = _sorted(steps, scores)
    if len(score) < LAST:
        return None
    means = np.convolve(score, np.full(LAST, 1 / LAST), "valid")
    reached = np.flatnonzero(means >= threshold - 1e-12)
    return float(at[reached[0] + LAST - 1]) if len(reached) else None


def _sorted(steps: Sequence[float], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return different steps in order, and the mean score at each."""
    if len(steps) != len(scores) or not len(steps):
        raise DataError(f"a curve has a score for each evaluation, got {len(steps)} steps and {len(scores)} scores")
    at, where = np.unique(np.asarray(steps, np.float64), return_inverse=True)
    sums = np.bincount(where, np.asarray(scores, np.float64))
    return at, sums / np.bincount(where)
