"""Success and modes covered of diffusion, flow, GMM and Gaussian policies on the arm suite.

    python benchmarks/imitation.py [--tasks push reach ...] [--policies flow ...] [--seeds 0 1 2] [--out FILE]

All policies of a task see the same demonstrations, have networks of about the same size, and are trained for the same
number of updates. The networks of diffusion and flow predict the clean chunk; where it is cheap, a flow whose network
predicts the velocity stands beside. The Gaussian acts with its mean, and once more with samples. Every policy is
evaluated over the same 100 held-out episodes for each training seed. Finished runs are kept in ``--work``, what they
reached in ``--out``, and neither is made again. For Push the ways the discs took are drawn.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloning
import sections
from ledger import Ledger

from robopol import evaluate, load_policy, make_env
from robopol.evaluation import Recorder, rollout
from robopol.execution import RecedingHorizon
from robopol.training.config import EvalConfig
from robopol.training.plots import FAILED, Shape, plot_paths

RESULTS = Path(__file__).parent / "results"

POLICIES = {
    "diffusion": cloning.DIFFUSION,
    "flow": [*cloning.FLOW, "policy.prediction=x0"],
    "flow-velocity": cloning.FLOW,
    "gmm": ["algo.lr=1e-3", "policy=gmm", "policy.hidden=[512,512,512,512]"],
    "gaussian": ["algo.lr=1e-3", "policy=gaussian", "policy.hidden=[512,512,512,512]"],
}
TASKS = {
    "reach": (100, 1000, "mlp"),
    "push": (200, 3000, "mlp"),
    "pick_place": (500, 3000, "mlp"),
    "stack": (2000, 8000, "film_mlp"),
    "push_t": (1500, 8000, "film_mlp"),
}
"""Task -> demonstrations, updates, network of the diffusion and flow policies.

Where the way is chosen by what a noisy chunk says together with the observation (which of two cubes it is for), scales
set by the observation learn that product from fewer demonstrations than an MLP that is given both side by side.
"""
PUBLISHED = ("reach", "push", "pick_place")
"""Where the flow whose network says velocities, as published, is trained too, beside the one that says clean chunks."""


def cloned(task: str, name: str, seed: int, work: Path) -> Path:
    """Return the finished run of a policy."""
    run, (_, updates, net) = work / f"{task}-{name}-{seed}", TASKS[task]
    cloning.train(
        run,
        f"env={task}",
        *(f"policy/net={net}" if word == "policy/net=mlp" else word for word in POLICIES[name]),
        f"data.demos.uri={work / f'{task}.hdf5'}",
        f"seed={seed}",
        f"phases.cloning.updates={updates}",
    )
    return run


def sampled(run: Path) -> dict[str, Any]:
    """Evaluate a Gaussian policy once more, acting with samples instead of its mean."""
    summary = cloning.summary(run)
    policy = load_policy(run)
    policy.deterministic = False
    assert policy.spec.env is not None
    with make_env(policy.spec.env.id, 32, **policy.spec.env.options) as env:
        found = evaluate(policy, env, summary["episodes"], EvalConfig().seed).tree()
    return summary | {key: value for key, value in found.items() if key in summary}


def measure(task: str, policies: list[str], seeds: list[int], work: Path, jobs: int, ledger: Ledger) -> None:
    """Fill in what is missing of some policies of a task."""
    demos = work / f"{task}.hdf5"

    def one(job: tuple[int, str]) -> None:
        seed, name = job
        ledger.measure(f"{task}, {name}", seed, lambda: cloning.summary(cloned(task, name, seed, work)))
        if name == "gaussian":
            how = lambda: sampled(cloned(task, name, seed, work))  # noqa: E731
            ledger.measure(f"{task}, gaussian-sampled", seed, how)

    if not demos.exists():
        cloning.robopol("collect", f"env={task}", f"out={demos}", f"episodes={TASKS[task][0]}")
    with ThreadPoolExecutor(jobs) as pool:
        names = [name for name in policies if name != "flow-velocity" or task in PUBLISHED]
        list(pool.map(one, [(seed, name) for seed in seeds for name in names]))


def draw(work: Path, seed: int, folder: Path) -> None:
    """Draw the ways that the discs of two policies took."""
    for name in ("diffusion", "gaussian"):
        policy = load_policy(cloned("push", name, seed, work))
        assert policy.spec.env is not None
        with make_env(policy.spec.env.id, 32, **policy.spec.env.options) as env:
            recorder = Recorder(env, "policy")
            rollout(RecedingHorizon(policy), env, range(100_000, 100_050), recorder=recorder)
            names = env.envs[0].state_names  # type: ignore[attr-defined]
        episodes = recorder.episodes()
        disc, block, goal = (names.index(f"{thing} x [m]") for thing in ("disc", "block", "goal"))
        state = episodes.obs["state"].numpy()
        paths = [
            state[start : start + length, disc : disc + 2]
            for start, length in zip(episodes.starts.tolist(), episodes.lengths.tolist(), strict=True)
        ]
        labels = [
            episodes.meta.way_names[way] if won else FAILED
            for way, won in zip(episodes.way.tolist(), episodes.success.tolist(), strict=True)
        ]
        centre = state[:, block : block + 2].mean(0).tolist()
        target = state[:, goal : goal + 2].mean(0).tolist()
        shapes: list[Shape] = [
            {"kind": "box", "xy": centre, "size": (0.04, 0.08), "label": "block"},
            {"kind": "circle", "xy": target, "size": 0.03, "label": "goal"},
        ]
        plot_paths(paths, labels, folder / f"push-{name}.png", shapes, title=f"{name}: where the disc went")


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Imitation on the arm suite",
        "",
        "The same demonstrations, networks of about the same size, the same number of updates, "
        "100 held-out episodes for each training seed. Ways: "
        "successful episodes that took each way. The networks of diffusion and flow say clean chunks (`x0`), of "
        "flow-velocity velocities. The Gaussian acts with its mean, and in a second row with samples. "
        "`python benchmarks/imitation.py`",
        "",
        "| task | policy | success | by seed | ways | parameters | updates |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, rows in tree["tables"].items():
        for name, row in rows.items():
            lines.append(
                f"| {task} | {name} | {sections.percent(row)} | {sections.by_seed(row)} | {sections.ways(row)} | "
                f"{row['parameters']:,} | {row['updates']:,} |"
            )
    pictures = [
        "",
        "Where the disc went on Push, a diffusion policy and the Gaussian:",
        "",
        "![diffusion](../benchmarks/results/push-diffusion.png)",
        "![gaussian](../benchmarks/results/push-gaussian.png)",
        "",
    ]
    return lines + pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs beside each other, one thread each")
    parser.add_argument("--work", type=Path, default=Path("runs/imitation"))
    parser.add_argument("--out", type=Path, default=RESULTS / "imitation.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(args.out, {"tasks": TASKS, "policies": POLICIES})
    for task in args.tasks:
        measure(task, args.policies, args.seeds, args.work, args.jobs, ledger)
        every = (*POLICIES, "gaussian-sampled")
        rows = ledger.tables.get(task, {})
        found = [name for name in every if f"{task}, {name}" in ledger.measured]
        rows |= {name: cloning.together(ledger.of(f"{task}, {name}")) for name in found}
        ledger.tables[task] = {name: rows[name] for name in every if name in rows}
        ledger.write()
        print(task)
        for name, row in ledger.tables[task].items():
            low, high = row["success_ci95"]
            print(f"  {name:17} {row['success_rate']:6.1%} [{low:.1%}, {high:.1%}]  {row['ways']}  {row['by_seed']}")
        if task == "push" and "diffusion" in args.policies:
            draw(args.work, args.seeds[0], args.out.parent)


if __name__ == "__main__":
    main()
