"""Search a dial of a policy at test time, and say honestly what was found.

Every setting is judged over the same episodes, so that settings differ by what they do and not by their luck. The best
of many is better than the others partly by luck all the same: what it is worth is said by episodes that were not
looked at for choosing it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from robopol.config import Config
from robopol.envs import VectorEnv
from robopol.errors import ConfigError
from robopol.evaluation.protocol import Evaluation, evaluate
from robopol.evaluation.statistics import bootstrap_mean, mcnemar, paired, wilson
from robopol.policies import Policy

Metric = Literal["success", "return"]


class Judged(Config):
    """What a policy came to over some seeds.

    Attributes:
        mean: Success rate, or mean return.
        ci95: Its interval: Wilson's, or that of a bootstrap.
        difference: Mean difference to the base policy over the same seeds.
        difference_ci95: Its paired bootstrap interval.
        p: Exact p-value of McNemar's test that both succeed as often; None for returns.
        values: Of each episode, in the order of the seeds.
        steering: Means of what steering did.
    """

    mean: float
    ci95: tuple[float, float]
    difference: float
    difference_ci95: tuple[float, float]
    p: float | None
    values: tuple[float, ...]
    steering: dict[str, float] | None


class HeldOut(Config):
    """What the choice is worth over seeds that were not looked at for making it.

    Attributes:
        seeds: First and last.
        base: The base policy.
        best: The chosen setting.
        selection_bias: What the chosen setting's gain over the base shrank by, from the seeds that it was chosen on.
    """

    seeds: tuple[int, int]
    base: Judged
    best: Judged
    selection_bias: float


class Tuning(Config):
    """What a search found.

    Attributes:
        metric: What was judged.
        seeds: First and last seed that the search looked at.
        base: The base policy.
        settings: What was tried.
        judged: What each came to.
        best: The number of the best of them, the first of equals.
        held_out: What it is worth; None if that was not asked.
    """

    metric: Metric
    seeds: tuple[int, int]
    base: Judged
    settings: tuple[JsonValue, ...]
    judged: tuple[Judged, ...]
    best: int
    held_out: HeldOut | None


def tune(
    base: Policy,
    settings: Sequence[JsonValue],
    build: Callable[[Any], Policy],
    env: VectorEnv,
    *,
    episodes: int = 100,
    seed: int = 300_000,
    held_out: int = 100,
    metric: Metric = "success",
    execution: Any = None,
    on_judged: Callable[[str, Judged], None] | None = None,
) -> Tuning:
    """Judge settings of a policy beside each other, and the best of them once more.

    Args:
        base: What all are compared with.
        settings: What is tried, at least one.
        build: Setting -> the policy so set.
        env: Where.
        episodes: Of each setting, at least 1.
        seed: Seed of the first; the same episodes for all.
        held_out: Further episodes, on which only the base and the best are judged; 0 leaves that out.
        metric: What is judged.
        execution: How plans are executed; see `robopol.evaluation.evaluate`.
        on_judged: Told of each as it is judged, by ``"base"``, its number, ``"held-out base"`` and ``"held-out best"``.

    Raises:
        ConfigError: If there is nothing to try, or a policy cannot act there.
    """
    if not settings:
        raise ConfigError("there is nothing to try: give at least one value")

    def judge(policy: Policy, name: str, first: int, count: int, beside: Judged | None) -> Judged:
        found = judged(evaluate(policy, env, count, first, execution=execution), metric, beside)
        if on_judged is not None:
            on_judged(name, found)
        return found

    start = judge(base, "base", seed, episodes, None)
    rows = [judge(build(one), str(i), seed, episodes, start) for i, one in enumerate(settings)]
    best = int(np.argmax([row.mean for row in rows]))
    checked: HeldOut | None = None
    if held_out:
        first = seed + episodes
        plain = judge(base, "held-out base", first, held_out, None)
        chosen = judge(build(settings[best]), "held-out best", first, held_out, plain)
        shrunk = rows[best].difference - chosen.difference
        seeds = (first, first + held_out - 1)
        checked = HeldOut(seeds=seeds, base=plain, best=chosen, selection_bias=shrunk)
    return Tuning(
        metric=metric,
        seeds=(seed, seed + episodes - 1),
        base=start,
        settings=tuple(settings),
        judged=tuple(rows),
        best=best,
        held_out=checked,
    )


def judged(found: Evaluation, metric: Metric = "success", beside: Judged | None = None) -> Judged:
    """Compare an evaluation with another one over the same seeds.

    Args:
        found: The evaluation.
        metric: What is compared.
        beside: The base policy; None for itself.
    """
    success = metric == "success"
    values = tuple(float(one.success) if success else one.total_reward for one in found.outcomes)
    against = values if beside is None else beside.values
    difference, *interval = paired(against, values)
    return Judged(
        mean=float(np.mean(values)),
        ci95=wilson(round(sum(values)), len(values)) if success else bootstrap_mean(values),
        difference=difference,
        difference_ci95=(interval[0], interval[1]),
        p=mcnemar([value > 0 for value in against], [value > 0 for value in values]) if success else None,
        values=values,
        steering=found.steering,
    )
