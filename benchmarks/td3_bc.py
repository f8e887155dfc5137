"""TD3+BC on records of a walker: how far the weight of Q lets a policy go from what was recorded.

    python benchmarks/td3_bc.py --data FOLDER [--seeds 0 1 2] [--updates 30000] [--episodes 20] [--threads 1]
                                [--out benchmarks/results/td3_bc.json]

``FOLDER/hopper-medium.hdf5`` holds records in D4RL's layout, made in Hopper-v5. alpha 0 is behaviour cloning, 2.5 what
is published (Fujimoto & Gu 2021), a million TD3 without any pull to the records. Told of each: the return on the scale
of D4RL, 0 for a random policy and 100 for an expert; the root mean square of what the policy does less what was done,
in halves of the actions' range; and the mean of |Q| over the records, in units of the largest discounted return that
they hold. Interquartile means over training seeds, 95 % intervals (bootstrap). What was measured is kept in ``--out``
by row and seed, and is not measured again.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import sections
import torch
from ledger import Ledger

from robopol.config import parse
from robopol.configs import load_config
from robopol.data import load_episodes
from robopol.data.reference import normalised_score, reference_returns
from robopol.envs import make_env
from robopol.evaluation import SEED0, evaluate
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.models.q import QModel
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
ALPHAS = (0.0, 1.0, 2.5, 10.0, 1e6)
ROWS = 4000
"""Records by which policy and critics are judged."""
MEASURES = ("score", "distance", "q")


def run(alpha: float, words: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train once, and return what is told of it."""
    uri = f"d4rl:{words.data / 'hopper-medium.hdf5'}"
    told = ["algo=td3_bc", "env=gym", "env.id=Hopper-v5", f"data.demos.uri={uri}", f"algo.alpha={alpha}"]
    told += [f"phases.cloning.updates={words.updates}", f"seed={seed}", "run=none", f"runtime.threads={words.threads}"]
    trainer = Trainer(parse(TrainConfig, load_config("train", told)))
    (phase,) = trainer.config.phases.values()
    while trainer.step < words.updates:
        trainer.advance(phase, 0)
    policy, model = trainer.algo.deployed(), trainer.algo.parts()["model"]
    assert policy is not None
    assert isinstance(model, QModel)
    episodes = load_episodes(uri)
    rows = torch.randperm(episodes.num_steps, generator=torch.Generator().manual_seed(0))[:ROWS]
    obs, action = {key: column[rows][:, None] for key, column in episodes.obs.items()}, episodes.action[rows]
    with torch.no_grad():
        done = policy.act(obs)[:, 0, 0]
        q = model.q(obs, action[:, None]).abs().mean().item()
    half = (torch.tensor(policy.spec.action_high) - torch.tensor(policy.spec.action_low)) / 2
    most = episodes.returns_to_go(model.config.discount).max().item()
    with make_env("Hopper-v5", words.episodes) as world:
        earned = evaluate(policy, world, words.episodes, SEED0).return_mean
    reference = reference_returns("hopper-medium-v2")
    assert reference is not None
    return {
        "score": normalised_score(earned, *reference),
        "distance": ((done - action) / half).square().mean().sqrt().item(),
        "q": q / most,
    }


def tables(ledger: Ledger) -> dict[str, Any]:
    """Return the figures of all rows that were measured."""
    found = {}
    for row in ledger.measured:
        made = ledger.of(row)
        cells = {name: [one[name] for one in made] for name in MEASURES}
        found[row] = {name: {"iqm": iqm(v), "ci95": stratified_iqm([v])} for name, v in cells.items()}
        found[row]["seeds"] = len(made)
    return found


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## TD3+BC: how far from the records",
        "",
        f"Hopper-v5, records of a middling agent, {tree['setting']['updates']:,} updates; distance in halves of the "
        "actions' range, |Q| in units of the largest discounted return of the records. "
        "`python benchmarks/td3_bc.py --data FOLDER`",
        "",
        "| alpha | score | distance | mean of Q | seeds |",
        "|---|---|---|---|---|",
    ]
    for name, row in tree["tables"].items():
        cells = [sections.mean(row[key]["iqm"], row[key]["ci95"], 1 if key == "score" else 2) for key in MEASURES]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['seeds']} |")
    return [*lines, ""]


def main() -> None:
    """Measure what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the records")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=30_000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "td3_bc.json")
    words = parser.parse_args()
    ledger = Ledger(words.out, {"updates": words.updates, "episodes": words.episodes})
    for seed in words.seeds:
        for alpha in ALPHAS:
            made = ledger.measure(f"{alpha:g}", seed, partial(run, alpha, words, seed))
            print(f"alpha {alpha:g}, seed {seed}: {made}", flush=True)
            ledger.tables = tables(ledger)
            ledger.write()


if __name__ == "__main__":
    main()
