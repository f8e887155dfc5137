"""Goals for data without goals: what an episode reaches later is what it was for (Andrychowicz et al. 2017, HER)."""

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robopol.data.draws import batch_indices, uniform_numbers
from robopol.data.episodes import Episodes, is_image
from robopol.data.sampling import Sampling, SamplingConfig
from robopol.errors import ConfigError, DataError
from robopol.registry import nearest

if TYPE_CHECKING:
    from robopol.data.windows import Batch, Windows

_WAYS = ("geometric", "uniform", "final", "random", "recorded")
_RETURNS = ("rewards", "return_to_go", "return_bound")
"""What a batch says of rewards beyond its transition; these were earned on the way to the recorded goal."""


class HindsightConfig(SamplingConfig):
    """Every window once an epoch, with a goal ``obs["goal"]`` that the same episode reaches after the newest step.

    Where a batch holds the plan of a window, the goal is that of every step of it. Where it holds a transition, what
    that earns is told in hindsight, too: a step earns 0 if its successor is where the goal was taken from, which ends
    the transition and terminates it, and -1 else (Andrychowicz et al. 2017; as in OGBench). Recorded rewards,
    terminations and ``reward.*`` do not count then, for they are of the recorded goals. Returns of whole episodes are
    refused, and recorded goals beside others where there are transitions; that other sources earn -1 and 0, too, is up
    to whoever puts them beside this one.

    The shares say how often a goal is chosen in which way; they are relative (OGBench, Park et al. 2025; HER).

    Attributes:
        of: Low-dim observation that says what is reached at a step, e.g. ``achieved_goal`` or ``state``.
        geometric: Share of goals k steps ahead, k from 1 with probability (1 - gamma) gamma^(k-1); beyond the last
            step of the episode, the last.
        gamma: Of the geometric distribution.
        uniform: Share of goals from any later step of the episode, all equally likely.
        final: Share of goals from the last step of the episode.
        random: Share of goals from any window of the source, mostly of other episodes.
        recorded: Share of goals as they were recorded, if the data have an observation ``goal``.
    """

    kind: Literal["hindsight"] = "hindsight"
    of: str = "achieved_goal"
    geometric: float = Field(1.0, ge=0)
    gamma: float = Field(0.99, gt=0, lt=1)
    uniform: float = Field(0.0, ge=0)
    final: float = Field(0.0, ge=0)
    random: float = Field(0.0, ge=0)
    recorded: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if not sum(self.shares()) > 0:
            raise ValueError(f"one of the shares {', '.join(_WAYS)} must be above 0")
        return self

    def shares(self) -> list[float]:
        """Return the shares of the ways, in the order geometric, uniform, final, random, recorded."""
        return [getattr(self, way) for way in _WAYS]

    def observed(self, episodes: Episodes) -> Episodes:
        """Return the episodes with ``obs["goal"]``: as recorded if some of these are used, else what was reached.

        Raises:
            DataError: If there is no such observation, or it does not look like the recorded goals.
        """
        low_dim = {key: column for key, column in episodes.obs.items() if not is_image(key)}
        if self.of not in low_dim:
            raise DataError(
                f"hindsight goals are read from the low-dim observation '{self.of}'{nearest(self.of, low_dim)}; "
                f"the data have {', '.join(low_dim)}: set sampling.of"
            )
        if self.recorded > 0:
            reached, goal = low_dim[self.of], low_dim.get("goal")
            if goal is None or goal.shape != reached.shape:
                raise DataError(
                    f"sampling.recorded is {self.recorded}, but the data have "
                    + (
                        "no goal"
                        if goal is None
                        else f"goals of {tuple(goal.shape[1:])}, not {tuple(reached.shape[1:])}"
                    )
                )
            return episodes
        obs, final_obs = ({**part, "goal": part[self.of]} for part in (episodes.obs, episodes.final_obs))
        return replace(episodes, obs=obs, final_obs=final_obs)

    def check(self, entries: Collection[str]) -> None:
        """See `SamplingConfig.check`; refuses returns that were for other goals, and rewards of two kinds of goals."""
        if sum(self.shares()) == self.recorded:
            return
        untrue = [name for name in _RETURNS if name in entries]
        if untrue:
            raise ConfigError(
                f"what is trained reads {' and '.join(untrue)}, which are for the recorded goals, and this sampling "
                "draws others in hindsight: choose another kind of sampling, draw recorded goals only (recorded=1 "
                "geometric=0), or train what does not learn from returns"
            )
        if "reward" in entries and self.recorded > 0:
            raise ConfigError(
                "rewards of recorded goals are the world's, those of goals in hindsight -1 until they are reached: "
                f"draw one kind only, not recorded={self.recorded} beside others"
            )

    def build(self, windows: "Windows") -> "Hindsight":
        """See `SamplingConfig.build`."""
        return Hindsight(self, windows)


class Hindsight(Sampling):
    """See `HindsightConfig`."""

    def __init__(self, config: HindsightConfig, windows: "Windows") -> None:
        """Look up where every episode ends; see `HindsightConfig.build`."""
        config.check(windows.entries)
        super().__init__(windows)
        self._config = config
        self._until = torch.tensor(config.shares(), dtype=torch.float64).cumsum(0)
        episodes = windows.episodes
        # what was reached before every step (N, ...) and after the last step of every episode (E, ...)
        self._reached = episodes.obs[config.of].to(windows.device)
        self._finally = episodes.final_obs[config.of].to(windows.device)
        # the last time of an episode: after its last step if that was recorded
        self._last = (episodes.lengths - 1 + episodes.has_final.long()).cpu()
        self._starts, self._lengths = episodes.starts.cpu(), episodes.lengths.cpu()
        self._episode = windows.episode.cpu()
        self._now = windows.start.cpu() + windows.n_obs_steps - 1

    def batch(self, step: int, batch_size: int, seed: int) -> "Batch":
        """See `Sampling.batch`."""
        windows = batch_indices(len(self.windows), step, batch_size, seed)
        batch = self.windows.gather(windows)
        device, axes = self.windows.device, [1] * (self._reached.dim() - 1)
        episode, time, recorded = self.draw(windows, step, seed)
        beyond = time == self._lengths[episode]
        row = self._starts[episode] + time - beyond.long()
        goal = torch.where(
            beyond.to(device).view(-1, *axes),
            self._finally.index_select(0, episode.to(device)),
            self._reached.index_select(0, row.to(device)),
        )
        goal, recorded = goal[:, None], recorded.to(device).view(-1, 1, *axes)
        if "reward" in batch and self._config.recorded == 0:
            batch |= self._earned(windows, episode, time)
        for part in (batch["obs"], batch.get("plan", {}), batch.get("next_obs", {})):
            if "goal" in part:  # a policy may look at other things only
                part["goal"] = torch.where(recorded, part["goal"], goal)
        return batch

    def _earned(self, windows: Tensor, episode: Tensor, time: Tensor) -> dict[str, Tensor]:
        """Return reward and discount of the transitions of some windows, whose goals are at a time of an episode."""
        transition = self.windows.transition
        assert transition is not None
        taken, ahead = self.windows.taken(windows).cpu(), time - self._now[windows]
        reached = (episode == self._episode[windows]) & (ahead >= 1) & (ahead <= taken)
        powers = torch.tensor(transition.powers(transition.reach), dtype=torch.float64)
        paid = torch.cat([powers.new_zeros(1), powers.cumsum(0)])  # of the first so many steps
        unrewarded = torch.where(reached, ahead - 1, taken)  # steps that do not lead to the goal
        discount = torch.where(reached, 0.0, transition.after(taken))
        return {
            name: value.float().to(self.windows.device)
            for name, value in (("reward", -paid[unrewarded]), ("discount", discount))
        }

    def draw(self, windows: Tensor, step: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a goal for each of some windows, a function of the arguments alone.

        Args:
            windows: (B,) int64.
            step: Training step.
            seed: Of the source's draws.

        Returns:
            The episode and the time (0 before its first step, its length after its last one) at which each goal is
            reached, (B,) int64, and whether the recorded goal is to be used instead, (B,) bool.
        """
        way, far = uniform_numbers((2, len(windows)), step, seed, purpose=2)
        chosen = torch.searchsorted(self._until, way * self._until[-1], right=True)
        episode, now = self._episode[windows], self._now[windows]
        last = self._last[episode]
        ahead = [
            1 + (torch.log1p(-far) / torch.log(torch.tensor(self._config.gamma, dtype=torch.float64))).long(),
            1 + (far * (last - now)).long(),
            last - now,
        ]
        time = now + torch.stack(ahead).gather(0, chosen.clamp(max=2)[None])[0]
        time = torch.minimum(time, last)
        anywhere = (far * len(self._now)).long()
        is_random = chosen == 3
        episode = torch.where(is_random, self._episode[anywhere], episode)
        time = torch.where(is_random, self._now[anywhere], time)
        return episode, time, chosen == 4
