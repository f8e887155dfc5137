"""Windows of observations and actions, cut from episodes by index arithmetic.

A window holds To observations (oldest to now) and Tp actions that start at the same step as the first
observation, so action To-1 belongs to the newest observation. In an episode of L steps the starts run from
-(To-1) to L-Tp+(Ta-1); steps outside the episode repeat its first or last frame and are masked (Chi et al.
2023, Diffusion Policy).
"""

from typing import Any, TypeAlias

import torch
from torch import Tensor

from robopol.data.episodes import Episodes
from robopol.data.sampling import batch_indices
from robopol.errors import ConfigError, DataError, ShapeError

Batch: TypeAlias = dict[str, Any]
"""``obs`` key -> (B, To, ...), ``action`` (B, Tp, A), ``mask`` (B, Tp) bool, ``weight`` (B,) float32."""


class Windows:
    """All windows of a set of episodes, episode by episode and in order of time.

    Attributes:
        episodes: What the windows are cut from.
        n_obs_steps: To, observations per window.
        horizon: Tp, actions per window.
        n_action_steps: Ta, actions that a policy executes of them.
        episode: (W,) int64, the episode of each window.
        start: (W,) int64, first step of each window, counted from the first step of its episode.
    """

    def __init__(
        self,
        episodes: Episodes,
        n_obs_steps: int,
        horizon: int,
        n_action_steps: int,
        weights: Tensor | None = None,
    ) -> None:
        """Index the windows; the data are not copied, the index takes 5 * Tp bytes a window.

        By that rule an episode of fewer than Tp - To - Ta + 2 steps would have no window and its demonstration would
        be lost, so it has one, from its first step on.

        Args:
            episodes: What to cut.
            n_obs_steps: To, at least 1.
            horizon: Tp.
            n_action_steps: Ta, at least 1; To - 1 + Ta may not exceed Tp.
            weights: (N,) float32, finite and not negative: the weight of the window whose newest observation
                is that step. Weights per episode are ``per_episode[episodes.episode_index]``. Ones if left
                out.

        Raises:
            ConfigError: If To, Tp and Ta do not fit together.
            ShapeError: If the weights have the wrong shape.
            DataError: If there is no episode, or a weight is negative or not finite.
        """
        if n_obs_steps < 1 or n_action_steps < 1 or n_obs_steps - 1 + n_action_steps > horizon:
            raise ConfigError(
                f"a window of horizon {horizon} cannot hold n_obs_steps {n_obs_steps} and n_action_steps "
                f"{n_action_steps}: both must be at least 1 and n_obs_steps - 1 + n_action_steps <= horizon"
            )
        counts = episodes.lengths - horizon + n_action_steps - 1 + n_obs_steps
        counts.clamp_(min=1)
        total = int(counts.sum())
        if total == 0:
            raise DataError("there are no episodes to cut windows from")
        if weights is None:
            weights = torch.ones_like(episodes.reward)
        if weights.shape != episodes.reward.shape:
            raise ShapeError(f"weights have shape {tuple(weights.shape)}; one per step is ({episodes.num_steps},)")
        if not bool((weights.isfinite() & (weights >= 0)).all()):
            raise DataError("weights must be finite and not negative")
        self.episodes = episodes
        self.n_obs_steps = n_obs_steps
        self.horizon = horizon
        self.n_action_steps = n_action_steps
        self.episode = torch.repeat_interleave(counts)
        first_window = (counts.cumsum(0) - counts)[self.episode]
        self.start = torch.arange(total, device=episodes.device) - first_window - (n_obs_steps - 1)
        first_row = episodes.starts[self.episode, None]
        last_row = first_row + episodes.lengths[self.episode, None] - 1
        wanted = first_row + self.start[:, None] + torch.arange(horizon, device=episodes.device)
        rows = torch.clamp(wanted, first_row, last_row)
        self._rows = rows.to(torch.int32)  # (W, Tp)
        self._mask = rows == wanted  # (W, Tp)
        self._weight = weights.to(episodes.device, torch.float32)[rows[:, n_obs_steps - 1]]  # (W,)

    def __len__(self) -> int:
        """Return W, the number of windows."""
        return len(self._rows)

    def gather(self, indices: Tensor) -> Batch:
        """Return a batch of windows.

        Args:
            indices: (B,) int64 in [0, W), on the device of the episodes.

        Returns:
            ``{"obs": {key: (B, To, ...)}, "action": (B, Tp, A), "mask": (B, Tp) bool, "weight": (B,)}``;
            mask is True where the step exists.
        """
        rows = self._rows.index_select(0, indices)  # (B, Tp)
        obs_rows = rows[:, : self.n_obs_steps].reshape(-1)
        batch = len(indices)
        obs = {
            key: column.index_select(0, obs_rows).view(batch, self.n_obs_steps, *column.shape[1:])
            for key, column in self.episodes.obs.items()
        }
        return {
            "obs": obs,
            "action": self.episodes.action.index_select(0, rows.view(-1)).view(batch, self.horizon, -1),
            "mask": self._mask.index_select(0, indices),
            "weight": self._weight.index_select(0, indices),
        }

    def batch_indices(self, step: int, batch_size: int, seed: int) -> Tensor:
        """Return the windows of one training step, a function of its arguments alone.

        Every window comes exactly once an epoch; see `robopol.data.sampling.batch_indices`.

        Args:
            step: Training step, from 0.
            batch_size: Windows per step.
            seed: Of the run.

        Returns:
            (batch_size,) int64 in [0, W), on the device of the episodes.
        """
        return batch_indices(len(self), step, batch_size, seed).to(self.episodes.device)
