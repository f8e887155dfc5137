"""Kill a training run for good, again and again at random instants, and compare it with one that was left alone.

    python benchmarks/kill_resume.py [--kills 100] [--seed 0] [--out benchmarks/results/kill_resume.json]

Runs of two kinds, of real processes that save every third step: one learns from demonstrations, one (SAC on a pendulum)
acts, learns meanwhile, and saves its replay and its running episodes too. Each process is sent SIGKILL at a random
instant, during a save as likely as not, and the next one resumes. Runs follow each other, the kinds in turn, until
there were enough kills. Every one must end in the same bits as the undisturbed run of its kind: weights, averaged
weights, optimisers, replay, log and the outcome of every evaluated episode. Exits with an error at the first
difference.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from robopol.files import write_json

COMMON = [
    "batch_size=32",
    "log_every=5",
    "checkpoint.every=3",
    "eval.every=30",
    "eval.episodes=2",
    "eval.final_episodes=3",
    "eval.num_envs=3",
    "eval.videos=0",
    "runtime.threads=1",
    "runtime.matmul=highest",
]
OFFLINE = [
    "env=reach",
    "env.options.max_episode_steps=8",
    "policy/net=mlp",
    "policy.net.width=64",
    "policy/sampler=ddim",
    "policy.sampler.steps=4",
    "validate_every=20",
    "phases.cloning.updates=60",
    "algo.warmup=10",
    "data.demos.validation=0.2",
]
ONLINE = [
    "algo=sac",
    "env=gym",
    "env.id=Pendulum-v1",
    "env.options.max_episode_steps=25",
    "policy.hidden=[64,64]",
    "model.hidden=[64,64]",
    "phases.online.env_steps=60",
    "phases.online.warmup=10",
    "collection.capacity=40",
    "checkpoint.segment=7",
]
TENSORS = ("checkpoints/last/*/*.safetensors", "segments/*.safetensors")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "robopol.cli"]


def run(*words: str) -> None:
    """Run a command to its end."""
    subprocess.run([*COMMAND, *words], check=True, capture_output=True, env=ENVIRONMENT)


def torment(words: list[str], folder: Path, rng: random.Random, kills: int) -> dict[str, int]:
    """Train in ``folder``, killing up to ``kills`` processes; return what the kills hit."""
    hit = {"kills": 0, "during a save": 0}
    next_words = ["train", *words, f"run={folder}"]
    while True:
        process = subprocess.Popen(
            [*COMMAND, *next_words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        if hit["kills"] < kills:
            _wait_for_training(process, folder)
            time.sleep(rng.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode == 0:
            return hit
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"a resumed run failed:\n{errors.decode()}")
        hit["kills"] += 1
        hit["during a save"] += any((folder / "checkpoints").glob(".incomplete-*"))
        next_words = ["train", f"resume={folder}"]


def _wait_for_training(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Return once the process writes into the run folder."""
    places = (folder / "metrics.jsonl", folder / "checkpoints")
    before = [place.stat().st_mtime_ns if place.exists() else 0 for place in places]
    while process.poll() is None:
        now = [place.stat().st_mtime_ns if place.exists() else 0 for place in places]
        if now != before and (folder / "config.json").exists():
            return
        time.sleep(0.002)


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two finished runs."""
    found = []
    parts = [path for place in TENSORS for path in one.glob(place)]
    for part in sorted(path.relative_to(one) for path in parts):
        first, second = (load_file(folder / part) for folder in (one, other))
        found += [name for name in first.keys() | second.keys() if not _equal(first.get(name), second.get(name))]
    if _log(one) != _log(other):
        found.append("metrics.jsonl")
    if (one / "evaluation.json").read_text() != (other / "evaluation.json").read_text():
        found.append("evaluation.json")
    return found


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def _log(folder: Path) -> list[dict[str, Any]]:
    """Return the log without its clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time")} for line in lines]


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    return [
        "## Kill and resume",
        "",
        f"{tree['kills']} processes of {tree['runs']} runs killed at random instants, {tree['during a save']} of them "
        f"during a save: {tree['differences']} differences from a run that was left alone. "
        "`python benchmarks/kill_resume.py`",
        "",
    ]


def main() -> None:
    """Torment runs until there were enough kills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    total = {"kills": 0, "during a save": 0, "runs": 0}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        run("collect", "env=reach", f"out={work / 'demos.hdf5'}", "episodes=12")
        kinds = {"offline": [*COMMON, *OFFLINE, f"data.demos.uri={work / 'demos.hdf5'}"], "online": [*COMMON, *ONLINE]}
        for kind, words in kinds.items():
            run("train", *words, f"run={work / kind}")
        at_once = max(1, min(10, args.kills // len(kinds)))  # each kind is killed
        while total["kills"] < args.kills:
            kind = list(kinds)[total["runs"] % len(kinds)]
            folder = work / f"killed-{total['runs']}"
            hit = torment(kinds[kind], folder, rng, min(at_once, args.kills - total["kills"]))
            if found := differences(work / kind, folder):
                raise SystemExit(f"{kind}: after {hit['kills']} kills these differ: {', '.join(found)}")
            for name, count in hit.items():
                total[name] += count
            total["runs"] += 1
            saves = total["during a save"]
            print(f"{total['kills']} kills, {saves} of them during a save, {total['runs']} runs: same bits")
    if args.out is not None:
        write_json(args.out, total | {"differences": 0, "seed": args.seed})


if __name__ == "__main__":
    main()
