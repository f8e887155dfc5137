"""From a policy that was cloned to a better one: success over environment steps, every method from the same bases.

    python benchmarks/finetune.py [--task goals] [--rows dppo fpo] [--seeds 0 1 2] [--steps 115200] [--episodes 100]
                                  [--threads 1] [--bases runs/bases] [--data FOLDER]
                                  [--out benchmarks/results/finetune.json]

A base is cloned from a few scripted demonstrations of the task, one for each seed and kind of policy; every method goes
on from the base of its seed. The task ``hopper`` is cloned from records instead: ``FOLDER/hopper-medium.hdf5``, in
D4RL's layout, recorded in Hopper-v5. Before the first step and after 1, 2, 5, 10, 20, ... 100 % of the steps (or where
the rollout ends in which that is) the policy is evaluated by `robopol.evaluate` as it is deployed, on the same held-out
episodes, which the budget does not count. What is told of an evaluation is its success rate; of ``hopper`` its mean
return on the scale of D4RL, 0 for a random policy and 1 for an expert.

Printed for each row, as interquartile means over training seeds with 95 % intervals (bootstrap): the base and the end
(mean of the last three evaluations), what was gained, the mean under the curve over environment steps, and the drop, by
how much it falls below the base within the first tenth of the steps; and environment steps, gradient steps and seconds
of training. What was measured is kept in ``--out`` by row and seed, and is not measured again.

A method is a row of `finetune_rows.ROWS`: the kind of its base, and the words of ``robopol train`` that begin from it.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sections
from finetune_rows import BASES, ROWS, TASKS, Task
from followed import followed
from ledger import Ledger

from robopol import load_policy
from robopol.config import parse
from robopol.data import save_episodes
from robopol.data.reference import normalised_score, reference_returns
from robopol.envs import make_env
from robopol.evaluation import SEED0, Evaluation, ExpertActor, evaluate
from robopol.evaluation.collect import collect
from robopol.evaluation.course import course
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.training.config import TrainConfig
from robopol.training.run import RunFolder
from robopol.training.trainer import Trainer
from robopol.training.words import configured

RESULTS = Path(__file__).parent / "results"

MEASURES = ("base", "end", "gain", "area", "drop")
SPENT = ("env_steps", "updates", "seconds")


def world(task: Task) -> list[str]:
    """Return the words that name a task's world."""
    return ["env=gym", f"env.id={task.id}", *(f"+env.options.{key}={value}" for key, value in task.options.items())]


def score(found: Evaluation, task: Task) -> float:
    """Return what is told of an evaluation."""
    if task.reference is None:
        return found.success_rate
    references = reference_returns(task.reference)
    assert references is not None
    return normalised_score(found.return_mean, *references) / 100


def demonstrations(name: str, seed: int, words: argparse.Namespace) -> str:
    """Return where that lies from which a base is cloned; collect it if it is to be and is not there."""
    task = TASKS[name]
    file = words.bases / f"{name}-{task.demos}-{seed}.hdf5"
    if not task.demos:
        if words.data is None:
            raise SystemExit(f"--task {name} needs --data FOLDER, with {task.records} in it")
        return f"d4rl:{words.data / task.records}"
    if not file.exists():
        words.bases.mkdir(parents=True, exist_ok=True)
        with make_env(task.id, 8, **task.options) as env:
            found = collect(ExpertActor(env), env, task.demos, 1000 * seed, source="expert", only_success=True)
            save_episodes(found, file)
    return str(file)


def base(name: str, kind: str, seed: int, words: argparse.Namespace) -> Path:
    """Clone a base, unless it is there; return its run folder."""
    task, updates = TASKS[name], TASKS[name].cloning(kind)
    run = words.bases / f"{name}-{kind}-{task.demos}-{updates}-{seed}"
    if not (run / "checkpoints" / "last").exists():
        said = [*BASES[kind], *world(task), f"data.demos.uri={demonstrations(name, seed, words)}", f"seed={seed}"]
        said += [f"phases.cloning.updates={updates}", f"checkpoint.every={updates}", f"run={run}"]
        said += ["algo.lr=1e-3", "algo.warmup=50", "data.demos.validation=0", f"runtime.threads={words.threads}"]
        with Trainer(parse(TrainConfig, configured(said))) as trainer:
            trainer.start(RunFolder.create(run, trainer.config.tree()))
            trainer.run()
    return run


def measure_base(name: str, kind: str, seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """Return the score of a base as it was cloned."""
    task, run = TASKS[name], base(name, kind, seed, words)
    with make_env(task.id, 32, **task.options) as env:
        return {"score": score(evaluate(load_policy(run), env, words.episodes, SEED0), task)}


def curve(name: str, row: str, seed: int, steps: int, words: argparse.Namespace) -> dict[str, Any]:
    """Return the score before the first step and after a growing share of them, and what was spent by then."""
    task, (kind, said) = TASKS[name], ROWS[row]
    folder = base(name, kind, seed, words)
    said = [word.format(base=folder, demos=demonstrations(name, seed, words)) for word in said]
    said += [*world(task), *task.words, f"seed={seed}", "run=none", f"runtime.threads={words.threads}"]
    with (
        make_env(task.id, 32, **task.options) as env,
        Trainer(parse(TrainConfig, configured([*said, f"phases.online.env_steps={steps}"]))) as trainer,
    ):
        return followed(trainer, steps, lambda policy: score(evaluate(policy, env, words.episodes, SEED0), task))


def measures(curves: list[dict[str, Any]], bases: list[float]) -> dict[str, list[float]]:
    """Return what is said of curves by name, a value for each.

    Args:
        curves: What `curve` returned.
        bases: Score of the base of each.
    """
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for one, start in zip(curves, bases, strict=True):
        told = course(one["env_steps"], one["score"])
        drop = max(0.0, told.drop + start - told.start)  # below the base as it acts alone
        for name, value in zip(found, (start, told.end, told.end - start, told.area, drop), strict=True):
            found[name].append(value)
    return found


def table(name: str, steps: int, ledger: Ledger) -> dict[str, Any]:
    """Return the figures of every method that was measured on a task over so many steps, by name."""
    found: dict[str, Any] = {}
    for row, (kind, _) in ROWS.items():
        key = f"{name}, {steps} steps, {row}"
        if key in ledger.measured:
            seeds = ledger.seeds(key)
            curves, bases = ledger.of(key), [one["score"] for one in ledger.of(f"{name}, base {kind}", seeds)]
            told = measures(curves, bases)
            figures = {what: {"iqm": iqm(v), "ci95": stratified_iqm([v])} for what, v in told.items()}
            spent = {what: float(np.mean([one[what][-1] for one in curves])) for what in SPENT}
            found[row] = figures | spent | {"seeds": len(seeds)}
    return found


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## From a cloned policy to a better one",
        "",
        f"Every method from the same bases, {tree['setting']['episodes']} held-out episodes before the first step and "
        "densely after it: success of the base, at the end (last three evaluations), on average over environment "
        "steps, and by how much it falls within their first tenth; interquartile means over training seeds, with their "
        "95% intervals. Of Hopper it is the return on D4RL's scale. RLPD begins with a policy of its own, which knows "
        "nothing. `fpo, both`: of velocities, and asymmetric. `python benchmarks/finetune.py`",
        "",
    ]
    for task, rows in tree["tables"].items():
        lines += [
            f"{task}:",
            "",
            "| method | base | at the end | gain | on average | drop | steps | updates | minutes | seeds |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            told = [sections.share(row[what]["iqm"], row[what]["ci95"]) for what in MEASURES]
            spent = f"{row['env_steps']:,.0f} | {row['updates']:,.0f} | {row['seconds'] / 60:.0f} | {row['seeds']}"
            lines.append(f"| {name} | {' | '.join(told)} | {spent} |")
        lines.append("")
    return lines


def main() -> None:
    """Measure what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="goals", choices=list(TASKS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="environment steps, by default those of the task")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--data", type=Path, help="folder of the records")
    parser.add_argument("--out", type=Path, default=RESULTS / "finetune.json")
    words = parser.parse_args()
    steps = words.steps or TASKS[words.task].steps
    title = f"{words.task}, {steps} steps"
    ledger = Ledger(words.out, {"episodes": words.episodes})
    for seed in words.seeds:  # all rows of a seed before the next, so that an interrupted run compares equals
        for row in words.rows:
            kind = ROWS[row][0]
            ledger.measure(f"{words.task}, base {kind}", seed, partial(measure_base, words.task, kind, seed, words))
            made = ledger.measure(f"{title}, {row}", seed, partial(curve, words.task, row, seed, steps, words))
            print(f"{row} seed {seed}: " + " ".join(f"{value:.2f}" for value in made["score"]), flush=True)
            ledger.tables[title] = table(words.task, steps, ledger)
            ledger.write()
    for row, figures in ledger.tables[title].items():
        for what in MEASURES:
            low, high = figures[what]["ci95"]
            print(f"{row:20} {what:5} {figures[what]['iqm']:6.3f}  [{low:.3f} .. {high:.3f}], {figures['seeds']} seeds")


if __name__ == "__main__":
    main()
