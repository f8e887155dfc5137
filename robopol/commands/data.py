"""Say what a dataset holds.

 robopol data info URI [--json]

A URI is a path, or format:path?option=value, e.g. robomimic:lift.hdf5?dones=success.
"""

import json
from typing import Any

from robopol.errors import ConfigError


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    as_json = "--json" in words
    rest = [word for word in words if word != "--json"]
    if len(rest) != 2 or rest[0] != "info":
        raise ConfigError(f"say: robopol data info URI [--json]; got '{' '.join(words)}'")
    from robopol.data import describe, load_episodes

    facts = describe(load_episodes(rest[1]))
    print(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts)))
    return 0


def _lines(tree: dict[str, Any], indent: str = "") -> list[str]:
    """Render a tree as indented lines."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {_short(value)}")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return str(value)
