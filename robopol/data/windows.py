"""Windows of observations and actions, cut from episodes by index arithmetic.

A window holds To observations (oldest to now) and Tp actions that start at the same step as the first
observation, so action To-1 belongs to the newest observation, "now". Every step of an episode is "now" once: in an
episode of L steps the starts run from -(To-1) to L-To. Steps outside the episode repeat its first or last frame and
are masked.

Diffusion Policy (Chi et al. 2023) ends at the start L-Tp+(Ta-1), so the last Tp-Ta-To+1 steps are never "now". Where an
episode ends with its success, as in robopol's arm suite, those steps hold how a task is finished, e.g. how an object is
let go, and a policy that never saw them as "now" does not finish it (`benchmarks/window_rule.py`).

Actions and low-dim observations are copied once, every episode with its repeated steps around it. There all windows
are contiguous and a batch is one `index_select` on an overlapping view, several times faster than step by step.
Images are never copied: their frames are looked up one by one.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from robopol.data.episodes import Episodes, is_image
from robopol.errors import ConfigError, DataError, ShapeError

Batch: TypeAlias = dict[str, Any]
"""``obs`` key -> (B, To, ...), ``action`` (B, Tp, A), ``mask`` (B, Tp) bool, ``weight`` (B,) float32.

If asked for: ``plan`` key -> (B, Tp + 1, ...), the low-dim observations before every action of the window and after the
last, ``plan_mask`` (B, Tp + 1) bool, True where they were recorded; ``return_to_go`` and ``return_bound`` (B,) float32,
from the newest observation on; ``rewards`` (B, Tp) float32, the reward of every action of the window, 0 where there is
none; ``labels`` key -> (B,) float32, numbers of the data at the newest observation.

With a `Transition` of h steps, or of the n of its return, and discount gamma: let h' be the actions from the newest
observation on that were taken, so many or fewer where the episode ends or terminates before. ``reward`` (B,) is the sum
of gamma^k r_k over k < h'; ``next_obs`` key -> (B, To, ...), the history after them, its newest entry the true final
observation where the episode ends; ``discount`` (B,), gamma^h', or 0 if the episode terminated with them; ``next_mask``
(B,) bool, False where the newest entry of ``next_obs`` was not recorded, so that it must not be used. A critic can use
the rows where ``next_mask`` is True or ``discount`` is 0. With a discount of the ``whole``, ``reward`` is the plain
sum, and gamma stands in the place of gamma^h'.
"""


class Transition(NamedTuple):
    """What a critic reads of a batch: what some actions earn, and where they lead.

    Attributes:
        steps: h, actions from the newest observation on.
        discount: gamma, of each step.
        returned: n, steps whose rewards are counted, at least h; None counts those of the h actions. Whoever acted
            chose the others, so what is learned of the h actions is of that choice, too (n-step returns).
        whole: Whether gamma is of all the steps together instead.
    """

    steps: int
    discount: float
    returned: int | None = None
    whole: bool = False

    @property
    def reach(self) -> int:
        """Steps whose rewards are counted."""
        return self.steps if self.returned is None else self.returned

    def powers(self, count: int) -> list[float]:
        """Return what the reward of each of some steps counts."""
        return [1.0 if self.whole else self.discount**k for k in range(count)]

    def after(self, taken: Tensor) -> Tensor:
        """Return what counts of what comes next, where so many actions, at least 1, were taken."""
        factor: Tensor = self.discount ** (torch.ones_like(taken) if self.whole else taken).double()
        return factor


IMAGE_SHARE = 0.5
"""Images go to a GPU if they take at most this share of its free memory; otherwise every batch is sent there."""


class Windows:
    """All windows of a set of episodes, episode by episode and in order of time.

    Attributes:
        episodes: What the windows are cut from; its images are used where they lie, also in a file.
        n_obs_steps: To, observations per window.
        horizon: Tp, actions per window.
        transition: The transition that a batch holds; None for none.
        device: Where batches are made.
        episode: (W,) int64, the episode of each window, on the device of the episodes.
        start: (W,) int64, first step of each window, counted from the first step of its episode.
        weight: (W,) float32, how much each window counts in a loss, on ``device``.
    """

    def __init__(
        self,
        episodes: Episodes,
        n_obs_steps: int,
        horizon: int,
        weights: Tensor | None = None,
        *,
        keys: Iterable[str] | None = None,
        device: torch.device | str | None = None,
        plan: bool = False,
        discount: float | None = None,
        transition: Transition | None = None,
        rewards: bool = False,
        bound: float | None = None,
        labels: Iterable[str] = (),
    ) -> None:
        """Index the windows and lay out the low-dim columns.

        Args:
            episodes: What to cut.
            n_obs_steps: To, at least 1.
            horizon: Tp, at least To.
            weights: (N,) float32, finite and not negative: the weight of the window whose newest observation
                is that step. Weights per episode are ``per_episode[episodes.episode_index]``. Ones if left
                out.
            keys: The observations that a batch holds; all if left out.
            device: Where batches are made; the device of the episodes if left out.
            plan: Whether a batch holds the observations of the whole window.
            discount: Of the return-to-go that a batch holds; none if left out.
            transition: The transition that a batch holds; none if left out.
            rewards: Whether a batch holds the rewards of the whole window.
            bound: Discount of the bound of the return that a batch holds; none if left out. See
                `Episodes.return_bounds`.
            labels: Observations of one entry each that a batch holds as labels.

        Raises:
            ConfigError: If To and Tp, or the transition, do not fit together.
            ShapeError: If the weights have the wrong shape.
            DataError: If there is no episode, a weight is negative or not finite, or there is no such label.
        """
        if not 1 <= n_obs_steps <= horizon:
            raise ConfigError(
                f"a window of horizon {horizon} cannot hold {n_obs_steps} observations: n_obs_steps must be from 1 to "
                "the horizon"
            )
        if transition is not None and not 1 <= transition.steps <= horizon - n_obs_steps + 1:
            raise ConfigError(
                f"a window of horizon {horizon} with {n_obs_steps} observations holds "
                f"{horizon - n_obs_steps + 1} actions from now on, not the {transition.steps} of a transition"
            )
        if not len(episodes):
            raise DataError("there are no episodes to cut windows from")
        if weights is None:
            weights = torch.ones_like(episodes.reward)
        if weights.shape != episodes.reward.shape:
            raise ShapeError(f"weights have shape {tuple(weights.shape)}; one per step is ({episodes.num_steps},)")
        if not bool((weights.isfinite() & (weights >= 0)).all()):
            raise DataError("weights must be finite and not negative")
        self.episodes = episodes
        self.n_obs_steps = n_obs_steps
        self.horizon = horizon
        self.transition = transition
        # as tensors there say it: "cuda" becomes "cuda:0"
        self.device = torch.empty(0, device=episodes.device if device is None else device).device
        self.episode = episodes.episode_index
        self.start = _ranges(episodes.lengths) - (n_obs_steps - 1)
        # An episode of L windows of S rows each is laid out in L + S - 1 rows; window w begins at row
        # w + episode * (S - 1).
        final = plan or transition is not None  # then each is one row longer, the observation after its last step
        more = horizon - 1 + final
        row = torch.arange(len(self.episode), device=episodes.device) + self.episode * more
        wanted, rows = _layout(episodes, episodes.lengths + more, n_obs_steps - 1)
        self.weight = weights.to(self.device, torch.float32)  # (W,)
        self._row = row.to(self.device)
        self._mask = _strided((rows == wanted).to(self.device), horizon)
        self._action = _strided(episodes.action[rows].to(self.device), horizon)
        chosen = {key: episodes.obs[key] for key in (episodes.obs if keys is None else keys)}
        low_dim = {key: column for key, column in chosen.items() if not is_image(key)}
        values = {}  # (W,) each
        if discount is not None:
            values["return_to_go"] = episodes.returns_to_go(discount).float()
        if bound is not None:
            values["return_bound"] = episodes.return_bounds(bound).float()
        if transition is not None:
            values |= _transitions(episodes, transition)
        self._values = {name: column.to(self.device) for name, column in values.items()}
        self._labels = {name: label_of(episodes, name).to(self.device) for name in labels}
        self._rewards = self._plan_mask = None
        if rewards:
            self._rewards = _strided((episodes.reward[rows] * (rows == wanted)).to(self.device), horizon)
        laid_out = {key: column[rows] for key, column in low_dim.items()}
        if final:
            episode = episodes.episode_index[rows]
            after = (wanted == rows + 1) & (rows == (episodes.starts + episodes.lengths - 1)[episode])
            after &= episodes.has_final[episode]
            for key, column in laid_out.items():
                column[after] = episodes.final_obs[key][episode[after]]
            if plan:
                self._plan_mask = _strided(((rows == wanted) | after).to(self.device), horizon + 1)
        laid_out = {key: column.to(self.device) for key, column in laid_out.items()}
        self._obs = {key: _strided(column, n_obs_steps) for key, column in laid_out.items()}
        self._plan = {key: _strided(column, horizon + 1) for key, column in laid_out.items() if plan}
        self._images = _place({key: chosen[key] for key in chosen if is_image(key)}, self.device)
        self._final_images = {}
        if transition is not None:
            self._final_images = _place({key: episodes.final_obs[key] for key in self._images}, self.device)
        self._frames = {
            place: _strided(rows.to(place), n_obs_steps) for place in {image.device for image in self._images.values()}
        }

    def __len__(self) -> int:
        """Return W, the number of windows."""
        return len(self._row)

    @property
    def entries(self) -> frozenset[str]:
        """What a batch holds besides observations, actions, their mask and their weight; see `Batch`."""
        found = self._values.keys() - {"ahead", "at_end"}
        asked = {"next_obs": "ahead" in self._values, "rewards": self._rewards is not None}
        asked |= dict.fromkeys(("plan", "plan_mask"), self._plan_mask is not None) | {"labels": bool(self._labels)}
        return frozenset(found | {name for name, is_held in asked.items() if is_held})

    def only(self, episodes: Tensor) -> "Windows":
        """Return the windows of some episodes, without copying any data.

        Args:
            episodes: (K,) int64, at least one, of those that have windows here; the windows come in that order.

        Raises:
            DataError: If no episode is chosen.
        """
        chosen = episodes.to(self.episode.device)
        if not len(chosen):
            raise DataError("there are no episodes to cut windows from")
        counts = torch.bincount(self.episode, minlength=len(self.episodes))
        # self may itself hold some episodes only: their first windows are found, not computed
        first = torch.zeros_like(counts).scatter_reduce_(
            0, self.episode, torch.arange(len(self), device=chosen.device), "amin", include_self=False
        )
        counts, first = counts[chosen], first[chosen]
        index = _ranges(counts) + torch.repeat_interleave(first, counts)
        part = copy(self)
        part.episode, part.start = self.episode[index], self.start[index]
        index = index.to(self.device)
        part._row, part.weight = self._row[index], self.weight[index]
        part._values = {name: column[index] for name, column in self._values.items()}
        part._labels = {name: column[index] for name, column in self._labels.items()}
        return part

    def taken(self, indices: Tensor) -> Tensor:
        """Return h', the actions of each transition of some windows (B,), (B,) int64; see `Batch`."""
        return self._values["ahead"].index_select(0, indices.to(self.device))

    def gather(self, indices: Tensor) -> Batch:
        """Return a batch of windows.

        Args:
            indices: (B,) int64 in [0, W).

        Returns:
            ``{"obs": {key: (B, To, ...)}, "action": (B, Tp, A), "mask": (B, Tp) bool, "weight": (B,)}`` on
            ``device``; mask is True where the step exists. What else was asked for: see `Batch`.
        """
        indices = indices.to(self.device)
        row = self._row.index_select(0, indices)  # (B,)
        values = {name: column.index_select(0, indices) for name, column in self._values.items()}
        ahead = values.pop("ahead", None)
        batch: Batch = {
            "obs": self._gather_obs(row),
            "action": self._action.index_select(0, row),
            "mask": self._mask.index_select(0, row),
            "weight": self.weight.index_select(0, indices),
        }
        if self._plan_mask is not None:
            batch["plan"] = {key: column.index_select(0, row) for key, column in self._plan.items()}
            batch["plan_mask"] = self._plan_mask.index_select(0, row)
        if self._labels:
            batch["labels"] = {name: column.index_select(0, indices) for name, column in self._labels.items()}
        if self._rewards is not None:
            batch["rewards"] = self._rewards.index_select(0, row)
        if ahead is not None:
            batch["next_obs"] = self._gather_obs(row + ahead)
            at_end = values.pop("at_end")
            if self._final_images:
                self._end_with_final(batch["next_obs"], indices, at_end.nonzero().flatten())
        return batch | values

    def _end_with_final(self, obs: dict[str, Tensor], indices: Tensor, ended: Tensor) -> None:
        """Put the final pictures at the end of some rows of histories; those of vectors are laid out already."""
        place = self.episode.device
        episode = self.episode[indices.to(place)][ended.to(place)]
        for key, images in self._final_images.items():
            obs[key][ended, -1] = images[episode.to(images.device)].to(self.device)

    def _gather_obs(self, row: Tensor) -> dict[str, Tensor]:
        """Return the histories that begin at some rows, key -> (B, To, ...)."""
        obs = {key: column.index_select(0, row) for key, column in self._obs.items()}
        return obs | self._gather_images(row) if self._images else obs

    def _gather_images(self, row: Tensor) -> dict[str, Tensor]:
        frames = {place: table.index_select(0, row.to(place)).view(-1) for place, table in self._frames.items()}
        found = {}
        for key, column in self._images.items():
            images = column.index_select(0, frames[column.device])
            if images.device != self.device:
                images = images.pin_memory().to(self.device, non_blocking=True)
            found[key] = images.unflatten(0, (-1, self.n_obs_steps))
        return found


def label_of(episodes: Episodes, name: str) -> Tensor:
    """Return a number of every step (N,) that the data have as an observation of one entry.

    Raises:
        DataError: If they do not.
    """
    column = episodes.obs.get(name)
    if column is None or is_image(name) or column[0].numel() != 1:
        numbers = [key for key, value in episodes.obs.items() if not is_image(key) and value[0].numel() == 1]
        raise DataError(
            f"the data have no label '{name}': a label is an observation of one entry, of which there are "
            f"{', '.join(numbers) or 'none'}"
        )
    return column.flatten()


def narrowed(batch: Mapping[str, Any], n_obs_steps: int, horizon: int) -> Batch:
    """Cut windows shorter around their newest observation.

    Args:
        batch: Windows of at least that size.
        n_obs_steps: To of the result.
        horizon: Tp of the result.

    Returns:
        The batch with shorter histories, actions, masks, plans and rewards; the rest, and what fits, is shared.
    """
    steps = next(iter(batch["obs"].values())).shape[1]
    cut = {"action": horizon, "mask": horizon, "rewards": horizon, "plan_mask": horizon + 1}
    first = steps - n_obs_steps
    narrow = dict(batch)
    for name, length in cut.items():
        if name in batch:
            narrow[name] = batch[name][:, first : first + length]
    for name in ("obs", "next_obs"):
        if name in batch:
            narrow[name] = newest(batch[name], n_obs_steps)
    if "plan" in batch:
        narrow["plan"] = {key: column[:, first : first + horizon + 1] for key, column in batch["plan"].items()}
    return narrow


def newest(obs: Mapping[str, Tensor], n_obs_steps: int) -> dict[str, Tensor]:
    """Return the last observations of histories, key -> (B, To, ...)."""
    return {key: column[:, -n_obs_steps:] for key, column in obs.items()}


def _transitions(episodes: Episodes, transition: Transition) -> dict[str, Tensor]:
    """Return the parts of a `Batch`'s transition that are numbers, for every step, (N,) each.

    Beside them ``ahead``, h', and ``at_end``, whether the history after them ends with the final observation.
    """
    episode = episodes.episode_index
    row = torch.arange(len(episode), device=episodes.device)
    left = (episodes.starts + episodes.lengths)[episode] - row
    reward = torch.zeros_like(episodes.reward, dtype=torch.float64)
    ahead, ended, going = torch.zeros_like(row), torch.zeros_like(left, dtype=torch.bool), left > 0
    for k, power in enumerate(transition.powers(transition.reach)):
        going = going & (k < left)
        taken = (row + k).clamp(max=len(row) - 1)
        reward += torch.where(going, power * episodes.reward[taken].double(), 0.0)
        ahead += going
        terminated = going & episodes.terminated[taken]
        ended, going = ended | terminated, going & ~terminated
    discount = torch.where(ended, 0.0, transition.after(ahead))
    at_end = ahead == left
    return {
        "reward": reward.float(),
        "discount": discount.float(),
        "next_mask": ~at_end | episodes.has_final[episode],
        "ahead": ahead,
        "at_end": at_end,
    }


def _ranges(counts: Tensor) -> Tensor:
    """Return 0, 1, ... count - 1 for every count, one after the other."""
    ends = counts.cumsum(0)
    return torch.arange(int(ends[-1]), device=counts.device) - torch.repeat_interleave(ends - counts, counts)


def _layout(episodes: Episodes, sizes: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """Lay every episode out over its size in rows, ``before`` of them before its first step.

    Returns:
        Two (P,) int64: the row that would belong there, and the nearest one of the same episode.
    """
    first = torch.repeat_interleave(episodes.starts, sizes)
    last = torch.repeat_interleave(episodes.starts + episodes.lengths - 1, sizes)
    wanted = first + _ranges(sizes) - before
    return wanted, torch.clamp(wanted, first, last)


def _strided(column: Tensor, steps: int) -> Tensor:
    """View a contiguous column (P, ...) as its overlapping stretches of some steps, (P - steps + 1, steps, ...)."""
    step = column.stride(0)
    return column.as_strided((len(column) - steps + 1, steps, *column.shape[1:]), (step, *column.stride()))


def _place(images: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move images to the device if they fit there."""
    if device.type != "cuda" or not images:
        return images
    free = torch.cuda.mem_get_info(device)[0]
    fits = sum(column.nbytes for column in images.values()) <= IMAGE_SHARE * free
    return {key: column.to(device) for key, column in images.items()} if fits else images
