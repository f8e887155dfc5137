"""What robomimic's ``env_args`` say of the environment, in robopol's words and back."""

import json
from typing import Any, NamedTuple

from robopol.config import parse
from robopol.data.episodes import EpisodesMeta
from robopol.data.formats.losses import Losses

_KNOWN = ("env_name", "type", "env_version", "env_kwargs")


class Family(NamedTuple):
    """A kind of environments.

    Attributes:
        prefix: Of their ids in robopol.
        number: robomimic's ``type``.
        package: What ``env_version`` is the version of.
    """

    prefix: str
    number: int
    package: str


FAMILIES = (Family("robosuite/", 1, "robosuite"), Family("ig_momart/", 3, "igibson"), Family("", 2, "gymnasium"))
"""The last is that of every other id."""


def env_args(meta: EpisodesMeta) -> dict[str, Any]:
    """Return what robomimic is told of an environment."""
    family = next(family for family in FAMILIES if meta.env_id.startswith(family.prefix))
    return {
        "env_name": meta.env_id.removeprefix(family.prefix),
        "type": family.number,
        "env_version": meta.versions.get(family.package, ""),
        "env_kwargs": meta.env_options,
    }


def meta_of(text: str | None, losses: Losses) -> EpisodesMeta:
    """Return the meta of a foreign file.

    Args:
        text: Its ``env_args``, if it has any.
        losses: What else they say goes here.
    """
    told = json.loads(text) if text is not None else {}
    family = next((family for family in FAMILIES if family.number == told.get("type")), FAMILIES[-1])
    losses.leave_others(told, _KNOWN, "env_args/")
    options = told.get("env_kwargs") or {}
    name, version = told.get("env_name"), told.get("env_version")
    tree = {
        "env_id": family.prefix + name if name else "",
        "env_options": options,
        "control_hz": options.get("control_freq"),
        "versions": {family.package: str(version)} if version else {},
    }
    return parse(EpisodesMeta, tree)
