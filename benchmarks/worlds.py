"""Diffusion and flow policies cloned in worlds that are not ours, mostly from demonstrations that others made.

    python benchmarks/worlds.py --tasks hopper-medium ... --data FOLDER [--seeds 0 1 2]
    python benchmarks/worlds.py --tasks metaworld/reach-v3 ...      # in the environment that has Meta-World

Two kinds of task. Locomotion: a D4RL-layout file ``FOLDER/<task>.hdf5``, recorded in gymnasium's v5 worlds by public
agents of Stable-Baselines3's zoo (DLR-RM/rl-trained-agents; D4RL's own files are other ones); the score is D4RL's
normalised return, beside that of the data. Manipulation and mazes: experts demonstrate; the score is the success rate,
as the world itself says it, over the same 100 held-out seeds, beside the expert's own. Meta-World's scripted policies
and OGBench's oracles of a cube and of a button are upstream's, except that robopol decides which cube or button is
next; PointMaze has no expert upstream, and robopol's own follows the shortest way (`Task.shown_by`).
Finished runs are kept in ``--work``, what they reached in ``--out``, and neither is made again.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cloning
import sections
from ledger import Ledger

from robopol import load_episodes
from robopol.data.reference import normalised_score, reference_returns
from robopol.evaluation.statistics import bootstrap_mean, wilson

RESULTS = Path(__file__).parent / "results"
POLICIES = {"diffusion": cloning.DIFFUSION, "flow": cloning.FLOW}


class Task(NamedTuple):
    """One world and how much of it is shown."""

    env: str
    """Environment id."""
    demonstrations: int
    """How many are collected; 0 for a file."""
    updates: int
    windows: tuple[int, int, int]
    """Observations, horizon, executed actions."""
    words: tuple[str, ...] = ()
    """Further words of `robopol train`."""
    shown_by: str = "public agents"
    """Who demonstrates."""


# a gait needs each action for its own state: chunks of 4 executed open loop lose half of the score and more
GAIT = ((1, 1, 1), ("policy.obs_normalization=zscore",))


TASKS = {
    **{f"hopper-{level}": Task("Hopper-v5", 0, 6000, *GAIT) for level in ("medium", "expert")},
    **{f"halfcheetah-{level}": Task("HalfCheetah-v5", 0, 6000, *GAIT) for level in ("medium", "expert")},
    **{
        f"metaworld/{name}-v3": Task(f"metaworld/{name}-v3", 100, 3000, (2, 16, 8), shown_by="Meta-World's policy")
        for name in ("reach", "push", "pick-place", "door-open", "drawer-close")
    },
    "cube-single-v0": Task("cube-single-v0", 200, 5000, (2, 16, 8), shown_by="OGBench's oracle"),
    "puzzle-3x3-v0": Task("puzzle-3x3-v0", 200, 5000, (2, 16, 8), shown_by="OGBench's oracle, button by button"),
    "PointMaze_UMaze-v3": Task("PointMaze_UMaze-v3", 200, 3000, (2, 16, 8), shown_by="robopol's own expert"),
}


def demonstrate(name: str, task: Task, work: Path, data: Path) -> tuple[str, dict[str, Any]]:
    """Return the URI of the demonstrations and the score of who made them."""
    if not task.demonstrations:
        uri = f"d4rl:{data / name}.hdf5"
        returns = load_episodes(uri).returns().tolist()
        return uri, {
            "episodes": len(returns),
            "return_mean": sum(returns) / len(returns),
            "return_ci95": bootstrap_mean(returns),
        }
    file = work / f"{name.replace('/', '-')}.hdf5"
    judged = file.with_suffix(".expert.hdf5")
    env = ["env=gym", f"env.id={task.env}"]
    if not file.exists():
        cloning.robopol("collect", *env, f"out={file}", f"episodes={task.demonstrations}")
    if not judged.exists():
        cloning.robopol("collect", *env, f"out={judged}", "episodes=100", "seed=100000", "keep=all")
    success = load_episodes(judged).success
    wins = int(success.sum())
    return str(file), {
        "episodes": len(success),
        "success_rate": wins / len(success),
        "success_ci95": wilson(wins, len(success)),
    }


def measure(name: str, policies: list[str], seeds: list[int], ledger: Ledger, args: argparse.Namespace) -> None:
    """Fill in what is missing of a task."""
    task = TASKS[name]
    to, tp, ta = task.windows
    uri, expert = demonstrate(name, task, args.work, args.data)
    ledger.measure(f"{name}, data", 0, lambda: expert)
    words = [
        "env=gym",
        f"env.id={task.env}",
        f"data.demos.uri={uri}",
        f"phases.cloning.updates={task.updates}",
        f"policy.n_obs_steps={to}",
        f"policy.horizon={tp}",
        f"policy.n_action_steps={ta}",
        *task.words,
    ]

    def trained(kind: str, seed: int) -> dict[str, Any]:
        run = args.work / f"{name.replace('/', '-')}-{kind}-{seed}"
        cloning.train(run, *POLICIES[kind], *words, f"seed={seed}")
        return cloning.summary(run)

    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [(kind, seed) for seed in seeds for kind in policies]
        list(pool.map(lambda job: ledger.measure(f"{name}, {job[0]}", job[1], lambda: trained(*job)), jobs))


def table(name: str, ledger: Ledger) -> dict[str, Any]:
    """Return the rows of a task: its data, and the policies that were trained."""
    rows = {"data": dict(ledger.of(f"{name}, data")[0])}
    for kind in POLICIES:
        if f"{name}, {kind}" in ledger.measured:
            rows[kind] = cloning.together(ledger.of(f"{name}, {kind}"))
    bounds = reference_returns(f"{name}-v2")
    if bounds is not None:
        for row in rows.values():
            row["score"] = normalised_score(row["return_mean"], *bounds)
            row["score_ci95"] = [normalised_score(value, *bounds) for value in row["return_ci95"]]
    return rows


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Cloned in worlds of others",
        "",
        "Success over 100 held-out episodes a seed, as the world itself says it, beside that of the expert who "
        "demonstrated; or D4RL's normalised return, beside that of the data (D4RL's references, gymnasium's v5 worlds, "
        "data of public agents of Stable-Baselines3's zoo). Only PointMaze is shown by an expert of robopol's own: "
        "upstream has none. The flow's network says velocities, as published; on the arm suite clean chunks do better. "
        "95% intervals. `python benchmarks/worlds.py`",
        "",
        "| world | shown by | data | diffusion | flow | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in tree["tables"].items():
        cells = ["", "", ""]
        for k, kind in enumerate(("data", *POLICIES)):
            if kind not in rows:
                continue
            row = rows[kind]
            if "score" in row:
                low, high = row["score_ci95"]
                cells[k] = f"{row['score']:.1f} ({low:.1f} to {high:.1f})"
            else:
                cells[k] = sections.percent(row)
        seeds = max(len(rows[kind]["by_seed"]) for kind in POLICIES if kind in rows)
        lines.append(f"| {name} | {TASKS[name].shown_by} | {' | '.join(cells)} | {seeds} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs beside each other, one thread each")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the locomotion files")
    parser.add_argument("--work", type=Path, default=Path("runs/worlds"))
    parser.add_argument("--out", type=Path, default=RESULTS / "worlds.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(args.out, {"tasks": TASKS, "policies": POLICIES})
    for name in args.tasks:
        measure(name, args.policies, args.seeds, ledger, args)
        ledger.tables[name] = table(name, ledger)
        ledger.tables = {name: ledger.tables[name] for name in TASKS if name in ledger.tables}
        ledger.write()
        print(name)
        for kind, row in ledger.tables[name].items():
            key = "score" if "score" in row else "success_rate"
            print(f"  {kind:10} {row[key]:.3g} {row[key.replace('_rate', '') + '_ci95']}")


if __name__ == "__main__":
    main()
