"""Named data sources, and batches mixed from them in exact shares."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robopol.data import Episodes, Windows
from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.training.seeding import seed_of


class Sources:
    """Windows of several named sets of episodes."""

    def __init__(self, episodes: Mapping[str, Episodes], spec: PolicySpec, seed: int, device: torch.device) -> None:
        """Index every source.

        Args:
            episodes: Name -> episodes.
            spec: Says how long the windows are, and which observations they hold.
            seed: Of the order in which windows are seen.
            device: Where the data lie and the batches are made.
        """
        self.seed = seed
        self.windows = {
            name: Windows(_only(part, spec.obs_shapes).to(device), spec.n_obs_steps, spec.horizon, spec.n_action_steps)
            for name, part in episodes.items()
        }

    def batch(self, shares: Mapping[str, float], batch_size: int, step: int) -> dict[str, Any]:
        """Return the batch of one training step, a function of its arguments and the seed alone.

        Args:
            shares: Source -> relative share; every batch holds the same number of windows of each.
            batch_size: B.
            step: Training step.

        Returns:
            See `robopol.data.Windows.gather`.
        """
        parts = []
        for name, count in split_exactly(shares, batch_size).items():
            windows = self.windows[name]
            order = seed_of(self.seed, f"order of {name}")
            parts.append(windows.gather(windows.batch_indices(step, count, order)))
        return parts[0] if len(parts) == 1 else _join(parts)


def split_exactly(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Split a batch by largest remainders, each source getting at least one sample.

    Raises:
        ConfigError: If there are more sources than samples.
    """
    if total < len(shares):
        raise ConfigError(f"a batch of {total} cannot hold samples of all {len(shares)} sources")
    exact = {name: share / sum(shares.values()) * total for name, share in shares.items()}
    counts = {name: max(1, int(value)) for name, value in exact.items()}
    while sum(counts.values()) != total:
        step = 1 if sum(counts.values()) < total else -1
        movable = [name for name in counts if step > 0 or counts[name] > 1]
        name = max(movable, key=lambda n: step * (exact[n] - counts[n]))
        counts[name] += step
    return counts


def _only(episodes: Episodes, keys: Iterable[str]) -> Episodes:
    """Leave out observations that nobody looks at."""
    obs, final = ({key: part[key] for key in keys} for part in (episodes.obs, episodes.final_obs))
    return replace(episodes, obs=obs, final_obs=final)


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, first in parts[0].items():
        values = [part[key] for part in parts]
        joined[key] = torch.cat(values) if isinstance(first, Tensor) else _join(values)
    return joined
