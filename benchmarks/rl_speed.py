"""Environment steps a second of SAC, TD3 and PPO against Stable-Baselines3 and sbx, and critic updates of RLPD.

    python benchmarks/rl_speed.py [--env HalfCheetah-v5] [--algos sac td3 ppo ppo512 rlpd] [--rounds 5] [--steps 200]
                                  [--threads N] [--contention 0.15] [--out benchmarks/results/rl_speed.json]

SAC and TD3: networks of 2 x 256, batches of 256, twin critics, one environment, one update for each step. A turn is
``--steps`` environment steps after 500 random ones, acting, stepping, storing, sampling and updating included. PPO:
networks of 2 x 64, 8 environments, 10 passes over rollouts of 2048 steps in batches of 64 (``ppo``) or 512
(``ppo512``); a turn is one rollout and what is learned from it. `robopol` is the loop of ``robopol train``,
`sb3` Stable-Baselines3 as shipped, both with torch's default products. Without ``--threads``, each has the threads that
its users get: those that robopol finds best when it starts, and all cores, torch's default. `medium` is the same after
``torch.set_float32_matmul_precision("medium")``, which on some CPUs selects faster float32 kernels and on others (with
AMX) computes in bfloat16. `sbx`, raced where it is installed, is the same in JAX. `rlpd` is the update that is done
twenty times a step: ten critics of 2 x 256 with LayerNorm move towards the least of two random ones of their targets,
which follow; against the usual loop over modules, with torch's Adam. Contenders take turns in processes of their own;
rounds in which other processes used more than ``--contention`` cores are dropped.
"""

import argparse
import copy
import platform
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import sections
import torch
from racing import Turn, race, spread
from torch import nn

from robopol.algos.sac import SAC
from robopol.config import parse
from robopol.configs import load_config
from robopol.files import write_json
from robopol.training.config import TrainConfig
from robopol.training.environment import cpu_model
from robopol.training.trainer import Trainer

WARM_UP, CAPACITY, BATCH = 500, 100_000, 256
PPO = {"ppo": 64, "ppo512": 512}
"""Name -> batch size."""
ROLLOUT = 2048


def robopol(algo: str, env: str, steps: int, threads: int | None, precision: str) -> Turn:
    if algo in PPO:
        return robopol_ppo(algo, env, threads, precision)
    words = [f"algo={algo}", "env=gym", f"env.id={env}", f"phases.online.warmup={WARM_UP}", "run=none"]
    words += [f"collection.capacity={CAPACITY}", f"runtime.threads={threads or 'auto'}", f"runtime.matmul={precision}"]
    trainer = Trainer(parse(TrainConfig, load_config("train", words)))
    (phase,) = trainer.config.phases.values()
    assert trainer.collector is not None
    trainer.collector.begin()
    while trainer.step < WARM_UP + 20:
        trainer.advance(phase, 0)

    def turn() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            trainer.advance(phase, 0)
        return steps / (time.perf_counter() - begin)

    return turn


def robopol_ppo(algo: str, env: str, threads: int | None, precision: str) -> Turn:
    words = ["algo=ppo", "env=gym", f"env.id={env}", f"batch_size={PPO[algo]}", "collection.num_envs=8", "run=none"]
    words += [f"runtime.threads={threads or 'auto'}", f"runtime.matmul={precision}"]
    trainer = Trainer(parse(TrainConfig, load_config("train", words)))
    (phase,) = trainer.config.phases.values()
    assert trainer.collector is not None
    trainer.collector.begin()

    def turn() -> float:
        begin = time.perf_counter()
        for _ in range(ROLLOUT // 8):
            trainer.advance(phase, 0)
        return ROLLOUT / (time.perf_counter() - begin)

    turn()
    return turn


def sb3(algo: str, env: str, steps: int, threads: int | None, precision: str) -> Turn:
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    if algo in PPO:
        envs = make_vec_env(env, 8)
        learner = stable_baselines3.PPO(
            "MlpPolicy", envs, seed=0, n_steps=ROLLOUT // 8, batch_size=PPO[algo], device="cpu"
        )
        learner.learn(ROLLOUT)

        def rollout() -> float:
            begin = time.perf_counter()
            learner.learn(ROLLOUT, reset_num_timesteps=False)
            return ROLLOUT / (time.perf_counter() - begin)

        return rollout
    return replayed(stable_baselines3, algo, env, steps, {"device": "cpu"})


def sbx(algo: str, env: str, steps: int, threads: int | None, precision: str) -> Turn:
    """The agents of sbx: the same loop, and whole updates compiled by XLA, which takes what threads it finds."""
    import sbx as agents

    return replayed(agents, algo, env, steps, {})


def replayed(agents: Any, algo: str, env: str, steps: int, more: dict[str, Any]) -> Turn:
    """Learn from a replay with an agent of Stable-Baselines3 or of sbx."""
    from stable_baselines3.common.noise import NormalActionNoise

    agent = getattr(agents, algo.upper())(
        "MlpPolicy",
        env,
        seed=0,
        batch_size=BATCH,
        buffer_size=CAPACITY,
        learning_starts=WARM_UP,
        learning_rate=3e-4,
        policy_kwargs={"net_arch": [256, 256]},
        **more,
    )
    if algo != "sac":
        size = agent.action_space.shape[0]
        agent.action_noise = NormalActionNoise(np.zeros(size), 0.1 * np.ones(size))
    agent.learn(WARM_UP + 20)

    def turn() -> float:
        begin = time.perf_counter()
        agent.learn(steps, reset_num_timesteps=False)
        return steps / (time.perf_counter() - begin)

    return turn


def ten(env: str, steps: int, threads: int | None, precision: str) -> Turn:
    """Ten critics as robopol has them."""
    words = ["algo=sac", "model.ensemble=10", "model.layer_norm=true", "algo.target_heads=2", "algo.paid=false"]
    words += ["env=gym", f"env.id={env}", "run=none", f"collection.capacity={CAPACITY}"]
    words += [f"runtime.threads={threads or 'auto'}", f"runtime.matmul={precision}"]
    trainer = Trainer(parse(TrainConfig, load_config("train", words)))
    assert trainer.collector is not None
    trainer.collector.begin()
    for _ in range(300):
        trainer.collector.step(None)
    algo = cast(SAC, trainer.algo)

    def turn() -> float:
        begin = time.perf_counter()
        for step in range(steps):
            batch = trainer.sources.batch({"replay": 1.0}, BATCH, step)
            algo.fit_critics(batch, step, torch.Generator().manual_seed(step))
            algo.follow()
        return steps / (time.perf_counter() - begin)

    return turn


def loop(env: str, steps: int, threads: int | None, precision: str) -> Turn:
    """The same as modules one after the other; batches and next actions cost nothing."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    with parse(TrainConfig, load_config("train", ["algo=sac", "env=gym", f"env.id={env}", "run=x"])).env.make() as one:
        size, width = sum(shape[0] for shape in one.spec.obs_shapes.values()), len(one.spec.action_names)

    def critic() -> nn.Module:
        hidden = [[nn.Linear(n, 256), nn.LayerNorm(256), nn.ReLU()] for n in (size + width, 256)]
        return nn.Sequential(*hidden[0], *hidden[1], nn.Linear(256, 1))

    critics = [critic() for _ in range(10)]
    targets = copy.deepcopy(critics)
    optimizer = torch.optim.Adam([p for one in critics for p in one.parameters()], 3e-4)
    now, after = torch.randn(BATCH, size + width), torch.randn(BATCH, size + width)
    reward = torch.randn(BATCH, 1)

    def update() -> None:
        with torch.no_grad():
            asked = torch.randperm(10)[:2].tolist()
            goal = reward + 0.99 * torch.stack([targets[i](after) for i in asked]).amin(0)
        loss = sum(nn.functional.mse_loss(one(now), goal) for one in critics)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for target, one in zip(targets, critics, strict=True):
                for old, new in zip(target.parameters(), one.parameters(), strict=True):
                    old.mul_(0.995).add_(new, alpha=0.005)

    def turn() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            update()
        return steps / (time.perf_counter() - begin)

    return turn


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    machine, pinned = tree["machine"], tree["threads"]
    threads = "2 cores, each with the threads that its users get" if pinned is None else f"{pinned} thread(s)"
    lines = [
        "## Learning by acting, beside Stable-Baselines3",
        "",
        f"{tree['env']}, {threads}, {machine['cpu']}, torch {machine['torch']}; median and range of "
        "interleaved rounds. rlpd: updates of ten critics, beside a loop over modules. Medium: torch's faster "
        "products. `python benchmarks/rl_speed.py`",
        "",
        "| algorithm | contender | a second |",
        "|---|---|---|",
    ]
    ratios = []
    for algo, found in tree["algos"].items():
        (unit,) = found.keys() - {"ratio", "rounds_dropped"}
        for name, row in found[unit].items():
            taken = sections.ends(row["median"], row["low"], row["high"], 0)
            lines.append(f"| {algo} | {name} | {taken} {unit.removesuffix('/s')} |")
        for name, row in found["ratio"].items():
            ratios.append(f"| {algo}: {name} | {sections.ends(row['median'], row['low'], row['high'], 2)} |")
    return [*lines, "", "| ratio, round by round | |", "|---|---|", *ratios, ""]


def main() -> None:
    """Race, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument(
        "--algos",
        nargs="+",
        default=["sac", "td3", "ppo", "ppo512", "rlpd"],
        choices=["sac", "td3", "ddpg", *PPO, "rlpd"],
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, help="by default those that users get")
    parser.add_argument("--contention", type=float, default=0.15)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    found: dict[str, Any] = {}
    for algo in words.algos:
        peers: Any = (("robopol", ten), ("loop", loop)) if algo == "rlpd" else (("robopol", robopol), ("sb3", sb3))
        given = (() if algo == "rlpd" else (algo,)) + (words.env, words.steps, words.threads)
        makers = {
            f"{name}{' medium' * (precision == 'medium')}": partial(make, *given, precision)
            for precision in ("highest", "medium")
            for name, make in peers
        }
        if algo in ("sac", "td3") and find_spec("sbx"):
            makers["sbx"] = partial(sbx, *given, "highest")
        peer, unit = peers[1][0], "updates/s" if algo == "rlpd" else "steps/s"
        raced = race(makers, words.rounds, words.contention)
        if not raced.rounds_kept:
            print(f"{algo}: all {raced.rounds_dropped} rounds were disturbed by other processes")
            continue
        rows = {name: spread(figures)._asdict() for name, figures in raced.kept.items()}
        pairs = [("robopol", peer), ("robopol medium", f"{peer} medium"), ("robopol medium", peer)]
        if "sbx" in makers:
            pairs += [("robopol", "sbx"), ("robopol medium", "sbx")]
        ratios = {
            f"{mine} / {other}": spread(
                [one / two for one, two in zip(raced.kept[mine], raced.kept[other], strict=True)]
            )._asdict()
            for mine, other in pairs
        }
        for name, row in rows.items():
            print(f"{algo} {name:16} {row['median']:6.0f} {unit} [{row['low']:.0f} .. {row['high']:.0f}]")
        for name, row in ratios.items():
            print(f"{algo} {name}: {row['median']:.2f} [{row['low']:.2f} .. {row['high']:.2f}]")
        found[algo] = {unit: rows, "ratio": ratios, "rounds_dropped": raced.rounds_dropped}
    if words.out is not None:
        here = {"cpu": cpu_model(), "torch": torch.__version__, "python": platform.python_version()}
        told = {"env": words.env, "threads": words.threads, "steps_of_a_turn": words.steps, "machine": here}
        write_json(words.out, told | {"algos": found})


if __name__ == "__main__":
    main()
