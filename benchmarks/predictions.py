"""What a network predicts, on three paths: how far each has come after the same short training.

    python benchmarks/predictions.py [--task pick_place] [--seeds 0] [--work runs/predictions]

Diffusion, flow and EDM policies differ in their path; what the network says on it is a choice of its own, and each
recipe was published with one: the noise (`eps`), the velocity, or EDM's mixture of noise and action. `x0` is the action
itself, `v` the velocity of the variance-preserving path. All see the same batches for as many updates, in networks of
one size, and walk ten steps. Success is over the 100 held-out episodes a seed. Finished runs are kept in ``--work``.
"""

import argparse
from pathlib import Path
from typing import Any

import cloning
import sections

from robopol.files import write_json

RESULTS = Path(__file__).parent / "results"
NET = ["policy/net=mlp", "policy.net.width=512", "policy.net.blocks=2", "algo.lr=1e-3"]
PATHS = {
    "diffusion": (["policy=diffusion", "policy/sampler=ddim"], ("eps", "v", "x0")),
    "flow": (["policy=flow"], ("velocity", "x0")),
    "edm": (["policy=edm"], ("edm", "x0")),
}
"""Kind of policy -> words of `robopol train`, and what its network may predict."""
TASKS = {"push": (200, 3000), "pick_place": (500, 3000)}
"""Task -> demonstrations, updates."""


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## What a network predicts",
        "",
        f"The same {tree['updates']} updates on {tree['demonstrations']} demonstrations of {tree['task']}, networks of "
        "one size, ten steps. `python benchmarks/predictions.py`",
        "",
        "| policy | prediction | success | by seed |",
        "|---|---|---|---|",
    ]
    for row in tree["rows"]:
        lines.append(f"| {row['policy']} | {row['prediction']} | {sections.percent(row)} | {sections.by_seed(row)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="pick_place", choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=Path, default=Path("runs/predictions"))
    parser.add_argument("--out", type=Path, default=RESULTS / "predictions.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    (episodes, updates), demos = TASKS[args.task], args.work / f"{args.task}.hdf5"
    if not demos.exists():
        cloning.robopol("collect", f"env={args.task}", f"out={demos}", f"episodes={episodes}")
    common = [*NET, f"env={args.task}", f"data.demos.uri={demos}", f"phases.cloning.updates={updates}"]
    rows = []
    for kind, (words, predictions) in PATHS.items():
        for prediction in predictions:
            runs = [args.work / f"{args.task}-{kind}-{prediction}-{seed}" for seed in args.seeds]
            for seed, run in zip(args.seeds, runs, strict=True):
                cloning.train(run, *words, f"policy.prediction={prediction}", *common, f"seed={seed}")
            rows.append({"policy": kind, "prediction": prediction} | cloning.judge(runs))
            print(f"{kind:10} {prediction:10} {rows[-1]['success_rate']:.0%}", flush=True)
            told = {"task": args.task, "demonstrations": episodes, "updates": updates, "seeds": args.seeds}
            write_json(args.out, told | {"rows": rows})


if __name__ == "__main__":
    main()
