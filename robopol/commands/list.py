"""Say what there is to choose from.

  robopol list [VERB|envs|GROUP] [KIND]

Without words: the groups and their choices. With a group: what each choice is. With a verb, or a group and a kind:
every key, its type, its default and what it means.
"""

import importlib
import inspect
import re
import types
import typing
from typing import Any

from robopol.config import Config, group_of
from robopol.errors import ConfigError
from robopol.registry import KINDS, kinds, lookup, nearest

COMMANDS = {
    "train": "robopol.training.config:TrainConfig",
    "sweep": "robopol.commands.sweep:SweepCommand",
    "eval": "robopol.commands.eval:EvalCommand",
    "tune": "robopol.commands.tune:TuneCommand",
    "steer": "robopol.commands.steer:SteerCommand",
    "serve": "robopol.commands.serve:ServeCommand",
    "deploy": "robopol.commands.deploy:DeployCommand",
    "record": "robopol.commands.record:RecordCommand",
    "export": "robopol.commands.export:ExportCommand",
    "collect": "robopol.commands.collect:CollectCommand",
}
"""Verb -> what it is told."""


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    from robopol.configs import groups

    known = [*COMMANDS, "envs", *dict.fromkeys([*groups(), *KINDS])]
    if not words:
        for group, choices in groups().items():
            print(f"{group:16} {', '.join(choices)}")
        print("\nrobopol list train: every key; robopol list policy diffusion: the keys of one kind")
    elif words == ["envs"]:
        print("\n".join(_worlds()))
    elif words[0] in COMMANDS and len(words) == 1:
        print("\n".join(_keys(_command(words[0]))))
    elif words[0] in known and len(words) == 1:
        print("\n".join(_choices(words[0])))
    elif _registered(words[0]) in KINDS and len(words) == 2:
        print("\n".join(_keys(lookup(_registered(words[0]), words[1]))))
    else:
        raise ConfigError(
            f"nothing to list under '{' '.join(words)}'{nearest(words[0], known)}; there are {', '.join(known)}"
        )
    return 0


def _registered(group: str) -> str:
    """Return the group of kinds that a configuration group chooses from."""
    return {"execution": "executor"}.get(group, group.rpartition("/")[2])


def _choices(group: str) -> list[str]:
    """Say in a line each what there is to choose from: kinds, then what are settings and no kinds of their own."""
    from robopol.configs import about, groups

    registered = _registered(group)
    found = {
        kind: (inspect.getdoc(lookup(registered, kind)) or "").splitlines()[0]
        for kind in sorted(kinds(registered) if registered in KINDS else ())
    }
    found |= {choice: about(group, choice) for choice in groups().get(group, ()) if choice not in found}
    return [f"{choice:24} {said}".rstrip() for choice, said in found.items()]


def _command(verb: str) -> type[Config]:
    module, name = COMMANDS[verb].split(":")
    found: type[Config] = getattr(importlib.import_module(module), name)
    return found


def _worlds() -> list[str]:
    """Name robopol's own worlds and the families of others, and say what is installed."""
    from robopol.envs import list_envs
    from robopol.envs.foreign import FAMILIES

    lines = list_envs()
    for family in FAMILIES:
        missing = "" if family.missing is None else f"  (not installed: pip install 'robopol[{family.extra}]')"
        lines += ["", f"{family.name}{missing}", *(f"  {id}" for id in family.examples)]
    return lines


def _keys(cls: type[Config], prefix: str = "", held: Any = None) -> list[str]:
    """Describe every key of a config class and of those inside it; as its owner holds it by default, if one does."""
    lines = []
    meanings = _meanings(cls)
    for name, field in cls.model_fields.items():
        if name == "kind":
            continue
        group = group_of(field)
        inner = field.annotation
        parts = typing.get_args(inner)
        nested: Any = next((c for c in (inner, *parts) if isinstance(c, type) and issubclass(c, Config)), None)
        named = (nested is not None or group is not None) and typing.get_origin(inner) is dict
        key = f"{prefix}{name}" + (".NAME" if named else "")
        if group is not None:
            several = "any of" if typing.get_origin(inner) is tuple else "one of"
            shown = f"{several} {', '.join(sorted(kinds(group)))}"
        else:
            shown = "" if nested is not None else _type(inner)
        value = getattr(held, name, field.get_default(call_default_factory=True))
        told = held is None and field.is_required()
        default = "" if told or nested is not None else f" = {_said(value)}"
        lines.append(f"{key}{': ' if shown else ''}{shown}{default}\n    {meanings.get(name, '')}".rstrip())
        if nested is not None:
            lines += _keys(nested, f"{key}.", value if isinstance(value, nested) else None)
    return lines


def _type(annotation: Any) -> str:
    """Name a type as a user would write it."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return " or ".join(str(choice) for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _type(part) for part in inner)
    if inner:
        return f"{_type(origin)}[{', '.join('...' if part is ... else _type(part) for part in inner)}]"
    return str(getattr(annotation, "__name__", annotation))


def _said(value: Any) -> str:
    return str(value.tree()["kind"]) if isinstance(value, Config) else "null" if value is None else repr(value)


def _meanings(cls: type) -> dict[str, str]:
    """Read the Attributes of the docstrings of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = (inspect.getdoc(base) or "").partition("Attributes:\n")[2]
        for name, meaning in re.findall(r"^    (\w+): ((?:.*\n?)(?:        .*\n?)*)", text, re.MULTILINE):
            found[name] = " ".join(meaning.split())
    return found
