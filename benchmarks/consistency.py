"""One-step students beside the policies that taught them: on a ring of Gaussians, and on the arm suite.

    python benchmarks/consistency.py [--parts ring flow arm] [--seeds 0 1 2] [--tasks push pick_place] [--jobs 2]

Ring: eight Gaussians (standard deviation 0.05) on a ring of radius 0.8. `hit` is the share of samples within three
standard deviations of a mode, `tv` the total variation between the modes' shares and equal ones, `std` the samples'
standard deviation divided by the data's, `calls` the network evaluations of a sample. All networks have two residual
blocks of 128 units and are trained for equally many updates: an EDM teacher; students by consistency training, by
distillation along the teacher's trajectories, and by regression on the teacher's walk from the same noise. Two controls
must fail: regression on a walk from another noise, and jumps from a start that was not scaled to the path's largest
noise.

Flow: the same ring, a flow that is walked in fewer and fewer steps of Euler, and its student of one step, by regression
on its walk from the same noise.

Arm: a diffusion policy that walks all 100 steps of its chain, and students of one step with the same network and data,
trained for twice as many updates. Differences of success are taken episode by episode: teacher and student meet the
same ones.
"""

import argparse
import json
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloning
import numpy as np
import sections
import torch
from torch import Tensor

from robopol import __version__
from robopol.algos import Algorithm
from robopol.algos.bc import BCConfig
from robopol.algos.distill import Distill, DistillConfig, SameNoise
from robopol.config import parse
from robopol.evaluation.statistics import bootstrap_mean
from robopol.files import write_json
from robopol.networks.precision import RuntimeConfig
from robopol.policies import Policy, PolicySpec
from robopol.policies.consistency import ConsistencyPolicy
from robopol.policies.generative import GenerativePolicy
from robopol.registry import lookup

RESULTS = Path(__file__).parent / "results"

ANGLES = torch.arange(8) * torch.pi / 4
MODES = 0.8 * torch.stack([ANGLES.cos(), ANGLES.sin()], -1)
STD = 0.05
SAMPLES = 4000
BATCH = 256
SIZE = {"n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
SPEC = SIZE | {
    "obs_shapes": {"state": [1]},
    "action_names": ["x", "y"],
    "action_low": [-1, -1],
    "action_high": [1, 1],
    "action_space": "plane",
    "control_hz": 0.0,
}
PARTS = SIZE | {
    "net": {"kind": "mlp", "width": 128, "blocks": 2},
    "path": {"kind": "variance_exploding", "sigma_min": 0.02, "sigma_max": 80.0, "time_law": "log_normal"},
    "obs_normalization": "identity",
    "action_normalization": "identity",
}
RUNTIME = RuntimeConfig(device="cpu", threads=1, matmul="highest")
WALK = {"kind": "ddim", "steps": 20, "clip": "every"}
LR = 1e-3


def draw(generator: torch.Generator) -> dict[str, Any]:
    """Draw a batch of the ring."""
    mode = torch.randint(8, (BATCH,), generator=generator)
    action = MODES[mode] + STD * torch.randn(BATCH, 2, generator=generator)
    obs = {"state": torch.zeros(BATCH, 1, 1)}
    return {"obs": obs, "action": action[:, None], "mask": torch.ones(BATCH, 1), "weight": torch.ones(BATCH)}


def make(kind: str, seed: int, **more: Any) -> Policy:
    """Return an untrained policy of the ring."""
    torch.manual_seed(seed)
    policy: Policy = parse(lookup("policy", kind), PARTS | {"kind": kind} | more).build(parse(PolicySpec, SPEC))
    return policy


def learn(algo: Algorithm, updates: int, seed: int) -> Any:
    """Train, and return the averaged policy."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(updates):
        algo.update(draw(generator), step, generator)
    return algo.deployed()


def judge(action: Tensor, calls: int) -> dict[str, float]:
    """Measure samples (N, 2)."""
    distance, mode = torch.cdist(action, MODES).min(1)
    shares = torch.bincount(mode, minlength=8) / len(mode)
    true_std = (0.8**2 / 2 + STD**2) ** 0.5
    return {
        "hit": (distance < 3 * STD).float().mean().item(),
        "tv": 0.5 * (shares - 1 / 8).abs().sum().item(),
        "std": action.std(0).mean().item() / true_std,
        "calls": calls,
    }


def sample(policy: GenerativePolicy, calls: int, sampler: dict[str, Any]) -> dict[str, float]:
    """Measure what a policy does with a sampler."""
    policy.resample(parse(lookup("sampler", sampler["kind"]), sampler))
    rng = torch.Generator().manual_seed(7)
    return judge(policy.act({"state": torch.zeros(1, 1, 1)}, n=SAMPLES, generator=rng)[0, :, 0], calls)


def ring(seed: int, updates: int) -> dict[str, dict[str, float]]:
    """Return row -> figures of one seed."""
    runtime, rows = RUNTIME.build(), {}

    def distilled(method: dict[str, Any], other_noise: bool = False) -> ConsistencyPolicy:
        config = parse(DistillConfig, {"teacher": "the ring's", "method": method, "lr": LR, "warmup": 100})
        algo = Distill(config, make("consistency", seed + 100), updates, runtime, teacher)
        if other_noise:
            assert isinstance(algo.method, SameNoise)
            walk, rng = algo.method.walk, torch.Generator().manual_seed(seed + 200)
            algo.method.walk = lambda noise, cond: walk(torch.randn(noise.shape, generator=rng), cond)  # type: ignore[method-assign]
        found: ConsistencyPolicy = learn(algo, updates, seed + 300)
        return found

    def jumps(steps: int) -> dict[str, Any]:
        return {"kind": "consistency", "steps": steps}

    bc = BCConfig(lr=LR, warmup=100)
    teacher: GenerativePolicy = learn(bc.build(make("edm", seed), updates, runtime), updates, seed)
    rows["teacher, Heun 40"] = sample(teacher, 79, {"kind": "heun", "steps": 40, "spacing": "karras", "clip": "every"})
    rows["teacher, DDIM 20"] = sample(teacher, 20, WALK)
    rows["teacher, DDIM 1"] = sample(teacher, 1, WALK | {"steps": 1})
    trained = learn(bc.build(make("consistency", seed + 100), updates, runtime), updates, seed + 300)
    followed = distilled({"kind": "trajectory"})
    for name, student in (("training", trained), ("trajectory", followed)):
        for steps in (1, 2):
            rows[f"{name}, {steps} step{'s' * (steps > 1)}"] = sample(student, steps, jumps(steps))
    rows["same noise, 1 step"] = sample(distilled({"kind": "same_noise", "sampler": WALK}), 1, jumps(1))
    collapsed = distilled({"kind": "same_noise", "sampler": WALK}, other_noise=True)
    rows["control: another noise, 1 step"] = sample(collapsed, 1, jumps(1))
    start = torch.randn(SAMPLES, 1, 2, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        level = torch.full((SAMPLES,), 80.0, dtype=torch.float64)
        unscaled = followed.field(start, level, torch.zeros(SAMPLES, 1, 1)).x0[:, 0]
    rows["control: unscaled start, 1 step"] = judge(unscaled, 1)
    return rows


def flow(seed: int, updates: int) -> dict[str, dict[str, float]]:
    """Return row -> figures of one seed, of a flow."""
    runtime, path = RUNTIME.build(), {"path": {"kind": "rectified_flow"}}
    bc = BCConfig(lr=LR, warmup=100)
    teacher: GenerativePolicy = learn(bc.build(make("flow", seed, **path), updates, runtime), updates, seed)
    rows = {}
    for steps in (1, 2, 5, 10, 20):
        rows[f"flow, Euler {steps}"] = sample(teacher, steps, {"kind": "euler", "steps": steps})
    method = {"kind": "same_noise", "sampler": {"kind": "euler", "steps": 10}}
    config = parse(DistillConfig, {"teacher": "the ring's", "method": method, "lr": LR, "warmup": 100})
    student = learn(Distill(config, make("consistency", seed + 100), updates, runtime, teacher), updates, seed + 300)
    rows["its student, same noise, 1 step"] = sample(student, 1, {"kind": "consistency", "steps": 1})
    return rows


RINGS = {"ring": ring, "flow": flow}
"""Part -> what measures it."""


def together(seeds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Put the seeds together: means, and bootstrap intervals between seeds."""
    found: dict[str, Any] = {}
    for name in seeds[0]:
        found[name] = {"calls": seeds[0][name]["calls"]}
        for figure in ("hit", "tv", "std"):
            values = [rows[name][figure] for rows in seeds]
            found[name][figure] = float(np.mean(values))
            found[name][f"{figure}_by_seed"] = values
            found[name][f"{figure}_ci95"] = bootstrap_mean(values) if len(values) > 1 else None
    return found


TASKS = {"push": (200, 3000), "pick_place": (500, 3000)}
"""Task -> demonstrations, updates of the teacher; a student has twice as many."""

STUDENT = ["policy=consistency", "policy/net=mlp", "policy.net.width=512", "policy.net.blocks=2", "algo.lr=1e-3"]
STUDENTS = {
    "training": [],
    "trajectory": ["algo=distill", "algo.method={kind: trajectory}"],
    "same_noise": ["algo=distill", "algo.method={kind: same_noise, sampler: {kind: ddim, steps: 5}}"],
}


def arm(task: str, seeds: list[int], work: Path, jobs: int) -> dict[str, Any]:
    """Return policy -> figures of one task."""
    episodes, updates = TASKS[task]
    demos = work / f"{task}.hdf5"
    if not demos.exists():
        cloning.robopol("collect", f"env={task}", f"out={demos}", f"episodes={episodes}")

    def train(seed: int) -> None:
        teacher = work / f"{task}-teacher-{seed}"
        common = [f"env={task}", f"data.demos.uri={demos}", f"seed={seed}"]
        steps = f"phases.cloning.updates={updates}"
        cloning.train(teacher, *cloning.DIFFUSION, "policy/sampler=ddpm", *common, steps)
        steps = f"phases.cloning.updates={2 * updates}"
        for name, words in STUDENTS.items():
            taught = [f"algo.teacher={teacher}"] if words else []
            cloning.train(work / f"{task}-{name}-{seed}", *words, *STUDENT, *taught, *common, steps)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, seeds))
    rows = {}
    for name in ("teacher", *STUDENTS):
        runs = [work / f"{task}-{name}-{seed}" for seed in seeds]
        teachers = [work / f"{task}-teacher-{seed}" for seed in seeds]
        gaps = [gap for run, teacher in zip(runs, teachers, strict=True) for gap in differences(run, teacher)]
        rows[name] = cloning.judge(runs) | {
            "calls": 100 if name == "teacher" else 1,
            "gap": float(np.mean(gaps)),
            "gap_ci95": bootstrap_mean(gaps),
        }
    return rows


def differences(run: Path, teacher: Path) -> list[float]:
    """Return 1, 0 or -1 for each episode: the run succeeded and its teacher did not, as the teacher, the reverse."""
    mine, theirs = (json.loads((folder / "evaluation.json").read_text())["outcomes"] for folder in (run, teacher))
    return [float(a["success"]) - float(b["success"]) for a, b in zip(mine, theirs, strict=True)]


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## One step instead of a walk",
        "",
        "Students of one step beside their teachers, with the same network and data. "
        "`python benchmarks/consistency.py`",
        "",
    ]
    for part in RINGS:
        if part not in tree:
            continue
        found = tree[part]
        lines += [
            f"A ring of eight Gaussians, {found['updates']} updates, {len(found['seeds'])} training seeds; 95% "
            "intervals over them. Hit: samples on a mode; tv: how far the modes are from being used equally; std: the "
            "samples' standard deviation to the data's.",
            "",
            "| policy | evaluations | hit | tv | std |",
            "|---|---|---|---|---|",
        ]
        for name, row in found["rows"].items():
            cells = [sections.mean(row[key], row[f"{key}_ci95"], 3) for key in ("hit", "tv", "std")]
            lines.append(f"| {name} | {row['calls']} | {' | '.join(cells)} |")
        lines.append("")
    if tree["tasks"]:
        lines += [
            "| task | policy | evaluations | success | by seed | points to its teacher |",
            "|---|---|---|---|---|---|",
        ]
        for task, rows in tree["tasks"].items():
            for name, row in rows.items():
                gap = sections.gained({"gain": row["gap"], "gain_ci95": row["gap_ci95"]})
                cells = [task, name, str(row["calls"]), sections.percent(row), sections.by_seed(row), gap]
                lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            "Where a student regresses on the walk from the same noise, one evaluation stays within five points of a "
            "hundred on Push; distillation along trajectories is just beyond, training without a teacher far.",
            "",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=[*RINGS, "arm"], choices=[*RINGS, "arm"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=6000, help="of every network of the ring")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--jobs", type=int, default=2, help="seeds beside each other, one thread each")
    parser.add_argument("--work", type=Path, default=Path("runs/consistency"))
    parser.add_argument("--out", type=Path, default=RESULTS / "consistency.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    tree = json.loads(args.out.read_text()) if args.out.exists() else {"tasks": {}}
    tree |= {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform()}
    for part in (part for part in RINGS if part in args.parts):
        RUNTIME.build().apply()
        tree[part] = {
            "seeds": args.seeds,
            "updates": args.updates,
            "rows": together([RINGS[part](seed, args.updates) for seed in args.seeds]),
        }
        write_json(args.out, tree)
        for name, row in tree[part]["rows"].items():
            print(f"{name:34} {row['calls']:3} calls  hit {row['hit']:.3f}  tv {row['tv']:.3f}  std {row['std']:.2f}")
    if "arm" in args.parts:
        tree["seeds"] = args.seeds
        for task in args.tasks:
            tree["tasks"][task] = arm(task, args.seeds, args.work, args.jobs)
            write_json(args.out, tree)
            print(task)
            for name, row in tree["tasks"][task].items():
                low, high = row["success_ci95"]
                print(
                    f"  {name:11} {row['calls']:3} calls  {row['success_rate']:6.1%} [{low:.1%}, {high:.1%}]  "
                    f"to its teacher {row['gap']:+.1%} [{row['gap_ci95'][0]:+.1%}, {row['gap_ci95'][1]:+.1%}]"
                )


if __name__ == "__main__":
    main()
