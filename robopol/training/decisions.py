"""Decisions under way: of every running episode, the chunk that is being executed and what came of it so far."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from robopol.algos.algorithm import Explored
from robopol.errors import ShapeError


class Decided(NamedTuple):
    """Decisions that came to an end, one row each.

    The tensors may be written to as soon as whoever was told returns.

    Attributes:
        slots: The environments they were made in.
        obs: Histories in which they were made, key -> (n, To, ...).
        action: (n, h, A), what the world was given, within its bounds; the actions after the first `length` were not.
        length: (n,) int64, actions that were executed, at least 1: fewer than h if the episode ended before.
        trace: What the algorithm left with each choice, name -> (n, ...).
        reward: (n, h), of each action; 0 for those that were not executed.
        terminated: (n,) bool, the last of them ended the task: do not bootstrap.
        truncated: (n,) bool, after the last of them the episode was cut: bootstrap from `next_obs`.
        next_obs: Histories that they led to, key -> (n, To, ...): the true ones, not those after a reset.
    """

    slots: list[int]
    obs: Mapping[str, Tensor]
    action: Tensor
    length: Tensor
    trace: Mapping[str, Tensor]
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    next_obs: Mapping[str, Tensor]


Told = Callable[[Decided], None]
"""Is told of decisions as they come to an end."""


class Decisions:
    """The decisions under way in all environments, at most one in each."""

    def __init__(self, count: int) -> None:
        """Begin without any.

        Args:
            count: Environments, N.
        """
        self._all = list(range(count))
        self._running = [False] * count
        self._done = torch.zeros(count, dtype=torch.int64)
        self._action, self._reward = torch.empty(0), torch.empty(0)
        self._trace: dict[str, Tensor] = {}
        self._obs: dict[str, Tensor] = {}

    @property
    def idle(self) -> list[int]:
        """The environments without a decision under way."""
        return [slot for slot in self._all if not self._running[slot]]

    def begin(self, slots: list[int], explored: Explored, obs: Mapping[str, Tensor]) -> None:
        """Take up new decisions; those of all environments are kept without being copied.

        Args:
            slots: Idle environments.
            explored: What was chosen there, its actions within the bounds.
            obs: Histories in which it was, key -> (n, To, ...); nothing if nobody will ask.

        Raises:
            ShapeError: If there is not one choice for each, or they are of another length than those under way.
        """
        action, count = explored.action, len(slots)
        if action.dim() != 3 or len(action) != count or any(len(rows) != count for rows in explored.trace.values()):
            raise ShapeError(
                f"an algorithm chose actions {tuple(action.shape)} and traces "
                f"{ {name: tuple(rows.shape) for name, rows in explored.trace.items()} } for {count} episodes: needed "
                f"({count}, h, A) and ({count}, ...)"
            )
        if slots == self._all:
            self._action, self._trace, self._obs = action, dict(explored.trace), dict(obs)
            self._done.zero_()
            self._reward = torch.zeros(action.shape[:2])
        else:
            self._write(slots, action, explored.trace, obs)
            self._done[slots] = 0
            self._reward[slots] = 0.0
        for slot in slots:
            self._running[slot] = True

    def _write(self, slots: list[int], action: Tensor, trace: Mapping[str, Tensor], obs: Mapping[str, Tensor]) -> None:
        """Write some rows, of the same shapes as the others."""
        pairs = [(self._action, action), *((self._trace[k], v) for k, v in trace.items())]
        for whole, rows in [*pairs, *((self._obs[k], v) for k, v in obs.items())]:
            if whole.shape[1:] != rows.shape[1:]:
                raise ShapeError(
                    f"an algorithm chose {tuple(rows.shape[1:])} for an episode where others run with "
                    f"{tuple(whole.shape[1:])}: chunks and traces have one shape, whatever is chosen"
                )
            whole[slots] = rows

    def actions(self) -> Tensor:
        """Return what is executed next in every environment, (N, A)."""
        if self._action.shape[1] == 1:
            return self._action[:, 0]
        return self._action[torch.arange(len(self._all)), self._done]

    def trace(self) -> dict[str, Tensor]:
        """Return the traces of the decisions under way, name -> (N, ...)."""
        return self._trace

    def age(self) -> Tensor:
        """Return how many actions of the decisions under way were executed, (N,) int64, not to be written to."""
        return self._done

    def advance(self, reward: Tensor, ended: Tensor) -> list[int]:
        """Take note of one step in every environment.

        Args:
            reward: (N,).
            ended: (N,) bool, whether the episode ended.

        Returns:
            The environments whose decision came to its end.
        """
        if self._action.shape[1] == 1:
            self._reward[:, 0] = reward
            self._done.fill_(1)
            closed = self._all
        else:
            self._reward[torch.arange(len(self._all)), self._done] = reward
            self._done += 1
            over = (ended | (self._done == self._action.shape[1])).tolist()
            closed = [slot for slot in self._all if over[slot]]
        for slot in closed:
            self._running[slot] = False
        return closed

    def running(self) -> list[int]:
        """Return the environments in which one is under way."""
        return [slot for slot in self._all if self._running[slot]]

    def cut(self) -> list[int]:
        """End all decisions where they stand; return their environments."""
        slots = self.running()
        for slot in slots:
            self._running[slot] = False
        return slots

    def report(
        self, slots: list[int], terminated: Tensor, truncated: Tensor, next_obs: Mapping[str, Tensor]
    ) -> Decided:
        """Tell of decisions that have just come to an end.

        Args:
            slots: Their environments.
            terminated: (N,), of all environments.
            truncated: (N,), of all.
            next_obs: Key -> (N, To, ...), of all.
        """
        every = slots == self._all

        def rows(of: Tensor) -> Tensor:
            return of if every else of[slots]

        return Decided(
            slots,
            {key: rows(of) for key, of in self._obs.items()},
            rows(self._action),
            rows(self._done),
            {name: rows(of) for name, of in self._trace.items()},
            rows(self._reward),
            rows(terminated),
            rows(truncated),
            {key: rows(of) for key, of in next_obs.items()},
        )

    def state(self) -> dict[str, Tensor]:
        """Return the decisions under way; nothing if there is none."""
        slots = self.running()
        if not slots:
            return {}
        parts = {"action": self._action, "done": self._done, "reward": self._reward}
        parts |= {f"trace.{name}": of for name, of in self._trace.items()}
        parts |= {f"obs.{key}": of for key, of in self._obs.items()}
        return {"slots": torch.tensor(slots)} | {name: of[slots] for name, of in parts.items()}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device, world: torch.device) -> None:
        """Take up what `state` returned.

        Args:
            state: The decisions.
            device: Where traces lie.
            world: Where histories do.
        """
        self._running = [False] * len(self._all)
        if not state:
            return
        slots = state["slots"].tolist()

        def whole(rows: Tensor, place: torch.device | str = "cpu") -> Tensor:
            of = torch.zeros(len(self._all), *rows.shape[1:], dtype=rows.dtype, device=place)
            of[slots] = rows.to(place)
            return of

        self._action, self._done, self._reward = (whole(state[name]) for name in ("action", "done", "reward"))
        named = {name.partition(".")[::2]: rows for name, rows in state.items()}
        self._trace = {name: whole(rows, device) for (kind, name), rows in named.items() if kind == "trace"}
        self._obs = {key: whole(rows, world) for (kind, key), rows in named.items() if kind == "obs"}
        for slot in slots:
            self._running[slot] = True
