"""Soft reinforcement learning with the flow of MEow: beside the exact soft optimum, and beside SAC.

    python benchmarks/meow_rl.py [--seeds 0 1 2] [--steps 10000] [--envs Pendulum-v1]
                                 [--out benchmarks/results/meow_rl.json]

MultiGoal: a point is moved by at most 1 in x and in y and pays 30 |a|^2 and its squared distance to the nearest of four
goals at distance 5; coming nearer than 1 to one ends the episode with 10 (Haarnoja et al. 2017). Settings of the
released toy: temperature 2.5, discount 0.9, 4000 steps, 1000 of them random. Its soft optimum is computed by value
iteration on a grid, V(s) = alpha log int exp(Q(s, a) / alpha) da, and what was learned is compared with it where the
learner has been. 100 episodes of samples of each policy are followed from the centre to a goal.

Worlds: MEow and SAC on equal steps, seeds, batches and evaluations, one update a step after 1000 random steps, with
``algo.polyak=0.005`` and the temperature 0.25 for MEow; `rl_curves.py` says how they are evaluated. The time of an
update is measured in turn, a block of one beside a block of the other.
"""

import argparse
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import rl_curves
import sections
import torch
from numpy.typing import NDArray

from robopol.config import parse
from robopol.configs import load_config
from robopol.envs import make_env
from robopol.evaluation import SEED0, evaluate
from robopol.evaluation.statistics import bootstrap_mean
from robopol.files import write_json
from robopol.policies.meow import MEowPolicy
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
GOALS = 5.0 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
WAYS = ("east", "north", "west", "south")
ALPHA, GAMMA, SIDE = 2.5, 0.9, 7.0
FLOWS = {
    "released": [],
    "released, polyak 0.005": ["algo.polyak=0.005"],
    "mixture, affine": ["policy.modes=5", "policy.coupling=affine"],
}
"""Name -> more words. As released the target moves by 0.0005 an update: 3000 are 1.5 of its time constants."""
EPISODES, LONGEST = 100, 200
"""Episodes that are followed to a goal, and steps after which one counts as lost."""


def moved(state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return where an action leads (..., 2), what it earns (...) and the goal that was reached, or -1."""
    after = np.clip(state + action, -SIDE, SIDE)
    squared = ((after[..., None, :] - GOALS) ** 2).sum(-1)
    way = np.where(squared.min(-1) < 1, squared.argmin(-1), -1)
    return after, 10.0 * (way >= 0) - 30.0 * (action**2).sum(-1) - squared.min(-1), way


class SoftMultiGoal(gymnasium.Env):
    """The point."""

    def __init__(self) -> None:
        """Say what is seen and done."""
        self.observation_space = gymnasium.spaces.Box(-SIDE, SIDE, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Begin near the centre."""
        super().reset(seed=seed)
        self.state = 0.1 * self.np_random.standard_normal(2)
        return self.state.astype(np.float32), {}

    def step(self, action):
        """Move."""
        self.state, reward, way = moved(self.state, np.clip(action, -1, 1))
        return self.state.astype(np.float32), float(reward), bool(way >= 0), False, {}


@cache
def soft_optimum(spacing: float = 0.25, finer: int = 20) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return V of the soft optimum and where, (N, N) and (N, N, 2); 2 ``finer`` + 1 actions along each axis."""
    line = np.arange(-SIDE, SIDE + spacing / 2, spacing)
    places = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    steps = np.linspace(-1, 1, 2 * finer + 1)
    weight = np.where(np.abs(steps) == 1, 0.5, 1.0) / finer  # the trapezoid rule
    actions = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    volume = np.log(np.outer(weight, weight).ravel())
    after, reward, way = moved(places[:, :, None], actions)
    last = len(line) - 2
    low = np.clip(((after + SIDE) // spacing).astype(int), 0, last)
    part = (after + SIDE) / spacing - low
    value = np.zeros(places.shape[:2])
    for _ in range(400):
        x, y, (u, v) = low[..., 0], low[..., 1], (part[..., 0], part[..., 1])
        ahead = (1 - u) * ((1 - v) * value[x, y] + v * value[x, y + 1])
        ahead += u * ((1 - v) * value[x + 1, y] + v * value[x + 1, y + 1])
        energy = (reward + GAMMA * np.where(way >= 0, 0.0, ahead)) / ALPHA + volume
        most = energy.max(-1)
        new = ALPHA * (most + np.log(np.exp(energy - most[..., None]).sum(-1)))
        done = np.abs(new - value).max() < 1e-3
        value = new
        if done:
            break
    return value, places


def multi_goal(seed: int, more: list[str]) -> dict[str, Any]:
    """Train on MultiGoal; return how far V is from the optimum, and where samples of the policy go."""
    words = ["algo=meow", "env=gym", "env.id=robopol-bench/SoftMultiGoal-v0", f"seed={seed}", "run=none"]
    words += [f"policy.alpha={ALPHA}", "policy.log_std=[-2,1]", f"algo.discount={GAMMA}", "algo.polyak=0.0005"]
    words += ["phases.online.env_steps=4000", "phases.online.warmup=1000", "runtime.threads=1", *more]
    with Trainer(parse(TrainConfig, load_config("train", words))) as trainer:
        assert trainer.collector is not None
        assert trainer.replay is not None
        trainer.collector.begin()
        (phase,) = trainer.config.phases.values()
        while trainer.step < trainer.total:
            trainer.advance(phase, 0)
        policy, rows = trainer.algo.deployed(), trainer.replay
        been = rows.rows(torch.arange(len(rows)))["obs"]["state"].numpy()
    assert isinstance(policy, MEowPolicy)
    optimum, places = soft_optimum()
    spacing = places[1, 0, 0] - places[0, 0, 0]
    visited = np.zeros(optimum.shape, bool)
    visited[tuple(np.rint((been + SIDE) / spacing).astype(int).T)] = True
    with torch.no_grad():
        flat = torch.tensor(places.reshape(-1, 1, 2), dtype=torch.float32)
        learned = policy.v({"state": flat}).amin(0).numpy().reshape(optimum.shape)
    error = (learned - optimum)[visited]
    found = {
        "v_error": float(np.abs(error).mean()),
        "v_bias": float(error.mean()),
        "v_range": float(np.ptp(optimum[visited])),
        "v_correlation": float(np.corrcoef(learned[visited], optimum[visited])[0, 1]),
    }
    return found | {"ways": follow(policy, seed)}


def follow(policy: MEowPolicy, seed: int) -> dict[str, int]:
    """Count where episodes of samples end."""
    rng, state = torch.Generator().manual_seed(seed), np.zeros((EPISODES, 2))
    ended = np.full(EPISODES, -1)
    for _ in range(LONGEST):
        seen = {"state": torch.tensor(state, dtype=torch.float32)[:, None]}
        with torch.no_grad():
            action = policy.sample(seen, 1, rng)[0][:, 0, 0].double().numpy()
        state, _, way = moved(state, action)
        ended = np.where(ended < 0, way, ended)
    return {name: int((ended == goal).sum()) for goal, name in enumerate(WAYS)} | {"none": int((ended < 0).sum())}


def curve(algo: str, env: str, seed: int, steps: int) -> list[float]:
    """Return the mean return of 10 episodes after every tenth of the steps."""
    advance = rl_curves.robopol(algo, env, seed, 1000, 1)
    with make_env(env, 10) as world:
        return [evaluate(advance(steps // 10), world, 10, SEED0).return_mean for _ in range(10)]


def update_times(env: str, blocks: int = 15, block: int = 20) -> dict[str, float]:
    """Return the CPU seconds of an update with what belongs to it, measured in turn; medians over blocks."""
    seconds: dict[str, list[float]] = {"meow": [], "sac": []}
    advance = {algo: rl_curves.robopol(algo, env, 0, 300, 1) for algo in seconds}
    for go_on in advance.values():
        go_on(400)
    for _ in range(blocks):
        for algo, go_on in advance.items():
            before = time.process_time()
            go_on(block)
            seconds[algo].append((time.process_time() - before) / block)
    return {algo: float(np.median(values)) for algo, values in seconds.items()}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## A flow that is actor and critic: MEow",
        "",
        "A point among four goals, with the settings of the released toy, 4000 steps: the learned soft value "
        f"beside the exact one, where the learner has been; {EPISODES} episodes of samples from the centre, by where "
        "they end. `python benchmarks/meow_rl.py`",
        "",
        f"| flow | mean size of V's error | its mean | range of V | correlation | {' | '.join(WAYS)} | none | seeds |",
        "|---" * (len(WAYS) + 7) + "|",
    ]
    for name, rows in tree["multi_goal"].items():
        runs = list(rows.values())
        told = [told_mean([run[key] for run in runs], digits) for key, digits in FIGURES.items()]
        ways = [", ".join(str(run["ways"][way]) for run in runs) for way in (*WAYS, "none")]
        lines.append(f"| {name} | {' | '.join(told)} | {' | '.join(ways)} | {len(runs)} |")
    if tree["returns"]:
        lines += [
            "",
            f"Beside SAC, on equal steps ({tree['steps']:,}), seeds and evaluations, 10 episodes each; returns with "
            "95% intervals over training seeds.",
            "",
            "| world | algorithm | at the end | on average | seeds |",
            "|---|---|---|---|---|",
        ]
    for name, row in tree["returns"].items():
        curves = np.array(list(row.values()))
        told = [told_mean(values.tolist(), 1) for values in (curves[:, -1], curves.mean(1))]
        world, algo = name.rsplit(" ", 1)
        lines.append(f"| {world} | {algo} | {' | '.join(told)} | {len(curves)} |")
    if times := tree.get("update_seconds"):
        lines += [
            "",
            f"A step with its update takes {times['meow'] / times['sac']:.1f} times the CPU time of SAC's, "
            f"{1000 * times['meow']:.1f} ms and {1000 * times['sac']:.1f} ms on one thread.",
        ]
    return [*lines, ""]


FIGURES = {"v_error": 2, "v_bias": 2, "v_range": 1, "v_correlation": 3}


def told_mean(values: list[float], digits: int) -> str:
    """Return a mean with its interval over seeds, if there are several."""
    return sections.mean(sum(values) / len(values), bootstrap_mean(values) if len(values) > 1 else None, digits)


def main() -> None:
    """Compute what ``--out`` does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--envs", nargs="*", default=["Pendulum-v1"])
    parser.add_argument("--out", type=Path, default=RESULTS / "meow_rl.json")
    args = parser.parse_args()
    gymnasium.register("robopol-bench/SoftMultiGoal-v0", SoftMultiGoal, max_episode_steps=1000)
    tree: dict[str, Any] = {"steps": args.steps, "multi_goal": {}, "returns": {}}
    if args.out.exists():
        stored = json.loads(args.out.read_text())
        tree = stored if stored["steps"] == args.steps else tree
    for seed in args.seeds:  # all of a seed before the next, so that an interrupted run compares equals
        for name, more in FLOWS.items():
            row = tree["multi_goal"].setdefault(name, {})
            if FIGURES.keys() - row.get(str(seed), {}).keys():
                row[str(seed)] = multi_goal(seed, more)
                print(f"multi_goal {name} seed {seed}: {row[str(seed)]}", flush=True)
                write_json(args.out, tree)
        for env in args.envs:
            for algo in ("meow", "sac"):
                row = tree["returns"].setdefault(f"{env} {algo}", {})
                if str(seed) not in row:
                    row[str(seed)] = curve(algo, env, seed, args.steps)
                    print(f"{env} {algo} seed {seed}: {[round(value, 1) for value in row[str(seed)]]}", flush=True)
                    write_json(args.out, tree)
    if args.envs:
        tree["update_seconds"] = update_times(args.envs[0])
        print(f"seconds of an update: {tree['update_seconds']}")
        write_json(args.out, tree)


if __name__ == "__main__":
    main()
