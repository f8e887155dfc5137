"""Environments that are not robopol's, by family: each has a module that turns one of them into robopol's words.

A family is known by how its ids begin; nothing of it is imported before one of its ids is asked for. Every other id is
looked up in gymnasium's registry.
"""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from robopol.envs.foreign.world import World
from robopol.errors import EnvError, MissingExtraError


@dataclass(frozen=True)
class Family:
    """A family of environments.

    Attributes:
        name: What it is called, which is also its module in this package.
        pattern: Regular expression that its ids begin with.
        requires: What must be importable.
        extra: The robopol extra that installs it; empty if robopol itself does.
        examples: Some of its ids.
        then: What to run after installing the extra; empty if nothing.
        experts: Regular expression of ids -> ``module:class`` of their scripted expert.
    """

    name: str
    pattern: str
    requires: tuple[str, ...]
    extra: str
    examples: tuple[str, ...]
    then: str = ""
    experts: tuple[tuple[str, str], ...] = ()

    def owns(self, id: str) -> bool:
        """Say whether an id is of this family."""
        return re.match(self.pattern, id) is not None

    def expert(self, id: str) -> str | None:
        """Return ``module:class`` of the expert for an id, or None."""
        return next((name for pattern, name in self.experts if re.match(pattern, id)), None)

    @property
    def missing(self) -> str | None:
        """The first package that is not installed, or None."""
        return next((name for name in self.requires if importlib.util.find_spec(name) is None), None)


FAMILIES: tuple[Family, ...] = (
    Family(
        "robotics",
        r"Fetch|PointMaze|AntMaze|AdroitHand|FrankaKitchen|Hand(Reach|Manipulate)",
        ("gymnasium_robotics",),
        "robotics",
        ("FetchPush-v4", "PointMaze_UMaze-v3", "AntMaze_UMaze-v5", "AdroitHandDoor-v1", "FrankaKitchen-v1"),
        experts=((r"PointMaze", "robopol.envs.experts.point_maze:PointMazeExpert"),),
    ),
    Family(
        "ogbench",
        r"(visual-)?(pointmaze|antmaze|humanoidmaze|antsoccer|cube|scene|puzzle)-",
        ("ogbench",),
        "ogbench",
        ("cube-single-v0", "scene-play-singletask-v0", "pointmaze-medium-navigate-v0", "visual-puzzle-3x3-v0"),
        experts=(
            (r"cube-", "robopol.envs.experts.ogbench:CubeExpert"),
            (r"puzzle-", "robopol.envs.experts.ogbench:ButtonExpert"),
            (r"pointmaze-", "robopol.envs.experts.ogbench:PointExpert"),
        ),
    ),
    Family("pusht", r"gym_pusht/", ("gym_pusht",), "pusht", ("gym_pusht/PushT-v0",)),
    Family("dm_control", r"dm_control/", ("shimmy", "dm_control"), "dm-control", ("dm_control/cartpole-balance-v0",)),
    Family(
        "metaworld",
        r"metaworld/",
        ("metaworld",),
        "metaworld",
        ("metaworld/reach-v3", "metaworld/door-open-v3"),
        experts=((r"metaworld/", "robopol.envs.experts.metaworld:MetaWorldExpert"),),
    ),
    Family(
        "robosuite",
        r"robosuite/",
        ("robosuite",),
        "robosuite",
        ("robosuite/Lift", "robosuite/NutAssemblySquare"),
        "pip install --no-deps robosuite==1.5.2",
    ),
    Family("plain", r"", ("gymnasium",), "", ("Hopper-v5", "HalfCheetah-v5", "Pendulum-v1")),
)
"""Who makes which ids; the first whose pattern fits."""


def family_of(id: str) -> Family:
    """Return the family of an id."""
    return next(family for family in FAMILIES if family.owns(id))


def bridges_to_gym(id: str) -> bool:
    """Say whether an id makes an environment of OpenAI's gym, which its option ``env_id`` names."""
    return re.match(r"GymV\d+Environment", id) is not None


def make_foreign(id: str, options: dict[str, Any]) -> World:
    """Make one environment that is not robopol's.

    Args:
        id: An id as upstream has it.
        options: What its family takes; JSON-able.

    Raises:
        EnvError: If there is no such environment, or it does not fit.
        MissingExtraError: If its package is not installed.
    """
    for name in (id, str(options.get("env_id", "")) if bridges_to_gym(id) else ""):
        if ":" in name:  # what stands before it would be imported, and a name may come from a dataset or a checkpoint
            raise EnvError(
                f"'{name}' names a module to import; import it yourself and leave out what is before the colon"
            )
    family = family_of(id)
    if family.missing is not None:
        after = f" (and after that extra: {family.then})" if family.then else ""
        raise MissingExtraError(family.missing, family.extra, f"the environment '{id}'{after}")
    made: World = importlib.import_module(f"{__name__}.{family.name}").make(id, options)
    return made
