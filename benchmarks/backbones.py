"""Every kind of policy in one table: what it achieves, what it costs to train, what it costs to ask.

    python benchmarks/backbones.py [--tasks push pick_place] [--seeds 0] [--only diffusion flow ...]

All learn the same task from the same demonstrations by the same number of updates with networks of about the same size;
`distilled` learns from the `teacher`, which is the diffusion policy walked in its 100 DDPM steps. Success is over the
100 held-out episodes a seed. An update is timed, and a plan on observations of the demonstrations at batch 1 and 64, in
one thread, after the training; the numbers are of one machine and for comparison within the table only. Evaluations of
the network are counted for each plan, an energy's gradient as one, a guided field's as two. Finished runs are kept in
``--work`` and not trained again.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloning
import numpy as np
import sections
import torch

from robopol import __version__, load_episodes, load_policy
from robopol.config import parse
from robopol.files import write_json
from robopol.policies import Policy
from robopol.policies.ebt import EBTPolicy
from robopol.policies.walking import WalkingPolicy
from robopol.training.config import TrainConfig
from robopol.training.environment import cpu_model
from robopol.training.trainer import Trainer
from robopol.training.words import configured

RESULTS = Path(__file__).parent / "results"

NET = ["policy/net=mlp", "policy.net.width=512", "policy.net.blocks=2"]
LR = ["algo.lr=1e-3"]
TEACHER = [*cloning.DIFFUSION, "policy/sampler=ddpm"]
POLICIES: dict[str, list[str]] = {
    "diffusion": cloning.DIFFUSION,
    "teacher": TEACHER,
    "flow": cloning.FLOW,
    "edm": ["policy=edm", *NET, *LR],
    "beso": ["policy=beso", *NET, *LR],
    "consistency": ["policy=consistency", *NET, *LR],
    "distilled": ["policy=consistency", "algo=distill", *NET, *LR],
    "same_noise": ["policy=consistency", "algo=distill", "algo.method=same_noise", *NET, *LR],
    "ebt": ["policy=ebt", "batch_size=64", *LR],  # each sample is several descents
    "ebt_transformer": [
        *("policy=ebt", "policy/energy=transformer", "policy.energy.width=64", "policy.energy.layers=2"),
        *("batch_size=32", *LR),
    ],
    "meow": ["policy=meow", *LR],
    "decision_diffuser": ["policy=decision_diffuser", *NET, *LR],
    "gmm": ["policy=gmm", "policy.hidden=[512,512,512,512]", *LR],
    "gaussian": ["policy=gaussian", "policy.hidden=[512,512,512,512]", *LR],
}
"""Name -> words of `robopol train`."""

STUDENTS = ("distilled", "same_noise")
TASKS = {"push": (200, 3000), "pick_place": (500, 3000)}
"""Task -> demonstrations, updates."""
PLANS = {1: 200, 64: 50}
"""Batch -> plans that are timed."""


def observations(policy: Policy, demos: Path, rows: int) -> dict[str, torch.Tensor]:
    """Return histories from the demonstrations, key -> (rows, To, ...)."""
    episodes = load_episodes(str(demos))
    first = torch.linspace(0, len(episodes.action) - policy.spec.n_obs_steps - 1, rows).long()
    steps = first[:, None] + torch.arange(policy.spec.n_obs_steps)
    return {key: episodes.obs[key][steps] for key in policy.spec.obs_shapes}


def pace(words: list[str], seconds: float = 4.0) -> float:
    """Return the updates of a second of the training that words describe."""
    with Trainer(parse(TrainConfig, configured([*words, *cloning.COMMON, "run=none"]))) as trainer:
        (phase,) = trainer.config.phases.values()
        for _ in range(3):
            trainer.advance(phase, 0)
        begin, before = time.perf_counter(), trainer.updates
        while time.perf_counter() - begin < seconds:
            trainer.advance(phase, 0)
        found = (trainer.updates - before) / (time.perf_counter() - begin)
    torch.set_float32_matmul_precision("highest")  # plans are not computed as trainings are
    return found


def latency(policy: Policy, obs: dict[str, torch.Tensor], plans: int) -> dict[str, float]:
    """Time plans in milliseconds."""
    rng = torch.Generator().manual_seed(0)
    taken = []
    for i in range(plans + plans // 5):
        begin = time.perf_counter()
        policy.act(obs, generator=rng)
        if i >= plans // 5:
            taken.append(1e3 * (time.perf_counter() - begin))
    return {"p50_ms": float(np.percentile(taken, 50)), "p99_ms": float(np.percentile(taken, 99))}


def evaluations(policy: Policy, obs: dict[str, torch.Tensor]) -> float:
    """Count the network's evaluations in a plan, mean over the rows."""
    if isinstance(policy, EBTPolicy):
        return policy.plan_with_energy(obs, generator=torch.Generator().manual_seed(0)).steps.double().mean().item()
    if not isinstance(policy, WalkingPolicy):
        return 1.0
    asked, rows = 0, len(next(iter(obs.values())))
    prepare = policy.field.prepare

    def counting(*args: Any) -> Any:
        walk = prepare(*args)

        def step(x: torch.Tensor, i: int) -> torch.Tensor:
            nonlocal asked
            asked += len(x)  # a guided field asks about every row twice
            return walk(x, i)

        return step

    policy.field.prepare = counting  # type: ignore[method-assign]
    policy.act(obs, generator=torch.Generator().manual_seed(0))
    del policy.field.prepare
    return asked / rows


def measure(task: str, seeds: list[int], names: list[str], work: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train what is not trained yet; yield the name of each row and the row."""
    episodes, updates = TASKS[task]
    demos = work / f"{task}.hdf5"
    if not demos.exists():
        cloning.robopol("collect", f"env={task}", f"out={demos}", f"episodes={episodes}")
    common = [f"env={task}", f"data.demos.uri={demos}", f"phases.cloning.updates={updates}"]
    for name in names:
        runs, words = [work / f"{task}-{name}-{seed}" for seed in seeds], list[str]()
        for seed, run in zip(seeds, runs, strict=True):
            words = [*POLICIES[name], *common, f"seed={seed}"]
            if name in STUDENTS:
                teacher = work / f"{task}-teacher-{seed}"
                cloning.train(teacher, *TEACHER, *common, f"seed={seed}")
                words.append(f"algo.teacher={teacher}")
            cloning.train(run, *words)
        row = cloning.judge(runs)
        policy = load_policy(runs[0])
        row["updates_per_second"] = pace(words)
        row["cpu"] = cpu_model()
        row["evaluations"] = evaluations(policy, observations(policy, demos, 16))
        row["latency"] = {
            str(batch): latency(policy, observations(policy, demos, batch), plans) for batch, plans in PLANS.items()
        }
        ways = " ".join(f"{way} {count}" for way, count in row["ways"].items())
        one, many = row["latency"]["1"], row["latency"]["64"]
        print(
            f"{task:10} {name:18} {100 * row['success_rate']:5.1f}%  {ways:24} {row['parameters'] / 1e6:5.2f} M  "
            f"{row['updates_per_second']:6.1f}/s  {one['p50_ms']:7.2f} ({one['p99_ms']:.2f}) ms  "
            f"{many['p50_ms']:7.2f} ms  {row['evaluations']:.1f}",
            flush=True,
        )
        yield name, row


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Every kind of policy",
        "",
        "The same demonstrations and number of updates, networks of about the same size; `distilled` and `same_noise` "
        "are students of `teacher`, which walks 100 steps. In one thread; compare what was timed "
        "on the same processor only, named below the table. `python benchmarks/backbones.py`",
        "",
        "| task | policy | success | ways | parameters | updates/s | plan p50 / p99 | at batch 64 | evaluations |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, found in tree["tasks"].items():
        for name, row in found["rows"].items():
            one, many = (f"{at['p50_ms']:.2f} / {at['p99_ms']:.2f} ms" for at in row["latency"].values())
            lines.append(
                f"| {task} | {name} | {sections.percent(row)} | {sections.ways(row)} | {row['parameters']:,} | "
                f"{row['updates_per_second']:.0f} | {one} | {many} | {row['evaluations']:.1f} |"
            )
    timed: dict[str, list[str]] = {}
    for task, found in tree["tasks"].items():
        for name, row in found["rows"].items():
            timed.setdefault(row["cpu"], []).append(f"{name} ({task})")
    lines += ["", *(f"* Timed on {cpu}: {', '.join(names)}" for cpu, names in timed.items())]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--only", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--work", type=Path, default=Path("runs/backbones"))
    parser.add_argument("--out", type=Path, default=RESULTS / "backbones.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tree = json.loads(args.out.read_text()) if args.out.exists() else {"tasks": {}}
    tree |= {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform()}
    for task in args.tasks:
        found = tree["tasks"].setdefault(task, {"seeds": args.seeds, "rows": {}})
        found["seeds"] = args.seeds
        for name, row in measure(task, args.seeds, args.only, args.work):
            rows = found["rows"] | {name: row}
            found["rows"] = {known: rows[known] for known in POLICIES if known in rows}
            write_json(args.out, tree)


if __name__ == "__main__":
    main()
