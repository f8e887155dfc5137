"""Where the datasets that have a name are kept.

Sources of the tables: D4RL, ``d4rl/infos.py``; OGBench, ``ogbench/utils.py``; robomimic, ``robomimic/__init__.py``
and its repository on the Hugging Face hub; Minari, ``minari/storage``; Diffusion Policy, its README.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from robopol.errors import DataError
from robopol.registry import nearest

HUB = "https://huggingface.co"
BASES = {
    "d4rl": "https://rail.eecs.berkeley.edu/datasets/offline_rl",
    "lerobot": HUB,
    "minari": HUB,
    "ogbench": "https://rail.eecs.berkeley.edu/datasets/ogbench",
    "robomimic": HUB,
    "zarr": "https://diffusion-policy.cs.columbia.edu/data/training",
}
"""Source (which is also the format) -> where its files are."""

_NAMES = {
    "d4rl": r"[a-z0-9]+(-[a-z0-9]+)*-v\d+",
    "lerobot": r"[\w.-]+/[\w.-]+",
    "minari": r"([\w.-]+/)*[\w.-]+-v\d+",
    "ogbench": r"[a-z0-9]+(-[a-z0-9]+)*-v\d+(-val)?",
    "robomimic": r"[a-z_]+/(ph|mh|mg|paired)/[a-z_]+",
    "zarr": r"[a-z_]+",
}
"""Source -> what its names look like."""

_ZARR = {"pusht": "pusht/pusht_cchi_v7_replay.zarr"}
"""Archive -> the dataset inside it."""

_OGBENCH_KINDS = ("navigate", "stitch", "explore", "play", "noisy")
"""How OGBench's datasets were collected."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a dataset.

    Attributes:
        url: Where it is.
        name: Where it goes inside the dataset's folder.
        size: Bytes; -1 if only the server knows.
        digest: ``"sha256:<hex>"``, ``"git:<hex>"`` (of a git blob), or empty where the source states none.
    """

    url: str
    name: str
    size: int = -1
    digest: str = ""


Listing = Callable[[str, str], list[RemoteFile]]
"""Lists a folder of a dataset repository of the Hugging Face hub, names relative to that folder."""


def is_id(source: str, name: str) -> bool:
    """Return whether a name looks like one of a source's datasets, rather than like a file."""
    return source in _NAMES and bool(re.fullmatch(_NAMES[source], name)) and not {".", ".."} & set(name.split("/"))


def remote_files(source: str, name: str, base: str, listing: Listing) -> list[RemoteFile]:
    """Return the files of a dataset.

    Args:
        source: A key of `BASES`.
        name: One of its datasets.
        base: Where the source's files are.
        listing: Asks the Hugging Face hub.

    Raises:
        DataError: If the source has no such dataset.
    """
    if source == "d4rl":
        paths = _d4rl_paths()
        if name not in paths:
            raise DataError(f"D4RL has no dataset '{name}'{nearest(name, paths)}")
        return [RemoteFile(f"{base}/{paths[name]}", f"{name}.hdf5")]
    if source == "ogbench":
        return [RemoteFile(f"{base}/{name}.npz", f"{name}.npz")]
    if source == "robomimic":
        return [_robomimic(name, listing)]
    if source == "minari":
        repository, _, folder = name.partition("/")
        return listing(f"farama-minari/{repository}", folder)
    if source == "lerobot":
        return listing(name, "")
    if name not in _ZARR:
        raise DataError(f"of Diffusion Policy's datasets only {', '.join(_ZARR)} has a name here")
    return [RemoteFile(f"{base}/{name}.zip", f"{name}.zip")]


def entry(source: str, name: str) -> str:
    """Return what the format's reader is given, inside the dataset's folder."""
    if source in ("lerobot", "minari"):
        return "."
    if source == "zarr":
        return _ZARR.get(name, ".")
    return f"{name.rpartition('/')[2]}.{'npz' if source == 'ogbench' else 'hdf5'}"


def known_options(source: str, name: str) -> dict[str, str]:
    """Return the reader's options that the name of a dataset answers: some files do not say their environment.

    Datasets of OGBench are called as their environment, with how they were collected before the version
    (``make_env_and_datasets`` of ``ogbench/utils.py``); D4RL's are ids of its own environments.
    """
    if source == "ogbench":
        *world, kind, version = name.removesuffix("-val").split("-")
        return {"env": "-".join([*world, version])} if world and kind in _OGBENCH_KINDS else {}
    return {"env": name} if source == "d4rl" else {}


def _robomimic(name: str, listing: Listing) -> RemoteFile:
    # Simulator states are "raw" in robomimic's registry and "demo" in the repository.
    folder, _, kind = name.rpartition("/")
    wanted = f"{'demo' if kind == 'raw' else kind}_v15.hdf5"
    listed = listing("robomimic/robomimic_datasets", f"v1.5/{folder}")
    for file in listed:
        if file.name == wanted:
            return RemoteFile(file.url, entry("robomimic", name), file.size, file.digest)
    raise DataError(f"{folder} has no {wanted}; it has {', '.join(file.name for file in listed)}")


def _d4rl_paths() -> dict[str, str]:
    """Dataset -> path on the server (``d4rl/infos.py``)."""
    paths = {}
    for env in ("halfcheetah", "hopper", "walker2d", "ant"):
        for data in ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert"):
            for version in ("v1", "v2"):
                file = f"{env}_{data.replace('-', '_')}-{version}.hdf5"
                paths[f"{env}-{data}-{version}"] = f"gym_mujoco_{version}/{file}"
    for env in ("pen", "hammer", "relocate", "door"):
        for data in ("human", "expert", "cloned"):
            paths[f"{env}-{data}-v1"] = f"hand_dapg_v1/{env}-{data}-v1.hdf5"
    for maze, size in (("umaze", "u-maze"), ("medium", "big-maze"), ("large", "hardest-maze")):
        plain, diverse = ("umaze", "umaze-diverse") if maze == "umaze" else (f"{maze}-play", f"{maze}-diverse")
        for data, start, goal in ((plain, maze != "umaze", False), (diverse, True, True)):
            file = f"Ant_maze_{size}_noisy_multistart_{start}_multigoal_{goal}_sparse"
            paths[f"antmaze-{data}-v0"] = f"ant_maze_new/{file}.hdf5"
            paths[f"antmaze-{data}-v2"] = f"ant_maze_v2/{file}_fixed.hdf5"
        paths[f"maze2d-{maze}-v1"] = f"maze2d/maze2d-{maze}-sparse-v1.hdf5"
        paths[f"maze2d-{maze}-dense-v1"] = f"maze2d/maze2d-{maze}-dense-v1.hdf5"
    kitchen = {
        "complete": "mini_kitchen_microwave_kettle_light_slider",
        "partial": "kitchen_microwave_kettle_light_slider",
        "mixed": "kitchen_microwave_kettle_bottomburner_light",
    }
    return paths | {f"kitchen-{data}-v0": f"kitchen/{file}-v0.hdf5" for data, file in kitchen.items()}
