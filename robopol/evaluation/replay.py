"""Replays recorded episodes in a world, and says how far it goes another way.

Open loop (``actions``): reset with the recorded seed, then take the recorded actions; small differences add up.
Step by step (``states``): restore a recorded simulator state, compare the observation there, take the recorded
action and compare where it leads; every step starts from the record again, in the recorded model where the world loads
it. Not every world goes on from a restored state as it did before: `robopol.evaluation.restart` measures that first, on
the world itself.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from robopol.config import Config
from robopol.data import Episodes
from robopol.data.episodes import is_image
from robopol.envs import VectorEnv
from robopol.errors import EnvError
from robopol.progress import progress

Mode = Literal["states", "actions"]

_DIVERGED = 1e30  # deviation of a number that is not finite
_MEASURED = 100_000  # rows that the units come from, about


class Drift(Config):
    """How far the replay of one episode was from its record.

    Observations and rewards are compared in standard deviations of their column over the dataset, but at least
    in thousandths of its greatest magnitude; images in shares of 255, on average over their pixels.

    Attributes:
        episode: Which one.
        seed: What it was reset with; -1 if unknown.
        steps: Steps that were compared.
        start_max: Greatest deviation of an observation that was reset or restored; None if that is not compared.
        next_max: Greatest deviation of an observation after a step.
        next_mean: Mean of the deviations of all columns after all steps.
        worst: The column with the greatest deviation and the step of the episode, e.g. ``obs.state[3] at step 12``;
            empty if there is none.
        reward_max: Greatest deviation of a reward.
        flags: Steps whose terminated or truncated is not as recorded.
        success: Whether the success is as recorded; None if the last step was not replayed. States that others
            recorded say nothing of the time that has passed or of earlier successes: where they are restored,
            truncated and success are not compared.
    """

    episode: int
    seed: int
    steps: int
    start_max: float | None
    next_max: float
    next_mean: float
    worst: str
    reward_max: float
    flags: int
    success: bool | None

    def within(self, tolerance: float) -> bool:
        """Return whether the replay agrees with the record up to a deviation."""
        agrees = self.flags == 0 and self.success is not False
        return agrees and max(self.start_max or 0.0, self.next_max, self.reward_max) <= tolerance


def why_not(mode: Mode, episodes: Episodes, env: VectorEnv) -> str | None:
    """Say why the episodes cannot be replayed like that; None if they can."""
    spec = env.spec
    if episodes.action.shape[1] != len(spec.action_low):
        return f"the file has {episodes.action.shape[1]} action entries, {spec.id} takes {len(spec.action_low)}"
    if not _shared(episodes, env):
        return f"no observation of the file is one of {spec.id}"
    if mode == "actions":
        return None if bool((episodes.seed >= 0).any()) else "the file has no seeds to reset with"
    if episodes.states is None:
        return "the file has no simulator states"
    try:
        env.reset([0], [max(0, int(episodes.seed[0]))])
        first, second = (env.restore_state(0, episodes.states[0]) for _ in range(2))
    except EnvError as error:
        return str(error)
    if any(not torch.equal(first[key], second[key]) for key in first):
        return f"{spec.id} adds fresh noise to what it observes after a state is restored"
    return None


def replay(
    episodes: Episodes,
    env: VectorEnv,
    mode: Mode,
    indices: Sequence[int],
    steps: int | None = None,
    *,
    compare_start: bool = True,
    own: Tensor | None = None,
) -> list[Drift]:
    """Replay episodes.

    Args:
        episodes: The dataset, on the CPU; `why_not` has nothing against it.
        env: Where; its slot 0 is used.
        mode: ``"states"`` or ``"actions"``; episodes without a seed are left out of ``"actions"``.
        indices: Which episodes.
        steps: How many steps of an episode at most, evenly spaced, first and last included (``"states"`` only:
            an open loop takes every step); None takes all.
        compare_start: Also compare what is observed after a reset or a restore; see `robopol.evaluation.restart`.
        own: (D + 1,) float64, how far the world is from itself in each column and in the reward a step after a restore.
            That much of a deviation does not count; infinity: the column is not compared.

    Returns:
        One drift per episode replayed.
    """
    units, states = Units(episodes, env), episodes.states
    own = torch.zeros(len(units.names) + 1, dtype=torch.float64) if own is None else own
    chosen = [index for index in indices if mode == "states" or int(episodes.seed[index]) >= 0]
    found = []
    with progress("replay", len(chosen), "episodes") as report:
        for done, index in enumerate(chosen):
            tally = _Tally(episodes, env, units, index, compare_start, own)
            if mode == "actions" or states is None:
                _open_loop(tally)
            else:
                _step_by_step(tally, states, steps)
            found.append(tally.drift())
            report(done + 1)
    return found


def spaced(total: int, count: int | None) -> list[int]:
    """Return at most ``count`` of ``total`` positions, evenly spaced, first and last included; None: all."""
    if count is None or total <= count:
        return list(range(total))
    return torch.linspace(0, total - 1, count).round().long().tolist()


def _open_loop(tally: "_Tally") -> None:
    tally.begins(tally.rows[0], tally.env.reset([0], [tally.seed]))
    for row in tally.rows:
        if tally.steps(row):
            return  # over here, even if the record goes on


def _step_by_step(tally: "_Tally", states: Tensor, steps: int | None) -> None:
    over = True
    for position in spaced(len(tally.rows), steps):
        row = tally.rows[position]
        if over:
            tally.env.reset([0], [max(0, tally.seed)])
            tally.load_model()
        tally.begins(row, tally.env.restore_state(0, states[row]))
        own = tally.env.save_state(0)
        over = tally.steps(row, timed=own is not None and own.shape == states[row].shape)


class Units:
    """What observations and rewards are measured in.

    Attributes:
        keys: Observations that are both in the dataset and in the world.
        names: A name for each column of a deviation.
    """

    def __init__(self, episodes: Episodes, env: VectorEnv) -> None:
        """Take the units from the dataset."""
        self.keys = _shared(episodes, env)
        self._obs = {key: _unit(episodes.obs[key]) for key in self.keys}
        self.reward = float(_unit(episodes.reward[:, None]))
        self.names: list[str] = []
        for key, unit in self._obs.items():
            self.names += [f"obs.{key}"] if is_image(key) else [f"obs.{key}[{i}]" for i in range(len(unit))]

    def deviation(self, found: dict[str, Tensor], recorded: dict[str, Tensor]) -> Tensor:
        """Return how far observations, key -> (1, ...), are from recorded ones, one number a column, float64."""
        columns = []
        for key, unit in self._obs.items():
            off = (found[key].double() - recorded[key].double()).abs().flatten() / unit
            columns.append(off.mean()[None] if is_image(key) else off)  # other drivers draw edges otherwise
        return torch.cat(columns).nan_to_num(nan=_DIVERGED, posinf=_DIVERGED)


class _Tally:
    """Counts the deviations of one episode.

    Attributes:
        env: Where it is replayed.
        rows: Its rows.
        seed: Its seed.
    """

    def __init__(
        self, episodes: Episodes, env: VectorEnv, units: Units, index: int, compare_start: bool, own: Tensor
    ) -> None:
        start = int(episodes.starts[index])
        self.env, self.seed = env, int(episodes.seed[index])
        self.rows = range(start, start + int(episodes.lengths[index]))
        self._episodes, self._units, self._index = episodes, units, index
        self._compare_start, self._own = compare_start, own
        self._count = self._flags = self._compared = 0
        self._start = self._next = self._sum = self._reward = 0.0
        self._worst = ""
        self._success: bool | None = None

    def load_model(self) -> None:
        """Go on in the model that the episode was recorded in, where the world has another one and can."""
        meta, model = self._episodes.meta, self._episodes.model
        index = -1 if model is None else int(model[self._index])
        if index >= 0 and self.env.loads_models and meta.models[index] != self.env.model:
            self.env.load_model(0, meta.models[index])

    def begins(self, row: int, obs: dict[str, Tensor]) -> None:
        """Compare the observation before a row."""
        if self._compare_start:
            recorded = {key: self._episodes.obs[key][[row]] for key in self._units.keys}
            self._start = max(self._start, self._greatest(self._units.deviation(obs, recorded), row))

    def steps(self, row: int, timed: bool = True) -> bool:
        """Take the action of a row, compare what comes of it, and return whether the episode is over here.

        Args:
            row: The row.
            timed: The world knows what happened in the episode before.
        """
        episodes = self._episodes
        result = self.env.step([0], episodes.action[[row]])
        following, known = episodes.next_obs(torch.tensor([row]))
        if bool(known):
            off = (self._units.deviation(result.obs, following) - self._own[:-1]).clamp(min=0)
            self._next, self._sum = max(self._next, self._greatest(off, row)), self._sum + float(off.mean())
            self._compared += 1
        reward = abs(float(result.reward) - float(episodes.reward[row])) / self._units.reward
        reward = max(0.0, reward - float(self._own[-1]))
        self._reward = max(self._reward, reward if reward < _DIVERGED else _DIVERGED)
        flags = bool(result.terminated) != bool(episodes.terminated[row])
        flags |= timed and bool(result.truncated) != bool(episodes.truncated[row])
        self._flags += flags
        if timed and row == self.rows[-1]:
            self._success = bool(result.success) == bool(episodes.success[self._index])
        self._count += 1
        return bool(result.terminated | result.truncated)

    def drift(self) -> Drift:
        """Return what was counted."""
        return Drift(
            episode=self._index,
            seed=self.seed,
            steps=self._count,
            start_max=self._start if self._compare_start else None,
            next_max=self._next,
            next_mean=self._sum / max(1, self._compared),
            worst=self._worst,
            reward_max=self._reward,
            flags=self._flags,
            success=self._success,
        )

    def _greatest(self, off: Tensor, row: int) -> float:
        """Return the greatest of some deviations, and remember where it was if there was none as great before."""
        greatest = float(off.max())
        if greatest > max(self._start, self._next):
            self._worst = f"{self._units.names[int(off.argmax())]} at step {row - self.rows[0]}"
        return greatest


def _shared(episodes: Episodes, env: VectorEnv) -> list[str]:
    """Return the observations that are both in the dataset and in the world."""
    shapes = {key: tuple(shape) for key, shape in env.spec.obs_shapes.items()}
    return [key for key, column in episodes.obs.items() if tuple(column.shape[1:]) == shapes.get(key)]


def _unit(column: Tensor) -> Tensor:
    """Return what a column is measured in, (D,) float64; (1,) for images."""
    if column.dtype == torch.uint8:
        return torch.tensor([255.0], dtype=torch.float64)
    flat = column[:: max(1, len(column) // _MEASURED)].flatten(1).double()
    # A column that hardly moves would make rounding look large.
    unit = flat.std(0, correction=0).maximum(1e-3 * flat.abs().amax(0))
    return torch.where(unit > 0, unit, 1.0)
