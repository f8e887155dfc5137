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
        EnvError: If the policy's own world, in which the run would stay, would read files.
    """
    starts = [word.removeprefix("checkpoint=") for word in words if word.startswith("checkpoint=")]
    tree = load_config("train", [word for word in words if not word.startswith("checkpoint=")])
    return tree | _start(starts[-1], words, tree) if starts else tree


def _start(folder: str, words: Sequence[str], tree: dict[str, Any]) -> dict[str, Any]:
    """Return what a run is told that begins from a saved policy, and stays in its world unless another is named."""
    if said := [word for word in words if word.lstrip("+~").startswith(("policy=", "policy.", "policy/"))]:
        raise ConfigError(f"the policy is what checkpoint={folder} says: leave out {', '.join(said)}")
    from robopol.checkpoint import find_part, read_config

    described = read_config(find_part(Path(folder), "policy"), "policy")
    told: dict[str, Any] = {"start": folder, "policy": described.config.tree()}
    if described.spec.env is not None and not _names_world(words, tree):
        changes = {key: value for key, value in tree["env"].items() if key != "id"}
        told["env"] = described.spec.env.checked().told(changes).tree()
    return told


def _names_world(words: Sequence[str], tree: dict[str, Any]) -> bool:
    """Say whether a word or a recipe chooses a world."""
    said = any(word.lstrip("+~").split("=")[0] in ("env", "env.id") for word in words)
    return said or tree["env"] is None or tree["env"]["id"] != load_config("train")["env"]["id"]
