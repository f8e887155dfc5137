"""Look at a dataset, check it, convert it, put several together.

  robopol data info URI [--json]                       what it holds
  robopol data check URI [replay=auto] [--json]        valid? and does it replay in its world?
  robopol data stats URI [ref_min=A ref_max=B] [--json]  what it is good for
  robopol data convert URI URI [--json]                write it in another format
  robopol data merge URI URI ... out=URI [--json]      put datasets of one world together
  robopol data label URI critic=DIR out=URI [--json]   say of every step whether its action was better than usual

Each takes cache=FOLDER, where images that do not fit into memory are kept in files.

A URI is a path, or format:path?option=value, e.g. robomimic:lift.hdf5?dones=success; or the name of a dataset
that is downloaded once, e.g. d4rl:hopper-medium-v2, into ROBOPOL_DATA (~/.cache/robopol/data).

check takes replay=states (restore recorded states, one step each), actions (open loop from the recorded seeds), none
or auto; episodes=20, steps=50 (of an episode), tolerance=0.01 (standard deviations). The exit status is 1 if the file
is not valid, or the replay goes another way, or a replay was asked for that is not possible. stats takes
reference=URI (what coverage is compared with), bins=100, k=10, rows=10000, alpha=0.1, seed=0. merge takes
versions=first, where nothing but the versions of the software differs. label adds an observation, key=optimal: 1
where a critic (robopol train algo=iql) sees an advantage above threshold=0, else 0. A policy trained with
policy.guidance.keys=[optimal] is told so what to aim for; its world says 1 by the wrapper constant.
"""

import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from robopol.config import Config, parse
from robopol.errors import ConfigError, DataError, DataWarning
from robopol.registry import nearest

if TYPE_CHECKING:
    from robopol.data import Episodes

T = TypeVar("T", bound=Config)

SHOWN = 10
"""Items of a list that are shown as text."""


class ReadCommand(Config):
    """What every sub-verb is told.

    Attributes:
        cache: A folder for datasets with more images than fit into memory; see `robopol.data.load_episodes`.
    """

    cache: str | None = None

    def load(self, uri: str) -> "Episodes":
        """Read a dataset."""
        from robopol.data import load_episodes

        return load_episodes(uri, cache=self.cache)


class InfoCommand(ReadCommand):
    """What `robopol data info` is told.

    Attributes:
        uri: The dataset.
    """

    uri: str


class StatsCommand(ReadCommand):
    """What `robopol data stats` is told.

    Attributes:
        uri: The dataset.
        ref_min: Return of a random policy; by default as the dataset or D4RL says.
        ref_max: Return of an expert policy; by default as the dataset or D4RL says.
        reference: The dataset that coverage is compared with, e.g. all that an online run saw.
        bins: Bins per column of the cells that coverage counts.
        k: Neighbours that a row is compared with.
        rows: Rows of the sample for those comparisons.
        alpha: Temperature of the weighting by return.
        seed: Of the sample and of random directions.
    """

    uri: str
    ref_min: float | None = None
    ref_max: float | None = None
    reference: str | None = None
    bins: int = Field(100, ge=1, le=1000)
    k: int = Field(10, ge=1)
    rows: int = Field(10_000, ge=1, le=10_000)
    alpha: float = Field(0.1, gt=0)
    seed: int = Field(0, ge=0)


class CheckCommand(ReadCommand):
    """What `robopol data check` is told.

    Attributes:
        uri: The dataset.
        replay: How it is replayed; ``auto`` takes the first way that is possible.
        episodes: How many episodes, evenly spaced.
        steps: How many steps of an episode (``states`` only).
        tolerance: Deviation that passes, standard deviations.
    """

    uri: str
    replay: Literal["auto", "states", "actions", "none"] = "auto"
    episodes: int = Field(20, ge=1)
    steps: int = Field(50, ge=1)
    tolerance: float = Field(0.01, ge=0)


class ConvertCommand(ReadCommand):
    """What `robopol data convert` is told.

    Attributes:
        uri: The dataset.
        out: Where it goes.
    """

    uri: str
    out: str


class MergeCommand(ReadCommand):
    """What `robopol data merge` is told.

    Attributes:
        uris: The datasets, in order.
        out: Where they go.
        versions: ``first`` keeps the versions of the software of the first where only those differ.
    """

    uris: tuple[str, ...] = Field(min_length=2)
    out: str
    versions: Literal["same", "first"] = "same"


class LabelCommand(ReadCommand):
    """What `robopol data label` is told.

    Attributes:
        uri: The dataset.
        critic: A run, a checkpoint or a folder of a value model.
        out: Where the labelled dataset goes.
        key: What the observation is called.
        threshold: Advantage from which on an action is good, in the unit of the return.
    """

    uri: str
    critic: str
    out: str
    key: str = "optimal"
    threshold: float = Field(0.0, allow_inf_nan=False)


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    verbs = {"info": _info, "check": _check, "stats": _stats, "convert": _convert}
    verbs |= {"merge": _merge, "label": _label}
    if not words or words[0] not in verbs:
        came = f"; got '{words[0]}'{nearest(words[0], verbs)}" if words else ""
        raise ConfigError(f"say: robopol data info URI, or {', '.join(list(verbs)[1:])}{came}")
    as_json = "--json" in words[1:]
    rest = [word for word in words[1:] if word != "--json"]
    # A URI may have a "=" too, but behind a ":", "/", "." or "?".
    options = [word for word in rest if re.match(r"\w+=", word)]
    with _spoken_warnings():
        return verbs[words[0]]([word for word in rest if word not in options], options, as_json)


def _info(uris: list[str], options: list[str], as_json: bool) -> int:
    from robopol.data.stats import describe, duplicates

    told = _told(InfoCommand, "info URI", ["uri"], uris, options)
    episodes = told.load(told.uri)
    facts = describe(episodes) | {"duplicates": duplicates(episodes)}
    _show(facts, as_json)
    return 0


def _stats(uris: list[str], options: list[str], as_json: bool) -> int:
    from robopol.data.stats import assess

    told = _told(StatsCommand, "stats URI", ["uri"], uris, options)
    if (told.ref_min is None) != (told.ref_max is None):
        raise ConfigError("give both ref_min= and ref_max=, or neither")
    references = None if told.ref_min is None or told.ref_max is None else (told.ref_min, told.ref_max)
    reference = None if told.reference is None else told.load(told.reference)
    chosen = {name: getattr(told, name) for name in ("bins", "k", "rows", "alpha", "seed")}
    _show(assess(told.load(told.uri), references=references, reference=reference, **chosen), as_json)
    return 0


def _check(uris: list[str], options: list[str], as_json: bool) -> int:
    from robopol.commands.data_check import check

    told = _told(CheckCommand, "check URI", ["uri"], uris, options)
    found, passed = check(told.load(told.uri), told.replay, told.episodes, told.steps, told.tolerance)
    _show(found | {"passed": passed}, as_json)
    return int(not passed)


def _convert(uris: list[str], options: list[str], as_json: bool) -> int:
    from robopol.data import check_writable, save_episodes

    told = _told(ConvertCommand, "convert URI URI", ["uri", "out"], uris, options)
    check_writable(told.out)
    episodes = told.load(told.uri)
    save_episodes(episodes, told.out)
    _report(episodes, told.out, as_json)
    return 0


def _merge(uris: list[str], options: list[str], as_json: bool) -> int:
    from robopol.data import Episodes, check_writable, save_episodes

    told = parse(MergeCommand, {"uris": uris} | _tree(options))
    check_writable(told.out)
    parts = [told.load(uri) for uri in told.uris]
    for uri, part in zip(told.uris[1:], parts[1:], strict=True):
        _check_same_world(told, uri, parts[0], part)
    with _more_images(told.cache):
        merged = Episodes.concat(parts, parts[0].meta)
        save_episodes(merged, told.out)
    _report(merged, told.out, as_json)
    return 0


def _label(uris: list[str], options: list[str], as_json: bool) -> int:
    from robopol.checkpoint import load_part
    from robopol.data import check_writable, save_episodes
    from robopol.models.labels import advantages, label
    from robopol.models.value import ValueModel

    told = _told(LabelCommand, "label URI", ["uri"], uris, options)
    check_writable(told.out)
    critic = load_part(told.critic, "model")
    if not isinstance(critic, ValueModel):
        raise ConfigError(f"{told.critic} holds a {type(critic).__name__}, and labels need a value model")
    episodes = told.load(told.uri)
    good = advantages(critic, episodes) >= told.threshold
    labelled = label(episodes, good, told.key)
    save_episodes(labelled, told.out)
    _report(labelled, told.out, as_json, {told.key: good.float().mean().item()})
    return 0


def _check_same_world(told: MergeCommand, uri: str, first: "Episodes", other: "Episodes") -> None:
    """Refuse, in words, to merge what was not recorded in the same world and way."""
    from robopol.data.episodes import MERGED

    mine, theirs = first.meta.tree(), other.meta.tree()
    # Models, tasks and sources are merged; everything else must be true of all episodes.
    differing = [name for name in mine if mine[name] != theirs[name] and name not in MERGED]
    if differing == ["versions"] and told.versions == "first":
        return
    if differing:
        hint = "; say versions=first to keep those of the first" if differing == ["versions"] else ""
        lines = "".join(f"\n  {name}: {_brief(mine[name])} / {_brief(theirs[name])}" for name in differing)
        raise DataError(f"{told.uris[0]} and {uri} do not say the same of all their episodes{hint}:{lines}")


def _told(cls: type[T], usage: str, names: Sequence[str], uris: list[str], options: list[str]) -> T:
    """Read the words of a sub-verb."""
    if len(uris) != len(names):
        raise ConfigError(f"say: robopol data {usage} [key=value ...]; got {len(uris)} URIs: {' '.join(uris)}")
    return parse(cls, dict(zip(names, uris, strict=True)) | _tree(options))


def _tree(options: list[str]) -> dict[str, Any]:
    if not options:
        return {}
    from omegaconf import OmegaConf

    tree: Any = OmegaConf.to_container(OmegaConf.from_dotlist(options))
    return dict(tree)


@contextmanager
def _more_images(cache: str | None) -> Iterator[None]:
    """Make images that are put together in files of the cache, which are gone afterwards; in memory without one."""
    if cache is None:
        yield
        return
    from robopol.data.image_columns import columns_in_files

    place = Path(cache).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="merging-", dir=place) as folder, columns_in_files(Path(folder)):
        yield


@contextmanager
def _spoken_warnings() -> Iterator[None]:
    """Say what a format could not hold in one line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, DataWarning):
                print(f"robopol data: warning: {message}", file=sys.stderr)
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = say
        yield


def _report(episodes: "Episodes", uri: str, as_json: bool, shares: Mapping[str, float] | None = None) -> None:
    """Say what was written, and in what share of the steps an observation of it is 1."""
    path = Path(re.sub(r"^[A-Za-z][\w+-]+:", "", uri.partition("?")[0])).expanduser()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if as_json:
        facts = {"uri": uri, "episodes": len(episodes), "steps": episodes.num_steps, "bytes": size}
        _show(facts | ({"shares": dict(shares)} if shares else {}), as_json)
        return
    print(f"{uri}: {len(episodes)} episodes, {episodes.num_steps} steps, {size / 1e6:.1f} MB")
    for key, share in (shares or {}).items():
        print(f"'{key}' is 1 in {share:.1%} of the steps")


def _show(facts: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts)))


def _lines(tree: dict[str, Any], indent: str = "") -> list[str]:
    """Render a tree as indented lines."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict | str):
            lines.append(f"{indent}{key}:")
            lines += [f"{indent}  {_row(item)}" for item in value[:SHOWN]]
            lines += [f"{indent}  ... {len(value) - SHOWN} more"] if len(value) > SHOWN else []
        else:
            lines.append(f"{indent}{key}: {_short(value)}")
    return lines


def _row(item: dict[str, Any] | str) -> str:
    return item if isinstance(item, str) else ", ".join(f"{key} {_short(value)}" for key, value in item.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return "-" if value is None else str(value)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
