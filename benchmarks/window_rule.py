"""What a policy loses that never sees the last steps of a demonstration as "now".

    python benchmarks/window_rule.py [--seeds 0 1 2] [--work DIR] [--out FILE]

A diffusion policy is cloned on PickPlace twice from the same demonstrations: with every step as "now", and with the
published rule of Diffusion Policy (Chi et al. 2023), by which the last Tp - Ta - To + 1 steps of an episode are not.
"""

import argparse
from pathlib import Path
from typing import Any

import cloning
import sections
import torch

from robopol.config import parse
from robopol.configs import load_config
from robopol.files import write_json
from robopol.training.config import TrainConfig
from robopol.training.run import RunFolder
from robopol.training.train import finish
from robopol.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
UPDATES = 3000


def clone(demos: Path, run: Path, seed: int, published: bool) -> None:
    words = ["env=pick_place", *cloning.DIFFUSION, *cloning.COMMON, f"data.demos.uri={demos}", f"run={run}"]
    words += [f"seed={seed}", f"phases.cloning.updates={UPDATES}"]
    with Trainer(parse(TrainConfig, load_config("train", words))) as trainer:
        windows, spec = trainer.sources.windows["demos"], trainer.algo.policy.spec
        if published:
            left = windows.episodes.lengths[windows.episode] - 1 - (windows.start + spec.n_obs_steps - 1)
            unseen = left < spec.horizon - spec.n_action_steps - spec.n_obs_steps + 1
            windows.weight[unseen] = 0.0
        trainer.start(RunFolder.create(str(run), trainer.config.tree(), words))
        finish(trainer)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    found = tree["rows"].items()
    rows = [f"| {name} | {sections.percent(row)} | {sections.by_seed(row)} |" for name, row in found]
    return [
        "## Every step is once now",
        "",
        'A diffusion policy on PickPlace from the same demonstrations, with every step of an episode as "now", and '
        "with the published rule, by which the last ones are not. `python benchmarks/window_rule.py`",
        "",
        "| windows | success | by seed |",
        "|---|---|---|",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/window_rule"))
    parser.add_argument("--out", type=Path, default=RESULTS / "window_rule.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    demos = args.work / "pick_place.hdf5"
    if not demos.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        cloning.robopol("collect", "env=pick_place", f"out={demos}", "episodes=500")
    rows = {}
    for name, published in (("every step", False), ("published rule", True)):
        runs = [args.work / f"{name.replace(' ', '-')}-{seed}" for seed in args.seeds]
        for seed, run in zip(args.seeds, runs, strict=True):
            if not (run / "summary.json").exists():
                clone(demos, run, seed, published)
        rows[name] = cloning.judge(runs)
        print(name, rows[name]["by_seed"])
    write_json(args.out, {"task": "pick_place", "seeds": args.seeds, "rows": rows})


if __name__ == "__main__":
    main()
