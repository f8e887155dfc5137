"""The six strategies of ITPS in a maze, our own kernels beside them, and formulas of temporal logic.

    python benchmarks/itps.py [--seeds 0 1 2] [--updates 8000] [--out benchmarks/results/itps.json]

A small reproduction of the Maze2D study of Wang et al. (2025), without physics. A plan is a path of 32 points from a
start; the demonstrations are random walks through a maze of cells, none of which meets a wall; the policy sees the
start only. Then 100 lines are drawn, and for each 32 plans are sampled in every way. 50 are `free`: straight or bent,
whatever is in their way. 50 are `rough`: a way through the maze, of which five points were remembered to within 0.1.
Some of either kind meet walls.

* RS samples; PR keeps the plan nearest to the line; OP moves by hand along the line up to the last of its first ten
  points before it meets a wall, and plans from there; BI begins at step 50 of 100 from the line; GD guides the noise
  estimate by the gradient at the noisy plan; SS does so more strongly and noises the estimate again, four times at
  every level. Scales are the published ones, 20 and 60 for a mean over the steps, hence 20/32 and 60/32 for a sum.
* Ours: BI from the line noised as a walk has it; guidance of the x0-estimate, alone and with a step that is led back by
  time travel or Langevin dynamics.

`min` is the mean distance of a plan's points to the line's, of the best of the 32 plans (of RS: of one); `mean` that of
all 32; `collision` the share of plans that meet a wall.

Formulas: "eventually within A and always out of B" for random discs; a plan satisfies one if its exact robustness is
positive. One plan is drawn, or the most robust of 32, guided (by smooth robustness) or not.

Scales of ours were chosen with seed 0's policy on other lines and formulas.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import intervals
import numpy as np
import sections
import torch
from torch import Tensor

from robopol import __version__, load_policy
from robopol.algos.bc import BCConfig
from robopol.checkpoint import save_part
from robopol.config import parse
from robopol.files import write_json
from robopol.networks.precision import RuntimeConfig
from robopol.policies import Policy, PolicySpec
from robopol.registry import lookup
from robopol.steering.objectives.sketch import resampled

RESULTS = Path(__file__).parent / "results"

MAZE = ["..#..", ".#...", "...#.", ".#.#.", "....."]
"""Seen from above, # are walls; the square [-1, 1] x [-1, 1]."""
CELL = 2 / len(MAZE)
FREE = torch.tensor([[c == "." for c in row] for row in MAZE])
STEPS = 32
SPEED = 0.07
"""Of a demonstration, a step."""
BATCH = 128
MOTION = {"actions": [0, 1], "means": "absolute"}

SPEC = {
    "obs_shapes": {"state": [2]},
    "action_names": ["x", "y"],
    "action_low": [-1, -1],
    "action_high": [1, 1],
    "action_space": "maze",
    "control_hz": 0.0,
    "n_obs_steps": 1,
    "horizon": STEPS,
    "n_action_steps": STEPS,
}
POLICY = {
    "kind": "diffusion",
    "n_obs_steps": 1,
    "horizon": STEPS,
    "n_action_steps": STEPS,
    "prediction": "x0",
    "net": {"kind": "mlp", "width": 512, "blocks": 3},
    "sampler": {"kind": "ddpm", "steps": 10, "clip": "every"},
    "obs_normalization": "identity",
    "action_normalization": "identity",
}


def centre(row: int, column: int) -> np.ndarray:
    return np.array([-1 + CELL * (column + 0.5), 1 - CELL * (row + 0.5)])


def collides(paths: Tensor) -> Tensor:
    """Return whether paths (..., L, 2) meet a wall or leave the maze, looked at ten times a step, (...)."""
    between = torch.linspace(0, 1, 10)[:, None, None]
    dense = paths[..., None, :-1, :].lerp(paths[..., None, 1:, :], between)  # (..., 10, L - 1, 2)
    column, row = ((dense[..., 0] + 1) / CELL).floor(), ((1 - dense[..., 1]) / CELL).floor()
    outside = (dense.abs() > 1).any(-1)
    size = len(MAZE) - 1
    blocked = ~FREE[row.long().clamp(0, size), column.long().clamp(0, size)]
    return (outside | blocked).flatten(-2).any(-1)


def walks(count: int, seed: int) -> Tensor:
    """Return random walks through the cells, (count, STEPS, 2), at a steady speed; they turn back in dead ends."""
    rng, found = np.random.default_rng(seed), []
    cells = [tuple(cell) for cell in FREE.nonzero().tolist()]
    while len(found) < count:
        cell, before, points = cells[rng.integers(len(cells))], None, []
        while len(points) < 9:
            points.append(centre(*cell) + rng.uniform(-0.1, 0.1, 2))
            around = [(cell[0] + a, cell[1] + b) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))]
            onward = [one for one in around if one in cells and one != before] or [before]
            before, cell = cell, onward[rng.integers(len(onward))]
        line = np.array(points)
        along = np.concatenate([[0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
        at = SPEED * np.arange(STEPS) + rng.uniform(0, CELL)
        found.append(np.stack([np.interp(at, along, line[:, axis]) for axis in range(2)], -1))
    paths = torch.tensor(np.array(found), dtype=torch.float32)
    assert not collides(paths).any()
    return paths


def train(seed: int, updates: int, work: Path) -> Policy:
    """Train a policy of the maze, or load the one that was."""
    if (work / "config.json").exists():
        return load_policy(work)
    paths = walks(20_000, seed)
    torch.manual_seed(seed)
    policy = parse(lookup("policy", "diffusion"), POLICY).build(parse(PolicySpec, SPEC))
    runtime = RuntimeConfig(device="cpu", threads=1, matmul="medium").build()
    runtime.apply()
    algo = BCConfig(lr=1e-3, warmup=200).build(policy, updates, runtime)
    rng = torch.Generator().manual_seed(seed)
    for step in range(updates):
        rows = paths[torch.randint(len(paths), (BATCH,), generator=rng)]
        batch = {"obs": {"state": rows[:, :1]}, "action": rows, "mask": torch.ones(BATCH, STEPS)}
        found = algo.update(batch | {"weight": torch.ones(BATCH)}, step, rng)
        if step % 1000 == 0:
            print(f"  update {step}: {found['train/loss'].item():.4f}", flush=True)
    policy = algo.deployed().eval()
    work.mkdir(parents=True, exist_ok=True)
    save_part(policy, work)
    return policy


def sketches() -> dict[str, list[Tensor]]:
    """Return 50 lines of either kind, (20, 2) and (5, 2), from starts of walks that were not demonstrated."""
    rng = torch.Generator().manual_seed(100_000)
    free, rough = [], []
    for start in walks(50, 100_000)[:, 0]:
        length, angle = STEPS * SPEED * (0.5 + 0.5 * torch.rand(1, generator=rng)), 6.3 * torch.rand(1, generator=rng)
        end = start + length * torch.cat([angle.cos(), angle.sin()])
        bend = (start + end) / 2 + 0.4 * (2 * torch.rand(2, generator=rng) - 1)
        t = torch.linspace(0, 1, 20)[:, None]
        free.append(((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end).clamp(-0.95, 0.95))
    for walk in walks(50, 100_001):
        corners = walk[torch.linspace(0, STEPS - 1, 5).long()]
        shaken = corners + 0.1 * torch.randn(5, 2, generator=rng)
        rough.append(torch.cat([corners[:1], shaken[1:]]).clamp(-0.95, 0.95))
    return {"free": free, "rough": rough}


def objective(line: Tensor) -> dict[str, Any]:
    return {"kind": "sketch", "points": line.tolist(), "motion": MOTION}


def guide(line: Tensor, scale: float, **more: Any) -> dict[str, Any]:
    return {"kind": "guide", "objective": objective(line), "scale": scale, **more}


def released(line: Tensor, ratio: float) -> dict[str, Any]:
    return guide(line, ratio / STEPS, at="noisy", space="eps", interval=[0.1, 1.0])


def begun(line: Tensor, **more: Any) -> dict[str, Any]:
    return {"kind": "biased_start", "points": line.tolist(), "motion": MOTION, "steps": 6, **more}


def inner(back: str) -> dict[str, Any]:
    return {"kind": "inner_steps", "count": 4, "back": back}


STRATEGIES = {
    "RS": lambda line: [],
    "BI": lambda line: [begun(line, noise=0.5)],
    "GD": lambda line: [released(line, 20)],
    "SS": lambda line: [released(line, 60), inner("renoise")],
    "BI, on the marginal": lambda line: [begun(line)],
    "SS, time travel": lambda line: [released(line, 60), inner("time_travel")],
    "SS, Langevin": lambda line: [released(line, 60), inner("langevin")],
    "x0": lambda line: [guide(line, 3.0)],
    "x0, time travel": lambda line: [guide(line, 3.0), inner("time_travel")],
    "x0, Langevin": lambda line: [guide(line, 3.0), inner("langevin")],
}


def steered(policy: Policy, trees: list[dict[str, Any]]) -> Policy:
    return policy.steered(*(parse(lookup("steering", tree["kind"]), tree) for tree in trees)) if trees else policy


def plans(policy: Policy, start: Tensor, count: int, seed: int) -> Tensor:
    """Return plans (count, STEPS, 2) from a start (2,)."""
    rng = torch.Generator().manual_seed(seed)
    return policy.plan({"state": start[None, None]}, count, rng)[0]


def by_hand(policy: Policy, line: Tensor, seed: int) -> Tensor:
    """Move along a line (STEPS, 2) up to a wall, for ten steps at most, and plan from there."""
    free = [k for k in range(1, 11) if not collides(line[: k + 1])]
    k = max(free, default=0)
    ahead = plans(policy, line[k], 32, seed)[:, : STEPS - k]
    return torch.cat([line[:k].expand(32, -1, -1), ahead], 1)


def study(policy: Policy, lines: list[Tensor]) -> dict[str, dict[str, float]]:
    """Return strategy -> figures over all lines."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for number, line in enumerate(lines):
        wanted = resampled(line, STEPS)

        def judged(paths: Tensor, wanted: Tensor = wanted) -> tuple[float, float, float]:
            distance = (paths - wanted).norm(dim=-1).mean(-1)
            return distance.min().item(), distance.mean().item(), collides(paths).float().mean().item()

        for name, strategy in STRATEGIES.items():
            paths = plans(steered(policy, strategy(line)), line[0], 32, number)
            found.setdefault(name, []).append(judged(paths))
            if name == "RS":
                found["RS"][-1] = judged(paths[:1])[0], *judged(paths)[1:]
                best = (paths - wanted).norm(dim=-1).mean(-1).argmin()
                found.setdefault("PR", []).append(judged(paths[best : best + 1]))
        found.setdefault("OP", []).append(judged(by_hand(policy, wanted, number)))
    figures = ("min", "mean", "collision")
    return {name: dict(zip(figures, np.mean(rows, 0).tolist(), strict=True)) for name, rows in found.items()}


def formula(start: np.ndarray, rng: np.random.Generator) -> str:
    """Return a formula: come into the disc A in a cell not far from the start, keep out of the disc B in another."""
    centres = [centre(*cell) for cell in FREE.nonzero().tolist()]
    others = [one for one in centres if np.linalg.norm(one - start) > 0.45]
    goal = rng.choice([one for one in others if np.linalg.norm(one - start) < 1.2])
    away = rng.choice([one for one in others if np.linalg.norm(one - goal) > 0.3])
    return (
        f"eventually distance({goal[0]:.3f}, {goal[1]:.3f}) <= 0.1 and "
        f"always distance({away[0]:.3f}, {away[1]:.3f}) >= 0.2"
    )


def asked(policy: Policy, count: int, seed: int) -> dict[str, list[tuple[bool, bool]]]:
    """Return way of planning -> whether each formula was satisfied, and whether the plan met no wall."""
    rng = np.random.default_rng(200_000)
    found: dict[str, list[tuple[bool, bool]]] = {}
    for number, start in enumerate(walks(count, 200_000)[:, 0]):
        exact = {"kind": "stl", "formula": formula(start.numpy(), rng), "motion": MOTION}
        push = {"kind": "guide", "objective": exact | {"temperature": 0.1}, "scale": 100.0}
        best = {"kind": "best_of", "objective": exact, "n": 32}
        judge = parse(lookup("objective", "stl"), exact).build(policy)
        guided = [push, inner("time_travel")]
        ways = {"base": [], "best of 32": [best], "guided": guided, "guided, best of 32": [*guided, best]}
        for name, trees in ways.items():
            path = plans(steered(policy, trees), start, 1, 1000 * seed + number)
            met = judge.score({"state": start[None, None]}, path[None])[0, 0].item() > 0
            found.setdefault(name, []).append((met, not bool(collides(path)[0])))
    return found


SHOWN = ["RS", "BI", "GD", "SS", "x0", "x0, time travel"]


def draw(policy: Policy, drawn: list[list[Tensor]], out: Path) -> None:
    """Draw the plans of some strategies for the first line of each kind that meets a wall."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.1 * len(SHOWN), 4.5), layout="constrained")
    axes = figure.subplots(2, len(SHOWN))
    for name, axis in zip(SHOWN, axes[0], strict=True):
        axis.set_title(name, fontsize=10)
    for row, lines in zip(axes, drawn, strict=True):
        number, line = next((number, line) for number, line in enumerate(lines) if collides(line))
        for axis, name in zip(row, SHOWN, strict=True):
            paths = plans(steered(policy, STRATEGIES[name](line)), line[0], 32, number)
            axis.imshow(FREE, cmap="gray", vmin=-1.5, extent=(-1, 1, -1, 1))
            for path, hit in zip(paths.numpy(), collides(paths).tolist(), strict=True):
                axis.plot(*path.T, color="#D55E00" if hit else "#0072B2", linewidth=0.7, alpha=0.6)
            axis.plot(*line.T.numpy(), color="black", linewidth=2, linestyle=(0, (2, 1)))
            axis.plot(*line[0].numpy(), "o", color="black", markersize=4)
            axis.set(xticks=[], yticks=[], xlim=(-1, 1), ylim=(-1, 1))
    figure.savefig(out, dpi=80)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Steering by sketches",
        "",
        "The six strategies of ITPS in a maze of our own, and our kernels beside them: 50 lines that were drawn "
        f"freely, {tree['crossed']['free']} of them through walls, and 50 that roughly follow a way, "
        f"{tree['crossed']['rough']} through walls; 32 plans of 32 steps for each, {len(tree['seeds'])} training "
        "seeds. Distance of a plan's points to the line's: of the best of 32 (of RS: of one), and of all; and the "
        "share of plans that meet a wall. "
        "The maze is 2 wide. `python benchmarks/itps.py`",
        "",
        "| strategy | free: min | mean | by seed | collision | rough: min | mean | by seed | collision |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in tree["strategies"]["free"]:
        cells = []
        for kind in ("free", "rough"):
            row = tree["strategies"][kind][name]
            seeds = " ".join(f"{one['mean']:.2f}" for one in row["by_seed"])
            cells += [f"{row['min']:.3f}", f"{row['mean']:.3f}", seeds, f"{row['collision']:.1%}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "![plans of some strategies](../benchmarks/results/itps.png)",
        "",
        'Formulas of temporal logic, "eventually in A and always out of B", for 100 pairs of discs:',
        "",
        "| plans | satisfied | by seed | satisfied, and no wall met |",
        "|---|---|---|---|",
    ]
    for name, row in tree["formulas"].items():
        satisfied = sections.share(row["satisfied"], row["satisfied_ci95"])
        lines.append(f"| {name} | {satisfied} | {sections.by_seed(row)} | {row['and_no_wall']:.1%} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--work", type=Path, default=Path("runs/itps"))
    parser.add_argument("--out", type=Path, default=RESULTS / "itps.json")
    args = parser.parse_args()
    drawn = sketches()
    studies, satisfied = [], []
    for seed in args.seeds:
        folder = args.work / str(seed)
        policy = train(seed, args.updates, folder)
        RuntimeConfig(device="cpu", threads=1, matmul="highest").build().apply()
        if not (folder / "found.json").exists():  # a seed that is done is not done again
            print(f"seed {seed}", flush=True)
            write_json(
                folder / "found.json",
                {name: study(policy, lines) for name, lines in drawn.items()} | {"asked": asked(policy, 100, seed)},
            )
        found = json.loads((folder / "found.json").read_text())
        studies.append(found)
        satisfied.append(found["asked"])
        if seed == args.seeds[0]:
            draw(policy, [drawn["free"], drawn["rough"]], args.out.with_suffix(".png"))
    strategies = {
        kind: {
            name: {
                **{key: float(np.mean([one[kind][name][key] for one in studies])) for key in figures},
                "by_seed": [one[kind][name] for one in studies],
            }
            for name, figures in studies[0][kind].items()
        }
        for kind in drawn
    }
    logic = {}
    for name in satisfied[0]:
        rows = np.array([rows[name] for rows in satisfied]).reshape(-1, 2)
        met, both = int(rows[:, 0].sum()), int(rows.all(1).sum())
        logic[name] = {
            "satisfied": met / len(rows),
            "satisfied_ci95": intervals.share([met / len(rows)], len(rows) // len(satisfied))[1],
            "and_no_wall": both / len(rows),
            "by_seed": [float(np.array(one[name])[:, 0].mean()) for one in satisfied],
        }
    tree = {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform(), "seeds": args.seeds}
    crossed = {kind: sum(bool(collides(line)) for line in lines) for kind, lines in drawn.items()}
    write_json(args.out, tree | {"crossed": crossed, "strategies": strategies, "formulas": logic})
    for kind, rows in strategies.items():
        for name, row in rows.items():
            print(f"{kind} {name:22} min {row['min']:.3f} mean {row['mean']:.3f} collision {row['collision']:.3f}")
    for name, row in logic.items():
        print(f"{name:22} satisfied {row['satisfied']:.1%}, and no wall {row['and_no_wall']:.1%}")


if __name__ == "__main__":
    main()
