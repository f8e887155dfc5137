"""A rollout: the decisions of the policy as it stands, in the order in which each environment came to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robopol.training.decisions import Decided

_PARTS = ("action", "length", "reward", "terminated", "truncated")
_NAMED = ("obs", "next_obs", "trace")


class Rollout:
    """The decisions of N environments since they were last taken.

    It is told of decisions (`robopol.training.decisions.Told`). Environments whose episodes end within a chunk come to
    more decisions than others.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        """Begin without any; room is made as decisions come.

        Args:
            count: N.
            device: Where batches are made.
        """
        self.count, self.device = count, device
        self._held: dict[str, Tensor] = {}  # name of a part -> (T or more, N, ...)
        self._counts = [0] * count

    def __call__(self, decided: Decided) -> None:
        """Keep decisions that came to an end."""
        parts = {name: getattr(decided, name) for name in _PARTS}
        for group in _NAMED:
            parts |= {f"{group}.{name}": rows for name, rows in getattr(decided, group).items()}
        times = [self._counts[slot] for slot in decided.slots]
        if not self._held or max(times) >= len(self._held["action"]):
            for name, rows in parts.items():
                self._make_room(name, max(times) + 1, rows.shape[1:], rows.dtype)
        at_once = len(times) == self.count and len(set(times)) == 1
        for name, rows in parts.items():
            if at_once:
                self._held[name][times[0]] = rows
            else:
                self._held[name][times, decided.slots] = rows.to(self.device)
        for slot in decided.slots:
            self._counts[slot] += 1

    def take(self) -> dict[str, Any]:
        """Return all decisions, and forget them.

        Returns:
            See `robopol.algos.on_policy.OnPolicy`: what is usual in a batch (``obs``, ``action``, ``next_obs``), and
            ``trace``, ``length``, ``reward``, ``terminated``, ``truncated`` and ``order``. The tensors are valid until
            the next decision is told.
        """
        longest = max(self._counts)
        counts = torch.tensor(self._counts)
        made = torch.arange(longest)[:, None] < counts
        order = torch.where(made, made.flatten().cumsum(0).view_as(made) - 1, -1)
        whole = bool(made.all())
        batch: dict[str, Any] = {"order": order, **{group: {} for group in _NAMED}}
        for name, held in self._held.items():
            rows = held[:longest].flatten(0, 1) if whole else held[:longest][made.to(self.device)]
            group, _, key = name.partition(".")
            if key:
                batch[group][key] = rows
            else:
                batch[group] = rows
        self._counts = [0] * self.count
        return batch

    def state(self) -> dict[str, Tensor]:
        """Return the decisions so far."""
        longest = max(self._counts)
        held = {f"held.{name}": rows[:longest] for name, rows in self._held.items()} if longest else {}
        return {"counts": torch.tensor(self._counts)} | held

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""
        held = {name.removeprefix("held."): rows for name, rows in state.items() if name != "counts"}
        self._counts = state["counts"].tolist()
        self._held = {}
        for name, rows in held.items():
            self._make_room(name, len(rows), rows.shape[2:], rows.dtype)
            self._held[name][: len(rows)] = rows.to(self.device)

    def _make_room(self, name: str, steps: int, shape: Sequence[int], dtype: torch.dtype) -> None:
        """Make room for so many decisions in each environment, or more."""
        there = self._held.get(name)
        length = 0 if there is None else len(there)
        if length < steps:
            size = (max(steps, 2 * length, 16) - length, self.count, *shape)
            more = torch.zeros(size, dtype=dtype, device=self.device)
            self._held[name] = more if there is None else torch.cat([there, more])
