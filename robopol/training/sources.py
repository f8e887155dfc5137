"""Named data sources, and batches mixed from them in exact shares."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

from robopol.data import Episodes, Windows
from robopol.data.replay import ReplayBuffer
from robopol.data.replay_bounds import ReplayBounds
from robopol.data.replay_windows import ReplayWindows
from robopol.data.sampling import Sampling, SamplingConfig, UniformConfig
from robopol.data.windows import narrowed
from robopol.errors import ConfigError
from robopol.policies import Needs, PolicySpec
from robopol.training.seeding import seed_of


class Replayed:
    """Draws from a replay buffer what `Windows.gather` would return of its transitions.

    Attributes:
        buffer: What is drawn from.
        bounds: Of the return of what is in it; None if batches do not hold them.
    """

    def __init__(self, buffer: ReplayBuffer, spec: PolicySpec, needs: Needs, num_envs: int = 1) -> None:
        """Draw from a buffer.

        Args:
            buffer: What is drawn from.
            spec: Says how long the windows are.
            needs: What else is read of a batch.
            num_envs: Environments that add transitions in turn.

        Raises:
            ConfigError: If more is asked for than transitions hold.
        """
        transition = needs.transition
        if transition is None or needs._replace(trace=None, bound=None) != Needs(transition=transition):
            raise ConfigError(
                "the replay holds transitions, and what is trained here reads more of a batch than they say: leave it "
                "out of the sources"
            )
        self.buffer, self.discount = buffer, transition.discount
        self.bounds = None if needs.bound is None else ReplayBounds(buffer, num_envs, needs.bound)
        self._windows: ReplayWindows | None = None  # single transitions are one look-up
        self._size = (spec.n_obs_steps, spec.horizon)
        if self._size != (1, 1) or transition.reach > 1:
            steps, horizon = self._size
            seen = (steps, max(horizon, steps - 1 + transition.reach))
            self._windows = ReplayWindows(buffer, num_envs, *seen, transition, needs.trace is not None)

    def batch(self, step: int, batch_size: int, seed: int) -> dict[str, Any]:
        """See `robopol.data.sampling.Sampling.batch`; a function of the buffer's content, too.

        Beside that, ``trace`` holds what was kept of who acted, name -> (B, ...), of the newest observation.
        """
        if self._windows is not None:
            now = self._windows.draw(batch_size, step, seed)
            return narrowed(self._windows.gather(now), *self._size) | self._bounded(now)
        bounded = {}
        if self.bounds is not None:  # the same draw as below
            bounded = self._bounded(self.buffer.draw(batch_size, len(self.buffer), step, seed))
        drawn = self.buffer.sample(batch_size, step, seed)
        known = torch.ones(batch_size, 1, dtype=torch.bool, device=self.buffer.device)
        return {
            "obs": {key: rows[:, None] for key, rows in drawn["obs"].items()},
            "action": drawn["action"][:, None],
            "mask": known,
            "weight": known[:, 0].float(),
            "reward": drawn["reward"],
            "discount": self.discount * (1 - drawn["terminated"]),
            "next_obs": {key: rows[:, None] for key, rows in drawn["next_obs"].items()},
            "next_mask": known[:, 0],
            "trace": drawn["trace"],
            **bounded,
        }

    def _bounded(self, now: Tensor) -> dict[str, Tensor]:
        return {} if self.bounds is None else {"return_bound": self.bounds.at(now)}


class Sources:
    """Windows of several named sets of episodes, and, once it was added, a replay buffer.

    Attributes:
        seed: Of the draws.
        windows: Source -> its windows.
    """

    def __init__(
        self,
        episodes: Mapping[str, Episodes],
        spec: PolicySpec,
        seed: int,
        device: torch.device,
        sampling: Mapping[str, SamplingConfig] | None = None,
        needs: Needs | None = None,
    ) -> None:
        """Index every source.

        Args:
            episodes: Name -> episodes.
            spec: Says how long the windows are, and which observations they hold.
            seed: Of the draws.
            device: Where the batches are made.
            sampling: Name -> how its windows are drawn; uniformly where it is left out.
            needs: What else is read of a batch.

        Raises:
            ConfigError: If a sampling cannot serve what is read, see `robopol.data.sampling.SamplingConfig.check`; or
                if what is trained learns from its own decisions.
        """
        needs = needs or Needs()
        if needs.trace is not None and episodes:
            raise ConfigError(
                f"what is trained here learns from its own decisions, of which {', '.join(episodes)} knows no "
                f"{', '.join(needs.trace)}: leave data out"
            )
        self._sampling = {name: (sampling or {}).get(name, UniformConfig()) for name in episodes}
        windows = {
            name: Windows(
                self._sampling[name].observed(part),
                spec.n_obs_steps,
                spec.horizon,
                keys=spec.obs_shapes,
                device=device,
                plan=needs.plan,
                discount=needs.discount,
                transition=needs.transition,
                rewards=needs.rewards,
                bound=needs.bound,
                labels=needs.labels,
            )
            for name, part in episodes.items()
        }
        self._draw_from(windows, seed)

    def only(self, episodes: Mapping[str, Tensor], seed: int) -> "Sources":
        """Return some episodes of some sources; the data are shared.

        Args:
            episodes: Name -> (K,) int64, episodes of that source, at least one.
            seed: Of the draws.
        """
        part = copy(self)
        part._draw_from({name: self.windows[name].only(chosen) for name, chosen in episodes.items()}, seed)
        return part

    def held_out(self, episodes: Mapping[str, Tensor]) -> "Sources":
        """Return some episodes in which a loss is measured and nothing learned; see `only`."""
        part = copy(self)
        part._sampling = {name: sampling.held_out() for name, sampling in self._sampling.items()}
        return part.only(episodes, 0)

    def add(self, name: str, replayed: Replayed) -> None:
        """Add a replay buffer as a source; batches of it depend on what it then holds."""
        if replayed.bounds is not None and self.windows:
            replayed.bounds.lowest = min(float(part.episodes.reward.min()) for part in self.windows.values())
        self._drawn[name] = replayed

    def batch(self, shares: Mapping[str, float], batch_size: int, step: int) -> dict[str, Any]:
        """Return the batch of one training step, a function of its arguments, the seed and the data alone.

        Args:
            shares: Source -> relative share; every batch holds the same number of windows of each.
            batch_size: B.
            step: Training step.

        Returns:
            See `robopol.data.Windows.gather`.
        """
        parts = [
            self._drawn[name].batch(step, count, seed_of(self.seed, f"order of {name}"))
            for name, count in split_exactly(shares, batch_size).items()
        ]
        return parts[0] if len(parts) == 1 else _join(parts)

    def _draw_from(self, windows: dict[str, Windows], seed: int) -> None:
        self.windows, self.seed = windows, seed
        self._drawn: dict[str, Sampling | Replayed] = {name: self._built(name, part) for name, part in windows.items()}

    def _built(self, name: str, windows: Windows) -> Sampling:
        try:
            return self._sampling[name].build(windows)
        except ConfigError as error:
            raise ConfigError(f"data.{name}.sampling: {error}") from None


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


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, first in parts[0].items():
        if not all(key in part for part in parts):  # only the replay has traces
            continue
        values = [part[key] for part in parts]
        joined[key] = torch.cat(values) if isinstance(first, Tensor) else _join(values)
    return joined
