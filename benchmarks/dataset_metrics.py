"""What the dataset metrics say of experts with more and more noise, of random actions, and of all of them together.

    python benchmarks/dataset_metrics.py [--episodes 60] [--out benchmarks/results/dataset_metrics.json]

The task is Push; random and noiseless expert are the reference returns, all data together the reference of coverage.
The figures are those of docs/data.md. About a minute on one core.
"""

import argparse
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from robopol import __version__
from robopol.data import Episodes
from robopol.data.stats import assess
from robopol.envs import VectorEnv, make_env
from robopol.evaluation import ExpertActor
from robopol.evaluation.actors import Actor
from robopol.evaluation.collect import collect
from robopol.files import write_json

RESULTS = Path(__file__).parent / "results"
TASK = "robopol/Push-v0"


class Random:
    """Draws every action from the whole box."""

    def __init__(self, env: VectorEnv) -> None:
        """Act in ``env``."""
        self._low, self._high = torch.tensor(env.spec.action_low), torch.tensor(env.spec.action_high)
        self._generators: dict[int, torch.Generator] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """See `robopol.evaluation.actors.Actor.reset`."""
        for slot, seed in zip(slots, seeds, strict=True):
            self._generators[slot] = torch.Generator().manual_seed(seed)

    def act(self, slots: Sequence[int], obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `robopol.evaluation.actors.Actor.act`."""
        drawn = [torch.rand(len(self._low), generator=self._generators[slot]) for slot in slots]
        return self._low + (self._high - self._low) * torch.stack(drawn)


def record(count: int, noise: float | None) -> Episodes:
    with make_env(TASK, 8) as env:
        actor: Actor = Random(env) if noise is None else ExpertActor(env, noise=noise)
        return collect(actor, env, count, 0, source="actor", only_success=False)


def measure(count: int) -> dict[str, dict[str, Any]]:
    """Return the metrics of each dataset; name -> row."""
    data = {f"expert, {1000 * noise:.0f} mm": record(count, noise) for noise in (0.0, 0.002, 0.01)}
    data["random"] = record(count // 2, None)
    references = float(data["random"].returns().mean()), float(data["expert, 0 mm"].returns().mean())
    data["all"] = Episodes.concat(list(data.values()))
    rows = {}
    for name, episodes in data.items():
        found = assess(episodes, references=references, reference=data["all"], bins=20)
        rows[name] = {
            "episodes": len(episodes),
            "tq": found["tq"],
            "saco": found["coverage"]["saco"],
            "action_variance_share": found["neighbourhoods"]["action_variance_share"],
            "recommendation": found["recommendation"],
        }
    return rows


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the rows as Markdown."""
    return [
        "| data | tq | saco | share of action variance | recommendation |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['tq']:.2f} | {row['saco']:.2f} | {row['action_variance_share']:.2f} "
            f"| {row['recommendation']} |"
            for name, row in rows.items()
        ),
    ]


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    return [
        "## Metrics of datasets",
        "",
        "`Push`: experts with more and more noise (what they record with is 2 mm), random actions, and all of them "
        "together, which is also the reference of coverage. `python benchmarks/dataset_metrics.py`",
        "",
        *table(tree["data"]),
        "",
    ]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS / "dataset_metrics.json")
    args = parser.parse_args()
    rows = measure(args.episodes)
    print("\n".join(table(rows)))
    write_json(args.out, {"robopol": __version__, "platform": platform.platform(), "data": rows})


if __name__ == "__main__":
    main()
