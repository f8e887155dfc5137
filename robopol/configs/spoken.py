"""Configurations as a user types them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from robopol.config import Config

_PLAIN = re.compile(r"[A-Za-z_][\w.-]*")
_WORDS = ("true", "false", "null", "inf", "nan")


def spoken(value: Any, held: Any = None) -> str:
    """Return a value of an override in hydra's grammar; of a config what differs from its defaults.

    Args:
        value: A config, a sequence, a mapping whose keys are names, or a single value of JSON's kinds.
        held: The default of the field that holds it: a config of the same kind is read as this where nothing is said.

    Returns:
        Text that `robopol.configs.load_config` reads back to the same; it has still to be quoted for a shell.
    """
    if isinstance(value, Config):
        alike = isinstance(held, Config) and getattr(held, "kind", None) == getattr(value, "kind", None)
        said = []
        for name, field in type(value).model_fields.items():
            one, usual = getattr(value, name), field.get_default(call_default_factory=True)
            usual = getattr(held, name, usual) if alike else usual
            if name == "kind" or one != usual:
                said.append(f"{name}: {spoken(one, usual)}")
        return "{" + ", ".join(said) + "}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {spoken(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        # a backslash stands for itself, except before a quote
        return "'" + re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), value) + "'"
    if isinstance(value, Sequence):
        return "[" + ", ".join(spoken(one) for one in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
