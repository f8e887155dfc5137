"""Learning curves beside those of Stable-Baselines3 and sb3-contrib: equal settings, steps, seeds and evaluation.

    python benchmarks/rl_curves.py [--envs Pendulum-v1 Hopper-v5 HalfCheetah-v5] [--algos sac td3 ppo trpo]
                                   [--seeds 0 1 2 3 4] [--steps 200000] [--every 10000] [--episodes 10] [--threads 1]
                                   [--out benchmarks/results/rl_curves.json] [--plot benchmarks/results/rl_curves.png]

SAC and TD3: networks of 2 x 256, batches of 256, twin critics, learning rates 3e-4, discount 0.99, targets that follow
by 0.005, one update for each environment step after 10000 random ones (1000 on the pendulum, which gets 20000 steps at
most).
PPO and TRPO: networks of 2 x 64, tanh, one environment, rollouts of 2048 steps, and whatever else the peer's defaults
are; on the pendulum, which its defaults do not learn, 4 environments, rollouts of 4096 steps, discount 0.9 and, for
PPO, learning rates 1e-3. They are evaluated between rollouts, after the whole number of rollouts nearest to
``--every``, and go on to the first evaluation at or after ``--steps``: a peer that is asked for fewer steps finishes
its rollout, so anything else would give it more. Actions are in the world's units, observations and rewards as they
are.
Both are evaluated by `robopol.evaluate` with the mean action, on the same episodes. Told of each arm: the return at the
end and on average over all evaluations, as the interquartile mean over training seeds with its 95 % interval
(bootstrap), over as many steps as all runs of a world and an algorithm have taken. What was measured is kept in
``--out`` by row and seed, with the steps that were truly taken, and is not measured again.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sections
import torch
from ledger import Ledger

from robopol.config import parse
from robopol.configs import load_config
from robopol.envs import VectorEnv, make_env
from robopol.evaluation import SEED0, evaluate
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.policies import Policy
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"

ARMS = ("robopol", "sb3")
PENDULUM_STEPS = 20_000
ON_POLICY = ("ppo", "trpo")

Advance = Callable[[int], tuple[Policy, int]]
"""Goes on by some environment steps; returns what acts then, and the steps that were taken so far."""


def robopol(algo: str, env: str, seed: int, warmup: int, threads: int) -> Advance:
    words = [f"algo={algo}", "env=gym", f"env.id={env}", f"seed={seed}", "run=none"]
    if algo not in ON_POLICY:
        words.append(f"phases.online.warmup={warmup}")
    else:
        words.append("policy.action_normalization=identity")
        if env.startswith("Pendulum"):
            words += ["collection.num_envs=4", "phases.online.rollout=4096", "model.discount=0.9"]
            words += ["phases.online.env_steps=1024000"]
            words += ["algo.lr=1e-3", "algo.critic_lr=1e-3"] if algo == "ppo" else []
    return learner([*words, f"runtime.threads={threads}"])[1]


def learner(words: list[str]) -> tuple[Trainer, Advance]:
    """Return a training of one phase that acts, and what goes on with it."""
    trainer = Trainer(parse(TrainConfig, load_config("train", words)))
    (phase,) = trainer.config.phases.values()
    assert trainer.collector is not None
    trainer.collector.begin()

    def advance(steps: int) -> tuple[Policy, int]:
        until = trainer.step + steps
        while trainer.step < until:
            trainer.advance(phase, 0)
        policy = trainer.algo.deployed()
        assert policy is not None
        return policy, trainer.env_steps

    return trainer, advance


def sb3(algo: str, env: str, seed: int, warmup: int, threads: int, world: VectorEnv) -> Advance:
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.noise import NormalActionNoise

    from robopol.policies.foreign.policy import ForeignConfig
    from robopol.policies.foreign.sb3 import SB3Policy
    from robopol.policies.plan_only import contract

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    more: dict[str, Any] = {"seed": seed, "device": "cpu"}
    if algo not in ON_POLICY:
        more |= {"policy_kwargs": {"net_arch": [256, 256]}, "learning_rate": 3e-4, "batch_size": 256}
        more["learning_starts"] = warmup
    elif env.startswith("Pendulum"):
        more |= {"n_steps": 1024, "gamma": 0.9} | ({"learning_rate": 1e-3} if algo == "ppo" else {})
    maker = getattr(stable_baselines3, algo.upper(), None) or getattr(sb3_contrib, algo.upper())
    agent = maker("MlpPolicy", make_vec_env(env, 4) if "n_steps" in more else env, **more)
    if algo in ("td3", "ddpg"):
        size = agent.action_space.shape[0]
        agent.action_noise = NormalActionNoise(np.zeros(size), 0.1 * np.ones(size))
    config = ForeignConfig(kind="sb3", algorithm=algo.upper(), path="in memory")
    policy = SB3Policy(config, contract(world.spec, "the agent", ["state"]), agent)

    def advance(steps: int) -> tuple[Policy, int]:
        agent.learn(steps, reset_num_timesteps=False)
        return policy, agent.num_timesteps

    return advance


def course(algo: str, env: str, steps: int, every: int) -> tuple[int, int, int]:
    """Return how many evaluations there are, the environment steps before each, and how many of the first are random.

    Args:
        algo: The algorithm.
        env: The world.
        steps: Environment steps that were asked for.
        every: Those between evaluations.
    """
    pendulum = env.startswith("Pendulum")
    if algo in ON_POLICY:
        rollout = 4096 if pendulum else 2048
        every = max(1, round(every / rollout)) * rollout
        return -(-steps // every), every, 0
    if pendulum:
        steps = min(steps, PENDULUM_STEPS)
        every = min(every, steps // 10)
    return steps // every, every, min(1000 if pendulum else 10_000, steps // 4)


def curve(arm: str, algo: str, env: str, seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """Return the mean return after every ``--every`` steps, and what they took."""
    count, every, warmup = course(algo, env, words.steps, words.every)
    steps, returns, seconds = [], [], 0.0
    with make_env(env, words.episodes) as world:
        given = (algo, env, seed, warmup, words.threads)
        advance = robopol(*given) if arm == "robopol" else sb3(*given, world)
        for number in range(1, count + 1):
            since = time.monotonic()
            policy, taken = advance(every)
            seconds += time.monotonic() - since
            assert taken == number * every, f"{arm} took {taken} steps instead of {number * every}"
            steps.append(taken)
            returns.append(evaluate(policy, world, words.episodes, SEED0).return_mean)
    return {"env_steps": steps, "returns": returns, "seconds": round(seconds, 1)}


def table(ledger: Ledger) -> dict[str, Any]:
    """Return the figures of every row that was measured: world and algorithm -> arm -> figures."""
    found: dict[str, Any] = {}
    for row in ledger.measured:
        task, arm = row.rsplit(", ", 1)
        length = common(ledger, task)
        curves = np.array([one["returns"][:length] for one in ledger.of(row)])
        ends = {"end": curves[:, -1].tolist(), "average": curves.mean(1).tolist()}
        told = {name: {"iqm": iqm(values), "ci95": stratified_iqm([values])} for name, values in ends.items()}
        steps = ledger.of(row)[0]["env_steps"][length - 1]
        found.setdefault(task, {})[arm] = told | {"seeds": len(curves), "env_steps": steps}
    return {task: {arm: found[task][arm] for arm in ARMS if arm in found[task]} for task in sorted(found)}


def common(ledger: Ledger, task: str) -> int:
    """Return how many evaluations all runs of a task have; some may have gone on for longer."""
    rows = [row for arm in ARMS if (row := f"{task}, {arm}") in ledger.measured]
    return min(len(one["returns"]) for row in rows for one in ledger.of(row))


def plot(ledger: Ledger, out: Path) -> None:
    """Draw the mean over seeds of every arm, and the range of all seeds."""
    from matplotlib.figure import Figure

    tasks = sorted({row.rsplit(", ", 1)[0] for row in ledger.measured})
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * lines), layout="constrained")
    for number, task in enumerate(tasks):
        axes = figure.add_subplot(lines, columns, number + 1)
        length = common(ledger, task)
        for arm in ARMS:
            if (row := f"{task}, {arm}") in ledger.measured:
                measured = ledger.of(row)
                steps, curves = measured[0]["env_steps"][:length], [one["returns"][:length] for one in measured]
                axes.plot(steps, np.mean(curves, 0), label=arm, linewidth=1.5)
                axes.fill_between(steps, np.min(curves, 0), np.max(curves, 0), alpha=0.15)
        axes.set_title(task)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("return")
        axes.legend(frameon=False)
    figure.savefig(out, dpi=80)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Learning curves, beside Stable-Baselines3",
        "",
        f"The same settings, seeds, environment steps and evaluations, {tree['setting']['episodes']} episodes with the "
        "mean action each. Returns at the end and on average over all evaluations: interquartile means over training "
        "seeds, with their 95% intervals. `python benchmarks/rl_curves.py`",
        "",
        "| world, algorithm | by | at the end | on average | steps | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for task, arms in tree["tables"].items():
        for arm, row in arms.items():
            told = [sections.mean(row[name]["iqm"], row[name]["ci95"], 1) for name in ("end", "average")]
            lines.append(f"| {task} | {arm} | {' | '.join(told)} | {row['env_steps']:,} | {row['seeds']} |")
    return [*lines, *sections.picture("rl_curves", "returns over environment steps"), ""]


def main() -> None:
    """Measure what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=["Pendulum-v1", "Hopper-v5", "HalfCheetah-v5"])
    algos = ["sac", "td3", *ON_POLICY]
    parser.add_argument("--algos", nargs="+", default=algos, choices=algos)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "rl_curves.json")
    parser.add_argument("--plot", type=Path)
    words = parser.parse_args()
    ledger = Ledger(words.out, {"every": words.every, "episodes": words.episodes})
    for seed in words.seeds:  # all arms of a seed before the next, so that an interrupted run compares equals
        for env in words.envs:
            for algo in words.algos:
                for arm in ARMS:
                    how = partial(curve, arm, algo, env, seed, words)
                    made = ledger.measure(f"{env} {algo}, {arm}", seed, how)
                    told = f"{made['returns'][-1]:9.1f} at the end, {made['seconds']:.0f} s"
                    print(f"{env} {algo} {arm:8} seed {seed}: {told}", flush=True)
                    ledger.tables = table(ledger)
                    ledger.write()
    for task, arms in ledger.tables.items():
        for arm, row in arms.items():
            for name in ("end", "average"):
                low, high = row[name]["ci95"]
                told = f"{row[name]['iqm']:9.1f}  [{low:.1f} .. {high:.1f}]"
                print(f"{task + ' ' + arm:28} {name:8} {told}, {row['seeds']} seeds")
    if words.plot is not None:
        plot(ledger, words.plot)


if __name__ == "__main__":
    main()
