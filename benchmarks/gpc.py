"""Two policies that each see a part of the world well, and what a convex mix of their fields is worth (GPC).

    python benchmarks/gpc.py [--tasks multi_goal reach] [--seeds 0 1 2] [--work DIR] [--out FILE] [--toy]

Each parent sees the world with an error that is constant over an episode, as of a camera that was put up a little
wrongly, and each another one: on Reach and MultiGoal the target's x or its y, on PickPlace the cube's place or the
mark's. One is a diffusion policy, the other a flow policy, cloned from the same demonstrations; their fields lie on
different paths. The weight is searched on tuning seeds and judged on others, episodes paired by their seed. Controls:
the second parent is fed another episode's observation; the second parent was trained for far too short. Beside them
what PoCo (Wang et al. 2024) compares its composition of domains with: one policy that learned from both views pooled,
an episode seen by either, and is shown either. The toy has two denoisers whose errors are known.

How large the errors on Reach are was set so that the parents come close, after seeing held-out rates of seed 0 under
two other pairs; on MultiGoal after a look at tuning seeds, with another training seed.
Finished runs are kept in ``--work`` and not trained again.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cloning
import gpc_toy
import intervals
import numpy as np
import sections
import steered
import torch
from ledger import Ledger
from torch import Tensor

from robopol import evaluate, load_policy
from robopol.data import save_episodes
from robopol.envs import VectorEnv, make_env
from robopol.envs.vector import Observation, StepResult
from robopol.envs.wrappers import VectorWrapper, WrapperConfig
from robopol.evaluation import ExpertActor, tune
from robopol.evaluation.collect import collect
from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy
from robopol.policies.samplers.first_order import DDIMConfig
from robopol.steering import AgreementConfig, CompositionConfig, SteeredPolicy
from robopol.steering.agreement import Agreement
from robopol.steering.composition import Composition
from robopol.steering.members import Member, Members, join
from robopol.steering.steering import Planning

RESULTS = Path(__file__).parent / "results"


POOLED = "pooled"
"""The observation that is an episode's only view: any of them, with equal chance."""


class ViewsConfig(WrapperConfig):
    """An observation as several observers see it, each under a key of its own, and as one of them does (`POOLED`).

    Attributes:
        seen: The observation.
        errors: Key -> (entry of the observation, standard deviation of its error over the episodes).
    """

    kind: Literal["views"] = "views"
    seen: str
    errors: dict[str, tuple[tuple[int, float], ...]]

    def build(self, env: VectorEnv) -> "Views":
        """See `WrapperConfig.build`."""
        return Views(env, self)


class Views(VectorWrapper):
    """See `ViewsConfig`; the errors of an episode are drawn from its seed."""

    def __init__(self, env: VectorEnv, config: ViewsConfig) -> None:
        """Wrap; see `ViewsConfig.build`."""
        size = env.spec.obs_shapes[config.seen][0]
        keys = [*config.errors, POOLED]
        super().__init__(
            env,
            config,
            memory=size * len(keys),
            obs_shapes=env.spec.obs_shapes | {key: (size,) for key in keys},
            obs_dtypes=env.spec.obs_dtypes | {key: "float32" for key in keys},
        )
        self.spec = replace(
            self.spec, wrappers=env.spec.wrappers
        )  # a wrapper of this script alone is no registered kind
        self._std = np.zeros((len(config.errors), size))
        for row, errors in zip(self._std, config.errors.values(), strict=True):
            for entry, std in errors:
                row[entry] = std
        self._keys, self._seen = keys, config.seen

    def reset(self, slots: list[int], seeds: list[int]) -> Observation:  # type: ignore[override]
        """See `VectorEnv.reset`."""
        observation = self.env.reset(slots, seeds)
        for slot, seed in zip(slots, seeds, strict=True):
            rng = np.random.default_rng([int(seed), 0x56494557])
            errors = rng.standard_normal(self._std.shape) * self._std
            self.memory[slot] = torch.from_numpy(np.append(errors, errors[rng.integers(len(errors))]))
        return self._beside(slots, observation)

    def step(self, slots: list[int], actions: Tensor) -> StepResult:  # type: ignore[override]
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        return result._replace(obs=self._beside(slots, result.obs))

    def _beside(self, slots: list[int], observation: Observation) -> Observation:
        errors = self.memory[list(slots)].float().unflatten(1, (len(self._keys), -1))
        return dict(observation) | {key: observation[self._seen] + errors[:, i] for i, key in enumerate(self._keys)}


class Task(NamedTuple):
    """What is done on a task.

    Attributes:
        env: Its id.
        options: Of the environment.
        seen: The observation that the parents see with errors.
        besides: What they see without.
        demonstrations: How many.
        updates: Of each parent.
        errors: See `ViewsConfig`.
        weights: Of the second parent, tried.
        episodes: Of each weight.
        held_out: Episodes of each row of the table, for each training seed.
    """

    env: str
    options: dict[str, Any]
    seen: str
    besides: tuple[str, ...]
    demonstrations: int
    updates: int
    errors: dict[str, tuple[tuple[int, float], ...]]
    weights: tuple[float, ...]
    episodes: int
    held_out: int


TASKS = {
    "multi_goal": Task(
        "robopol/MultiGoal-v0",
        {"target": "shown", "goals": 8},
        "target",
        ("state",),
        400,
        3000,
        {"a": ((0, 0.55),), "b": ((1, 0.3),)},
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        100,
        200,
    ),
    "reach": Task(
        "robopol/Reach-v0",
        {},
        "state",
        (),
        300,
        1500,
        {"a": ((11, 0.026),), "b": ((12, 0.037),)},
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        100,
        200,
    ),
    "pick_place": Task(
        "robopol/PickPlace-v0",
        {},
        "state",
        (),
        500,
        3000,
        {"a": ((11, 0.014), (12, 0.014)), "b": ((15, 0.018), (16, 0.018))},
        (0.0, 0.25, 0.5, 0.75, 1.0),
        50,
        100,
    ),
}
TUNING, SHORT = 300_000, (0.0, 0.25, 0.5)
"""Seed of the first tuning episode; weights that are tried for the parent that is far worse."""
DIFFUSION = ["policy=diffusion", "policy/sampler=ddim", "policy.prediction=x0", *cloning.FLOW[4:], cloning.FLOW[0]]
PARENTS = {"a": [*DIFFUSION, "policy/net=mlp"], "b": cloning.FLOW, POOLED: [*DIFFUSION, "policy/net=mlp"]}
POORLY = "control: b far worse"
POOR = 200
"""Updates of the parent that is far worse."""


class Shuffled(Composition):
    """A control: the other member looks at another episode."""

    def look(self, index: int, planning: Planning) -> Member:
        """See `Members.look`."""
        return super().look(index, replace(planning, obs={k: v.roll(1, 0) for k, v in planning.obs.items()}))


def world(task: str, num_envs: int = 32) -> VectorEnv:
    told = TASKS[task]
    return ViewsConfig(seen=told.seen, errors=told.errors).build(make_env(told.env, num_envs, **told.options))


def parents(task: str, seed: int, work: Path) -> dict[str, Path]:
    """Return the finished runs of both parents, of one that was trained for too short, and of one that saw both."""
    updates = TASKS[task].updates
    demos = work / f"{task}.hdf5"
    if not demos.exists():
        with world(task, 16) as env:
            count = TASKS[task].demonstrations
            save_episodes(collect(ExpertActor(env), env, count, 0, source="expert", only_success=True), str(demos))
    found = {}
    lengths = {"a": updates, "b": updates, "poor": POOR, POOLED: updates}
    for name, length in lengths.items():
        view = "b" if name == "poor" else name
        found[name] = work / f"{task}-{name}-{seed}"
        cloning.train(
            found[name],
            *PARENTS[view],
            "env=none",
            f"data.demos.uri={demos}",
            f"policy.encoder.keys=[{','.join((*TASKS[task].besides, view))}]",
            f"seed={seed}",
            f"phases.cloning.updates={length}",
        )
    return found


def mixing(base: Policy, other: Policy, built: type[Composition] = Composition) -> Callable[[Any], Policy]:
    """Return weight of the other -> the mix."""
    member = join(base, other, "composition")  # type: ignore[arg-type]

    def build(weight: float) -> Policy:
        config = CompositionConfig(policies=("in memory",), weights=(1 - weight, weight))
        return SteeredPolicy(base, [built(config, [member])])

    return build


def one_seed(task: str, seed: int, work: Path) -> dict[str, Any]:
    """Return what a ledger keeps of a training seed: row -> a 0 or 1 for each held-out episode, and the search."""
    told, policies = TASKS[task], candidates(task, seed, work)
    first = TUNING + told.episodes
    with world(task) as env:

        def held_out(policy: Policy) -> str:
            return written(float(one.success) for one in evaluate(policy, env, told.held_out, first).outcomes)

        a, (b, poor) = policies["a: diffusion"], (policies[name] for name in ("b: flow", f"{POORLY}, alone"))
        budget = {"episodes": told.episodes, "seed": TUNING, "held_out": told.held_out}
        found = tune(a, told.weights, mixing(a, b), env, **budget)
        with_poor = tune(a, SHORT, mixing(a, poor), env, **budget)
        assert found.held_out is not None
        assert with_poor.held_out is not None
        rows = {name: held_out(policy) for name, policy in policies.items()}
        rows["composition, weight searched"] = written(found.held_out.best.values)
        rows[f"{POORLY}, weight searched"] = written(with_poor.held_out.best.values)
    return {
        "rows": rows,
        "curve": [row.mean for row in found.judged],
        "chosen": found.settings[found.best],
        "selection_bias": found.held_out.selection_bias,
        "disagreement": (found.judged[found.best].steering or {}).get("composition/disagreement"),
    }


def candidates(task: str, seed: int, work: Path) -> dict[str, Policy]:
    """Return every policy of a training seed that needs no search, by name."""
    runs = parents(task, seed, work)
    a, b, poor, pooled, noisy = (load_policy(runs[name]) for name in ("a", "b", "poor", POOLED, "a"))
    assert isinstance(noisy, GenerativePolicy)
    noisy.resample(DDIMConfig(eta=1.0))
    members: Members = Agreement(AgreementConfig(policies=("in memory",)), [join(noisy, b, "agreement")])
    return {
        "a: diffusion": a,
        "b: flow": b,
        "composition, 1/2": mixing(a, b)(0.5),
        "control: b sees another episode, 1/2": mixing(a, b, Shuffled)(0.5),
        f"{POORLY}, alone": poor,
        f"{POORLY}, 1/2": mixing(a, poor)(0.5),
        "composition, 1/2, eta = 1": mixing(noisy, b)(0.5),
        "agreement, eta = 1": SteeredPolicy(noisy, [members]),
        "one policy of both, pooled": pooled,
    }


def written(values: Iterable[float]) -> str:
    """Return a 0 or 1 for each episode."""
    return "".join(str(int(value)) for value in values)


def judge(kept: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put the training seeds together; every row is compared with its better parent on these very episodes."""
    by_seed = [{name: [float(digit) for digit in row] for name, row in one["rows"].items()} for one in kept]
    rows = {}
    for name in by_seed[0]:
        other = f"{POORLY}, alone" if name.startswith(POORLY) else "b: flow"
        better = [max((one["a: diffusion"], one[other]), key=np.mean) for one in by_seed]
        values = [one[name] for one in by_seed]
        rows[name] = intervals.success(values) | intervals.gain(better, values)
    pairs = [pair for one in by_seed for pair in zip(one["a: diffusion"], one["b: flow"], strict=True)]
    shares = {f"a {int(x)}, b {int(y)}": pairs.count((x, y)) / len(pairs) for x in (1.0, 0.0) for y in (1.0, 0.0)}
    return {"rows": rows, "parents_succeed": shares}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Two policies that see different things, composed",
        "",
        "A diffusion and a flow policy, each of which sees another entry of the state with an error; a convex mix of "
        "their fields, its weight searched on tuning seeds and judged on others. Difference: to the better of the two "
        "parents on these very episodes, paired. Controls: b is fed another episode's observation, or was trained for "
        "200 updates (then compared with the better of a and that). One policy of both learned from both views pooled, "
        "an episode seen by either, and is shown either: what PoCo compares its composition of domains with. "
        "See [composition.md](composition.md). "
        "`python benchmarks/gpc.py --toy`",
        "",
    ]
    for task, told in tree["setting"]["tasks"].items():
        if task not in tree["tables"]:
            continue
        found = tree["tables"][task]
        chosen = ", ".join(f"{weight:g}" for weight in found["chosen"])
        bias = ", ".join(f"{100 * bias:+.0f}" for bias in found["selection_bias"])
        shares = ", ".join(f"{name}: {share:.0%}" for name, share in found["parents_succeed"].items())
        lines += [
            f"| {task}, {sections.seeds(found['rows'])} seeds x {told['held_out']} episodes | success | by seed | "
            "points gained, paired | a plan (to a's) |",
            "|---|---|---|---|---|",
        ]
        for name, row in found["rows"].items():
            cost = steered.cost(found, name, "a: diffusion")
            cells = (name, sections.percent(row), sections.by_seed(row), sections.gained(row), cost)
            lines.append(f"| {' | '.join(cells)} |")
        curve = " ".join(f"{rate:.0%}" for rate in found["curve"])
        lines += [
            "",
            f"Weights of b tried: {' '.join(f'{weight:g}' for weight in told['weights'])}; success on "
            f"{told['episodes']} tuning episodes, mean over seeds: {curve}. Chosen: {chosen}; the gain over a then "
            f"shrank on held-out seeds by {bias} points. Share of the episodes in which the parents succeed (1) or "
            f"fail (0): {shares}.",
            "",
        ]
    toy = tree["tables"]["toy"]
    lines += [
        f"The toy: two perfect denoisers of wrong rings, {toy['draws']} draws of their errors. The energy distance to "
        f"the target is smallest at a weight of {toy['best']:g}; uncorrelated errors predict {toy['predicted']:.2f}; "
        f"{toy['interior']} of {toy['draws']} draws have their minimum inside. Beside it two different skills.",
        "",
        "![the toy](../benchmarks/results/gpc-toy.png)",
        "",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/gpc"))
    parser.add_argument("--out", type=Path, default=RESULTS / "gpc.json")
    parser.add_argument("--toy", action="store_true", help="the toy too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(args.out, {"tasks": {name: task._asdict() for name, task in TASKS.items()}, "poor": POOR})
    if args.toy:
        ledger.tables["toy"] = gpc_toy.curve()
        gpc_toy.draw(ledger.tables["toy"], args.out.with_name("gpc-toy.png"))
        ledger.write()
    for task in args.tasks:
        for seed in args.seeds:
            kept = ledger.measure(task, seed, lambda seed=seed, task=task: one_seed(task, seed, args.work))
            rates = {name: round(row.count("1") / len(row), 3) for name, row in kept["rows"].items()}
            print(task, seed, kept["chosen"], rates, flush=True)
        every = ledger.of(task)
        ledger.tables[task] = {
            "curve": np.mean([one["curve"] for one in every], 0).tolist(),
            **{name: [one[name] for one in every] for name in ("chosen", "selection_bias", "disagreement")},
            **judge(every),
            "plan_ms": steered.costs(candidates(task, args.seeds[-1], args.work)),
        }
        ledger.write()


if __name__ == "__main__":
    main()
