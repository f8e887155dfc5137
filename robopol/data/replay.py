"""Replay: a ring of transitions, one packed row each, so that a batch is a single look-up.

A row is observation | action | reward | terminated | truncated | next observation | traces, all float32. The next
observation is the true one, also after the last step of an episode, and never one of another episode. A trace is
whatever who acted wants back with the transition.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopol.data.episodes import Episodes, is_image
from robopol.errors import DataError, ShapeError

_LINE = 16  # floats of a cache line: rows begin at one, so that a row touches as few as possible


class ReplayBuffer:
    """The newest transitions of low-dim environments.

    Attributes:
        capacity: Most transitions that are kept; then the oldest are overwritten.
        device: Where they lie.
        added: Transitions added so far, also those that were overwritten.
    """

    def __init__(
        self,
        capacity: int,
        obs_shapes: Mapping[str, tuple[int, ...]],
        action_dim: int,
        device: torch.device | str = "cpu",
        traces: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        """Make an empty buffer.

        Args:
            capacity: Most transitions that are kept, at least 1.
            obs_shapes: Observation key -> shape of one observation; low-dim keys only.
            action_dim: A.
            device: Where transitions lie and batches are made.
            traces: Name -> shape of one, of what is kept beside each transition; nothing if left out.

        Raises:
            DataError: If the capacity is below 1, or an observation is an image.
        """
        if capacity < 1:
            raise DataError(f"a replay buffer needs a capacity of at least 1, got {capacity}")
        if images := [key for key in obs_shapes if is_image(key)]:
            raise DataError(f"a replay buffer keeps low-dim observations; leave out {', '.join(images)}")
        self.capacity = capacity
        self.device = torch.device(device)
        self.added = 0
        self._shapes = {key: tuple(shape) for key, shape in obs_shapes.items()}
        self._traces = {name: tuple(shape) for name, shape in (traces or {}).items()}
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        kept = [math.prod(shape) for shape in self._traces.values()]
        self._sizes = [*sizes, action_dim, 3, *sizes, *kept]
        self._width = sum(self._sizes)
        spare = -self._width % _LINE
        # numpy asks the system for large pages, which random rows are found faster in
        rows = np.zeros((capacity, self._width + spare), np.float32)
        self._rows = torch.from_numpy(rows).to(self.device)
        self._split = [*self._sizes, spare]
        self._generator = torch.Generator(self.device)

    def __len__(self) -> int:
        """Return the number of transitions that can be drawn."""
        return min(self.added, self.capacity)

    def add(
        self,
        obs: Mapping[str, Tensor],
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        next_obs: Mapping[str, Tensor],
        trace: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add n transitions, e.g. one of every parallel environment.

        Args:
            obs: Key -> (n, ...), before the step.
            action: (n, A).
            reward: (n,).
            terminated: (n,), the task ended because of the state that the step led to: do not bootstrap.
            truncated: (n,), the episode was cut after the step: bootstrap from ``next_obs``.
            next_obs: Key -> (n, ...), the state that the step led to, not that after a reset.
            trace: Name -> (n, ...), at least what the buffer keeps.

        Raises:
            DataError: If there are more than fit, or a trace is missing.
            ShapeError: If something has the wrong shape.
        """
        count = len(action)
        if count > self.capacity:
            raise DataError(f"{count} transitions do not fit into a replay buffer of {self.capacity}")
        parts = [obs[key].reshape(count, -1) for key in self._shapes]
        parts += [action, torch.stack([reward, terminated, truncated], 1)]
        parts += [next_obs[key].reshape(count, -1) for key in self._shapes]
        if self._traces:
            if missing := self._traces.keys() - (trace or {}).keys():
                raise DataError(
                    f"the replay keeps {', '.join(sorted(missing))} of who acted, and these transitions lack it: they "
                    "were not chosen by the algorithm that learns from them (set warmup=0)"
                )
            parts += [trace[name].reshape(count, -1) for name in self._traces]  # type: ignore[index]
        if [tuple(part.shape) for part in parts] != [(count, size) for size in self._sizes]:
            raise ShapeError(
                f"{count} transitions of {[tuple(part.shape) for part in parts]} were added; the buffer keeps rows of "
                f"{self._sizes}: {', '.join(self._shapes)}, action, reward and flags, next observations, traces"
            )
        rows = torch.cat([part.to(self.device, torch.float32) for part in parts], 1)
        first = self.added % self.capacity
        fits = min(count, self.capacity - first)
        self._rows[first : first + fits, : self._width] = rows[:fits]
        self._rows[: count - fits, : self._width] = rows[fits:]
        self.added += count

    def sample(self, batch_size: int, step: int, seed: int, draws: int | None = None) -> dict[str, Any]:
        """Return random transitions, uniformly and with replacement, a function of the arguments and the content.

        Args:
            batch_size: B.
            step: Gradient step, or environment step if there are several gradient steps for each; from 0.
            seed: Of the run, at least 0.
            draws: K, to draw K batches at once; None draws one and leaves out that axis.

        Returns:
            ``{"obs": {key: (K, B, ...)}, "action": (K, B, A), "reward": (K, B), "terminated": (K, B),
            "truncated": (K, B), "next_obs": {key: (K, B, ...)}, "trace": {name: (K, B, ...)}}``, all float32; the
            flags are 0 or 1. All are views of one block of memory that belongs to the caller.

        Raises:
            DataError: If the buffer is empty.
        """
        if not self.added:
            raise DataError("there is nothing to draw: the replay buffer is empty")
        shape = (batch_size,) if draws is None else (draws, batch_size)
        chosen = self.draw(math.prod(shape), len(self), step, seed)
        return self._named(self._rows.index_select(0, chosen).view(*shape, -1))

    def draw(self, count: int, below: int, step: int, seed: int) -> Tensor:
        """Return random numbers, (count,) int64 in [0, below), a function of the arguments; see `sample`."""
        self._generator.manual_seed(_mix(step, seed))
        return torch.randint(below, (count,), generator=self._generator, device=self.device)

    def rows(self, steps: Tensor) -> dict[str, Any]:
        """Return chosen transitions.

        Args:
            steps: (...) int64, counted from the first transition that was ever added; those that were overwritten, or
                are yet to come, are others.

        Returns:
            As `sample` does.
        """
        chosen = (steps % self.capacity).flatten()
        return self._named(self._rows.index_select(0, chosen).view(*steps.shape, -1))

    def flags(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether chosen transitions terminated and whether they were truncated, (...) bool each; see `rows`."""
        first = sum(self._sizes[: len(self._shapes) + 1]) + 1
        chosen = self._rows[:, first : first + 2][steps % self.capacity] > 0
        terminated, truncated = chosen.unbind(-1)
        return terminated, truncated

    def rewards(self, steps: Tensor) -> Tensor:
        """Return the rewards of chosen transitions, (...) float32; see `rows`."""
        return self._rows[:, sum(self._sizes[: len(self._shapes) + 1])][steps % self.capacity]

    def _named(self, rows: Tensor) -> dict[str, Any]:
        """Say what is what in rows (..., width)."""
        parts, count = rows.split_with_sizes(self._split, -1), len(self._shapes)
        reward, terminated, truncated = parts[count + 1].unbind(-1)
        return {
            "obs": _named(self._shapes, parts[:count]),
            "action": parts[count],
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "next_obs": _named(self._shapes, parts[count + 2 : 2 * count + 2]),
            "trace": _named(self._traces, parts[2 * count + 2 : -1]),
        }

    def state(self) -> dict[str, Tensor]:
        """Return everything that `load_state` needs to go on in the same way; the rows are not copied."""
        return {"rows": self._rows[: len(self)], "added": torch.tensor(self.added)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned, in a buffer of the same capacity and shapes.

        Raises:
            ShapeError: If the state is that of another buffer.
        """
        added, rows = int(state["added"]), state["rows"]
        wanted = (min(added, self.capacity), self._rows.shape[1])
        if tuple(rows.shape) != wanted:
            raise ShapeError(f"the replay buffer's state has rows of shape {tuple(rows.shape)}; it needs {wanted}")
        self._rows[: len(rows)] = rows.to(self.device)
        self.added = added

    @classmethod
    def from_episodes(
        cls, episodes: Episodes, capacity: int | None = None, device: torch.device | str = "cpu"
    ) -> "ReplayBuffer":
        """Return a buffer that holds recorded transitions.

        Steps whose successor was not recorded are left out, unless they terminated: nothing follows those.

        Args:
            episodes: What to fill in; images are left out.
            capacity: Of the buffer; if left out, as many as there are transitions.
            device: Where the transitions lie.
        """
        low_dim = episodes.without_images()
        rows = torch.arange(low_dim.num_steps, device=low_dim.device)
        following, known = low_dim.next_obs(rows)
        rows = rows[known | low_dim.terminated]
        shapes = {key: tuple(column.shape[1:]) for key, column in low_dim.obs.items()}
        buffer = cls(len(rows) if capacity is None else capacity, shapes, low_dim.action.shape[1], device)
        buffer.add(
            {key: column[rows] for key, column in low_dim.obs.items()},
            low_dim.action[rows],
            low_dim.reward[rows],
            low_dim.terminated[rows],
            low_dim.truncated[rows],
            {key: column[rows] for key, column in following.items()},
        )
        return buffer


def _named(shapes: Mapping[str, tuple[int, ...]], parts: tuple[Tensor, ...]) -> dict[str, Tensor]:
    named = zip(shapes.items(), parts, strict=True)
    return {key: part if len(shape) == 1 else part.reshape(*part.shape[:-1], *shape) for (key, shape), part in named}


def _mix(step: int, seed: int) -> int:
    """Return a seed of 32 bits: another one for each of 2^32 steps, without a pattern from step to step."""
    x = (step + seed * 0x9E3779B1) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF  # the finaliser of MurmurHash3
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)
