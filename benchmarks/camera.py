"""A policy that sees the target in camera pictures, beside one that is told where it is and one that is told nothing.

    python benchmarks/camera.py [--seeds 0 1 2] [--jobs 2] [--out benchmarks/results/camera.json] [key=value ...]

The task is Reach, the recipe `experiment=camera`. All three policies learn from the same demonstrations, with the same
network behind the observations and for the same number of updates; each is evaluated over the same 100 held-out
episodes for each training seed. The state that the camera policy and the blind one are given is the robot's own.
Finished runs are kept in ``--work`` and not trained again; further words are passed on to every training.
"""

import argparse
import json
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sections
import torch
from cloning import judge, robopol, train

from robopol import __version__
from robopol.configs import load_config
from robopol.files import write_json

RESULTS = Path(__file__).parent / "results"
DEMOS = 300

NO_PICTURES = ["policy/encoder=low_dim", "~policy.encoder.blocks", "~policy.encoder.crop", "env.options.cameras=[]"]
POLICIES = {
    "camera": [],
    "told": [*NO_PICTURES, "env.options.state=all"],
    "blind": NO_PICTURES,
}
"""Policy -> what differs from the recipe."""


def collect(work: Path, told: bool) -> Path:
    """Record the demonstrations; those that tell the target are the same without the pictures."""
    demos = work / ("told.hdf5" if told else "pictures.hdf5")
    if not demos.exists():
        options = load_config("train", ["experiment=camera"])["env"]["options"]
        pictures = [f"env.options.{key}={json.dumps(value)}" for key, value in options.items()]
        robopol("collect", "env=reach", *([] if told else pictures), f"episodes={DEMOS}", f"out={demos}")
    return demos


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    found = tree["policies"].items()
    rows = [f"| {name} | {sections.percent(row)} | {sections.by_seed(row)} |" for name, row in found]
    return [
        "## A policy that sees",
        "",
        f"Reach from two cameras, {tree['demonstrations']} demonstrations; beside it a policy that is told where the "
        "target is, and one that neither sees it nor is told. `python benchmarks/camera.py`",
        "",
        "| policy | success | by seed |",
        "|---|---|---|",
        *rows,
        "",
    ]


def main() -> None:
    import torchvision

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs beside each other, one thread each")
    parser.add_argument("--work", type=Path, default=Path("runs/camera"))
    parser.add_argument("--out", type=Path, default=RESULTS / "camera.json")
    parser.add_argument("words", nargs="*", help="passed on to every training")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    runs = {name: [args.work / f"{name}-{seed}" for seed in args.seeds] for name in POLICIES}

    def learn(job: tuple[int, str]) -> None:
        seed, name = job
        words = [f"data.demos.uri={demos[name == 'told']}", f"seed={seed}", *args.words]
        train(args.work / f"{name}-{seed}", "experiment=camera", *POLICIES[name], *words)

    demos = {told: collect(args.work, told) for told in (False, True)}
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(learn, [(seed, name) for seed in args.seeds for name in POLICIES]))
    rows = {name: judge(found) for name, found in runs.items()}
    config = json.loads((runs["camera"][0] / "config.json").read_text())
    tree = {
        "robopol": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "seeds": args.seeds,
        "demonstrations": DEMOS,
        "settings": {key: config[key] for key in ("env", "policy", "algo", "batch_size", "runtime")},
        "policies": rows,
    }
    write_json(args.out, tree)
    for name, row in rows.items():
        low, high = row["success_ci95"]
        print(f"{name:7} {row['success_rate']:6.1%} [{low:.1%}, {high:.1%}]  {row['by_seed']}")


if __name__ == "__main__":
    main()
