"""What the return was at least, of the transitions of a replay: `Episodes.return_bounds` of what is still being met."""

import math

import numpy as np
import torch
from torch import Tensor

from robopol.data.replay import ReplayBuffer


class ReplayBounds:
    """Bounds of the return of what N environments have met, whose transitions were added in turn.

    With G the discounted rewards from a step to the end of its episode, n steps on, and r the lowest reward known, a
    return is at least G where the episode terminated, and G + gamma^n r / (1 - gamma) where it was cut off. While an
    episode goes on nothing is known: its steps are bounded by -inf, which is no bound (Nakamoto et al. 2023, Cal-QL,
    learn from whole episodes only).

    All of it is a function of what the buffer holds, also after it was saved and loaded.

    Attributes:
        lowest: Lowest reward known from elsewhere, e.g. from records that batches are mixed with.
    """

    def __init__(self, buffer: ReplayBuffer, num_envs: int, discount: float, lowest: float = math.inf) -> None:
        """Bound what is in a buffer.

        Args:
            buffer: Where every environment adds a transition in each step.
            num_envs: N.
            discount: gamma.
            lowest: See the attribute.
        """
        self.buffer, self.num_envs, self.discount, self.lowest = buffer, num_envs, discount, lowest
        self._seen = 0  # transitions, of all that were added
        self._begun = np.arange(num_envs)  # first step known of each running episode
        self._known = torch.full((buffer.capacity,), -math.inf, device=buffer.device)  # G
        self._after = torch.zeros(buffer.capacity, device=buffer.device)  # gamma^n, 0 where nothing follows
        self._reward = torch.full((buffer.capacity,), math.inf, device=buffer.device)

    def at(self, steps: Tensor) -> Tensor:
        """Return the bounds of chosen transitions, (B,).

        Args:
            steps: (B,) int64, as for `ReplayBuffer.rows`.
        """
        self._catch_up()
        chosen = steps % self.buffer.capacity
        lowest = min(self.lowest, float(self._reward.min()))
        known, after = self._known[chosen], self._after[chosen]
        if lowest == 0:
            return known
        forever = lowest / (1 - self.discount) if self.discount < 1 else math.copysign(math.inf, lowest)
        return torch.where(after > 0, known + after * forever, known)

    def _catch_up(self) -> None:
        """Take note of what was added since the last time."""
        added, capacity, count = self.buffer.added, self.buffer.capacity, self.num_envs
        if self._seen == added:
            return
        first = max(self._seen, added - capacity)
        new = torch.arange(first, added, device=self.buffer.device)
        reward, (terminated, truncated) = self.buffer.rewards(new), self.buffer.flags(new)
        place = new % capacity
        self._reward[place], self._known[place], self._after[place] = reward, -math.inf, 0.0
        over = (terminated | truncated).cpu().numpy()
        for step in (first + np.flatnonzero(over)).tolist():
            env = step % count
            begin = max(int(self._begun[env]), added - capacity + (env - added + capacity) % count)
            self._close(begin, step, bool(terminated[step - first]))
            self._begun[env] = step + count
        self._seen = added

    def _close(self, begin: int, end: int, terminated: bool) -> None:
        """Note the return from every step of an episode that ended."""
        steps = torch.arange(begin, end + 1, self.num_envs, device=self.buffer.device) % self.buffer.capacity
        togo, sums = 0.0, []
        for reward in reversed(self._reward[steps].tolist()):
            togo = reward + self.discount * togo
            sums.append(togo)
        device = self.buffer.device
        self._known[steps] = torch.tensor(sums[::-1], device=device)
        if not terminated:
            left = torch.arange(len(sums), 0, -1, device=device, dtype=torch.float64)
            self._after[steps] = (self.discount**left).float()
