"""Advantages of the decisions of a rollout, and a scale for its rewards."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Column = NDArray[np.float64]
"""Numbers of decisions, (T, N): the t-th one in each of N environments."""


class Outcomes(NamedTuple):
    """What came of the decisions of a rollout, each (T, N); those that an environment did not make are all 0.

    Attributes:
        reward: Discounted sum of the rewards of what was executed.
        discount: gamma^h of the h actions that were executed; 0 where the episode terminated with them.
        goes_on: 1 where the next decision belongs to the same episode, else 0.
        value: V of the state in which it was made.
        next_value: V of the state that it led to, the true final one at an episode's end.
    """

    reward: Column
    discount: Column
    goes_on: Column
    value: Column
    next_value: Column


def advantages(outcomes: Outcomes, trace: float) -> Column:
    """Return generalised advantage estimates (Schulman et al. 2016, arXiv 1506.02438), (T, N).

        delta_t = r_t + Gamma_t V(s'_t) - V(s_t)
        A_t = delta_t + Gamma_t lambda goes_on_t A_t+1

    What terminated is not bootstrapped (Gamma = 0). What was cut off by a time limit, or by the end of the rollout, is
    bootstrapped from the state that it led to, and takes nothing from the decision after it.

    Args:
        outcomes: What came of the decisions.
        trace: lambda, of each decision.
    """
    delta = outcomes.reward + outcomes.discount * outcomes.next_value - outcomes.value
    decay = trace * outcomes.discount * outcomes.goes_on
    found = np.empty_like(delta)
    following = np.zeros(delta.shape[1])
    for t in range(len(delta) - 1, -1, -1):
        following = delta[t] + decay[t] * following
        found[t] = following
    return found


class RewardScale:
    """Divides rewards by the standard deviation of the discounted return so far; no mean is taken away.

    The return of an environment is R <- Gamma R + r, begun anew with each episode; its variance is over all decisions
    up to those that are scaled (Engstrom et al. 2020).

    Attributes:
        count: Decisions seen.
    """

    def __init__(self, limit: float) -> None:
        """Begin without any.

        Args:
            limit: Scaled rewards are clipped to [-limit, limit].
        """
        self.limit = limit
        self.count, self._mean, self._squares = 0, 0.0, 0.0
        self._running = np.zeros(0)

    def scale(self, reward: Column, discount: Column, goes_on: Column, made: NDArray[np.bool_]) -> Column:
        """Scale the rewards of a rollout, after taking note of them.

        Args:
            reward: (T, N).
            discount: gamma^h, (T, N).
            goes_on: 1 where the next decision, also that of the next rollout, belongs to the same episode.
            made: Which decisions there were.

        Returns:
            (T, N).
        """
        running = self._running if len(self._running) == reward.shape[1] else np.zeros(reward.shape[1])
        seen = np.zeros_like(reward)
        for t in range(len(reward)):
            now = discount[t] * running + reward[t]
            seen[t] = now
            running = np.where(made[t], now * goes_on[t], running)
        self._running = running
        values = seen[made]
        rows, mean = len(values), float(values.mean())
        total, shift = self.count + rows, mean - self._mean
        self._squares += float(((values - mean) ** 2).sum()) + shift**2 * self.count * rows / total
        self._mean += shift * rows / total
        self.count = total
        spread = np.sqrt(self._squares / total + 1e-8)
        scaled: Column = np.clip(reward / spread, -self.limit, self.limit)
        return scaled

    def state(self) -> dict[str, Tensor]:
        """Return what further scaling depends on."""
        moments = torch.tensor([self.count, self._mean, self._squares], dtype=torch.float64)
        return {"moments": moments, "running": torch.from_numpy(self._running.copy())}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        count, self._mean, self._squares = state["moments"].tolist()
        self.count, self._running = int(count), state["running"].cpu().numpy().copy()
