"""Annealed Q-learning: critics that at first believe the best of what may follow, and in the end what does.

    python benchmarks/aql.py [--parts chain pendulum] [--seeds 0 1 2 3 4] [--steps 20000] [--threads 1]
                             [--out benchmarks/results/aql.json]

chain: five states in a row, reward 1 beyond the last one, discount 0.9. What is known of an action is one number, moved
by the loss of `robopol.algos.critics.expectile_loss` towards the number of the next state's action plus noise, little
or much; that action is drawn from a policy that follows the numbers slowly. Told is the largest error, beside the exact
numbers of the best policy, after so many sweeps.

pendulum: TD3 on Pendulum-v1 with expectile 0.5 (plain), 0.9 that comes down to 0.5, and 0.95 that stays. Told of each
are the mean return over all evaluations and at the end, and what its critics say of the first half of each episode in
the end, beside the discounted return that followed: interquartile means over training seeds, 95 % intervals
(bootstrap). What was measured is kept in ``--out`` by row and seed, and is not measured again.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sections
import torch
from ledger import Ledger
from rl_curves import learner

from robopol.algos.critics import expectile_loss
from robopol.envs import make_env
from robopol.evaluation import SEED0, evaluate
from robopol.evaluation.recorder import Recorder
from robopol.evaluation.rollout import rollout
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.execution import RecedingHorizonConfig
from robopol.models.q import QModel

RESULTS = Path(__file__).parent / "results"

STATES, DISCOUNT, NOISES = 5, 0.9, (0.03, 0.3)
SWEEPS, LOOKS = 4000, (50, 200, 1000, 4000)
CHAIN = {"0.5": (0.5, 0.5), "0.9": (0.9, 0.9), "0.9 to 0.5": (0.9, 0.5)}
"""Name -> expectile at the first sweep, and at the last."""
FOREVER = 10**9
PENDULUM = {"plain": (0.5, None), "0.9 to 0.5": (0.9, None), "0.95 that stays": (0.95, FOREVER)}
"""Name -> expectile, and the environment steps in which it would come down; None for those of the run."""


def chain(expectiles: tuple[float, float], noise: float, seed: int) -> dict[str, Any]:
    """Return the largest error of the numbers after each of `LOOKS` sweeps."""
    rng = torch.Generator().manual_seed(seed)
    states = torch.arange(STATES)
    following = torch.stack([(states - 1).clamp(min=0), states + 1])  # of left and right, (2, STATES)
    ends = following == STATES
    exact = torch.where(following > states, DISCOUNT ** (STATES - 1 - states), DISCOUNT ** (STATES + 1 - states))
    exact[0, 0] = DISCOUNT**STATES  # against the wall
    q, preference, errors = torch.zeros(2, STATES), torch.zeros(2, STATES), []
    for sweep in range(1, SWEEPS + 1):
        tau = expectiles[0] + (expectiles[1] - expectiles[0]) * (sweep - 1) / (SWEEPS - 1)
        chosen = torch.multinomial(preference.softmax(0).t(), 1, generator=rng)[:, 0]
        worth = torch.where(ends, 0.0, q[chosen, states][following.clamp(max=STATES - 1)])
        goal = ends.float() + DISCOUNT * worth + noise * torch.randn(q.shape, generator=rng)
        known = q.requires_grad_()
        (slope,) = torch.autograd.grad(expectile_loss(goal - known, tau).sum(), known)
        q = (known - 0.1 * slope).detach()
        preference += 0.02 * (q - q.mean(0))
        if sweep in LOOKS:
            errors.append(float((q - exact).abs().max()))
    return {"errors": errors}


def pendulum(expectile: float, horizon: int | None, words: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the mean returns of ten evaluations, what the critics say in the end, and what followed."""
    told = ["algo=td3", "env=gym", "env.id=Pendulum-v1", f"seed={seed}", "run=none", f"runtime.threads={words.threads}"]
    told += ["phases.online.warmup=1000", f"phases.online.env_steps={horizon or words.steps}"]
    trainer, advance = learner([*told, f"algo.expectile={expectile}"])
    with make_env("Pendulum-v1", 10) as world:
        returns = [evaluate(advance(words.steps // 10)[0], world, 10, SEED0).return_mean for _ in range(10)]
        policy, recorder = advance(0)[0], Recorder(world, "policy")
        rollout(RecedingHorizonConfig().build(policy), world, range(SEED0 + 100, SEED0 + 120), recorder=recorder)
    seen, model = recorder.episodes(), trainer.algo.parts()["model"]
    assert isinstance(model, QModel)
    steps = torch.arange(seen.num_steps) - seen.starts[seen.episode_index]
    half = steps < 100  # most of what is discounted by 0.99 follows within the other hundred
    with torch.no_grad():
        said = model.q({"state": seen.obs["state"][half][:, None]}, seen.action[half][:, None]).mean(0)
    followed = seen.returns_to_go(model.config.discount)[half]
    return {"returns": returns, "said": float(said.mean()), "followed": float(followed.mean())}


def told(values: list[float]) -> dict[str, Any]:
    """Return an interquartile mean over seeds and its interval."""
    return {"iqm": iqm(values), "ci95": stratified_iqm([values])}


def tables(ledger: Ledger) -> dict[str, Any]:
    """Return the figures of all rows that were measured."""
    found: dict[str, Any] = {"chain": {}, "pendulum": {}}
    for row in ledger.measured:
        part, name = row.split(", ", 1)
        made = ledger.of(row)
        if part == "chain":
            found[part][name] = [told([one["errors"][k] for one in made]) for k in range(len(LOOKS))]
        else:
            returns = np.array([one["returns"] for one in made])
            found[part][name] = {
                "average": told(returns.mean(1).tolist()),
                "end": told(returns[:, -1].tolist()),
                "said": told([one["said"] for one in made]),
                "followed": told([one["followed"] for one in made]),
                "seeds": len(made),
            }
    return found


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Annealed Q-learning",
        "",
        "`python benchmarks/aql.py`. A chain of five states whose numbers are noisy: the largest error after so many "
        "sweeps, interquartile mean over training seeds with its 95% interval.",
        "",
        f"| expectile | {' | '.join(str(look) for look in LOOKS)} |",
        "|---|" + "---|" * len(LOOKS),
    ]
    for name, cells in tree["tables"]["chain"].items():
        lines.append(f"| {name} | {' | '.join(sections.mean(cell['iqm'], cell['ci95'], 3) for cell in cells)} |")
    lines += [
        "",
        f"TD3 on Pendulum-v1, {tree['setting']['steps']:,} steps; what its critics say in the end of the first half of "
        "an episode, and the discounted return that followed.",
        "",
        "| expectile | return, on average | at the end | critics say | followed | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in tree["tables"]["pendulum"].items():
        cells = [sections.mean(row[key]["iqm"], row[key]["ci95"], 1) for key in ("average", "end", "said", "followed")]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['seeds']} |")
    return [*lines, ""]


def main() -> None:
    """Measure what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["chain", "pendulum"], choices=["chain", "pendulum"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "aql.json")
    words = parser.parse_args()
    ledger = Ledger(words.out, {"steps": words.steps, "sweeps": SWEEPS})
    for seed in words.seeds:
        rows: dict[str, Any] = {}
        if "chain" in words.parts:
            for noise in NOISES:
                rows |= {
                    f"chain, {name}, noise {noise}": partial(chain, both, noise, seed) for name, both in CHAIN.items()
                }
        if "pendulum" in words.parts:
            rows |= {f"pendulum, {name}": partial(pendulum, *both, words, seed) for name, both in PENDULUM.items()}
        for row, how in rows.items():
            made = ledger.measure(row, seed, how)
            figures = {key: np.round(value, 3).tolist() for key, value in made.items()}
            print(f"{row}, seed {seed}: {figures}", flush=True)
            ledger.tables = tables(ledger)
            ledger.write()


if __name__ == "__main__":
    main()
