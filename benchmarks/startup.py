"""Start-up: from the command line to the first gradient step, beside importing the published diffusion_policy alone.

    git clone https://github.com/real-stanford/diffusion_policy DIR/diffusion_policy
    git -C DIR/diffusion_policy checkout 5ba07ac6661db573af695b419a7947ecb704690f
    pip install diffusers einops wandb "zarr<3"
    python benchmarks/startup.py --peers DIR [--rounds 7] [--out benchmarks/results/startup.json]

Fresh interpreters, in turns. The peer imports hydra, wandb and its low-dimensional U-Net policy, as its training script
does, and nothing is built. robopol composes its configuration, checks it, makes the environments, reads the
demonstrations, builds the policy, measures the machine, and does one update, whose log line carries the time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from robopol import __version__
from robopol.files import write_json

CLI = [sys.executable, "-m", "robopol.cli"]
PEER = """
import hydra, wandb
from diffusion_policy.policy.diffusion_unet_lowdim_policy import DiffusionUnetLowdimPolicy
"""


def timed(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Return how long a command takes, s."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - begun


def first_step(demos: Path, run: Path) -> float:
    """Return the time from the start of the process to the log line of the first update, s."""
    words = ["env=push", "policy/net=mlp", f"data.demos.uri={demos}", f"run={run}", "phases.cloning.updates=1"]
    words += ["log_every=1", "eval.final_episodes=0"]
    begun = time.time()
    subprocess.run([*CLI, "train", *words], check=True, capture_output=True)
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    return float(first["time"]) - begun


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Start-up",
        "",
        f"Fresh interpreters in turns, median of {tree['rounds']}. `python benchmarks/startup.py --peers DIR`",
        "",
        "| | s |",
        "|---|---|",
        *(f"| {name} | {seconds:.2f} |" for name, seconds in tree["median_seconds"].items()),
        "",
        f"To the first gradient step in {tree['ratio']:.2f} of the time that the published code takes to import.",
        "",
    ]
    return lines


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    environment = dict(os.environ)
    places = [str(args.peers / "diffusion_policy"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(places)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        demos = Path(place) / "demos.hdf5"
        subprocess.run([*CLI, "collect", "env=push", f"out={demos}", "episodes=20"], check=True, capture_output=True)
        for index in range(args.rounds + 1):
            taken = {
                "published diffusion_policy: import": timed([sys.executable, "-c", PEER], environment),
                "robopol: to the first gradient step": first_step(demos, Path(place) / f"run{index}"),
                "robopol --help": timed([*CLI, "--help"]),
                "import robopol": timed([sys.executable, "-c", "import robopol"]),
                "import torch": timed([sys.executable, "-c", "import torch"]),
            }
            if index > 0:  # the first round warms the page cache
                for name, seconds in taken.items():
                    times.setdefault(name, []).append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:37} {medians[name]:6.2f} s [{min(values):.2f}..{max(values):.2f}]")
    ratio = medians["robopol: to the first gradient step"] / medians["published diffusion_policy: import"]
    print(f"ratio of the first two: {ratio:.2f}")
    if args.out is not None:
        tree = {"robopol": __version__, "platform": platform.platform(), "rounds": args.rounds, "ratio": ratio}
        write_json(args.out, tree | {"seconds": times, "median_seconds": medians})


if __name__ == "__main__":
    main()
