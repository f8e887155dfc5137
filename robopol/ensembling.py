"""Temporal ensembling (Zhao et al. 2023, ACT, alg. 2): how much each plan that reaches to a time weighs there.

Evaluation (`robopol.execution`) and deployment (`robopol.real_robot`, where a loop of milliseconds imports no torch)
average by the same weights.
"""

import numpy as np
from numpy.typing import NDArray


def weights(m: float, count: int) -> NDArray[np.float64]:
    """Return the weights of some plans, the oldest first; they sum to 1.

    Args:
        m: The i-th oldest plan, from i = 0 on, weighs exp(-m i), up to a common factor; no m overflows.
        count: How many plans there are, at least 1.

    Returns:
        (count,).
    """
    logits = -m * np.arange(count)
    found: NDArray[np.float64] = np.exp(logits - logits.max())
    return found / found.sum()
