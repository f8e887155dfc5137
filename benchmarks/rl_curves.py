"""Learning curves beside those of Stable-Baselines3 and sb3-contrib: equal settings, steps, seeds and evaluation.

    python benchmarks/rl_curves.py [--envs Pendulum-v1 Hopper-v5 HalfCheetah-v5] [--algos sac td3 ppo trpo] [--seeds 5]
                                   [--steps 200000] [--every 10000] [--episodes 10] [--threads 1]
                                   [--out benchmarks/results/rl_curves.json] [--plot benchmarks/results/rl_curves.png]

SAC and TD3: networks of 2 x 256, batches of 256, twin critics, learning rates 3e-4, discount 0.99, targets that follow
by 0.005, one update for each environment step after 10000 random ones (1000 on the pendulum, which gets 20000 steps at
most).
PPO and TRPO: networks of 2 x 64, tanh, one environment, rollouts of 2048 steps, and whatever else the peer's defaults
are; on the pendulum, which its defaults do not learn, 4 environments, rollouts of 4096 steps, discount 0.9 and, for
PPO, learning rates 1e-3. Actions are in the world's units, observations and rewards as they are.
Both are evaluated by `robopol.evaluate` with the mean action, on the same episodes. Printed for each arm: the return at
the end and its mean over all evaluations, with 95 % intervals over seeds (bootstrap). A curve that ``--out`` holds
already, for the same settings, is not computed again, so that a run can be interrupted.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sections
import torch

from robopol.config import parse
from robopol.configs import load_config
from robopol.envs import VectorEnv, make_env
from robopol.evaluation import SEED0, evaluate
from robopol.evaluation.statistics import bootstrap_mean
from robopol.files import write_json
from robopol.policies import Policy
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer

ARMS = ("robopol", "sb3")
PENDULUM_STEPS = 20_000
ON_POLICY = ("ppo", "trpo")

Advance = Callable[[int], Policy]
"""Goes on by some environment steps; returns what acts then."""


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
    trainer = Trainer(parse(TrainConfig, load_config("train", [*words, f"runtime.threads={threads}"])))
    (phase,) = trainer.config.phases.values()
    assert trainer.collector is not None
    trainer.collector.begin()

    def advance(steps: int) -> Policy:
        until = trainer.step + steps
        while trainer.step < until:
            trainer.advance(phase, 0)
        policy = trainer.algo.deployed()
        assert policy is not None
        return policy

    return advance


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

    def advance(steps: int) -> Policy:
        agent.learn(steps, reset_num_timesteps=False)
        return policy

    return advance


def curve(arm: str, algo: str, env: str, seed: int, words: argparse.Namespace) -> list[float]:
    """Return the mean return after every ``--every`` steps."""
    pendulum = env.startswith("Pendulum") and algo not in ON_POLICY
    steps, warmup = (min(words.steps, PENDULUM_STEPS), 1000) if pendulum else (words.steps, 10_000)
    every, warmup = min(words.every, steps // 10) if pendulum else words.every, min(warmup, steps // 4)
    if algo in ON_POLICY:  # evaluated at the ends of rollouts
        rollout = 4096 if env.startswith("Pendulum") else 2048
        every = max(1, round(every / rollout)) * rollout
    found = []
    with make_env(env, words.episodes) as world:
        given = (algo, env, seed, warmup, words.threads)
        advance = robopol(*given) if arm == "robopol" else sb3(*given, world)
        for _ in range(steps // every):
            found.append(evaluate(advance(every), world, words.episodes, SEED0).return_mean)
    return found


def plot(rows: dict[str, dict[str, list[float]]], out: Path) -> None:
    """Draw the mean over seeds of every arm, and the range of all seeds."""
    from matplotlib.figure import Figure

    tasks = sorted({name.rsplit(" ", 1)[0] for name in rows})
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * lines), layout="constrained")
    for number, task in enumerate(tasks):
        axes = figure.add_subplot(lines, columns, number + 1)
        for arm in ARMS:
            curves = list(rows.get(f"{task} {arm}", {}).values())
            if curves:
                (line,) = axes.plot(np.mean(curves, 0), label=arm)
                axes.fill_between(range(len(curves[0])), np.min(curves, 0), np.max(curves, 0), alpha=0.15)
                line.set_linewidth(1.5)
        axes.set_title(task)
        axes.set_xlabel("evaluation")
        axes.set_ylabel("return")
        axes.legend(frameon=False)
    figure.savefig(out, dpi=80)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Learning curves, beside Stable-Baselines3",
        "",
        f"The same settings, seeds and evaluations, {tree['episodes']} episodes with the mean action each; at most "
        f"{tree['steps']:,} environment steps. Returns at the end and on average over all evaluations, with 95% "
        "intervals over training seeds. `python benchmarks/rl_curves.py`",
        "",
        "| world, algorithm | by | at the end | on average | seeds |",
        "|---|---|---|---|---|",
    ]
    for name, row in tree["returns"].items():
        curves, (task, arm) = np.array(list(row.values())), name.rsplit(" ", 1)
        told = [sections.mean(v.mean(), bootstrap_mean(v.tolist()), 1) for v in (curves[:, -1], curves.mean(1))]
        lines.append(f"| {task} | {arm} | {' | '.join(told)} | {len(curves)} |")
    return [*lines, *sections.picture("rl_curves", "returns over evaluations"), ""]


def main() -> None:
    """Compute what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=["Pendulum-v1", "Hopper-v5", "HalfCheetah-v5"])
    parser.add_argument("--algos", nargs="+", default=["sac", "td3"], choices=["sac", "td3", "ppo", "trpo"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    words = parser.parse_args()
    settings = {"steps": words.steps, "every": words.every, "episodes": words.episodes}
    rows: dict[str, dict[str, list[float]]] = {}  # "env algo arm" -> seed -> returns
    if words.out is not None and words.out.exists():
        stored = json.loads(words.out.read_text())
        if {key: stored[key] for key in settings} == settings:
            rows = stored["returns"]
    for seed in range(words.seeds):  # all arms of a seed before the next, so that an interrupted run compares equals
        for env in words.envs:
            for algo in words.algos:
                for arm in ARMS:
                    row = rows.setdefault(f"{env} {algo} {arm}", {})
                    if str(seed) in row:
                        continue
                    row[str(seed)] = curve(arm, algo, env, seed, words)
                    print(f"{env} {algo} {arm:8} seed {seed}: {row[str(seed)][-1]:9.1f} at the end", flush=True)
                    if words.out is not None:
                        write_json(words.out, settings | {"returns": rows})
    for name, row in rows.items():
        curves = np.array(list(row.values()))
        for what, values in (("end", curves[:, -1]), ("mean", curves.mean(1))):
            low, high = bootstrap_mean(values.tolist())
            print(f"{name:28} {what:4} {values.mean():9.1f}  [{low:.1f} .. {high:.1f}], {len(values)} seeds")
    if words.plot is not None:
        plot(rows, words.plot)


if __name__ == "__main__":
    main()
