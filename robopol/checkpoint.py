"""Save and load a policy folder: everything needed to act, and nothing that can run code.

``config.json`` holds the policy's config and its contract with the world, ``model.safetensors`` its weights
and normalisers. Hydra and the training code are not needed to load one.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from robopol import __version__
from robopol.config import parse
from robopol.errors import CheckpointError, ConfigError
from robopol.files import write_json
from robopol.policies import Policy, PolicySpec
from robopol.registry import lookup

SCHEMA_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_policy(policy: Policy, folder: Path) -> None:
    """Write a policy folder.

    Args:
        policy: The policy; what is saved is what acts, so pass the averaged weights.
        folder: An existing folder.
    """
    save_file({name: value.contiguous() for name, value in policy.state_dict().items()}, folder / WEIGHTS)
    write_config(policy, folder)


def write_config(policy: Policy, folder: Path) -> None:
    """Write only what describes a policy: its config and its contract with the world.

    Args:
        policy: The policy.
        folder: An existing folder.
    """
    tree = {
        "schema_version": SCHEMA_VERSION,
        "robopol_version": __version__,
        "policy": policy.config.tree(),
        "spec": policy.spec.tree(),
    }
    write_json(folder / CONFIG, tree)


def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """Load a policy, ready to act.

    Args:
        path: A policy folder, a checkpoint folder that contains ``policy/``, or a run folder, whose last
            checkpoint is taken.
        device: Where the policy goes.

    Returns:
        The policy in evaluation mode.

    Raises:
        CheckpointError: If the folder is missing, incomplete, damaged, or from a newer robopol.
    """
    folder = find_policy(Path(path))
    config, spec = read_config(folder)
    try:
        policy: Policy = config.build(spec)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a policy: {error}") from error
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    _check_weights(folder / WEIGHTS, weights, policy.state_dict())
    policy.load_state_dict(weights)
    return policy.to(device).eval()


def read_config(folder: Path) -> tuple[Any, PolicySpec]:
    """Read only what describes a policy.

    Args:
        folder: A policy folder, or one that `write_config` wrote into.

    Returns:
        The policy's config and its contract with the world.

    Raises:
        CheckpointError: If they are missing, damaged, or from a newer robopol.
    """
    tree = _json_of(folder / CONFIG)
    try:
        config: Any = lookup("policy", tree["policy"]["kind"])
        return parse(config, tree["policy"]), parse(PolicySpec, tree["spec"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a policy: {error}") from error


def find_policy(path: Path) -> Path:
    """Return the policy folder that a policy, checkpoint or run folder holds.

    Raises:
        CheckpointError: If there is none.
    """
    for folder in (path, path / "policy", path / "checkpoints" / "last" / "policy"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    what = "has no policy in it" if path.is_dir() else "is not a folder"
    raise CheckpointError(
        f"{path} {what}: give a run folder, one of its checkpoints/STEP, or a folder with {CONFIG} and {WEIGHTS}"
    )


def _json_of(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is not readable JSON: {error}") from error
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{file} has schema_version {version!r}, this robopol ({__version__}) reads {SCHEMA_VERSION}: "
            "load it with the robopol version that wrote it, named in its robopol_version"
        )
    return dict(tree)


def _check_weights(file: Path, came: dict[str, torch.Tensor], needed: dict[str, torch.Tensor]) -> None:
    """Name what is missing, unexpected, of another shape or not finite."""
    faults = [f"lacks {name}" for name in needed.keys() - came.keys()]
    faults += [f"has {name}, which the policy does not know" for name in came.keys() - needed.keys()]
    for name in needed.keys() & came.keys():
        if came[name].shape != needed[name].shape:
            faults.append(f"{name} is {tuple(came[name].shape)}, needed {tuple(needed[name].shape)}")
        elif came[name].is_floating_point() and not came[name].isfinite().all():
            faults.append(f"{name} is not finite")
    if faults:
        raise CheckpointError(f"{file}: " + "; ".join(sorted(faults)[:8]))
