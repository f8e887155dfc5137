"""What can be known of a dataset before anything is trained on it.

Sources: TQ and SACo from "A Dataset Perspective on Offline Reinforcement Learning" (Schweighofer et al., 2021);
action divergence, transition diversity and state similarity after "Data Quality in Imitation Learning" (Belkhale
et al., 2023), as local variances over nearest neighbours; the weights and the positive-sided variance from
"Harnessing Mixed Offline Reinforcement Learning Datasets via Trajectory Weighting" (Hong et al., 2023).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from robopol.data.episodes import Episodes

MAX_DIMS = 6
"""More columns than this are projected: a grid over them would put every row into a cell of its own."""
PROJECTED_DIMS = 4

_BLOCK = 1000  # rows whose distances are computed together


def complete_episodes(episodes: Episodes) -> Tensor:
    """Return which episodes have an end of their own, (E,) bool; the return of the others says little."""
    last = episodes.starts + episodes.lengths - 1
    return episodes.terminated[last] | episodes.truncated[last]


def trajectory_quality(returns: Tensor, low: float, high: float) -> float:
    """Return TQ = (mean return - low) / (high - low); 0 as good as random, 1 as good as the expert.

    Args:
        returns: (E,) undiscounted returns of complete episodes.
        low: Mean return of a random policy.
        high: Mean return of the best policy known.
    """
    return (float(returns.mean()) - low) / (high - low)


def positive_sided_variance(returns: Tensor, low: float, high: float) -> float:
    """Return E[max(G - E[G], 0)^2] of returns in units of ``high - low``; what trajectory weighting gains from."""
    scaled = (returns - low) / (high - low)
    return float((scaled - scaled.mean()).clamp(min=0).square().mean())


def trajectory_weights(episodes: Episodes, alpha: float = 0.1) -> Tensor:
    """Return how often each row is drawn when episodes are weighted by return, (N,) float64, sum 1.

    w = exp(u / alpha) / sum, with u the return of the row's episode scaled to [0, 1] over the dataset.

    Args:
        episodes: At least one.
        alpha: Temperature; a large one draws every row alike.
    """
    return torch.softmax(_scaled_returns(episodes)[episodes.episode_index] / alpha, 0)


def return_weights(episodes: Episodes) -> Tensor:
    """Return how much of the return above the worst each episode brings, (E,) float64; 1 each if all are equal."""
    scaled = _scaled_returns(episodes)
    return scaled if bool(scaled.any()) else torch.ones_like(scaled)


def effective_sample_size(weights: Tensor) -> float:
    """Return (sum w)^2 / sum w^2: how many rows of equal weight would say as much."""
    return float(weights.sum().square() / weights.square().sum())


def state_actions(episodes: Episodes) -> Tensor:
    """Return low-dim observations and actions side by side, (N, D) float64; images are left out."""
    return torch.cat([_flat(episodes.without_images().obs, episodes.num_steps), episodes.action.double()], dim=1)


class Grid:
    """Cells that state-action pairs are counted in, laid by a reference dataset.

    Each column is cut into equal bins between its least and greatest value in the reference; what lies outside
    counts to the outermost bin. More than `MAX_DIMS` columns are standardised and projected to
    `PROJECTED_DIMS` random orthogonal directions first.

    Attributes:
        bins: Bins per column.
        dims: Columns that are cut.
    """

    def __init__(self, reference: Tensor, bins: int = 100, seed: int = 0) -> None:
        """Lay the cells.

        Args:
            reference: (N, D) float64, at least one row.
            bins: Bins per column.
            seed: Of the random directions.
        """
        self.bins = bins
        varying = torch.nonzero(reference.amax(0) > reference.amin(0))[:, 0]
        self._columns = varying if len(varying) else torch.arange(1)
        chosen = reference[:, self._columns]
        self._mean, self._std = chosen.mean(0), chosen.std(0, correction=0).clamp(min=1e-12)
        self.dims = len(self._columns)
        self._directions = torch.eye(self.dims, dtype=torch.float64)
        if self.dims > MAX_DIMS:
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(self.dims, PROJECTED_DIMS, generator=generator, dtype=torch.float64)
            self._directions, self.dims = torch.linalg.qr(drawn).Q, PROJECTED_DIMS
        projected = self._project(reference)
        self._low, self._high = projected.amin(0), projected.amax(0)

    def unique(self, rows: Tensor) -> int:
        """Return how many cells (N, D) rows fall into."""
        position = (self._project(rows) - self._low) / (self._high - self._low).clamp(min=1e-12)
        cells = (position * self.bins).long().clamp(0, self.bins - 1)
        return len(torch.unique(cells @ (self.bins ** torch.arange(self.dims))))

    def _project(self, rows: Tensor) -> Tensor:
        return ((rows[:, self._columns] - self._mean) / self._std) @ self._directions


def saco(rows: Tensor, reference: Tensor, bins: int = 100, seed: int = 0) -> float:
    """Return SACo, the number of cells that a dataset visits over the number that the reference visits.

    Args:
        rows: (N, D) state-action pairs; see `state_actions`.
        reference: (M, D) those of the reference, which lays the cells; see `Grid`.
        bins: Bins per column.
        seed: Of the random directions, if there are many columns.
    """
    grid = Grid(reference, bins, seed)
    return grid.unique(rows) / grid.unique(reference)


@dataclass(frozen=True)
class Neighbourhoods:
    """How alike the rows of a dataset are to those nearest to them.

    Attributes:
        rows: How many rows were looked at.
        action_variance: Action divergence: trace of the variance of the actions taken at nearly the same state,
            (environment units)^2.
        action_variance_share: The same over the trace of the variance of all actions; 0 if the state decides the
            action, 1 if it says nothing about it.
        transition_variance: Transition diversity: trace of the variance of what the same action does at nearly
            the same state, in standard deviations of the state squared; None if no successors are known.
        transition_variance_share: The same over the trace of the variance of all changes of state.
        state_similarity: Share of the pairs of rows of different episodes that are close, namely closer than the
            nearest tenth of the pairs would be if the columns were independent normal ones (which gives 0.1);
            None if there is one episode.
    """

    rows: int
    action_variance: float
    action_variance_share: float
    transition_variance: float | None
    transition_variance_share: float | None
    state_similarity: float | None


def neighbourhoods(episodes: Episodes, k: int = 10, limit: int = 10_000, seed: int = 0) -> Neighbourhoods | None:
    """Compare rows with those nearest to them by standardised low-dim observation.

    Noise and the freedom to choose among several ways both raise the variance of actions; it does not tell them apart.

    Args:
        episodes: The dataset, on the CPU.
        k: How many neighbours.
        limit: Rows that are looked at; a larger dataset is sampled.
        seed: Of the sample.

    Returns:
        The numbers, or None if there are no low-dim observations that vary, or fewer than k + 1 rows.
    """
    episodes = episodes.without_images()
    order = torch.randperm(episodes.num_steps, generator=torch.Generator().manual_seed(seed))
    rows = order[:limit].sort().values
    raw = _flat({key: column[rows] for key, column in episodes.obs.items()}, len(rows))
    if len(rows) <= k or not raw.numel() or not bool((varying := raw.amax(0) > raw.amin(0)).any()):
        return None
    std = raw[:, varying].std(0)
    state = (raw[:, varying] - raw[:, varying].mean(0)) / std
    action = episodes.action[rows].double()
    spread = action.std(0)
    local = _local_variance(state, action, k)

    following, known = episodes.next_obs(rows)
    change = ((_flat(following, len(rows))[:, varying] - raw[:, varying]) / std)[known]
    transition = share = None
    if len(change) > k:
        scaled = torch.cat([state, action / torch.where(spread > 0, spread, 1.0)], dim=1)[known]
        transition = _local_variance(scaled, change, k)
        share = _over(transition, change)
    return Neighbourhoods(
        rows=len(rows),
        action_variance=local,
        action_variance_share=_over(local, action),
        transition_variance=transition,
        transition_variance_share=share,
        state_similarity=_similarity(state, episodes.episode_index[rows], seed),
    )


def _scaled_returns(episodes: Episodes) -> Tensor:
    """Returns scaled to [0, 1] over the dataset, (E,) float64; zeros if all are equal."""
    returns = episodes.returns()
    return (returns - returns.min()) / (returns.max() - returns.min()).clamp(min=1e-12)


def _flat(obs: dict[str, Tensor], rows: int) -> Tensor:
    """Observations side by side, (rows, D) float64; D may be 0."""
    empty = torch.empty(rows, 0, dtype=torch.float64)
    return torch.cat([empty, *(column.flatten(1).double() for column in obs.values())], dim=1)


def _local_variance(points: Tensor, values: Tensor, k: int) -> float:
    """Mean over the points of the trace of the variance of the values at a point and its k nearest."""
    total = 0.0
    for block in points.split(_BLOCK):
        nearest = torch.cdist(block, points).topk(k + 1, largest=False).indices
        total += float(values[nearest].var(dim=1).sum())
    return total / len(points)


def _similarity(state: Tensor, episode: Tensor, seed: int) -> float | None:
    dims = state.shape[1]
    normal = torch.randn(50_000, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    close = torch.quantile(normal.norm(dim=1) * 2**0.5, 0.1)
    near = pairs = 0
    for block, own in zip(state.split(_BLOCK), episode.split(_BLOCK), strict=True):
        other = own[:, None] != episode
        near += int(((torch.cdist(block, state) < close) & other).sum())
        pairs += int(other.sum())
    return near / pairs if pairs else None


def _over(local: float, values: Tensor) -> float:
    whole = float(values.var(dim=0).sum())
    return local / whole if whole else 0.0
