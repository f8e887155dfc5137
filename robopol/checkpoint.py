"""Save and load a part, i.e. a policy or a model: a folder with all that it needs, and nothing that can run code.

``config.json`` holds the part's config and its contract with the world, ``model.safetensors`` its weights and
normalisers. Hydra and the training code are not needed to load one. A part may be made of others (a steered policy of
its base and a critic): its config then says of each where it lies, or, once they are together, what it is, and the
weights of all lie in its own file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from robopol import __version__
from robopol.config import Config, parse
from robopol.errors import CheckpointError, ConfigError
from robopol.files import write_json
from robopol.policies import Part, Policy, PolicySpec
from robopol.registry import lookup

SCHEMA_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
AGENT = "agent.zip"
"""What a run of Stable-Baselines3 leaves instead of a policy's folder."""


class Described(Config):
    """What a part is, apart from its weights.

    Attributes:
        config: Its config, of a registered kind.
        spec: Its contract with the world.
    """

    config: Any
    spec: PolicySpec

    def tree(self) -> dict[str, Any]:
        """See `Config.tree`."""
        return {"config": self.config.tree(), "spec": self.spec.tree()}


@dataclass(frozen=True)
class PartOf:
    """Annotation of a config's field that names a part: by its folder, or, in a saved config, by what it is.

    Attributes:
        group: Its group, ``"policy"`` or ``"model"``.
    """

    group: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic how the two are told apart."""
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value if isinstance(value, str) else value.tree()
            ),
        )

    def _read(self, value: Any) -> str | Described:
        if isinstance(value, str | Described):
            return value
        if not isinstance(value, Mapping) or value.keys() != {"config", "spec"}:
            raise ValueError(f"a {self.group} is named by the folder it was saved in, got {value!r}")
        return _described(self.group, value["config"], value["spec"])


def describe(part: Part) -> Described:
    """Return what a part is."""
    return Described(config=part.config, spec=part.spec)


def restore(named: str | Described, group: str, device: str | torch.device = "cpu") -> Part:
    """Return the part that a field annotated by `PartOf` names.

    Args:
        named: Its folder; or what it is, then its weights are still to be loaded.
        group: Its group.
        device: Where it goes.

    Returns:
        The part in evaluation mode.

    Raises:
        CheckpointError: If there is no such folder, or it is damaged.
        ConfigError: If what it is makes no sense.
    """
    if isinstance(named, str):
        return load_part(named, group, device)
    built: Part = named.config.build(named.spec)
    return built.to(device).eval()


def save_part(part: Part, folder: Path) -> None:
    """Write a policy or a model.

    Args:
        part: What is saved is what acts, so pass the averaged weights.
        folder: An existing folder.
    """
    save_file({name: value.contiguous() for name, value in part.state_dict().items()}, folder / WEIGHTS)
    write_config(part, folder)


def write_config(part: Part, folder: Path) -> None:
    """Write only what describes a part: its config and its contract with the world.

    Args:
        part: A policy or a model.
        folder: An existing folder.
    """
    tree = {
        "schema_version": SCHEMA_VERSION,
        "robopol_version": __version__,
        part.config.group: part.config.tree(),
        "spec": part.spec.tree(),
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
    return cast(Policy, load_part(path, "policy", device))


def load_part(path: str | Path, group: str, device: str | torch.device = "cpu") -> Part:
    """Load a part, ready to be used.

    Args:
        path: Its folder, a checkpoint folder that contains ``GROUP/``, or a run folder, whose last checkpoint is taken.
        group: ``"policy"`` or ``"model"``.
        device: Where it goes.

    Returns:
        The part in evaluation mode.

    Raises:
        CheckpointError: If the folder is missing, incomplete, damaged, or from a newer robopol.
    """
    folder = find_part(Path(path), group)
    described = read_config(folder, group)
    try:
        part: Part = described.config.build(described.spec)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a {group}: {error}") from error
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    _check_weights(folder / WEIGHTS, weights, part.state_dict())
    part.load_state_dict(weights)
    return part.to(device).eval()


def read_config(folder: Path, group: str) -> Described:
    """Read only what describes a part.

    Args:
        folder: A part's folder, or one that `write_config` wrote into.
        group: ``"policy"`` or ``"model"``.

    Raises:
        CheckpointError: If they are missing, damaged, or from a newer robopol.
    """
    tree = _json_of(folder / CONFIG)
    try:
        return _described(group, tree[group], tree["spec"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a {group}: {error}") from error


def find_part(path: Path, group: str) -> Path:
    """Return the folder of a part that a part's, checkpoint or run folder holds.

    Raises:
        CheckpointError: If there is none.
    """
    places = (path, path / group, path / "checkpoints" / "last" / group)
    for folder in places:
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file() and _holds(folder / CONFIG, group):
            return folder
    if group == "policy" and (path / AGENT).is_file():
        raise CheckpointError(
            f"{path} holds an agent of Stable-Baselines3: name it by its algorithm, as in "
            f"checkpoint=sb3:SAC:{path / AGENT}, and say trust=true, because its file can run code"
        )
    what = f"has no {group} in it" if path.is_dir() else "is not a folder"
    raise CheckpointError(
        f"{path} {what}: give a run folder, one of its checkpoints/STEP, or a folder with {CONFIG} and {WEIGHTS}"
    )


def _holds(file: Path, group: str) -> bool:
    """Say whether a config is one of a group; one that cannot be read is, so that its fault is reported."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(tree, dict) or group in tree or not {"policy", "model"} & tree.keys()


def _described(group: str, config: Any, spec: Any) -> Described:
    """Check what describes a part.

    Raises:
        KeyError, TypeError, ConfigError: If it does not.
    """
    found: Any = lookup(group, config["kind"])
    return Described(config=parse(found, config), spec=parse(PolicySpec, spec))


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
    faults += [f"has {name}, which was not expected" for name in came.keys() - needed.keys()]
    for name in needed.keys() & came.keys():
        if came[name].shape != needed[name].shape:
            faults.append(f"{name} is {tuple(came[name].shape)}, needed {tuple(needed[name].shape)}")
        elif came[name].is_floating_point() and not came[name].isfinite().all():
            faults.append(f"{name} is not finite")
    if faults:
        raise CheckpointError(f"{file}: " + "; ".join(sorted(faults)[:8]))
