"""Recorded episodes: one contiguous tensor a column, plus where each episode begins and how it ended.

One row is one transition: the observation before the step, the action, and what the step returned. Three
things that datasets like to merge stay apart: ``terminated`` (the task ended because of the state, so nothing
follows), ``truncated`` (time or the recording ran out, so something would have followed) and the end of an
episode, which is only a bound. The true observation after the last step is kept, once per episode.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field, JsonValue
from torch import Tensor

from robopol.config import Config
from robopol.data.image_columns import image_column
from robopol.errors import DataError, ShapeError

_STEP_DTYPES = {
    "action": torch.float32,
    "reward": torch.float32,
    "terminated": torch.bool,
    "truncated": torch.bool,
    "source": torch.int64,
    "intervention": torch.bool,
    "states": torch.float64,
}
_EPISODE_DTYPES = {
    "starts": torch.int64,
    "lengths": torch.int64,
    "has_final": torch.bool,
    "success": torch.bool,
    "way": torch.int64,
    "seed": torch.int64,
    "model": torch.int64,
    "task": torch.int64,
}
_NAMED = {"way": "way_names", "source": "source_names", "model": "models", "task": "tasks"}
"""Column of codes -> the field of the meta that names the values; -1 stands for none."""
MERGED = ("models", "tasks", "source_names")
"""Fields of the meta that may differ between parts that are put together."""


class EpisodesMeta(Config):
    """What is true of every episode of a dataset.

    Attributes:
        env_id: The environment that was recorded, e.g. ``"robopol/Reach-v0"``; empty if unknown.
        env_options: The options it was made with.
        control_hz: Steps per second; None if unknown.
        action_space: What an action means, e.g. ``"ee_delta"``; empty if unknown.
        action_names: One name per action dimension; may be empty.
        action_low: Lower bound of each action dimension, environment units; may be empty.
        action_high: Upper bound of each action dimension, environment units; may be empty.
        way_names: Names of the values of ``Episodes.way``; may be empty.
        source_names: Names of the values of ``Episodes.source`` (who chose the action); may be empty.
        models: Simulator models (MJCF text) that ``Episodes.model`` points into.
        tasks: What was to be done, in words, that ``Episodes.task`` points into.
        env_wrappers: What the environment was wrapped in, from the inside out.
        versions: Package -> version with which the data were recorded.
        reference_returns: Return of a random and of an expert policy, if the dataset states them.
    """

    env_id: str = ""
    env_options: dict[str, JsonValue] = Field(default_factory=dict)
    control_hz: float | None = None
    action_space: str = ""
    action_names: tuple[str, ...] = ()
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    way_names: tuple[str, ...] = ()
    source_names: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    env_wrappers: tuple[dict[str, JsonValue], ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    reference_returns: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Episodes:
    """Whole episodes in columns. N rows (steps), E episodes; checked when made, never changed afterwards.

    Attributes:
        obs: Observation before each step: ``"images.<camera>"`` uint8 (N, H, W, C), any other key float32
            (N, ...).
        action: (N, A) float32, environment units.
        reward: (N,) float32, raw reward of the step.
        terminated: (N,) bool, the task ended because of the state that the step led to: do not bootstrap.
        truncated: (N,) bool, the episode was cut after the step: bootstrap from the true next observation.
        source: (N,) int64, who chose the action; index into ``meta.source_names``.
        intervention: (N,) bool, a human overruled the policy in this step.
        starts: (E,) int64, first row of each episode.
        lengths: (E,) int64, number of rows of each episode, at least 1.
        final_obs: Key -> (E, ...), the observation after the last step; zeros where ``has_final`` is False.
        has_final: (E,) bool, whether the source recorded that observation.
        success: (E,) bool, the task was solved in the episode.
        way: (E,) int64, which way of solving it was taken; index into ``meta.way_names``, -1 for none.
        seed: (E,) int64, seed of the reset; -1 if unknown.
        meta: What is true of every episode.
        states: (N, D) float64, full simulator state before each step, or None.
        model: (E,) int64, simulator model of each episode; index into ``meta.models``, -1 for none; or None.
        task: (E,) int64, what was to be done in each episode; index into ``meta.tasks``, -1 for none; or None.

    Raises:
        ShapeError: If a column has the wrong shape.
        DataError: If a column has the wrong type, holds a value that is not finite, or does not fit the
            others.
    """

    obs: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    source: Tensor
    intervention: Tensor
    starts: Tensor
    lengths: Tensor
    final_obs: dict[str, Tensor]
    has_final: Tensor
    success: Tensor
    way: Tensor
    seed: Tensor
    meta: EpisodesMeta
    states: Tensor | None = None
    model: Tensor | None = None
    task: Tensor | None = None

    def __post_init__(self) -> None:
        """Check every column and how the columns fit together."""
        if self.obs.keys() != self.final_obs.keys():
            raise DataError(
                f"obs has the keys {sorted(self.obs)} and final_obs has {sorted(self.final_obs)}; they must be the same"
            )
        self._check_layout()
        self._check_bounds()
        self._check_codes()
        self._check_finite()
        for key, final in self.final_obs.items():
            # in blocks: images of many episodes are large
            if any(bool(final[block].any()) for block in (~self.has_final).nonzero().flatten().split(256)):
                raise DataError(f"final_obs.{key} must be zero in the episodes where has_final is False")

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """Number of rows of all episodes together."""
        return len(self.action)

    @property
    def device(self) -> torch.device:
        """Where all columns live."""
        return self.action.device

    @property
    def episode_index(self) -> Tensor:
        """(N,) int64, the episode that each row belongs to."""
        return torch.repeat_interleave(self.lengths)

    def step_columns(self) -> dict[str, Tensor]:
        """Return every column with one row per step, by name (``obs.<key>`` for observations)."""
        named = {f"obs.{key}": value for key, value in self.obs.items()}
        return named | self._present(_STEP_DTYPES)

    def episode_columns(self) -> dict[str, Tensor]:
        """Return every column with one row per episode, by name (``final_obs.<key>`` for observations)."""
        named = {f"final_obs.{key}": value for key, value in self.final_obs.items()}
        return named | self._present(_EPISODE_DTYPES)

    def returns(self) -> Tensor:
        """Return the undiscounted sum of raw rewards of each episode, (E,) float64."""
        zeros = torch.zeros(len(self), dtype=torch.float64, device=self.device)
        return zeros.index_add_(0, self.episode_index, self.reward.double())

    def returns_to_go(self, discount: float) -> Tensor:
        """Return the discounted sum of raw rewards from each step to the end of its episode, (N,) float64."""
        togo = self.reward.double()
        ends = self.starts + self.lengths
        for back in range(2, int(self.lengths.max()) + 1 if len(self) else 0):
            rows = (ends - back)[self.lengths >= back]
            togo[rows] += discount * togo[rows + 1]
        return togo

    def return_bounds(self, discount: float) -> Tensor:
        """Return what the discounted sum of raw rewards from each step on is at least, (N,) float64.

        That of `returns_to_go` where an episode terminates. Where it was cut off, it goes on for ever with the lowest
        reward of all episodes, so that -1 a step without success gives -1 / (1 - discount) throughout.
        """
        ends = self.starts + self.lengths
        left = ends[self.episode_index] - torch.arange(self.num_steps, device=self.device)
        lowest = self.reward.min().double()
        forever = lowest / (1 - discount) if discount < 1 else lowest.sign() * torch.inf
        forever = torch.where(lowest == 0, 0.0, forever)  # also for a discount of 1
        cut = ~self.terminated[ends - 1][self.episode_index]
        return self.returns_to_go(discount) + torch.where(cut, discount ** left.double() * forever, 0.0)

    def next_obs(self, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the observation that followed each row, never one of another episode.

        Args:
            rows: (B,) int64, rows in [0, N).

        Returns:
            Key -> (B, ...), and a (B,) bool mask that is False where the source did not record the
            successor (the observation is zeros there).
        """
        episode = torch.searchsorted(self.starts, rows, right=True) - 1
        last = rows + 1 == self.starts[episode] + self.lengths[episode]
        following = (rows + 1).clamp_(max=self.num_steps - 1)
        found = {}
        for key, column in self.obs.items():
            at_end = last.view(-1, *[1] * (column.dim() - 1))
            found[key] = torch.where(at_end, self.final_obs[key][episode], column[following])
        return found, ~last | self.has_final[episode]

    def without_images(self) -> "Episodes":
        """Return the same episodes with low-dim observations only; the columns are shared."""
        obs, final_obs = (
            {key: column for key, column in part.items() if not is_image(key)} for part in (self.obs, self.final_obs)
        )
        return replace(self, obs=obs, final_obs=final_obs)

    def select(self, indices: Tensor | Sequence[int]) -> "Episodes":
        """Return some episodes, in the order asked for.

        Args:
            indices: (K,) episodes in [0, E); repeats are allowed.

        Raises:
            DataError: If there is no such episode.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self):
            raise DataError(f"episodes {chosen.tolist()} were asked for; there are {len(self)} (from 0)")
        lengths = self.lengths[chosen]
        starts = lengths.cumsum(0) - lengths
        rows = torch.arange(int(lengths.sum()), device=self.device)
        rows += torch.repeat_interleave(self.starts[chosen] - starts, lengths)
        return self._map(lambda column: column[rows], lambda column: column[chosen], starts=starts)

    def split(self, fraction: float, seed: int) -> tuple["Episodes", "Episodes"]:
        """Split by episode into training and validation; the same seed gives the same split.

        Args:
            fraction: Share of the episodes that goes to validation, in [0, 1). If it is above 0 and there
                are two episodes, both parts get at least one.
            seed: Of the permutation that decides.

        Returns:
            Training and validation episodes, each in their original order.

        Raises:
            DataError: If the fraction is out of range.
        """
        training, validation = self.split_indices(fraction, seed)
        return self.select(training), self.select(validation)

    def split_indices(self, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
        """Return the episodes that `split` puts into each part, ascending."""
        return split_indices(len(self), fraction, seed)

    def to(self, device: torch.device | str) -> "Episodes":
        """Return the episodes with every column on a device."""
        return self._map(lambda column: column.to(device), lambda column: column.to(device))

    def equal(self, other: "Episodes") -> bool:
        """Return whether both hold exactly the same columns, bit for bit, and the same meta."""
        mine = self.step_columns() | self.episode_columns()
        theirs = other.step_columns() | other.episode_columns()
        return (
            self.meta == other.meta
            and mine.keys() == theirs.keys()
            and all(torch.equal(column, theirs[name]) for name, column in mine.items())
        )

    def fingerprint(self) -> str:
        """Return what tells these episodes from others: a SHA-256 of their columns, of images of their shapes alone."""
        digest = hashlib.sha256()
        for name, column in sorted((self.step_columns() | self.episode_columns()).items()):
            digest.update(f"{name} {column.dtype} {tuple(column.shape)}".encode())
            if not is_image(name.removeprefix("final_").removeprefix("obs.")):
                digest.update(column.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    @staticmethod
    def concat(parts: Sequence["Episodes"], meta: EpisodesMeta | None = None) -> "Episodes":
        """Put episodes one after the other.

        Args:
            parts: At least one, all with the same columns.
            meta: What is true of all of them; needed only if their own metas differ (in more than the
                simulator models, the tasks and the sources, which are merged).

        Raises:
            ShapeError: If a column has different shapes.
            DataError: If there are no parts, or their columns or metas differ.
        """
        if not parts:
            raise DataError("there are no episodes to put together")
        first = parts[0]
        columns = [part.step_columns() | part.episode_columns() for part in parts]
        for position, other in enumerate(columns):
            if other.keys() != columns[0].keys():
                odd = sorted(other.keys() ^ columns[0].keys())
                raise DataError(f"parts 0 and {position} do not have the same columns: {', '.join(odd)}")
            for name, column in other.items():
                if column.shape[1:] != columns[0][name].shape[1:]:
                    raise ShapeError(
                        f"column {name} is {tuple(columns[0][name].shape)} in part 0 and "
                        f"{tuple(column.shape)} in part {position}; all but the first axis must agree"
                    )
            differing = _differing(first.meta, parts[position].meta)
            if meta is None and differing:
                raise DataError(
                    f"parts 0 and {position} differ in meta ({', '.join(differing)}); "
                    "pass meta= to say what is true of all of them"
                )
        merged = {name: _joined([column[name] for column in columns]) for name in columns[0]}
        merged["starts"] = merged["lengths"].cumsum(0) - merged["lengths"]
        joined = {field: tuple(dict.fromkeys(n for p in parts for n in getattr(p.meta, field))) for field in MERGED}
        for code, field in _NAMED.items():
            if joined.get(field) and code in merged:
                merged[code] = torch.cat([_renumber(part, code, joined[field]) for part in parts])
        return first._with(merged, (meta or first.meta).model_copy(update=joined))

    def _present(self, names: dict[str, torch.dtype]) -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in names}
        return {name: column for name, column in found.items() if column is not None}

    def _with(self, columns: dict[str, Tensor], meta: EpisodesMeta) -> "Episodes":
        """Make episodes from named columns, the reverse of ``step_columns() | episode_columns()``."""
        plain = {name: column for name, column in columns.items() if "." not in name}
        obs = {key: columns[f"obs.{key}"] for key in self.obs}
        final_obs = {key: columns[f"final_obs.{key}"] for key in self.obs}
        return replace(self, obs=obs, final_obs=final_obs, meta=meta, **plain)

    def _map(
        self, step: Callable[[Tensor], Tensor], episode: Callable[[Tensor], Tensor], **changed: Tensor
    ) -> "Episodes":
        steps = {name: step(column) for name, column in self.step_columns().items()}
        episodes = {name: episode(column) for name, column in self.episode_columns().items()}
        return self._with(steps | episodes | changed, self.meta)

    def _check_layout(self) -> None:
        """Type, shape, device and contiguity of every column."""
        dtypes = _STEP_DTYPES | _EPISODE_DTYPES
        wide = {"action": 2, "states": 2}
        columns = [(name, column, self.num_steps, "N") for name, column in self.step_columns().items()]
        columns += [(name, column, len(self), "E") for name, column in self.episode_columns().items()]
        for name, column, rows, letter in columns:
            key = name.partition(".")[2]
            image = is_image(key)
            dtype = dtypes.get(name, torch.uint8 if image else torch.float32)
            if column.dtype != dtype:
                raise DataError(f"column {name} is {column.dtype}; it must be {dtype}")
            fits = column.dim() == (4 if image else wide.get(name, 1)) if image or not key else column.dim() >= 2
            if not fits or len(column) != rows or 0 in column.shape[1:]:
                rest = ", H, W, C" if image else ", ..." if key else ", D" if name in wide else ","
                raise ShapeError(
                    f"column {name} has shape {tuple(column.shape)}; it must be ({letter}{rest}) "
                    f"with {letter} = {rows} and no other axis empty"
                )
            if column.device != self.device or not column.is_contiguous():
                raise DataError(
                    f"column {name} must be contiguous and on {self.device} as action is; "
                    f"it is on {column.device}" + ("" if column.is_contiguous() else ", not contiguous")
                )
        for key, column in self.obs.items():
            if self.final_obs[key].shape[1:] != column.shape[1:]:
                raise ShapeError(
                    f"column final_obs.{key} has shape {tuple(self.final_obs[key].shape)}; "
                    f"it must be (E, *{tuple(column.shape[1:])}) as obs.{key} is"
                )

    def _check_bounds(self) -> None:
        """Episodes lie one after the other and cover all rows."""
        ends = self.lengths.cumsum(0)
        total = int(ends[-1]) if len(self) else 0
        if total != self.num_steps or bool((self.lengths < 1).any() | (self.starts != ends - self.lengths).any()):
            raise DataError(
                f"the bounds must cover all {self.num_steps} rows without gap or overlap, each episode "
                f"at least one row: starts {_few(self.starts)}, lengths {_few(self.lengths)} (sum {total})"
            )

    def _check_codes(self) -> None:
        """Codes point into the names that meta gives them."""
        for name, field in _NAMED.items():
            column, names = getattr(self, name), getattr(self.meta, field)
            if column is None or not len(column):
                continue
            # Ways and sources may be numbered without names; a model or a task is nothing but its text.
            if (names or field in ("models", "tasks")) and not -1 <= int(column.min()) <= int(column.max()) < len(
                names
            ):
                raise DataError(
                    f"column {name} goes from {int(column.min())} to {int(column.max())}; "
                    f"meta.{field} has {len(names)} entries" + "".join(f", {name[:40]}" for name in names)
                )

    def _check_finite(self) -> None:
        """No float column holds NaN or infinity."""
        for name, column in (self.step_columns() | self.episode_columns()).items():
            # The sum is finite only if all terms are; a sum that overflows is looked at more closely.
            if not column.is_floating_point() or bool(column.sum(dtype=torch.float64).isfinite()):
                continue
            bad = (~column.isfinite()).flatten(1 if column.dim() > 1 else 0)
            bad_rows = (bad.any(1) if bad.dim() > 1 else bad).nonzero()
            if len(bad_rows):
                row = int(bad_rows[0])
                episode = row
                if not name.startswith("final_obs."):
                    episode = int(torch.searchsorted(self.starts, row, right=True)) - 1
                    row -= int(self.starts[episode])
                where = "" if name.startswith("final_obs.") else f", row {row}"
                raise DataError(f"column {name} is not finite in episode {episode}{where}; mend or drop it")


def is_image(key: str) -> bool:
    """Return whether an observation key names a camera."""
    return key.startswith("images.")


def split_indices(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split ``count`` episodes as `Episodes.split` does; return the indices of both parts, ascending."""
    if not 0 <= fraction < 1:
        raise DataError(f"the validation fraction must be in [0, 1), got {fraction}")
    held_out = round(fraction * count)
    if fraction > 0:
        held_out = max(min(1, count - 1), min(held_out, count - 1))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:].sort().values, order[:held_out].sort().values


def _joined(parts: list[Tensor]) -> Tensor:
    """Put the same column of several parts together; images where the reader of a dataset would put them."""
    if parts[0].dtype != torch.uint8 or parts[0].device.type != "cpu":
        return torch.cat(parts)
    return torch.cat(parts, out=image_column((sum(map(len, parts)), *parts[0].shape[1:])))


def _differing(one: EpisodesMeta, other: EpisodesMeta) -> list[str]:
    differing = [name for name in EpisodesMeta.model_fields if getattr(one, name) != getattr(other, name)]
    # sources without names cannot be told apart from others that have some
    nameless = not (one.source_names and other.source_names)
    return [name for name in differing if name not in MERGED or (name == "source_names" and nameless)]


def _renumber(part: Episodes, column: str, names: tuple[str, ...]) -> Tensor:
    """Point a part's column of codes into a merged table of names."""
    # The extra last entry is what -1 (none) stays.
    table = torch.tensor([*map(names.index, getattr(part.meta, _NAMED[column])), -1], device=part.device)
    codes: Tensor = getattr(part, column)
    return table[codes]


def _few(column: Tensor) -> str:
    values = column[:6].tolist()
    return f"{values}" if len(column) <= 6 else f"{values[:-1]}... ({len(column)})"
