"""The runs of a sweep: every combination of the values that its words list."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from robopol.errors import ConfigError
from robopol.training.run import OVERRIDES, is_run

LONGEST = 120
"""Characters of a folder's name; a longer one is cut, and told apart by a hash."""
_OWN = ("run=", "runtime.threads=")
"""Words that say where and on how many cores a run is done, not what it does."""


class Point(NamedTuple):
    """One run of a sweep.

    Attributes:
        values: What is swept -> this run's value, as it was written.
        words: All words of its training but its folder.
        folder: Its run folder.
    """

    values: dict[str, str]
    words: tuple[str, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the run is done, its evaluation included."""
        return (self.folder / "summary.json").is_file()

    def command(self, more: Sequence[str] = ()) -> list[str]:
        """Return the verb and words that begin the run, or go on with it.

        Args:
            more: Words for a run that has not begun, such as how many threads it may use.
        """
        if is_run(self.folder):
            return ["train", f"resume={self.folder}"]
        return ["train", *self.words, *more, f"run={self.folder}"]


def grid(words: Sequence[str], folder: Path) -> list[Point]:
    """Return every run of a sweep, in the order of the values, the last ones changing first.

    Args:
        words: What `robopol train` is told, in hydra's grammar, of which some list several values: ``seed=0,1,2``,
            ``seed=range(5)``, ``algo.lr=1e-4,1e-3``.
        folder: Of the sweep.

    Raises:
        ConfigError: If a word cannot be read, is said twice, or says what the sweep says itself.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split("\nSee https")[0].split())) from error
    choices: dict[str, list[str]] = {}
    swept = set()
    for word, override in zip(words, parsed, strict=True):
        begin, sign, value = word.partition("=")
        if override.key_or_group in ("run", "resume"):
            raise ConfigError(f"'{word}': a sweep names its runs itself, in out=FOLDER")
        if begin in choices:
            raise ConfigError(f"{begin} is said twice")
        choices[begin] = [sign + value]
        if override.is_sweep_override():
            choices[begin] = [sign + one for one in override.sweep_string_iterator()]
            swept.add(begin)
    points = []
    for chosen in itertools.product(*choices.values()):
        told = dict(zip(choices, chosen, strict=True))
        values = {begin.lstrip("+"): said.removeprefix("=") for begin, said in told.items() if begin in swept}
        points.append(Point(values, tuple(map("".join, told.items())), folder / name_of(values)))
    return points


def name_of(values: dict[str, str]) -> str:
    """Return the name of a run's folder."""
    name = "_".join(f"{key}-{value}" for key, value in values.items()) or "run"
    name = re.sub(r"[^\w.+-]+", "-", name)  # a path that needs no quotes in hydra's grammar
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def check(points: Sequence[Point]) -> None:
    """Check that the runs that are there already are those that are asked for.

    Raises:
        ConfigError: If a folder holds a run of other words, or two runs would share one.
    """
    if len({point.folder for point in points}) < len(points):
        raise ConfigError("two runs of the sweep would have one name: a value is listed twice")
    for point in points:
        if not is_run(point.folder):
            continue
        was = [
            word
            for word in (point.folder / OVERRIDES).read_text(encoding="utf-8").splitlines()
            if not word.startswith(_OWN)
        ]
        asked = [word for word in point.words if not word.startswith(_OWN)]
        if was != asked:
            raise ConfigError(
                f"{point.folder} was begun with {' '.join(was)}, and now it is {' '.join(asked)}: name another out="
            )
