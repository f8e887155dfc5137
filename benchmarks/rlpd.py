"""RLPD's parts, one at a time, where rewards are rare: a maze whose steps all cost the same, and a few demonstrations.

    python benchmarks/rlpd.py [--seeds 0 1 2] [--steps 15000] [--demos 20] [--episodes 100] [--threads 1]
                              [--out benchmarks/results/rlpd.json]

The world is MultiGoal's maze, in which every step costs 1 until a goal is reached, which costs nothing; scripted
experts, disturbed, show the way. All arms are SAC with five critics of 2 x 64 and four updates of them for each step.
`sac` has no demonstrations, `merged` draws from demonstrations and own experience together as if they were one buffer,
`no normalisation` half from each but without LayerNorm, and `rlpd` is all of it (Ball et al. 2023, arXiv 2302.02948).
Told of each: success on average over evaluations after every tenth of the steps, and over the last three of them; the
largest |Q| on the demonstrations and on random actions in their states: no more than 100 can be lost, at a discount of
0.99. Interquartile means over training seeds, 95 % intervals (bootstrap). What was measured is kept in ``--out`` by row
and seed, and is not measured again.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import sections
import torch
from ledger import Ledger

from robopol.config import parse
from robopol.configs import load_config
from robopol.data import Episodes, save_episodes
from robopol.envs import VectorEnv, make_env
from robopol.evaluation import SEED0, ExpertActor, evaluate
from robopol.evaluation.collect import collect
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.models.q import QModel
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"

WORLD = ("robopol/MultiGoal-v0", {"obstacles": "maze", "reward": "sparse"})
NOISE = 0.02
"""Standard deviation of the disturbance of the demonstrations, m; the farthest step is 0.05."""
WARMUP, PARTS, LAST = 1000, 10, 3
ARMS = ("sac", "merged", "no normalisation", "rlpd")
MEASURES = ("success", "average", "q", "q_random")


def demonstrations(count: int, seed: int) -> Episodes:
    """Return disturbed ways to the goals."""
    with world(1) as one:
        return collect(ExpertActor(one, noise=NOISE), one, count, 1000 * (seed + 1), source="expert", only_success=True)


def world(count: int) -> VectorEnv:
    name, options = WORLD
    return make_env(name, count, **options)


def told(arm: str, uri: str, recorded: int, seed: int, words: argparse.Namespace) -> list[str]:
    """Return the words of ``robopol train``."""
    name, options = WORLD
    spoken = ["algo=rlpd", "env=gym", f"env.id={name}"]
    spoken += [f"+env.options.{key}={value}" for key, value in options.items()]
    spoken += ["policy.hidden=[64,64]", "model.hidden=[64,64]", "model.ensemble=5", "batch_size=128"]
    spoken += ["algo.target_heads=1", "algo.delay=4", f"seed={seed}", "run=none", "reward.shift=-1"]
    spoken += ["schedule=online" if arm == "sac" else f"data.demos.uri={uri}", f"runtime.threads={words.threads}"]
    if arm == "no normalisation":
        spoken.append("model.layer_norm=false")
    every = words.steps // PARTS
    shares = {"sac": lambda met: (0, 1), "merged": lambda met: (recorded, met)}.get(arm, lambda met: (1, 1))
    phases = []
    for part in range(PARTS):
        demos, replay = shares((part + 0.5) * every)
        sources = f"{{demos: {demos}, replay: {replay}}}" if demos else "{replay: 1}"
        warmup = WARMUP if part == 0 else 0
        phases.append(f"part{part}: {{env_steps: {every}, warmup: {warmup}, updates_per_step: 4, sources: {sources}}}")
    return [*spoken, "~phases", f"+phases={{{', '.join(phases)}}}"]


def run(arm: str, words: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train once, and return what is told of it."""
    demos = demonstrations(words.demos, seed)
    with tempfile.TemporaryDirectory() as folder, world(words.episodes) as judge:
        file = Path(folder) / "demos.hdf5"
        save_episodes(demos, file)
        trainer = Trainer(parse(TrainConfig, load_config("train", told(arm, str(file), demos.num_steps, seed, words))))
        assert trainer.collector is not None
        trainer.collector.begin()
        course, first = [], 0
        for phase in trainer.config.phases.values():
            while trainer.step < first + phase.length:
                trainer.advance(phase, first)
            first += phase.length
            policy = trainer.algo.deployed()
            assert policy is not None
            course.append(evaluate(policy, judge, words.episodes, SEED0).success_rate)
    model = trainer.algo.parts()["model"]
    assert isinstance(model, QModel)
    obs = {key: column[:, None] for key, column in demos.obs.items()}
    low, high = torch.tensor(model.spec.action_low), torch.tensor(model.spec.action_high)
    drawn = low + (high - low) * torch.rand(demos.action.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        q, random = (model.q(obs, action[:, None]).abs().max().item() for action in (demos.action, drawn))
    return {"course": course, "q": q, "q_random": random}


def tables(ledger: Ledger) -> dict[str, Any]:
    """Return the figures of all rows that were measured."""
    found = {}
    for row in [arm for arm in ARMS if arm in ledger.measured]:
        made = ledger.of(row)
        ends = [{"success": mean(one["course"][-LAST:]), "average": mean(one["course"])} | one for one in made]
        cells = {name: [one[name] for one in ends] for name in MEASURES}
        found[row] = {name: {"iqm": iqm(v), "ci95": stratified_iqm([v])} for name, v in cells.items()}
        found[row]["seeds"] = len(made)
    return found


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    setting = tree["setting"]
    lines = [
        "## RLPD, part by part",
        "",
        f"A maze whose steps cost 1 up to a goal, {setting['demos']} disturbed demonstrations, {setting['steps']:,} "
        "steps, five critics, four updates a step. Success over the last three evaluations, and on average over all, "
        "after every tenth of the steps; largest |Q| on the demonstrations and on random actions there, where at most "
        "100 can be lost. "
        "`python benchmarks/rlpd.py`",
        "",
        "| arm | at the end | on average | Q | Q of random actions | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in tree["tables"].items():
        cells = [sections.mean(row[key]["iqm"], row[key]["ci95"], 2) for key in MEASURES]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['seeds']} |")
    return [*lines, ""]


def main() -> None:
    """Measure what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--demos", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "rlpd.json")
    words = parser.parse_args()
    ledger = Ledger(words.out, {"steps": words.steps, "demos": words.demos, "episodes": words.episodes})
    for seed in words.seeds:
        for arm in words.arms:
            made = ledger.measure(arm, seed, partial(run, arm, words, seed))
            print(f"{arm}, seed {seed}: {made}", flush=True)
            ledger.tables = tables(ledger)
            ledger.write()


if __name__ == "__main__":
    main()
