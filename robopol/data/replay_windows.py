"""Windows of a replay: the same stretches of time that `robopol.data.windows` cuts from episodes."""

from typing import Any

import torch
from torch import Tensor

from robopol.data.replay import ReplayBuffer
from robopol.data.windows import Transition
from robopol.errors import ConfigError

AGE = "age"
"""Name of the trace that says how many steps before a transition its decision was made, ()."""


class ReplayWindows:
    """Windows of what N environments have met, whose transitions were added in turn.

    The transition after the k-th one of an environment is the (k + N)-th. A window ends with its episode, and begins
    with it; beyond, its first or last step is repeated, and masked.
    """

    def __init__(
        self,
        buffer: ReplayBuffer,
        num_envs: int,
        n_obs_steps: int,
        horizon: int,
        transition: Transition,
        decisions: bool = False,
    ) -> None:
        """Cut from a buffer.

        Args:
            buffer: Where every environment adds a transition in each step.
            num_envs: N.
            n_obs_steps: To, observations of a window.
            horizon: Tp, its actions.
            transition: What a batch tells of the next actions; its rewards are those of at most Tp - To + 1 steps.
            decisions: Whether "now" is always when a decision was made, of at most as many actions, and the next
                actions are its own; the buffer keeps `AGE`.

        Raises:
            ConfigError: If the buffer is too small for a decision and what comes before and after it, or a decision is
                to be worth more than its own steps earn.
        """
        if decisions and transition.returned is not None:
            raise ConfigError(
                "what is judged here are decisions, each by what its own steps earn: leave model.return_steps out"
            )
        needed = (horizon + transition.steps - 1) * num_envs
        if decisions and buffer.capacity < needed:
            raise ConfigError(
                f"a replay of {buffer.capacity} transitions is too small for decisions of {transition.steps} actions "
                f"in {num_envs} environments: set collection.capacity={needed} or more"
            )
        self.decisions = decisions
        self.buffer, self.num_envs, self.transition = buffer, num_envs, transition
        self.past, self.horizon = n_obs_steps - 1, horizon

    def draw(self, batch_size: int, step: int, seed: int) -> Tensor:
        """Return which transitions are "now" in a batch, (B,) int64, counted from the first that was ever added.

        Those of the last steps wait until what comes next is known, as long as there are others; and where the
        oldest were overwritten, those whose history is lost are left out. Of decisions, one is drawn the more often
        the longer it lasted.

        Args:
            batch_size: B.
            step: As for `ReplayBuffer.sample`.
            seed: As there.
        """
        added, oldest = self.buffer.added, self.buffer.added - len(self.buffer)
        before = self.past + (self.transition.steps - 1 if self.decisions else 0)
        first = oldest + before * self.num_envs * (oldest > 0)
        last = added - (self.horizon - self.past - 1) * self.num_envs
        first, last = (first, last) if first < last else (oldest, added)
        now = first + self.buffer.draw(batch_size, last - first, step, seed)
        return now - self.buffer.rows(now)["trace"][AGE].long() * self.num_envs if self.decisions else now

    def gather(self, now: Tensor) -> dict[str, Any]:
        """Return a batch of windows, as `Windows.gather` does, and ``trace``, what was kept of who acted.

        Args:
            now: (B,) int64, see `draw`.
        """
        offset = torch.arange(-self.past, self.horizon - self.past, device=now.device)
        mask, ended = self._within(now[:, None] + offset * self.num_envs)
        begin = self.past - mask[:, : self.past].sum(1)  # (B,) index of the first step of the window that there is
        end = self.past + mask[:, self.past :].sum(1) - 1
        index = torch.arange(self.horizon, device=now.device).clamp(begin[:, None], end[:, None])  # (B, Tp)
        rows = self.buffer.rows(now[:, None] + (index - self.past) * self.num_envs)
        taken = mask[:, self.past :][:, : self.transition.reach]  # (B, h)
        if self.decisions:  # one that was cut short is followed by another in the same episode
            age = rows["trace"][AGE][:, self.past :][:, : taken.shape[1]]
            taken = taken & (age == torch.arange(taken.shape[1], device=age.device))
        count = taken.sum(1)
        powers = torch.tensor(self.transition.powers(taken.shape[1]), device=now.device)
        rewards = rows["reward"][:, self.past :][:, : taken.shape[1]]
        terminated = (ended[:, self.past :][:, : taken.shape[1]] * taken).any(1)
        obs = {key: column[:, : self.past + 1] for key, column in rows["obs"].items()}
        return {
            "obs": obs,
            "action": rows["action"],
            "mask": mask,
            "weight": torch.ones(len(now), device=now.device),
            "reward": (rewards * powers * taken).sum(1),
            "discount": self.transition.after(count).float() * ~terminated,
            "next_obs": {key: self._after(obs[key], rows["next_obs"][key], begin, count) for key in obs},
            "next_mask": torch.ones(len(now), dtype=torch.bool, device=now.device),
            "trace": {name: column[:, self.past] for name, column in rows["trace"].items()},
        }

    def _within(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Say which of the steps (B, Tp) belong to the window's episode, and which of them terminated it."""
        there = (steps < self.buffer.added) & (steps >= self.buffer.added - len(self.buffer))
        terminated, truncated = self.buffer.flags(steps)
        over = (terminated | truncated) & there
        behind = over[:, : self.past].flip(1).cumsum(1).flip(1) == 0
        ahead = torch.cat([torch.zeros_like(over[:, :1]), over[:, self.past : -1]], 1).cumsum(1) == 0
        return there & torch.cat([behind, ahead], 1), terminated

    def _after(self, obs: Tensor, following: Tensor, begin: Tensor, count: Tensor) -> Tensor:
        """Return the histories (B, To, ...) after ``count`` actions, of observations and of those that followed."""
        index = count[:, None] - 1 + torch.arange(self.past + 1, device=count.device)  # (B, To)
        known = index >= begin[:, None]  # before, the episode's first observation is repeated
        rows = torch.arange(len(count), device=count.device)[:, None]
        later = following[rows, index.clamp(max=self.horizon - 1)]
        return torch.where(known.view(*known.shape, *[1] * (later.dim() - 2)), later, obs[:, :1])
