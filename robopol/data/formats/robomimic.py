"""robomimic HDF5: one group a demonstration (format: robomimic 0.3 documentation, "Dataset Contents").

Layout: ``data`` (attributes ``total``, ``env_args``) holds ``demo_<i>`` (attributes ``num_samples``,
``model_file``) with ``actions``, ``rewards``, ``dones``, ``states``, ``obs/<key>``, ``next_obs/<key>``;
``mask/<filter>`` lists names of demonstrations. Low-dim keys keep their names; ``images.<camera>`` is
``<camera>_image`` in the file.

robopol adds what robomimic has no place for and does not look at: a group ``robopol``
(attribute ``version``; ``meta``, the bytes of a JSON text) and in each demonstration another (``terminated``,
``truncated``, ``source``, ``intervention``; attributes ``success``, ``way``, ``seed``, ``has_final``,
``model``, ``task``). ``dones`` is ``terminated``. A file that robopol wrote reads back exactly. All that robopol reads
of it carries checksums, which HDF5 does not put on texts of variable length: hence the bytes.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robopol.config import parse
from robopol.data.episodes import Episodes, EpisodesMeta, is_image
from robopol.data.formats.foreign import join_state, one_error
from robopol.data.formats.hdf5 import Hdf5, blocks, integer, strings, text
from robopol.data.formats.losses import Losses
from robopol.data.formats.robomimic_dones import check_option, interpret
from robopol.data.formats.robomimic_env import meta_of
from robopol.data.formats.robomimic_writer import EXACT, VERSION, share, write_file
from robopol.data.formats.target import check_file
from robopol.data.image_columns import image_column
from robopol.errors import DataError
from robopol.registry import nearest

if TYPE_CHECKING:
    import h5py

_READ = ("actions", "rewards", "dones", "states", "obs", "next_obs", "robopol")


def read(path: Path, *, dones: str | None = None, filter: str | None = None, state: str | None = None) -> Episodes:
    """Read a robomimic file, robopol's own or anybody's.

    In a foreign file ``dones`` may mean three things (``done_mode`` of robomimic's extraction script), and
    nothing in the file says which. Demonstrations come in the order of their numbers. Float and integer
    observations become float32; the reward of a row is that of the state it led to. Unknown seeds and ways
    are -1. Filter keys and other datasets and attributes have no place in `Episodes`; one `DataWarning` names them,
    and what rounding to float32 changes.

    Args:
        path: The file.
        dones: Needed for foreign files. ``success``: 1 where the state is a success: the row is terminated.
            ``end``: 1 in the last row only: nothing is terminated. ``both``: either; the last row is
            terminated if its reward is 1 (only for rewards of 0 and 1). A last row that is not terminated
            is truncated.
        filter: Name of a filter key, e.g. ``train``; all demonstrations if left out.
        state: Comma-separated low-dim keys that are joined, in that order, to the one observation
            ``"state"``; other low-dim keys are left out.

    Returns:
        The episodes.

    Raises:
        DataError: If the file is damaged, incomplete, ambiguous, or points to data outside itself.
    """
    import h5py

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    losses = Losses()
    # each chunk is read once: the cache of chunks that every dataset keeps by default would only take memory
    with one_error(path), h5py.File(path, "r", rdcc_nbytes=0) as file:
        episodes = _Reader(Hdf5(file, path.stat().st_size), losses).read(dones, filter)
        episodes = episodes if state is None else join_state(episodes, state.split(","))
    losses.warn(path)
    return episodes


def write(episodes: Episodes, path: Path, *, valid: str = "0") -> None:
    """Write a file that robomimic opens and that robopol reads back without loss.

    An episode whose final observation is unknown gets no ``next_obs``: there is nothing true to write. A
    `DataWarning` counts such episodes.

    Args:
        episodes: What to write; at least one episode.
        path: The file; replaced only once the new one is whole.
        valid: Share of the episodes in the filter key ``valid``, in [0, 1); the others are in ``train``. By
            default there are no filter keys.

    Raises:
        DataError: If there are no episodes, or an observation key has no name in the file.
    """
    check_target(path, valid=valid)
    write_file(episodes, path, share(valid)).warn(path)


def check_target(path: Path, *, valid: str = "0") -> None:
    """Raise what `write` would raise whatever the episodes are."""
    share(valid)
    check_file(path)


@dataclass(frozen=True)
class _Demo:
    """One demonstration, before its arrays are read."""

    path: str  # in the file
    group: "h5py.Group"
    rows: slice  # where it goes in the columns

    @property
    def length(self) -> int:
        """Number of steps."""
        return int(self.rows.stop - self.rows.start)


class _Reader:
    """Reads one open file: first everything declared is checked, then arrays are read into their columns."""

    def __init__(self, file: Hdf5, losses: Losses) -> None:
        self._file, self._losses = file, losses

    def read(self, dones: str | None, filter: str | None) -> Episodes:
        data = self._file.group("data")
        own = "robopol" in self._file
        check_option(own, dones)
        meta = self._own_meta() if own else meta_of(text(data, "env_args"), self._losses)
        demos = self._demos(data, filter)
        has_final = [self._has_final(demo, own) for demo in demos]
        names = self._obs_names(demos)
        self._note_the_rest(data, demos, filter)

        plan = {"action": self._plan(demos, "actions"), "reward": self._plan(demos, "rewards")}
        plan |= {name: self._plan(demos, f"robopol/{name}") for name in EXACT} if own else {}
        plan |= {} if own else {"dones": self._plan(demos, "dones")}
        plan |= {"states": self._plan(demos, "states")} if any("states" in demo.group for demo in demos) else {}
        plan |= {f"obs.{key}": self._plan(demos, f"obs/{name}", key) for key, name in names.items()}
        ended = [demo for demo, known in zip(demos, has_final, strict=True) if known]
        following = {key: self._plan(ended, f"next_obs/{name}", key) for key, name in names.items()}

        columns = {name: self._fill(demos, datasets, _dtype(name)) for name, datasets in plan.items()}
        obs = {key: columns.pop(f"obs.{key}") for key in names}
        obs = {key: column if column.ndim > 1 else column[:, None] for key, column in obs.items()}
        final_obs = {key: self._final(demos, ended, following[key], obs[key]) for key in names}
        lengths = np.array([demo.length for demo in demos])
        if own:
            columns |= self._own_columns(demos)
            models = meta.models
        else:
            columns |= interpret(str(dones), columns.pop("dones"), columns["reward"], lengths)
            columns |= _unknown(lengths)
            models, columns["model"] = _foreign_models(demos)
        columns |= {"starts": np.cumsum(lengths) - lengths, "lengths": lengths, "has_final": np.array(has_final)}
        return Episodes(
            obs={key: torch.from_numpy(column) for key, column in obs.items()},
            final_obs={key: torch.from_numpy(column) for key, column in final_obs.items()},
            meta=meta.model_copy(update={"models": models}),
            **{name: torch.from_numpy(column) for name, column in columns.items()},
        )

    def _own_meta(self) -> EpisodesMeta:
        version = integer(self._file.group("robopol"), "version")
        if version != VERSION:
            raise DataError(f"the file is of version {version}; this robopol reads version {VERSION}")
        return parse(EpisodesMeta, json.loads(self._file.dataset("robopol/meta")[()].tobytes()))

    def _has_final(self, demo: _Demo, own: bool) -> bool:
        return bool(integer(self._exact(demo), "has_final")) if own else "next_obs" in demo.group

    def _own_columns(self, demos: list[_Demo]) -> dict[str, np.ndarray]:
        """What robopol wrote of each episode, from its attributes."""
        exact = [self._exact(demo) for demo in demos]
        names = ["success", "way", "seed", *(name for name in ("model", "task") if name in exact[0].attrs)]
        found = {name: np.array([integer(group, name) for group in exact]) for name in names}
        return found | {"success": found["success"] != 0}

    def _exact(self, demo: _Demo) -> "h5py.Group":
        return self._file.group(f"{demo.path}/robopol")

    def _demos(self, data: "h5py.Group", filter: str | None) -> list[_Demo]:
        """Find the demonstrations, in the order of their numbers."""
        names = list(data)
        for name in names:
            if not re.fullmatch(r"demo_\d+", name):
                raise DataError(f"data/{name} is not a demonstration: they are called demo_<number>")
        lengths = {name: integer(self._file.group(f"data/{name}"), "num_samples") for name in names}
        if not names or min(lengths.values()) < 1:
            raise DataError(f"data needs demonstrations of at least one step, it has the lengths {lengths}")
        if "total" in data.attrs and integer(data, "total") != sum(lengths.values()):
            raise DataError(f"data has {sum(lengths.values())} steps, its attribute total says {data.attrs['total']}")
        chosen = names if filter is None else self._filtered(filter, names)
        demos, start = [], 0
        for name in sorted(chosen, key=lambda name: int(name.removeprefix("demo_"))):
            path, stop = f"data/{name}", start + lengths[name]
            demos.append(_Demo(path, self._file.group(path), slice(start, stop)))
            start = stop
        return demos

    def _masks(self) -> list[str]:
        return list(self._file.group("mask")) if "mask" in self._file else []

    def _filtered(self, filter: str, names: list[str]) -> list[str]:
        masks = self._masks()
        if filter not in masks:
            raise DataError(f"there is no filter key '{filter}'{nearest(filter, masks)}; there are {masks}")
        chosen = strings(self._file.dataset(f"mask/{filter}", "SO"))
        odd = [name for name in chosen if name not in names]
        if odd or not chosen or len(set(chosen)) < len(chosen):
            raise DataError(f"mask/{filter} must name each of some demonstrations once; it names {chosen}")
        return chosen

    def _note_the_rest(self, data: "h5py.Group", demos: list[_Demo], filter: str | None) -> None:
        """Name what there is and is not read."""
        self._losses.leave_others(self._file.group(""), ("data", "mask", "robopol"))
        self._losses.leave_others(self._masks() if filter is None else (), (), "mask/")
        self._losses.leave_others(data.attrs, ("total", "env_args"), "attribute ")
        for demo in demos:
            self._losses.leave_others(demo.group, _READ)
            self._losses.leave_others(demo.group.attrs, ("num_samples", "model_file"), "attribute ")

    def _obs_names(self, demos: list[_Demo]) -> dict[str, str]:
        """Observation key -> its name in the file."""
        names: dict[str, str] = {}
        for demo in demos:
            if "obs" not in demo.group:
                raise DataError(
                    f"{demo.path} has no observations, only simulator states; "
                    "extract them with robomimic's dataset_states_to_obs.py"
                )
            present = list(self._file.group(f"{demo.path}/obs"))
            found = {_key(name, self._file.look(f"{demo.path}/obs/{name}")): name for name in present}
            names = names or found
            if found != names or len(found) != len(present) or not found:
                raise DataError(
                    f"{demo.path} has the observations {sorted(present)}, "
                    f"{demos[0].path} has {sorted(names.values())}; they must be the same and at least one"
                )
        return names

    def _plan(self, demos: list[_Demo], name: str, key: str = "") -> list["h5py.Dataset"]:
        """Find one dataset in every demonstration and check what it declares; nothing is read."""
        datasets: list[h5py.Dataset] = []
        for demo in demos:
            dataset = self._file.dataset(f"{demo.path}/{name}", held=not is_image(key))
            wanted = (demo.length, *(datasets or [dataset])[0].shape[1:])
            if dataset.shape != wanted:
                raise DataError(f"{dataset.name} has shape {dataset.shape}; it must be {wanted}")
            datasets.append(dataset)
        return datasets

    def _fill(self, demos: list[_Demo], datasets: list["h5py.Dataset"], dtype: Any) -> np.ndarray:
        """Read one dataset of every demonstration into one column (N, ...)."""
        shape = (demos[-1].rows.stop, *datasets[0].shape[1:])
        column = image_column(shape).numpy() if dtype == np.uint8 else np.empty(shape, dtype)
        for demo, dataset in zip(demos, datasets, strict=True):
            target = column[demo.rows]
            for rows, values in blocks(dataset):
                self._losses.fill(_name(demo, dataset), target, rows, values)
        return column

    def _final(
        self, demos: list[_Demo], ended: list[_Demo], datasets: list["h5py.Dataset"], obs: np.ndarray
    ) -> np.ndarray:
        """Read the final observation of each episode (E, ...) and check the other successors against the rows."""
        shape = (len(demos), *obs.shape[1:])
        final = image_column(shape).zero_().numpy() if obs.dtype == np.uint8 else np.zeros(shape, obs.dtype)
        positions = {demo.path: position for position, demo in enumerate(demos)}
        for demo, dataset in zip(ended, datasets, strict=True):
            if math.prod(dataset.shape[1:]) != math.prod(obs.shape[1:]) or (
                obs.dtype == np.uint8 and dataset.dtype != np.uint8
            ):
                raise DataError(f"{dataset.name} is {dataset.dtype} {dataset.shape}; obs is {obs.shape[1:]} a row")
            row = positions[demo.path]
            last = dataset[-1].reshape(1, *obs.shape[1:])
            self._losses.fill(_name(demo, dataset), final, slice(row, row + 1), last)
            if obs.dtype == np.uint8:
                continue
            following = dataset[:-1].reshape(-1, *obs.shape[1:])
            if not np.allclose(following, obs[demo.rows][1:], rtol=1e-3, atol=1e-3):
                raise DataError(f"{dataset.name} is not obs one step later: the rows are not one trajectory")
        return final


def _name(demo: _Demo, dataset: "h5py.Dataset") -> str:
    """Return the name of a dataset inside its demonstration; what holds for one observation holds for the next."""
    return str(dataset.name).removeprefix(f"/{demo.path}/").removeprefix("next_")


def _key(name: str, dataset: "h5py.Dataset") -> str:
    """Observation key of a dataset in ``obs``."""
    image = dataset.dtype == np.uint8 and dataset.ndim == 4
    return f"images.{name.removesuffix('_image')}" if image else name


def _dtype(column: str) -> Any:
    if column.startswith("obs.images."):
        return np.uint8
    return {"states": np.float64, **EXACT}.get(column, np.float32)


def _unknown(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """What a foreign file does not say."""
    return {
        "source": np.zeros(lengths.sum(), np.int64),
        "intervention": np.zeros(lengths.sum(), np.bool_),
        "way": np.full(len(lengths), -1),
        "seed": np.full(len(lengths), -1),
    }


def _foreign_models(demos: list[_Demo]) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct simulator models, and which of them each episode has."""
    texts = [text(demo.group, "model_file") for demo in demos]
    positions = {model: index for index, model in enumerate(dict.fromkeys(t for t in texts if t is not None))}
    return tuple(positions), np.array([-1 if model is None else positions[model] for model in texts])
