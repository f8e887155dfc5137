"""Search a dial of a steering at test time.

  robopol tune checkpoint=DIR 'steering={kind: best_of, n: 4, objective: ...}' over=steering.0.n 'values=[1,4,16]'
  robopol tune checkpoint=DIR 'steering={kind: composition, policies: [B], weights: [0.5, 0.5]}'
      over=steering.0.weights 'values=[[1,0],[0.75,0.25],[0.5,0.5],[0.25,0.75],[0,1]]'
      [episodes=100] [seed=300000] [held_out=100] [out=tune.json] [out_policy=DIR] [metric=return]

Every value is judged over the same episodes and compared with the policy that is not steered, episode by episode. The
best one is judged again, beside that policy, over ``held_out`` further episodes: what a dial is worth is said there,
since the best of many is partly lucky. ``over`` is a key of the steering that may lie as deep as it likes, e.g.
steering.1.objective.weights. ``out`` is a JSON, with a picture beside it; ``out_policy``
is the policy steered by the best.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue

from robopol.commands.acting import ActingCommand
from robopol.config import Config, OneOf, parse
from robopol.configs import load_config
from robopol.envs.config import EnvWords
from robopol.errors import ConfigError
from robopol.evaluation.tuning import Judged, Metric, Tuning
from robopol.execution import RecedingHorizonConfig
from robopol.registry import nearest
from robopol.steering.steering import Steerings


class TuneCommand(ActingCommand):
    """What `robopol tune` is told.

    Attributes:
        checkpoint: What `robopol eval` takes.
        steering: What steers it, in the order in which it acts.
        over: The key of the steering that is searched, e.g. steering.0.weights.
        values: What it is set to, one after the other.
        episodes: How many for each value.
        seed: Seed of the first.
        held_out: Further episodes for the base policy and the best value; 0 leaves that out.
        metric: What is judged.
        num_envs: Environments stepped together.
        out: Where the result goes, as JSON, with a picture beside it.
        out_policy: Where the policy that is steered by the best value goes.
        env: What is other than in the world that the policy was trained for, or another one.
        execution: How plans are executed.
    """

    checkpoint: str
    steering: JsonValue
    over: str
    values: tuple[JsonValue, ...] = Field(min_length=1)
    episodes: int = Field(100, ge=1)
    seed: int = Field(300_000, ge=0)
    held_out: int = Field(100, ge=0)
    metric: Metric = "success"
    num_envs: int = Field(32, ge=1)
    out: str | None = None
    out_policy: str | None = None
    env: EnvWords | None = None
    execution: Annotated[Any, OneOf("executor")] = RecedingHorizonConfig()


class Steered(Config):
    """A list of steerings, to be checked.

    Attributes:
        steering: They.
    """

    steering: Steerings = Field(min_length=1)


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(TuneCommand, load_config("tune", words))
    tried = [parse(Steered, {"steering": replaced(command.steering, command.over, one)}) for one in command.values]

    from robopol.checkpoint import WEIGHTS, save_part
    from robopol.evaluation.tuning import tune
    from robopol.files import occupied, whole_folder, why_not_written, write_json
    from robopol.policies import Policy

    if command.out is not None and (reason := why_not_written(Path(command.out))):
        raise ConfigError(f"out={command.out}: {reason}")
    if command.out_policy is not None and occupied(Path(command.out_policy), WEIGHTS):
        raise ConfigError(f"out_policy={command.out_policy} exists and is not a saved policy: choose another place")

    def build(number: int) -> Policy:
        return base.steered(*tried[number].steering)

    def say(name: str, found: Judged) -> None:
        label = f"{command.over}={_short(command.values[int(name)])}" if name.isdigit() else name
        print(line(label, found, command.metric), flush=True)

    print(f"{'':32} {command.metric}  [95%]  difference to the base, paired  [95%]  McNemar's p")
    with ExitStack() as opened:
        base, env = command.load_into(command.checkpoint, command.env, command.num_envs, opened)
        found = tune(
            base,
            list(range(len(tried))),
            build,
            env,
            episodes=command.episodes,
            seed=command.seed,
            held_out=command.held_out,
            metric=command.metric,
            execution=command.execution,
            on_judged=say,
        )
    found = found.model_copy(update={"settings": command.values})
    print(verdict(found, command.over))
    if command.out is not None:
        from robopol.training.plots import plot_tuning

        told = {"checkpoint": command.checkpoint, "steering": command.steering, "over": command.over}
        write_json(Path(command.out), told | found.tree())
        picture = Path(command.out).with_suffix(".png")
        plot_tuning(found, command.over, picture)
        print(f"{command.out}, {picture}")
    if command.out_policy is not None:
        with whole_folder(Path(command.out_policy)) as folder:
            save_part(build(found.best), folder)
        print(command.out_policy)
    return 0


def replaced(steering: JsonValue, over: str, value: JsonValue) -> list[Any]:
    """Return a list of steerings in which one key has another value.

    Args:
        steering: A steering, its kind, or a list of them, as trees.
        over: The key, from ``steering`` on.
        value: The value.

    Raises:
        ConfigError: If there is no such place.
    """
    tree: Any = deepcopy(steering if isinstance(steering, list) else [steering])
    tree = [{"kind": one} if isinstance(one, str) else one for one in tree]
    first, *keys = over.split(".")
    if first != "steering" or len(keys) < 2:
        raise ConfigError(f"over={over} names no key of a steering: say e.g. steering.0.weights, 0 for the first")
    place: Any = tree
    for depth, key in enumerate(keys):
        last = depth + 1 == len(keys)
        known = key.isdigit() and int(key) < len(place) if isinstance(place, list) else isinstance(place, Mapping)
        if not known or (not last and isinstance(place, Mapping) and key not in place):
            there = range(len(place)) if isinstance(place, list) else place if isinstance(place, Mapping) else ()
            choices, above = ", ".join(map(str, there)) or "nothing", ".".join([first, *keys[:depth]])
            raise ConfigError(f"over={over}: {above} has no '{key}'{nearest(key, there)}; it has {choices}")
        at = int(key) if isinstance(place, list) else key
        if last:
            place[at] = value
        place = place[at]
    return list(tree)


def line(label: str, found: Judged, metric: Metric) -> str:
    """Say on one line how a policy did, and how it compares with the base."""
    low, high = found.ci95
    less, more = found.difference_ci95
    if metric == "return":
        beside = f"{found.difference:+.2f}  [{less:+.2f}, {more:+.2f}]"
        return f"{label:32} {found.mean:8.2f}  [{low:.2f}, {high:.2f}]  {beside}"
    p = "" if found.p is None else f"  p {found.p:.2g}"
    return (
        f"{label:32} {found.mean:6.1%}  [{low:.1%}, {high:.1%}]  {100 * found.difference:+.1f} points  "
        f"[{100 * less:+.1f}, {100 * more:+.1f}]{p}"
    )


def verdict(found: Tuning, over: str) -> str:
    """Say what was chosen and what it is worth."""
    best, unit, size = _short(found.settings[found.best]), "points", 100.0
    if found.metric == "return":
        unit, size = "return", 1.0
    seen = size * found.judged[found.best].difference
    chosen = f"best: {over}={best}, {seen:+.3g} {unit} over the base on the seeds that chose it"
    if found.held_out is None:
        return f"{chosen}; held_out=100 would say what it is worth on others"
    low, high = (size * bound for bound in found.held_out.best.difference_ci95)
    held = size * found.held_out.best.difference
    return (
        f"{chosen}, {held:+.3g} [{low:+.3g}, {high:+.3g}] on others: the choice was worth "
        f"{size * found.held_out.selection_bias:+.3g} {unit} of luck"
    )


def _short(value: JsonValue) -> str:
    return json.dumps(value, separators=(",", ":"))
