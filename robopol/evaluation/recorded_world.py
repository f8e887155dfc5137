"""The world that a dataset names, made here, and in what it is another one than was recorded."""

import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from robopol import __version__
from robopol.data import Episodes
from robopol.envs import VectorEnv
from robopol.envs.config import EnvConfig
from robopol.envs.foreign import bridges_to_gym
from robopol.errors import EnvError

_D4RL = r"((?P<known>halfcheetah|hopper|walker2d)|ant|antmaze|maze2d|kitchen|pen|hammer|relocate|door)-[a-z-]+-v\d"
"""Names of D4RL's datasets, which are ids of its own worlds."""
_RELATIVES = {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}
"""D4RL's worlds with the observations, the states and the actions of one of gymnasium's."""


def world_of(episodes: Episodes) -> VectorEnv:
    """Make one world as the dataset names it.

    Raises:
        EnvError: If the dataset names none, or it cannot be made here; the message says why.
    """
    meta = episodes.meta
    if not meta.env_id:
        raise EnvError(
            "the dataset does not name its environment; formats that cannot say it take the option env, e.g. "
            "ogbench:FILE?env=cube-single-v0"
        )
    if ":" in meta.env_id:  # gymnasium would import the module before the colon
        raise EnvError(f"'{meta.env_id}' names a module to import; a dataset may only name an environment")
    if bridges_to_gym(meta.env_id):
        raise EnvError(
            f"'{meta.env_id}' makes whatever environment of OpenAI's gym its options name, modules to import included; "
            "a dataset may only name an environment of gymnasium"
        )
    try:
        return EnvConfig(id=meta.env_id, options=dict(meta.env_options), wrappers=meta.env_wrappers).checked().make()
    except Exception as error:  # foreign environments raise anything
        raise EnvError(f"'{meta.env_id}' cannot be made here: {_of_d4rl(meta.env_id) or error}") from error


def differences(episodes: Episodes, env: VectorEnv) -> list[str]:
    """Say in what the world that is here differs from the one that was recorded, as far as the file tells."""
    found = []
    for package, recorded in episodes.meta.versions.items():
        with suppress(PackageNotFoundError):
            installed = __version__ if package == "robopol" else version(package)
            if installed != recorded:
                found.append(f"recorded with {package} {recorded}, here is {installed}")
    if not episodes.meta.versions:
        here = ", ".join(f"{name} {version(name)}" for name in ("mujoco", "gymnasium", *env.spec.packages))
        found.append(
            f"the file does not say with which versions of the simulator it was recorded; here are {here}: if those "
            "were others, a replay differs by that"
        )
    shapes = env.spec.obs_shapes
    for key, column in episodes.obs.items():
        if key not in shapes:
            found.append(f"the world here does not observe {key}")
        elif tuple(column.shape[1:]) != tuple(shapes[key]):
            found.append(f"obs.{key} is {tuple(column.shape[1:])} in the file and {tuple(shapes[key])} here")
    models = set(episodes.meta.models) - {env.model}
    if models and env.loads_models:
        found.append(
            f"the file holds {len(models)} simulator model(s) other than the one that is used here; step by step each "
            "episode is replayed in its own, an open loop in what the seed draws here"
        )
    elif models:
        found.append(
            f"the file holds {len(models)} simulator model(s) other than the one that is used here; they are not "
            "loaded (a model may name files), and in what they differ the replay differs"
        )
    return found


def _of_d4rl(env_id: str) -> str | None:
    """Say where a dataset of D4RL can be replayed, if it is one."""
    match = re.fullmatch(_D4RL, env_id)
    if match is None:
        return None
    if match["known"] is None:
        return "it is a world of D4RL's own on mujoco-py, and none that can be made here replays it"
    relative = _RELATIVES[match["known"]]
    return (
        f"it is D4RL's, on mujoco-py; {relative} has the same observations, states and actions, but is another version "
        f"of the task on another version of MuJoCo: say d4rl:{env_id}?env={relative} to see how far a replay drifts"
    )
