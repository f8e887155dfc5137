"""Critics on a maze whose data never show the way: what the best of the data would earn, put together from pieces.

    python benchmarks/critics.py [--seeds 3] [--updates 3000] [--arms bc ...] [--out benchmarks/results/critics.json]

Arms that are left out keep their figures in ``--out``.

On a 5 x 5 grid a winding corridor leads from the start to a goal (reward 1), 7 steps away. Next to the start is an exit
(reward 0.1). Beside the corridor the world ends without reward; the outer walls do not let through. The data are 4000
random walks of at most 4 steps from random cells of the corridor, each action the direction of a step with a little
noise: no walk leads from the start to the goal, and one that goes on at random from the start hardly ever gets there.

The policy is a mixture of Gaussians. Behaviour cloning (`bc`) walks at random. With expectile 0.5 (`iql-0.5`) values
are those of the random walk, for which the exit is the better end. With 0.9 (`iql-0.9`) they lean to the best steps in
the data. `cal_ql` learns from its own policy's steps, held down elsewhere, and takes some six times as long. The
success rate is the share of 200 walks from the start that reach the goal within 30 steps; beside it the value of the
start that each critic believes in, and what is known exactly: its value under the random walk, under the same
expectile and under the best steps.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robopol.config import parse
from robopol.data import Episodes, EpisodesMeta
from robopol.files import write_json
from robopol.networks.precision import RuntimeConfig
from robopol.policies import PolicySpec
from robopol.registry import lookup
from robopol.training.contract import joined
from robopol.training.sources import Sources

CORRIDOR = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2), (3, 2), (2, 2)]
EXIT, START, GOAL = CORRIDOR[0], CORRIDOR[1], CORRIDOR[-1]
SIZE, LENGTH, WALKS, DISCOUNT = 5, 4, 4000, 0.99
STEPS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])

IQL = {"kind": "iql", "lr": 1e-3, "polyak": 0.01, "beta": 30.0, "cloning": {"lr": 1e-3}}
ARMS: dict[str, dict[str, Any]] = {
    "bc": {"kind": "bc", "lr": 1e-3},
    "iql-0.5": IQL | {"expectile": 0.5},
    "iql-0.9": IQL | {"expectile": 0.9},
    # its values hardly fall along the way, so that a step back costs 2 % of them: hence the greater beta
    "cal_ql": {"kind": "cal_ql", "alpha": 0.01, "lr": 1e-3, "polyak": 0.01, "beta": 100.0} | {"cloning": {"lr": 1e-3}},
}
META = EpisodesMeta(
    control_hz=1.0,
    action_space="direction",
    action_names=("x", "y"),
    action_low=(-1.5, -1.5),
    action_high=(1.5, 1.5),
)


def step(cell: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move in the direction that an action points in most.

    Args:
        cell: (B, 2).
        action: (B, 2).

    Returns:
        The next cells (B, 2), the rewards (B,) and whether the world ended (B,).
    """
    moved = (cell + STEPS[(action @ STEPS.T).argmax(-1)]).clamp(0, SIZE - 1)
    inside = (moved[:, None] == torch.tensor(CORRIDOR).float()).all(-1).any(-1)
    out, won = ((moved == torch.tensor(end)).all(-1) for end in (EXIT, GOAL))
    return moved, won.float() + 0.1 * out.float(), won | out | ~inside


def walks(seed: int) -> Episodes:
    """Return random walks, none of them from the start to the goal."""
    rng = torch.Generator().manual_seed(seed)
    begin = torch.tensor(CORRIDOR[1:-1]).float()
    cell = begin[torch.randint(len(begin), (WALKS,), generator=rng)]
    going, rows = torch.ones(WALKS, dtype=torch.bool), []
    for _ in range(LENGTH):
        chosen = STEPS[torch.randint(4, (WALKS,), generator=rng)]
        action = chosen + 0.1 * torch.randn(WALKS, 2, generator=rng)
        after, reward, ended = step(cell, action)
        rows.append((cell, action, reward, ended, going))
        cell, going = torch.where(going[:, None], after, cell), going & ~ended
    before, action, reward, ended, taken = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    lengths = taken.sum(1)
    last = torch.arange(LENGTH) == lengths[:, None] - 1
    count, nothing = int(taken.sum()), torch.zeros(WALKS, dtype=torch.int64)
    return Episodes(
        obs={"cell": before[taken]},
        action=action[taken],
        reward=reward[taken],
        terminated=ended[taken],
        truncated=(last & ~ended)[taken],
        source=torch.zeros(count, dtype=torch.int64),
        intervention=torch.zeros(count, dtype=torch.bool),
        starts=lengths.cumsum(0) - lengths,
        lengths=lengths,
        final_obs={"cell": cell},
        has_final=torch.ones(WALKS, dtype=torch.bool),
        success=torch.zeros(WALKS, dtype=torch.bool),
        way=nothing,
        seed=torch.arange(WALKS),
        meta=META,
    )


def exact(expectile: float | None) -> float:
    """Return the value of the start under the expectile's backup of all four steps; None takes the best step."""
    cells = torch.tensor(CORRIDOR[1:-1]).float()
    value = torch.zeros(len(cells))
    for _ in range(300):
        columns = []
        for direction in STEPS:
            after, reward, ended = step(cells, direction.expand(len(cells), 2))
            where = (after[:, None] == cells).all(-1).float()
            columns.append(reward + DISCOUNT * ~ended * (where @ value))
        q = torch.stack(columns, 1)
        if expectile is None:
            value = q.amax(1)
            continue
        for _ in range(50):
            share = torch.where(q < value[:, None], 1 - expectile, expectile)
            value = (share * q).sum(1) / share.sum(1)
    return value[0].item()


def make(group: str, tree: dict[str, Any], episodes: Episodes) -> Any:
    """Return a policy or a model of single steps, its normalisers fitted."""
    config: Any = parse(lookup(group, tree["kind"]), tree)
    spec = {
        "obs_shapes": {"cell": [2]},
        "action_names": list(META.action_names),
        "action_low": list(META.action_low),
        "action_high": list(META.action_high),
        "action_space": META.action_space,
        "control_hz": 1.0,
        "n_obs_steps": 1,
        "horizon": 1,
        "n_action_steps": 1,
    }
    made = config.build(parse(PolicySpec, spec))
    made.fit_normalizers(episodes)
    return made


def run(arm: str, seed: int, updates: int) -> dict[str, float]:
    """Train one arm and return its figures."""
    episodes = walks(seed)
    torch.manual_seed(seed)
    window = {"n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
    parts = {"policy": make("policy", {"kind": "gmm", "modes": 4, "hidden": [64, 64]} | window, episodes)}
    if arm != "bc":
        value = {"kind": "value", "hidden": [64, 64], "discount": DISCOUNT}
        parts["model"] = make("model", value, episodes)
    config: Any = parse(lookup("algo", ARMS[arm]["kind"]), ARMS[arm])
    runtime = RuntimeConfig(threads=1, matmul="highest").build()
    algo = config.build(**parts, total_updates=updates, runtime=runtime)
    spec = joined(part.spec for part in parts.values())
    sources = Sources({"walks": episodes}, spec, seed, torch.device("cpu"), needs=algo.needs)
    for k in range(updates):
        algo.update(sources.batch({"walks": 1.0}, 256, k), k, torch.Generator().manual_seed(k))
    rng = torch.Generator().manual_seed(seed + 1000)
    cell, going, won = torch.tensor([START]).float().repeat(200, 1), torch.ones(200, dtype=torch.bool), 0
    for _ in range(30):
        action = algo.deployed().act({"cell": cell[:, None]}, generator=rng)[:, 0, 0]
        after, reward, ended = step(cell, action)
        won += int((going & (reward == 1)).sum())
        cell, going = torch.where(going[:, None], after, cell), going & ~ended
    figures = {"success_rate": won / 200}
    if "model" in parts:
        start = torch.tensor(START).float().view(1, 1, 2)
        figures["value_of_start"] = algo.parts()["model"].v({"cell": start}).item()
    return figures


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    known = ", ".join(f"{value:.2f} ({name})" for name, value in tree["exact_value_of_start"].items())
    lines = [
        "## Critics",
        "",
        f"A maze whose data are pieces of random walks, none from the start to the goal; {tree['updates']} updates. "
        "Share of 200 walks that reach the goal, and the value of the start that the critic believes in; known "
        f"exactly: {known}. "
        "`python benchmarks/critics.py`",
        "",
        "| | success by seed | value of the start by seed |",
        "|---|---|---|",
    ]
    for name, row in tree["arms"].items():
        values = " ".join(f"{value:.2f}" for value in row.get("value_of_start", [])) or "-"
        lines.append(f"| {name} | {' '.join(f'{rate:.1%}' for rate in row['success_rate'])} | {values} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--out", type=Path, default=None)
    words = parser.parse_args()
    known = {"random walk": exact(0.5), "expectile 0.9": exact(0.9), "best steps": exact(None)}
    print("value of the start:", ", ".join(f"{name} {value:.3f}" for name, value in known.items()))
    rows: dict[str, Any] = {}
    for arm in words.arms:
        found = [run(arm, seed, words.updates) for seed in range(words.seeds)]
        rows[arm] = {key: [figures[key] for figures in found] for key in found[0]}
        print(arm, json.dumps({key: [round(x, 3) for x in values] for key, values in rows[arm].items()}), flush=True)
    if words.out is not None:
        others = json.loads(words.out.read_text())["arms"] if words.out.exists() else {}
        write_json(words.out, {"updates": words.updates, "exact_value_of_start": known, "arms": others | rows})


if __name__ == "__main__":
    main()
