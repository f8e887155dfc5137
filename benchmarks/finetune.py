"""From a policy that was cloned to a better one: success over environment steps, every method from the same bases.

    python benchmarks/finetune.py [--task goals] [--rows dppo fpo] [--seeds 3] [--steps 115200] [--every 11520]
                                  [--episodes 100] [--threads 1] [--bases runs/bases]
                                  [--out benchmarks/results/finetune.json]

A base is cloned from a few scripted demonstrations of the task, one for each seed and kind of policy; every method goes
on from the base of its seed. Before the first step and every ``--every`` environment steps the policy is evaluated by
`robopol.evaluate` as it is deployed, on the same held-out episodes, which the budget does not count. Printed for each
row, with 95 % intervals over seeds (bootstrap): success of the base and at the end (mean of the last three
evaluations), the mean under the curve, and the drop, by how much success falls below the base's within the first tenth
of the steps or the first evaluation. What ``--out`` holds already, for the same settings, is not computed again.

A method is a row of `ROWS`: the kind of its base, and the words of ``robopol train`` that begin from it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import sections

from robopol.commands.train import configured
from robopol.config import parse
from robopol.data import save_episodes
from robopol.envs import make_env
from robopol.evaluation import SEED0, ExpertActor, evaluate
from robopol.evaluation.collect import collect
from robopol.evaluation.statistics import bootstrap_mean
from robopol.files import write_json
from robopol.policies import Policy
from robopol.training.config import TrainConfig
from robopol.training.run import RunFolder
from robopol.training.trainer import Trainer

TASKS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "goals": ("robopol/MultiGoal-v0", {"max_episode_steps": 30}, 20, 300),
    "maze": ("robopol/MultiGoal-v0", {"obstacles": "maze"}, 100, 3000),
    "reach": ("robopol/Reach-v0", {}, 10, 300),
}
"""Name -> id and options of the world, demonstrations, and updates of cloning: few, so that something can be gained."""

CHUNK = [
    "policy.n_obs_steps=1",
    "policy.horizon=4",
    "policy.n_action_steps=4",
    "policy/net=mlp",
    "policy.net.width=128",
]
BASES = {
    "diffusion": ["policy=diffusion", *CHUNK, "policy.path.train_steps=20"],
    "flow": ["policy=flow", *CHUNK, "policy.sampler.steps=10"],
}
"""Kind of base -> how it is described."""

ACTING = ["collection.num_envs=32", "phases.online.rollout=3840", "batch_size=240"]
BESIDE = ["collection.num_envs=4", "phases.online.warmup=1600", "phases.online.updates_per_step=0.5", "batch_size=128"]
BESIDE += ["model.hidden=[128,128]", "model.discount=0.98"]
ROWS = {
    "dppo": ("diffusion", ["algo=dppo", "checkpoint={base}", *ACTING, "algo.surrogate.clip=0.05"]),
    "dppo of a flow": (
        "flow",
        ["algo=dppo", "checkpoint={base}", *ACTING, "algo.scoring.steps=5", "algo.surrogate.clip=0.05"],
    ),
    "fpo": ("flow", ["algo=fpo", "checkpoint={base}", *ACTING, "algo.lr=1e-4", "algo.scale_rewards=true"]),
    "dsrl": ("flow", ["algo=dsrl", "checkpoint={base}", *BESIDE, "algo.alpha=0.1"]),
    "dsrl, of noise alone": ("flow", ["algo=dsrl_sac", "checkpoint={base}", *BESIDE, "algo.alpha=0.1"]),
    "expo": ("flow", ["algo=expo", "checkpoint={base}", *BESIDE, "algo.alpha=0.1", "algo.delay=2"]),
    "best of 8": ("flow", ["algo=expo", "checkpoint={base}", *BESIDE, "algo.edit=0", "algo.delay=2"]),
    "rlpd": ("flow", ["experiment=rlpd", *BESIDE, "data.demos.uri={demos}", "algo.delay=2"]),
}
"""Name -> kind of its base, and words of ``robopol train``; ``{base}`` stands for the folder of the base, ``{demos}``
for what it was cloned from. Methods with a replay need fewer steps than rollouts: compare at equal ``--steps``."""


def world(task: str) -> list[str]:
    """Return the words that name a task."""
    id, options, *_ = TASKS[task]
    return ["env=gym", f"env.id={id}", *(f"+env.options.{key}={value}" for key, value in options.items())]


def base(task: str, kind: str, seed: int, folder: Path, threads: int) -> Path:
    """Clone a base, unless it is there; return its run folder."""
    id, options, demos, updates = TASKS[task]
    data, run = folder / f"{task}-{seed}.hdf5", folder / f"{task}-{kind}-{seed}"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with make_env(id, 8, **options) as env:
            save_episodes(collect(ExpertActor(env), env, demos, 1000 * seed, source="expert", only_success=True), data)
    if not (run / "checkpoints" / "last").exists():
        words = [*BASES[kind], *world(task), f"data.demos.uri={data}", f"seed={seed}", f"run={run}"]
        words += [f"phases.cloning.updates={updates}", f"checkpoint.every={updates}", f"runtime.threads={threads}"]
        words += ["algo.lr=1e-3", "algo.warmup=50"]
        config = parse(TrainConfig, configured([*words, "data.demos.validation=0"]))
        with Trainer(config) as trainer:
            trainer.start(RunFolder.create(run, trainer.config.tree()))
            trainer.run()
    return run


def curve(row: str, task: str, seed: int, words: argparse.Namespace) -> list[float]:
    """Return success before the first step and after every ``--every`` ones."""
    kind, said = ROWS[row]
    folder = base(task, kind, seed, words.bases, words.threads)
    said = [word.format(base=folder, demos=words.bases / f"{task}-{seed}.hdf5") for word in said]
    said = [*said, *world(task), f"seed={seed}", "run=none", f"runtime.threads={words.threads}"]
    id, options, *_ = TASKS[task]
    found = []
    with (
        make_env(id, 32, **options) as env,
        Trainer(parse(TrainConfig, configured([*said, f"phases.online.env_steps={words.steps}"]))) as trainer,
    ):

        def judge() -> None:
            policy = trainer.algo.deployed()
            assert isinstance(policy, Policy)
            found.append(evaluate(policy, env, words.episodes, SEED0).success_rate)

        (phase,) = trainer.config.phases.values()
        assert trainer.collector is not None
        trainer.collector.begin()
        judge()
        while trainer.step < words.steps:
            before = trainer.step
            trainer.advance(phase, 0)
            if trainer.step // words.every > before // words.every:
                judge()
    return found


def measures(curves: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is said of curves (seeds, evaluations), by name, (seeds,) each."""
    early = max(1, (curves.shape[1] - 1) // 10)
    return {
        "base": curves[:, 0],
        "end": curves[:, -3:].mean(1),
        "area": ((curves[:, 1:] + curves[:, :-1]) / 2).mean(1),
        "drop": (curves[:, 0] - curves[:, 1 : early + 1].min(1)).clip(min=0),
    }


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## From a cloned policy to a better one",
        "",
        f"Success on '{tree['task']}', {tree['episodes']} held-out episodes every {tree['every']:,} of "
        f"{tree['steps']:,} environment steps, every method from the same bases: of the base, at the end (last three "
        "evaluations), on average, and by how much it falls at first; 95% intervals over training seeds. "
        "`python benchmarks/finetune.py`",
        "",
        "| method | base | at the end | on average | drop | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in tree["success"].items():
        curves = np.array(list(row.values()))
        told = [sections.share(v.mean(), bootstrap_mean(v.tolist())) for v in measures(curves).values()]
        lines.append(f"| {name} | {' | '.join(told)} | {len(curves)} |")
    return [*lines, ""]


def main() -> None:
    """Compute what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="goals", choices=list(TASKS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=115_200)
    parser.add_argument("--every", type=int, default=11_520)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    settings = {"task": words.task, "steps": words.steps, "every": words.every, "episodes": words.episodes}
    found: dict[str, dict[str, list[float]]] = {}  # row -> seed -> success
    if words.out is not None and words.out.exists():
        stored = json.loads(words.out.read_text())
        found = stored["success"] if {key: stored[key] for key in settings} == settings else {}
    for seed in range(words.seeds):  # all rows of a seed before the next, so that an interrupted run compares equals
        for row in words.rows:
            done = found.setdefault(row, {})
            if str(seed) not in done:
                done[str(seed)] = curve(row, words.task, seed, words)
                print(f"{row} seed {seed}: " + " ".join(f"{value:.2f}" for value in done[str(seed)]), flush=True)
                if words.out is not None:
                    write_json(words.out, settings | {"success": found})
    for row in words.rows:
        for name, values in measures(np.array(list(found[row].values()))).items():
            low, high = bootstrap_mean(values.tolist())
            print(f"{row:16} {name:5} {values.mean():.3f}  [{low:.3f} .. {high:.3f}], {len(values)} seeds")


if __name__ == "__main__":
    main()
