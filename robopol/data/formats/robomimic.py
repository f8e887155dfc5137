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
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from robopol.config import parse
from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.image_columns import image_column
from robopol.errors import DataError
from robopol.files import whole_file
from robopol.registry import nearest

if TYPE_CHECKING:
    import h5py

VERSION = 1
DONES = ("success", "end", "both")
ENV_TYPES = {"robosuite/": 1, "ig_momart/": 3}
"""Prefix of an env id -> robomimic's number for that family; every other id is a gym one, number 2."""

_EXACT = {"terminated": np.bool_, "truncated": np.bool_, "source": np.int64, "intervention": np.bool_}
_GZIP_LIMIT = 1100  # deflate cannot shrink by more than 1032:1


def read(path: Path, *, dones: str | None = None, filter: str | None = None, state: str | None = None) -> Episodes:
    """Read a robomimic file, robopol's own or anybody's.

    In a foreign file ``dones`` may mean three things (``done_mode`` of robomimic's extraction script), and
    nothing in the file says which. Demonstrations come in the order of their numbers. Float and integer
    observations become float32; the reward of a row is that of the state it led to. Unknown seeds and ways
    are -1.

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
    try:
        # datasets are read whole: the cache of chunks that each keeps by default would only take memory
        with h5py.File(path, "r", rdcc_nbytes=0) as file:
            episodes = _Reader(file, path.stat().st_size).read(dones, filter)
        return episodes if state is None else _join(episodes, state.split(","))
    except Exception as error:  # h5py raises nearly anything on a damaged file
        raise DataError(f"{path}: {error}") from error


def write(episodes: Episodes, path: Path, *, valid: str = "0") -> None:
    """Write a file that robomimic opens and that robopol reads back without loss.

    An episode whose final observation is unknown gets no ``next_obs``: there is nothing true to write.

    Args:
        episodes: What to write; at least one episode.
        path: The file; replaced only once the new one is whole.
        valid: Share of the episodes in the filter key ``valid``, in [0, 1); the others are in ``train``. By
            default there are no filter keys.

    Raises:
        DataError: If there are no episodes, or an observation key has no name in the file.
    """
    import h5py

    if not len(episodes):
        raise DataError(f"{path}: a robomimic file needs at least one episode")
    names = {key: _name_in_file(key) for key in episodes.obs}
    if len(set(names.values())) < len(names) or any("/" in name or name in (".", "") for name in names.values()):
        raise DataError(f"{path}: the observation keys {sorted(names)} cannot all be named in a robomimic file")
    fraction = _fraction(valid)
    episodes = episodes.to("cpu")
    with whole_file(path) as draft, h5py.File(draft, "w", libver="latest") as file:
        data = file.create_group("data")
        data.attrs["total"] = episodes.num_steps
        data.attrs["env_args"] = json.dumps(_env_args(episodes.meta))
        own = file.create_group("robopol")
        own.attrs["version"] = VERSION
        _put(
            own,
            "meta",
            torch.frombuffer(bytearray(json.dumps(episodes.meta.tree()).encode()), dtype=torch.uint8),
        )
        for index in range(len(episodes)):
            _write_demo(data.create_group(f"demo_{index}"), episodes, index, names)
        if fraction:
            for key, indices in zip(("train", "valid"), episodes.split_indices(fraction, seed=0), strict=True):
                file[f"mask/{key}"] = np.array([f"demo_{i}" for i in indices.tolist()], dtype="S")


def _write_demo(demo: "h5py.Group", episodes: Episodes, index: int, names: dict[str, str]) -> None:
    start, length = int(episodes.starts[index]), int(episodes.lengths[index])
    rows = slice(start, start + length)
    demo.attrs["num_samples"] = length
    _put(demo, "actions", episodes.action[rows])
    _put(demo, "rewards", episodes.reward[rows])
    _put(demo, "dones", episodes.terminated[rows].to(torch.uint8))
    if episodes.states is not None:
        _put(demo, "states", episodes.states[rows])
    has_final = bool(episodes.has_final[index])
    for key, name in names.items():
        _put(demo, f"obs/{name}", episodes.obs[key][rows])
        if has_final:
            following = torch.cat([episodes.obs[key][start + 1 : start + length], episodes.final_obs[key][[index]]])
            _put(demo, f"next_obs/{name}", following)
    exact = demo.create_group("robopol")
    for name in _EXACT:
        _put(exact, name, getattr(episodes, name)[rows])
    exact.attrs["has_final"] = has_final
    exact.attrs["success"] = bool(episodes.success[index])
    exact.attrs["way"] = int(episodes.way[index])
    exact.attrs["seed"] = int(episodes.seed[index])
    if episodes.task is not None:
        exact.attrs["task"] = int(episodes.task[index])
    if episodes.model is not None:
        model = int(episodes.model[index])
        exact.attrs["model"] = model
        if model >= 0:
            demo.attrs["model_file"] = episodes.meta.models[model]


def _put(group: "h5py.Group", name: str, column: Tensor) -> None:
    array = column.numpy()
    image = array.dtype == np.uint8 and array.ndim == 4
    # Chunks of one frame keep random access to images cheap; others are small enough for about 1 MiB each.
    rows = 1 if image else min(len(array), max(1, 2**20 // array[:1].nbytes))
    group.create_dataset(
        name,
        data=array,
        chunks=(rows, *array.shape[1:]),
        fletcher32=True,
        compression="gzip" if image else None,
    )


def _env_args(meta: EpisodesMeta) -> dict[str, Any]:
    prefix = next((prefix for prefix in ENV_TYPES if meta.env_id.startswith(prefix)), "")
    return {
        "env_name": meta.env_id.removeprefix(prefix),
        "type": ENV_TYPES.get(prefix, 2),
        "env_version": meta.versions.get("env", ""),
        "env_kwargs": meta.env_options,
    }


def _foreign_meta(text: str | None) -> EpisodesMeta:
    """Meta from ``env_args``."""
    env_args = json.loads(text) if text is not None else {}
    prefix = next((prefix for prefix, number in ENV_TYPES.items() if number == env_args.get("type")), "")
    options = env_args.get("env_kwargs") or {}
    version, name = env_args.get("env_version"), env_args.get("env_name")
    tree = {
        "env_id": prefix + name if name else "",
        "env_options": options,
        "control_hz": options.get("control_freq"),
        "versions": {"env": str(version)} if version else {},
    }
    return parse(EpisodesMeta, tree)


def _name_in_file(key: str) -> str:
    return f"{key.removeprefix('images.')}_image" if key.startswith("images.") else key


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"option valid must be a number in [0, 1), got '{text}'") from None


def _join(episodes: Episodes, keys: Sequence[str]) -> Episodes:
    """Join low-dim observations to ``"state"``; images stay."""
    low_dim = [key for key in episodes.obs if not key.startswith("images.")]
    for key in keys:
        if key not in low_dim:
            raise DataError(f"there is no low-dim observation '{key}'{nearest(key, low_dim)}; there are {low_dim}")

    def joined(obs: dict[str, Tensor]) -> dict[str, Tensor]:
        images = {key: value for key, value in obs.items() if key not in low_dim}
        return {"state": torch.cat([obs[key].flatten(1) for key in keys], dim=1)} | images

    return replace(episodes, obs=joined(episodes.obs), final_obs=joined(episodes.final_obs))


@dataclass(frozen=True)
class _Demo:
    """One demonstration, before its arrays are read."""

    name: str
    group: "h5py.Group"
    rows: slice  # where it goes in the columns

    @property
    def length(self) -> int:
        """Number of steps."""
        return int(self.rows.stop - self.rows.start)


class _Reader:
    """Reads one open file: first everything declared is checked, then arrays are read into their columns."""

    def __init__(self, file: "h5py.File", file_size: int) -> None:
        self._file = file
        self._limit = _GZIP_LIMIT * file_size + 2**20
        self._declared = self._held = 0  # bytes
        self._counted: set[str] = set()

    def read(self, dones: str | None, filter: str | None) -> Episodes:
        data = _group(self._file, "data")
        own = "robopol" in self._file
        _check_dones(own, dones)
        meta = self._own_meta() if own else _foreign_meta(_text(data, "env_args"))
        demos = self._demos(data, filter)

        plan = {"action": self._plan(demos, "actions"), "reward": self._plan(demos, "rewards")}
        plan |= {name: self._plan(demos, f"robopol/{name}") for name in _EXACT} if own else {}
        plan |= {} if own else {"dones": self._plan(demos, "dones")}
        plan |= {"states": self._plan(demos, "states")} if any("states" in demo.group for demo in demos) else {}
        names = self._obs_names(demos)
        plan |= {f"obs.{key}": self._plan(demos, f"obs/{name}") for key, name in names.items()}
        ended = [demo for demo in demos if _has_final(demo, own)]
        following = {key: self._plan(ended, f"next_obs/{name}") for key, name in names.items()}

        columns = {name: _fill(demos, datasets, _dtype(name)) for name, datasets in plan.items()}
        obs = {key: columns.pop(f"obs.{key}") for key in names}
        obs = {key: column if column.ndim > 1 else column[:, None] for key, column in obs.items()}
        final_obs = {key: _final(demos, ended, following[key], obs[key]) for key in names}
        if own:
            columns |= _own_outcomes(demos)
            models = meta.models
        else:
            columns |= _interpret(str(dones), columns.pop("dones"), columns["reward"], demos)
            models, columns["model"] = _foreign_models(demos)
        lengths = np.array([demo.length for demo in demos])
        columns |= {"starts": np.cumsum(lengths) - lengths, "lengths": lengths}
        columns["has_final"] = np.array([_has_final(demo, own) for demo in demos])
        return Episodes(
            obs={key: torch.from_numpy(column) for key, column in obs.items()},
            final_obs={key: torch.from_numpy(column) for key, column in final_obs.items()},
            meta=meta.model_copy(update={"models": models}),
            **{name: torch.from_numpy(column) for name, column in columns.items()},
        )

    def _own_meta(self) -> EpisodesMeta:
        own = _group(self._file, "robopol")
        version = _integer(own, "version")
        if version != VERSION:
            raise DataError(f"the file is of version {version}; this robopol reads version {VERSION}")
        return parse(EpisodesMeta, json.loads(self._dataset(own, "meta")[()].tobytes()))

    def _demos(self, data: "h5py.Group", filter: str | None) -> list[_Demo]:
        """Find the demonstrations, in the order of their numbers."""
        names = list(data)
        for name in names:
            if not re.fullmatch(r"demo_\d+", name):
                raise DataError(f"data/{name} is not a demonstration: they are called demo_<number>")
        lengths = {name: _integer(_group(data, name), "num_samples") for name in names}
        if not names or min(lengths.values()) < 1:
            raise DataError(f"data needs demonstrations of at least one step, it has the lengths {lengths}")
        if "total" in data.attrs and _integer(data, "total") != sum(lengths.values()):
            raise DataError(f"data has {sum(lengths.values())} steps, its attribute total says {data.attrs['total']}")
        chosen = names if filter is None else self._filtered(filter, names)
        demos, start = [], 0
        for name in sorted(chosen, key=lambda name: int(name.removeprefix("demo_"))):
            demos.append(_Demo(name, _group(data, name), slice(start, start + lengths[name])))
            start += lengths[name]
        return demos

    def _filtered(self, filter: str, names: list[str]) -> list[str]:
        masks = list(_group(self._file, "mask")) if "mask" in self._file else []
        if filter not in masks:
            raise DataError(f"there is no filter key '{filter}'{nearest(filter, masks)}; there are {masks}")
        mask = self._dataset(_group(self._file, "mask"), filter, "SO")
        chosen = _strings(mask)
        odd = [name for name in chosen if name not in names]
        if odd or not chosen or len(set(chosen)) < len(chosen):
            raise DataError(f"mask/{filter} must name each of some demonstrations once; it names {chosen}")
        return chosen

    def _obs_names(self, demos: list[_Demo]) -> dict[str, str]:
        """Observation key -> its name in the file."""
        names: dict[str, str] = {}
        for demo in demos:
            if "obs" not in demo.group:
                raise DataError(
                    f"{demo.name} has no observations, only simulator states; "
                    "extract them with robomimic's dataset_states_to_obs.py"
                )
            found = {_key(self._dataset(_group(demo.group, "obs"), name)): name for name in demo.group["obs"]}
            names = names or found
            if found != names or len(found) != len(demo.group["obs"]) or not found:
                raise DataError(
                    f"{demo.name} has the observations {sorted(demo.group['obs'])}, "
                    f"{demos[0].name} has {sorted(names.values())}; they must be the same and at least one"
                )
        return names

    def _plan(self, demos: list[_Demo], path: str) -> list["h5py.Dataset"]:
        """Find one dataset in every demonstration and check what it declares; nothing is read."""
        *groups, name = path.split("/")
        datasets: list[h5py.Dataset] = []
        for demo in demos:
            group = demo.group
            for part in groups:
                group = _group(group, part)
            dataset = self._dataset(group, name)
            wanted = (demo.length, *(datasets or [dataset])[0].shape[1:])
            if dataset.shape != wanted:
                raise DataError(f"{dataset.name} has shape {dataset.shape}; it must be {wanted}")
            datasets.append(dataset)
        return datasets

    def _dataset(self, group: "h5py.Group", name: str, kinds: str = "fiub") -> "h5py.Dataset":
        """Return a dataset of plain values that lie in this file and can be what the file's size allows."""
        import h5py

        dataset = _child(group, name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or not dataset.shape:
            raise DataError(f"{group.name}/{name} is not an array")
        if dataset.external or dataset.is_virtual:
            raise DataError(f"{dataset.name} keeps its values in another file; copy them into this one")
        if dataset.dtype.kind not in kinds:
            raise DataError(f"{dataset.name} holds {dataset.dtype}; only plain numbers are read")
        if dataset.name in self._counted:
            return dataset
        self._counted.add(dataset.name)
        whole, chunk = (math.prod(shape) * dataset.dtype.itemsize for shape in (dataset.shape, dataset.chunks or ()))
        self._declared += max(whole, chunk)
        # `image_column` decides whether images fit; of them one demonstration is in memory here
        self._held += chunk if dataset.dtype == np.uint8 and dataset.ndim == 4 else max(whole, chunk)
        if self._declared > self._limit or self._held > _memory():
            raise DataError(
                f"{dataset.name} has shape {dataset.shape}: with it the file declares {self._declared:,} bytes; "
                f"its size allows {self._limit:,}, this machine {_memory():,}"
            )
        return dataset


def _child(group: "h5py.Group", name: str) -> Any:
    """Return a member that lies in this file, not behind a link."""
    import h5py

    if name not in group:
        raise DataError(f"{group.name} has no '{name}'{nearest(name, group)}")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{group.name}/{name} is a link; only data that lie in the file itself are read")
    return group[name]


def _group(parent: "h5py.Group", name: str) -> "h5py.Group":
    import h5py

    group = _child(parent, name)
    if not isinstance(group, h5py.Group):
        raise DataError(f"{parent.name}/{name} is not a group")
    return group


def _strings(dataset: "h5py.Dataset") -> list[str]:
    import h5py

    if h5py.check_string_dtype(dataset.dtype) is None:
        raise DataError(f"{dataset.name} holds {dataset.dtype}; it must hold names")
    return list(dataset.asstr()[()])


def _text(group: "h5py.Group", name: str) -> str | None:
    """Return a text attribute, or None if there is none."""
    value = group.attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode()
    if value is not None and not isinstance(value, str):
        raise DataError(f"attribute {name} of {group.name} is {value!r}; it must be text")
    return value


def _integer(group: "h5py.Group", name: str) -> int:
    """Return an integer attribute."""
    value = np.asarray(group.attrs[name]) if name in group.attrs else None
    if value is None or value.size != 1 or value.dtype.kind not in "iub":
        raise DataError(f"attribute {name} of {group.name} is {value}; it must be one integer")
    return int(value.item())


def _memory() -> int:
    """Bytes of memory of this machine; no limit where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return 2**62
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _check_dones(own: bool, dones: str | None) -> None:
    if own and dones is not None:
        raise DataError("the file itself says how its episodes ended; leave out the option 'dones'")
    if not own and dones not in DONES:
        raise DataError(
            f"what 'dones' means in this file is ambiguous; say dones= one of {', '.join(DONES)} (success: "
            f"1 in successful states; end: 1 in the last row; both: either); got {dones!r}"
        )


def _own_outcomes(demos: list[_Demo]) -> dict[str, np.ndarray]:
    """How each episode ended, from the attributes that robopol wrote."""
    exact = [_group(demo.group, "robopol") for demo in demos]
    names = ["success", "way", "seed", *(name for name in ("model", "task") if name in exact[0].attrs)]
    found = {name: np.array([_integer(group, name) for group in exact]) for name in names}
    return found | {"success": found["success"] != 0}


def _has_final(demo: _Demo, own: bool) -> bool:
    return bool(_integer(_group(demo.group, "robopol"), "has_final")) if own else "next_obs" in demo.group


def _key(dataset: "h5py.Dataset") -> str:
    """Observation key of a dataset in ``obs``."""
    name = str(dataset.name).rpartition("/")[2]
    image = dataset.dtype == np.uint8 and dataset.ndim == 4
    return f"images.{name.removesuffix('_image')}" if image else name


def _dtype(column: str) -> Any:
    if column.startswith("obs.images."):
        return np.uint8
    return {"states": np.float64, **_EXACT}.get(column, np.float32)


def _fill(demos: list[_Demo], datasets: list["h5py.Dataset"], dtype: Any) -> np.ndarray:
    """Read one dataset of every demonstration into one column (N, ...)."""
    shape = (demos[-1].rows.stop, *datasets[0].shape[1:])
    column = image_column(shape).numpy() if dtype == np.uint8 else np.empty(shape, dtype)
    for demo, dataset in zip(demos, datasets, strict=True):
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which Episodes refuses
            column[demo.rows] = dataset[()]
    return column


def _final(demos: list[_Demo], ended: list[_Demo], datasets: list["h5py.Dataset"], obs: np.ndarray) -> np.ndarray:
    """Read the final observation of each episode (E, ...) and check the other successors against the rows."""
    final = np.zeros((len(demos), *obs.shape[1:]), obs.dtype)
    positions = {demo.name: position for position, demo in enumerate(demos)}
    for demo, dataset in zip(ended, datasets, strict=True):
        if math.prod(dataset.shape[1:]) != math.prod(obs.shape[1:]) or (
            obs.dtype == np.uint8 and dataset.dtype != np.uint8
        ):
            raise DataError(f"{dataset.name} is {dataset.dtype} {dataset.shape}; obs is {obs.shape[1:]} a row")
        final[positions[demo.name]] = dataset[-1].reshape(obs.shape[1:])
        if obs.dtype == np.uint8:
            continue
        following = dataset[:-1].reshape(-1, *obs.shape[1:])
        if not np.allclose(following, obs[demo.rows][1:], rtol=1e-3, atol=1e-3):
            raise DataError(f"{dataset.name} is not obs one step later: the rows are not one trajectory")
    return final


def _interpret(dones: str, done: np.ndarray, reward: np.ndarray, demos: list[_Demo]) -> dict[str, np.ndarray]:
    """Tell terminated from truncated, and success, in a foreign file."""
    if done.ndim != 1 or reward.ndim != 1 or not np.isin(done, (0, 1)).all():
        raise DataError("dones and rewards must have one value a step, and dones be 0 or 1")
    sparse = bool(np.isin(reward, (0, 1)).all())
    last = np.zeros(len(done), bool)
    last[[demo.rows.stop - 1 for demo in demos]] = True
    if dones == "success":
        terminated = done == 1
    elif dones == "end":
        if not np.array_equal(done == 1, last):
            raise DataError("dones=end says that dones are 1 in the last rows only, but they are not")
        terminated = np.zeros(len(done), bool)
    else:
        if not done[last].all() or not sparse:
            raise DataError(
                "dones=both says that dones are 1 in every last row, and needs rewards of 0 and 1 to tell "
                "which of them are successes; these are not: say dones=success or dones=end"
            )
        terminated = (done == 1) & (~last | (reward == 1))
    solved = terminated | (reward == 1) if dones == "end" and sparse else terminated
    unknown = np.full(len(demos), -1)
    return {
        "terminated": terminated,
        "truncated": last & ~terminated,
        "source": np.zeros(len(done), np.int64),
        "intervention": np.zeros(len(done), bool),
        "success": np.array([solved[demo.rows].any() for demo in demos]),
        "way": unknown,
        "seed": unknown.copy(),
    }


def _foreign_models(demos: list[_Demo]) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct simulator models, and which of them each episode has."""
    texts = [_text(demo.group, "model_file") for demo in demos]
    positions = {text: position for position, text in enumerate(dict.fromkeys(t for t in texts if t is not None))}
    return tuple(positions), np.array([-1 if text is None else positions[text] for text in texts])
