"""From records alone to acting: methods that begin offline and go on in the world, beside those that only act.

    python benchmarks/offline_to_online.py [--arms sac rlpd iql ...] [--seeds 0 1 2] [--updates 5000] [--steps 15000]
                                           [--episodes 100] [--threads 1]
                                           [--out benchmarks/results/offline_to_online.json]

The world is MultiGoal's maze, in which every step costs 1 until a goal is reached, which costs nothing. The records are
300 episodes of scripted experts that are disturbed by more than they can move: two in three end at a goal. Each
method gets ``--updates`` gradient steps on the records and then one for each of its environment steps, half of every
batch from either; all networks are of 2 x 64, and batches of 128. `sac` has no records, `rlpd` none of the time before
acting, five critics and four updates a step. `cql` is Cal-QL without its calibration. `fql` judges single actions by
their next step, or by the return of four (`4-step returns`); `of chunks` chooses, executes and judges four at once, as
Q-chunking does (Li et al. 2025), and so does `rlpd of chunks`.

The policy that would be deployed is evaluated before the first step, after 1, 2, 5 and 10 % of the steps, and then
every 10 %. Told are the success before the first step, at the end (mean of the last three evaluations), on average over
environment steps, and by how much it falls within their first tenth: interquartile means over training seeds, 95 %
intervals (bootstrap); and of how many seeds it came to 90 %, and after how many steps, in the middle. What was measured
is kept in ``--out`` by row and seed, and is not measured again.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sections
from followed import followed
from ledger import Ledger

from robopol.config import parse
from robopol.configs import load_config
from robopol.data import save_episodes
from robopol.envs import VectorEnv, make_env
from robopol.evaluation import SEED0, ExpertActor, evaluate
from robopol.evaluation.collect import collect
from robopol.evaluation.course import course, steps_to
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"

WORLD = ("robopol/MultiGoal-v0", {"obstacles": "maze", "reward": "sparse"})
RECORDED, NOISE = 300, 0.06
"""Episodes of the records, and the standard deviation of their disturbance, m; the farthest step is 0.05."""
SMALL = ["policy.hidden=[64,64]", "model.hidden=[64,64]", "batch_size=128"]
BESIDE = ["policy=squashed_gaussian", "algo.target_heads=1", "algo.delay=4", "model.ensemble=5"]
BESIDE += ["phases.online.updates_per_step=4", "phases.online.warmup=1000"]
FLOW = ["algo=fql", "algo.alpha=1", "policy.net.width=64", "model.hidden=[64,64]", "batch_size=128"]
CHUNK = ["policy.horizon=4", "policy.n_action_steps=4", "model.n_action_steps=4"]
ALONE = ["policy.horizon=1", "policy.n_action_steps=1"]
ARMS = {
    "sac": ["algo=sac", *SMALL, "phases.online.warmup=1000"],
    "rlpd": ["algo=rlpd", *SMALL, *BESIDE],
    "rlpd of chunks": ["algo=rlpd", *SMALL, *BESIDE, *CHUNK],
    "td3_bc": ["algo=td3_bc", "schedule=offline_to_online", *SMALL],
    "iql": ["algo=iql", "policy=gaussian", "schedule=offline_to_online", *SMALL, *ALONE, "algo.expectile=0.9"],
    "cql": ["algo=cal_ql", "schedule=offline_to_online", *SMALL, *ALONE, "algo.calibrated=false"],
    "cal_ql": ["algo=cal_ql", "schedule=offline_to_online", *SMALL, *ALONE],
    "fql": [*FLOW, *ALONE],
    "fql, 4-step returns": [*FLOW, *ALONE, "model.return_steps=4"],
    "fql of chunks": [*FLOW, *CHUNK],
}
"""Name -> words of ``robopol train``."""
MEASURES = ("start", "end", "area", "drop")


def world(count: int) -> VectorEnv:
    """Make worlds."""
    name, options = WORLD
    return make_env(name, count, **options)


def run(arm: str, words: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train once, and return success over environment steps."""
    name, options = WORLD
    said = [*ARMS[arm], "env=gym", f"env.id={name}", *(f"+env.options.{key}={value}" for key, value in options.items())]
    said += ["reward.shift=-1", f"phases.online.env_steps={words.steps}", f"seed={seed}", "run=none"]
    said += ["policy.n_obs_steps=1", f"runtime.threads={words.threads}"]
    with tempfile.TemporaryDirectory() as folder, world(1) as one, world(words.episodes) as judge:
        file = Path(folder) / "records.hdf5"
        drawn = ExpertActor(one, noise=NOISE)
        first = RECORDED * (seed + 1)
        save_episodes(collect(drawn, one, RECORDED, first, source="disturbed", only_success=False), file)
        if arm != "sac":
            said += [f"data.demos.uri={file}", "data.demos.validation=0"]
        config = parse(TrainConfig, load_config("train", said))
        if "offline" in config.phases:
            config = parse(TrainConfig, load_config("train", [*said, f"phases.offline.updates={words.updates}"]))
        with Trainer(config) as trainer:
            return followed(
                trainer, words.steps, lambda policy: evaluate(policy, judge, words.episodes, SEED0).success_rate
            )


def tables(ledger: Ledger) -> dict[str, Any]:
    """Return the figures of all arms that were measured."""
    found: dict[str, Any] = {}
    for arm in [arm for arm in ARMS if arm in ledger.measured]:
        curves = ledger.of(arm)
        courses = [course(one["env_steps"], one["score"]) for one in curves]
        cells = {name: [getattr(one, name) for one in courses] for name in MEASURES}
        reached = [steps_to(0.9, one["env_steps"], one["score"]) for one in curves]
        known = [at for at in reached if at is not None]
        found[arm] = {name: {"iqm": iqm(v), "ci95": stratified_iqm([v])} for name, v in cells.items()} | {
            "reached": len(known),
            "after": median(known) if known else None,
            "updates": float(np.mean([one["updates"][-1] for one in curves])),
            "seeds": len(curves),
        }
    return found


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    setting = tree["setting"]
    lines = [
        "## From records to acting",
        "",
        f"A maze whose steps cost 1 up to a goal, records of {RECORDED} episodes of which two in three end there, "
        f"{setting['updates']:,} updates on them and {setting['steps']:,} steps in the world; `sac` and `rlpd` begin "
        "with those. Success before the first step, over the last three evaluations and on average over the steps; by "
        "how much it falls in their first tenth; how many seeds came to 90%, and after how many steps. "
        "`python benchmarks/offline_to_online.py`",
        "",
        "| method | first | at the end | on average | fall | to 90% | updates | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in tree["tables"].items():
        told = [sections.share(row[what]["iqm"], row[what]["ci95"]) for what in MEASURES]
        when = "-" if row["after"] is None else f"{row['reached']}, {row['after']:,.0f} steps"
        lines.append(f"| {name} | {' | '.join(told)} | {when} | {row['updates']:,.0f} | {row['seeds']} |")
    return [*lines, ""]


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=5_000)
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "offline_to_online.json")
    words = parser.parse_args()
    ledger = Ledger(words.out, {"updates": words.updates, "steps": words.steps, "episodes": words.episodes})
    for seed in words.seeds:
        for arm in words.arms:
            made = ledger.measure(arm, seed, partial(run, arm, words, seed))
            scores = " ".join(f"{value:.2f}" for value in made["score"])
            print(f"{arm}, seed {seed}: {scores}, {made['seconds'][-1]:.0f} s", flush=True)
            ledger.tables = tables(ledger)
            ledger.write()


if __name__ == "__main__":
    main()
