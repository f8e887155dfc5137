"""What a run is told by the words of ``robopol train``, whoever says them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopol.configs import load_config
from robopol.errors import ConfigError


def configured(words: Sequence[str]) -> dict[str, Any]:
    """Return what a run is told by the words after ``robopol train``, as a tree of JSON types.

    Raises:
        ConfigError: If a word cannot be read, or the policy is described that ``checkpoint=`` names.
        CheckpointError: If there is no such policy.
    """
    starts = [word.removeprefix("checkpoint=") for word in words if word.startswith("checkpoint=")]
    tree = load_config("train", [word for word in words if not word.startswith("checkpoint=")])
    return tree | _start(starts[-1], words) if starts else tree


def _start(folder: str, words: Sequence[str]) -> dict[str, Any]:
    """Return what a run is told that begins from a saved policy."""
    if said := [word for word in words if word.lstrip("+~").startswith(("policy=", "policy.", "policy/"))]:
        raise ConfigError(f"the policy is what checkpoint={folder} says: leave out {', '.join(said)}")
    from robopol.checkpoint import find_part, read_config

    described = read_config(find_part(Path(folder), "policy"), "policy")
    return {"start": folder, "policy": described.config.tree()}
