"""How far an update goes: surrogates and bounds of policy gradients beside each other, from equal rollouts.

    python benchmarks/trust_regions.py [--rows clip simple ...] [--seeds 0 1 2 3 4] [--steps 122880]
                                       [--env Hopper-v5] [--out benchmarks/results/trust_regions.json]

Rollouts of 4096 steps in 8 environments, minibatches of 512, networks of 2 x 64, tanh, learning rates 3e-4; 10 passes
over a rollout, and 40 where a row says so. What an algorithm has besides is its default. Of every update it is told,
over all states and actions of the rollout: the mean of |r - 1|, with r the likelihood ratio after the update (SPO keeps
it near its clip range; Xie et al. 2025), and the greatest KL(old || new) of any state (FixPO keeps it within 0.5 nats;
Zentner et al. 2023). Told at the end: these two on average over updates, the share of the updates that went beyond 0.5
nats somewhere, FixPO's mending steps for each of its others, and the return of the mean action in 20 episodes. What was
measured is kept in ``--out`` by row and seed, and is not measured again.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sections
from ledger import Ledger

from robopol.config import parse
from robopol.envs import make_env
from robopol.evaluation import SEED0, evaluate
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer
from robopol.training.words import configured

RESULTS = Path(__file__).parent / "results"

BOUND = 0.5
"""FixPO's, nats."""
COMMON = ["collection.num_envs=8", "phases.online.rollout=4096", "batch_size=512"]
ROWS = {
    "clip": ["algo=ppo"],
    "clip, 40 passes": ["algo=ppo", "algo.epochs=40"],
    "simple": ["algo=spo"],
    "simple, 40 passes": ["algo=spo", "algo.epochs=40"],
    "discovered": ["algo=ppo", "algo.surrogate.kind=discovered"],
    "fixpo": ["algo=fixpo"],
    "trpo": ["algo=trpo", "algo.kl_reduction=sum"],
}
"""Name -> words of ``robopol train``."""
MEASURES = ("return", "deviation", "kl_max", "beyond", "mending")


def run(row: str, seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """Train once; return what was told of every update, and the return at the end."""
    said = [*ROWS[row], *COMMON, "env=gym", f"env.id={words.env}", f"seed={seed}", "run=none", "runtime.threads=1"]
    found: dict[str, Any] = {"deviation": [], "kl_max": [], "mending": 0.0}
    with Trainer(parse(TrainConfig, configured([*said, f"phases.online.env_steps={words.steps}"]))) as trainer:
        update = trainer.algo.update

        def watched(*given: Any) -> Any:
            told = update(*given)
            found["deviation"].append(float(told["train/ratio_deviation"]))
            found["kl_max"].append(float(told["train/kl_max"]))
            found["mending"] += float(told.get("train/mending_steps", 0.0))
            return told

        setattr(trainer.algo, "update", watched)  # noqa: B010 - typed as a method
        (phase,) = trainer.config.phases.values()
        assert trainer.collector is not None
        trainer.collector.begin()
        since = time.monotonic()
        while trainer.step < words.steps:
            trainer.advance(phase, 0)
        found["seconds"] = round(time.monotonic() - since, 1)
        policy = trainer.algo.deployed()
        assert policy is not None
        steps = trainer.config.tree()["algo"].get("epochs", 1) * len(found["deviation"]) * 4096 / 512
        found["mending"] /= steps
        with make_env(words.env, 20) as env:
            found["return"] = evaluate(policy, env, 20, SEED0).return_mean
    return found


def table(ledger: Ledger) -> dict[str, Any]:
    """Return the figures of every row that was measured."""
    found: dict[str, Any] = {}
    for row in ROWS:
        if row in ledger.measured:
            runs = ledger.of(row)
            told = {
                "return": [one["return"] for one in runs],
                "deviation": [float(np.mean(one["deviation"])) for one in runs],
                "kl_max": [float(np.mean(one["kl_max"])) for one in runs],
                "beyond": [float(np.mean(np.array(one["kl_max"]) > BOUND)) for one in runs],
                "mending": [one["mending"] for one in runs],
            }
            found[row] = {name: {"iqm": iqm(values), "ci95": stratified_iqm([values])} for name, values in told.items()}
            found[row] |= {"seeds": len(runs), "greatest_kl": max(max(one["kl_max"]) for one in runs)}
    return found


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    setting = tree["setting"]
    lines = [
        "## How far an update goes",
        "",
        f"{setting['env']}, {setting['steps']:,} steps, the same rollouts of 4096, minibatches and networks: the mean "
        "of |r - 1| after an update, and the greatest KL(old || new) of any state of the rollout, on average over "
        "updates and at most; the share of updates in which it exceeds 0.5 nats; FixPO's mending steps for each of its "
        "others; the return at the end. Interquartile means over training seeds, with 95% intervals. "
        "`python benchmarks/trust_regions.py`",
        "",
        "| update | mean of \\|r - 1\\| | greatest KL, mean | at most | beyond 0.5 | mending | return | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in tree["tables"].items():
        told = {what: sections.mean(row[what]["iqm"], row[what]["ci95"], 3) for what in ("deviation", "kl_max")}
        mending = f"{row['mending']['iqm']:.1%}" if name == "fixpo" else "-"
        lines.append(
            f"| {name} | {told['deviation']} | {told['kl_max']} | {row['greatest_kl']:.2f} | "
            f"{row['beyond']['iqm']:.0%} | {mending} | "
            f"{sections.mean(row['return']['iqm'], row['return']['ci95'], 0)} | {row['seeds']} |"
        )
    return [*lines, ""]


def main() -> None:
    """Measure what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=122_880)
    parser.add_argument("--env", default="Hopper-v5")
    parser.add_argument("--out", type=Path, default=RESULTS / "trust_regions.json")
    words = parser.parse_args()
    ledger = Ledger(words.out, {"env": words.env, "steps": words.steps})
    for seed in words.seeds:  # all rows of a seed before the next, so that an interrupted run compares equals
        for row in words.rows:
            made = ledger.measure(row, seed, partial(run, row, seed, words))
            ledger.tables = table(ledger)
            ledger.write()
            print(f"{row} seed {seed}: return {made['return']:.0f}, {made['seconds']:.0f} s", flush=True)
    for row, figures in ledger.tables.items():
        told = (f"{what} {figures[what]['iqm']:.3f}" for what in MEASURES)
        print(f"{row:18} {', '.join(told)}, {figures['seeds']} seeds")


if __name__ == "__main__":
    main()
