"""The configuration groups, and their composition by hydra.

The YAML files say only what differs from the defaults of the config classes, where every key is documented.
Nothing here is ever instantiated by hydra: composition yields a plain tree, which `robopol.config.parse` checks.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import takewhile
from typing import Any

from robopol.errors import ConfigError
from robopol.registry import nearest


def load_config(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose a configuration.

    Args:
        name: The primary file, that of a verb, such as ``train``.
        overrides: ``group=choice`` and ``key=value``, in hydra's grammar.

    Returns:
        A tree of JSON types. Keys that nobody has given a value are left out, so that the conversion reports
        them together with every other fault.

    Raises:
        ConfigError: If an override cannot be read or names a choice that does not exist.
    """
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        parser = OverridesParser.create()
        parsed = [_read(parser, word) for word in overrides]
        for override in parsed:
            if override.is_sweep_override():
                raise ConfigError(f"'{override.input_line}' asks for several values; a run takes one of each")
            _check_choice(override.key_or_group, override.value())
        lines = [_line(line, o.key_or_group, o.value()) for line, o in zip(overrides, parsed, strict=True)]
        GlobalHydra.instance().clear()
        with initialize_config_module("robopol.configs", version_base="1.3"):
            composed = compose(name, lines)
        tree = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # hydra refuses experiment=null by the last
        raise ConfigError(_said(" ".join(str(error).split("\nSee https")[0].split()), overrides)) from error
    return _without_missing(tree)


def _said(fault: str, overrides: Sequence[str]) -> str:
    """Say what hydra says of a recipe's choice for what somebody chose otherwise, in the user's words."""
    found = re.match(r"In '([\w/]+)/(\w+)': Could not override '(\w+)(/\w+)'", fault)
    if found is None:
        return fault
    chosen = next((word for word in reversed(overrides) if word.startswith(f"{found[3]}=")), f"the {found[3]}")
    return (
        f"{found[1]}={found[2]} chooses {found[3]}{found[4]}, which {chosen} does not have: leave {chosen} out, or "
        "take one that has it"
    )


def groups() -> dict[str, list[str]]:
    """Return the configuration groups and the choices of each, e.g. ``policy/net`` -> mlp, transformer, unet."""
    root = files("robopol.configs")
    found: dict[str, list[str]] = {}

    def walk(folder: Any, group: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.name.startswith("__"):
                walk(entry, f"{group}/{entry.name}".lstrip("/"))
            elif group and entry.name.endswith(".yaml"):
                found.setdefault(group, []).append(entry.name.removesuffix(".yaml"))

    walk(root, "")
    return {group: sorted(found[group]) for group in sorted(found)}


def about(group: str, choice: str) -> str:
    """Return what the file of a choice says of it before its keys; "" if nothing."""
    lines = files("robopol.configs").joinpath(f"{group}/{choice}.yaml").read_text(encoding="utf-8").splitlines()
    said = takewhile(lambda line: line.startswith("#"), (line for line in lines if not line.startswith("# @")))
    return " ".join(line.removeprefix("#").strip() for line in said)


def _read(parser: Any, word: str) -> Any:
    """Return what hydra reads in a word.

    Raises:
        ConfigError: Says the word, and how it is to be written.
    """
    from hydra.errors import HydraException

    try:
        return parser.parse_override(word)
    except HydraException as error:
        reason = " ".join(str(error).split("\nSee https")[0].split())
        raise ConfigError(
            f"'{word}' cannot be read: {reason}. Write key=value, a list as [a, b], a mapping as {{key: value}}, no "
            "quotation marks around its keys, and text with other signs in quotation marks"
        ) from error


def _check_choice(group: str, choice: Any) -> None:
    """Say which choices there are where hydra would list search paths."""
    known = groups()
    if group in known and choice is not None and str(choice) not in known[group]:
        names = known[group]
        raise ConfigError(f"there is no {group}={choice}{nearest(str(choice), names)}; choices: {', '.join(names)}")
    if choice is not None and re.fullmatch(r"[\w/]+", group) and "/" in group and group not in known:
        raise ConfigError(f"there is no group '{group}'{nearest(group, known)}; groups: {', '.join(known)}")


def _line(line: str, key: str, value: Any) -> str:
    """Say an override as hydra needs it."""
    if value is None and "none" in groups().get(key, ()):  # hydra has no null for groups
        return f"{key}=none"
    # A key that is not in the YAML may still be one of the config class: add it, and let the class judge.
    return line if key in groups() or line[0] in "+~" else f"++{line}"


def _without_missing(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_missing(value) for key, value in tree.items() if value != "???"}
    if isinstance(tree, list):
        return [_without_missing(value) for value in tree]
    return tree
