"""BESO in the small: few steps on a ring of modes, goals reached after learning from play, how far a goal should pull.

    python benchmarks/beso.py [--seeds 0 1 2] [--parts ring play] [--out benchmarks/results/beso.json]

ring: eight Gaussians, their denoiser in closed form and learned; share of samples within three standard deviations of a
mode, for grids and samplers of 3, 5 and 10 steps.

play: a point wanders through four rooms, from one place to the next, and nobody says where to. With goals from
hindsight a policy is then to reach places in the room across, to which two ways are equally good. Compared are the mean
of a Gaussian and BESO with 3, 5 and 20 steps; then weights of the goal, with the goal left out of whole samples and, as
a control, zeroed entry by entry, which hardly ever leaves a goal out.
"""

import argparse
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sections
import torch
from torch import Tensor

from robopol import __version__
from robopol.algos.bc import BCConfig
from robopol.config import parse
from robopol.data import Episodes, EpisodesMeta
from robopol.data.hindsight import HindsightConfig
from robopol.evaluation.statistics import bootstrap_mean, wilson
from robopol.files import write_json
from robopol.networks.denoiser import Denoiser
from robopol.networks.denoising_mlp import DenoisingMLPConfig
from robopol.networks.precision import RuntimeConfig
from robopol.policies import Policy, PolicySpec
from robopol.policies.field import Field
from robopol.policies.generative import GenerativePolicy
from robopol.policies.guidance import GoalEncoder
from robopol.policies.paths.variance_exploding import VarianceExploding, VarianceExplodingConfig
from robopol.policies.prediction import target
from robopol.policies.samplers.edm import EDMConfig
from robopol.policies.samplers.first_order import AncestralConfig, DDIMConfig
from robopol.registry import lookup
from robopol.training.sources import Sources

RESULTS = Path(__file__).parent / "results"
RING_STEPS = (3, 5, 10)
SAMPLERS = {"ddim": DDIMConfig, "heun": EDMConfig, "ancestral": AncestralConfig}
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)
WALL, CENTRES = 0.3, (-0.35, 0.65)
SIZE = {"n_obs_steps": 3, "horizon": 3, "n_action_steps": 1}
EPISODES, LIMIT, NEAR = 300, 60, 0.15


# ---------------------------------------------------------------------------------------------------------------- ring


class Ring(Denoiser):
    """The exact denoiser of eight Gaussians, standard deviation 0.05, on a circle of radius 1."""

    std = 0.05

    def __init__(self, path: VarianceExploding) -> None:
        """Place the modes."""
        super().__init__()
        angles = torch.arange(8) * math.pi / 4
        self.path, self.means = path, torch.stack([angles.cos(), angles.sin()], -1).double()

    def data(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw samples (count, 2)."""
        mode = torch.randint(8, (count,), generator=rng)
        return self.means[mode].float() + self.std * torch.randn(count, 2, generator=rng)

    def hits(self, x: Tensor) -> float:
        """Return the share of samples (B, 2) on a mode."""
        return (torch.cdist(x.double(), self.means).amin(1) < 3 * self.std).double().mean().item()

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        level = self.path.level((4 * t[:1].double() / self.path.time_scale).exp())
        y = x[:, 0].double() / self.path.input_scale(level)
        var = self.std**2 + level.sigma**2
        weight = (-((y[:, None] - self.means) ** 2).sum(-1) / (2 * var)).softmax(-1)
        x0 = (weight[..., None] * (self.means + self.std**2 / var * (y[:, None] - self.means))).sum(1)
        return target("edm", x0, (y - x0) / level.sigma, level, self.path).float()[:, None]


def ring(seeds: list[int]) -> dict[str, Any]:
    """Return share of samples on the modes: denoiser -> grid -> sampler -> steps."""
    path = VarianceExplodingConfig(sigma_min=0.05, sigma_data=math.sqrt(0.5)).build()
    exact = Ring(path)
    tree: dict[str, Any] = {"exact": table(Field(exact, path, "edm"), exact, 0)}
    learned = [table(fit_ring(exact, path, seed), exact, seed) for seed in seeds]
    tree["learned"] = {
        grid: {
            name: {steps: [one[grid][name][steps] for one in learned] for steps in learned[0][grid][name]}
            for name in SAMPLERS
        }
        for grid in learned[0]
    }
    return tree


def fit_ring(exact: Ring, path: VarianceExploding, seed: int) -> Field:
    torch.manual_seed(seed)
    field = Field(DenoisingMLPConfig(width=128).build(2, 1, 1, 1), path, "edm")
    optimizer = torch.optim.AdamW(field.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(10_000):
        optimizer.zero_grad()
        field.loss(exact.data(512, rng)[:, None], torch.zeros(512, 1, 1), rng).mean().backward()
        optimizer.step()
        schedule.step()
    return field


@torch.no_grad()
def table(field: Field, exact: Ring, seed: int, count: int = 4000) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for grid in ("linear", "exponential", "karras"):
        for name, config in SAMPLERS.items():
            for steps in RING_STEPS:
                rng = torch.Generator().manual_seed(seed)

                def draw(rng: torch.Generator = rng) -> Tensor:
                    return torch.randn(count, 1, 2, generator=rng)

                sampler = config(steps=steps, spacing=grid, clip="never").build()
                x = sampler.sample(field, draw(), torch.zeros(count, 1, 1), draw)[:, 0]
                rows.setdefault(grid, {}).setdefault(name, {})[str(steps)] = exact.hits(x)
    return rows


# ---------------------------------------------------------------------------------------------------------------- play


class Rooms:
    """Four rooms in [-1, 1]^2 with walls at 0.3, and doors of half width 0.1 in the middle of each room's wall.

    The middle of all goals, which is what zeros mean to a network, lies inside the largest room.
    """

    speed = 0.1

    def step(self, position: Tensor, action: Tensor) -> Tensor:
        """Move points (N, 2); a wall stops the entry that would cross it."""
        wanted = (position + action.clamp(-self.speed, self.speed)).clamp(-1, 1)
        for axis in (0, 1):  # one after the other
            crosses = (position[:, axis] - WALL) * (wanted[:, axis] - WALL) <= 0
            at_door = torch.stack([(position[:, 1 - axis] - centre).abs() < 0.1 for centre in CENTRES]).any(0)
            position = position.clone()
            position[:, axis] = torch.where(crosses & ~at_door, position[:, axis], wanted[:, axis])
        return position

    @staticmethod
    def places(side: Tensor, rng: torch.Generator) -> Tensor:
        """Return random places (N, 2) in the rooms on the positive (1) or negative (-1) sides (N, 2) of the walls."""
        low, high = torch.where(side > 0, WALL + 0.1, -0.9), torch.where(side > 0, 0.9, WALL - 0.1)
        return low + (high - low) * torch.rand(side.shape, generator=rng)

    def play(self, count: int, length: int, seed: int) -> Episodes:
        """Wander: to a random place, by one of the shortest ways there, to the next place, and so on."""
        rng = np.random.default_rng(seed)
        position = rng.uniform(-0.9, 0.9, (count, 2))
        way: list[list[np.ndarray]] = [[] for _ in range(count)]
        states, actions = [], []
        for _ in range(length):
            action = np.empty((count, 2))
            for row in range(count):
                if not way[row]:
                    way[row] = self._errand(position[row], rng)
                towards = way[row][0] - position[row]
                if np.abs(towards).max() < 0.06:
                    way[row].pop(0)
                action[row] = towards / max(np.linalg.norm(towards) / 0.08, 1) + rng.normal(0, 0.01, 2)
            now = torch.tensor(position, dtype=torch.float32)
            states.append(now)
            actions.append(torch.tensor(action, dtype=torch.float32).clamp(-self.speed, self.speed))
            position = self.step(now, actions[-1]).double().numpy()
        final = torch.tensor(position, dtype=torch.float32)
        return episodes(torch.stack(states, 1), torch.stack(actions, 1), torch.zeros(count, length), final)

    @staticmethod
    def _errand(position: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Return way points to a random place in a random room: before each door on the way, behind it, the place."""
        side, wanted = np.where(position > WALL, 1.0, -1.0), rng.choice([-1.0, 1.0], 2)
        way = []
        for axis in rng.permutation(2):
            if side[axis] != wanted[axis]:
                door = np.where(side > 0, CENTRES[1], CENTRES[0])
                for sign in (side[axis], wanted[axis]):
                    door = door.copy()
                    door[axis] = WALL + 0.12 * sign
                    way.append(door)
                side[axis] = wanted[axis]
        return [*way, rng.uniform(np.where(side > 0, WALL + 0.1, -0.9), np.where(side > 0, 0.9, WALL - 0.1))]


def episodes(states: Tensor, actions: Tensor, reward: Tensor, final: Tensor) -> Episodes:
    """Put runs (E, L, ...) of equal length together as episodes that were cut."""
    count, length = states.shape[:2]
    rows = count * length
    last = torch.arange(rows) % length == length - 1
    return Episodes(
        obs={"state": states.flatten(0, 1)},
        action=actions.flatten(0, 1),
        reward=reward.flatten(),
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=last,
        source=torch.zeros(rows, dtype=torch.int64),
        intervention=torch.zeros(rows, dtype=torch.bool),
        starts=torch.arange(count) * length,
        lengths=torch.full((count,), length),
        final_obs={"state": final},
        has_final=torch.ones(count, dtype=torch.bool),
        success=torch.zeros(count, dtype=torch.bool),
        way=torch.full((count,), -1),
        seed=torch.arange(count),
        meta=EpisodesMeta(source_names=("play",)),
    )


class EntryByEntry(GoalEncoder):
    """The control: every entry of a goal is zeroed on its own, and nothing says so."""

    def forward(
        self, obs: Mapping[str, Tensor], steps: int, *, augment: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """See `Encoder.forward`."""
        rest, goal = self.rest(obs, steps), self.goal(obs, steps)
        if augment:
            goal = goal * (torch.rand(goal.shape, generator=generator) >= self.drop)
        return torch.cat([rest, goal, torch.zeros_like(rest[..., :1])], -1)

    def without(self, cond: Tensor) -> Tensor:
        """Return features (..., D) with a goal of zeros."""
        shown = cond.clone()
        shown[..., self.rest.dim :] = 0
        return shown


def learn(tree: dict[str, Any], data: Episodes, seed: int, updates: int, control: bool = False) -> Policy:
    """Train a policy on goals from hindsight."""
    config: Any = parse(lookup("policy", tree["kind"]), tree | SIZE)
    goals = HindsightConfig(of="state", gamma=0.9)
    shown = goals.observed(data)
    keys = config.encoder.keys or tuple(shown.obs)
    spec = {
        "obs_shapes": {key: [2] for key in keys},
        "action_names": ["x", "y"],
        "action_low": [-Rooms.speed] * 2,
        "action_high": [Rooms.speed] * 2,
        "action_space": "step",
        "control_hz": 10.0,
    }
    torch.manual_seed(seed)
    policy = config.build(parse(PolicySpec, spec | SIZE))
    if control:
        policy.observation = EntryByEntry(policy.observation.rest, policy.observation.goal, policy.observation.drop)
    policy.fit_normalizers(shown)
    algo = BCConfig(lr=1e-3, warmup=100).build(policy, updates, RuntimeConfig(threads=1, matmul="highest").build())
    sources = Sources({"play": shown}, policy.spec, seed, torch.device("cpu"), {"play": goals})
    policy.train()
    for step in range(updates):
        algo.update(sources.batch({"play": 1.0}, 256, step), step, torch.Generator().manual_seed(seed + 10 * step))
    return algo.deployed().eval()


def reached(policy: Policy, seed: int) -> float:
    """Return the share of goals in the room across that are reached."""
    rng = torch.Generator().manual_seed(1000 + seed)
    world = Rooms()
    side = torch.where(torch.rand(EPISODES, 2, generator=rng) < 0.5, -1.0, 1.0)
    position, goal = world.places(side, rng), world.places(-side, rng)
    there = torch.zeros(EPISODES, dtype=torch.bool)
    seen, steps, executed = [position] * SIZE["n_obs_steps"], SIZE["n_obs_steps"], SIZE["n_action_steps"]
    for _ in range(LIMIT // executed):
        obs = {"state": torch.stack(seen[-steps:], 1), "goal": goal[:, None].expand(-1, steps, -1)}
        for action in policy.act(obs, generator=rng)[:, 0, :executed].unbind(1):
            position = world.step(position, action)
            seen.append(position)
            there |= (position - goal).norm(dim=-1) < NEAR
    return there.float().mean().item()


def distance(one: Policy, other: Policy, seed: int, n: int = 64) -> float:
    """Return the energy distance between what two policies do, mean over states, in parts of the largest step."""
    rng = torch.Generator().manual_seed(2000 + seed)
    places = (1.8 * torch.rand(100, 1, 2, generator=rng) - 0.9 for _ in range(2))
    state, goal = (place.expand(-1, SIZE["n_obs_steps"], -1) for place in places)
    a, b = (p.act({"state": state, "goal": goal}, n, rng)[:, :, 0] / Rooms.speed for p in (one, other))
    pair = torch.ones(n, n).triu(1).bool()
    within = sum(torch.cdist(x, x)[:, pair].mean().item() for x in (a, b))
    return 2 * torch.cdist(a, b).mean().item() - within


def judged(rates: list[float]) -> dict[str, Any]:
    wins, episodes_ = round(sum(rates) * EPISODES), EPISODES * len(rates)
    return {
        "success_rate": wins / episodes_,
        "success_ci95": wilson(wins, episodes_),
        "by_seed": rates,
        "seeds_ci95": bootstrap_mean(rates) if len(rates) > 1 else None,
    }


def play(seeds: list[int], updates: int) -> dict[str, Any]:
    """Return what reaches the goals, and how the weight of the goal matters."""
    net = {"kind": "film_mlp", "width": 128, "blocks": 2, "features": 128}
    beso = {"kind": "beso", "net": net, "guidance": {"drop": 0.1}}
    rates: dict[str, list[float]] = {}
    matches: dict[str, list[float]] = {}
    for seed in seeds:
        data = Rooms().play(200, 100, seed)
        mean = learn({"kind": "gaussian", "hidden": [256, 256, 256]}, data, seed, updates)
        rates.setdefault("gaussian mean", []).append(reached(mean, seed))
        blind = learn(beso | {"encoder": {"kind": "low_dim", "keys": ["state"]}}, data, seed, updates)
        rates.setdefault("no goal", []).append(reached(blind, seed))
        matches.setdefault("no goal, twice", []).append(distance(blind, blind, seed))
        for name, control in (("whole goal", False), ("entry by entry", True)):
            policy = learn(beso, data, seed, updates, control)
            assert isinstance(policy, GenerativePolicy)
            for steps in (3, 5, 20) if not control else ():
                policy.resample(DDIMConfig(steps=steps, clip="last"))
                rates.setdefault(f"beso, {steps} steps", []).append(reached(policy, seed))
            policy.resample(DDIMConfig(steps=5, clip="last"))
            for weight in WEIGHTS:
                policy.guide(weight)
                rates.setdefault(f"{name}, weight {weight}", []).append(reached(policy, seed))
            policy.guide(0.0)
            matches.setdefault(name, []).append(distance(policy, blind, seed))
        print(f"seed {seed}: " + ", ".join(f"{name} {rate[-1]:.2f}" for name, rate in rates.items()))
        print("   weight 0 to no goal: " + ", ".join(f"{name} {found[-1]:.4f}" for name, found in matches.items()))
    return {
        "updates": updates,
        "episodes": EPISODES,
        "rows": {name: judged(found) for name, found in rates.items()},
        "distance_to_no_goal_at_weight_0": matches,
    }


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Few steps, and goals from play",
        "",
        f"BESO in the small; {len(tree['seeds'])} training seeds. `python benchmarks/beso.py`",
        "",
    ]
    if "ring" in tree:
        exact, learned = tree["ring"]["exact"], tree["ring"]["learned"]
        lines += [
            "Samples on the modes of a ring after so many steps, by the exact denoiser / by learned ones, mean over "
            "seeds:",
            "",
            f"| grid | sampler | {' | '.join(f'{steps} steps' for steps in RING_STEPS)} |",
            "|---" * (2 + len(RING_STEPS)) + "|",
        ]
        for grid, samplers in exact.items():
            for name, by_steps in samplers.items():
                shares = {steps: np.mean(found) for steps, found in learned[grid][name].items()}
                cells = [f"{share:.1%} / {shares[steps]:.1%}" for steps, share in by_steps.items()]
                lines.append(f"| {grid} | {name} | {' | '.join(cells)} |")
        lines.append("")
    if "play" in tree:
        found = tree["play"]
        lines += [
            f"Goals in the room across that are reached, {found['episodes']} a seed, after learning from play for "
            f"{found['updates']} updates:",
            "",
            "| policy | reached | by seed |",
            "|---|---|---|",
            *(f"| {name} | {sections.percent(row)} | {sections.by_seed(row)} |" for name, row in found["rows"].items()),
            "",
            "Energy distance of what is done at weight 0 to what is done without a goal: "
            + ", ".join(
                f"{name} {np.mean(values):.4f}" for name, values in found["distance_to_no_goal_at_weight_0"].items()
            )
            + ".",
            "",
            "Entry by entry the network hardly ever sees that there is no goal, and weight 0 is not what is done "
            "without one. As a way to reach goals it is no worse here: above weight 1 it reaches more than whole goals "
            "left out, whose weights above 1 gain nothing. Beside a Gaussian's mean, 5 steps gain some ten points.",
            "",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", default=["ring", "play"], choices=["ring", "play"])
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--out", type=Path, default=RESULTS / "beso.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tree: dict[str, Any] = {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform()}
    tree["seeds"] = args.seeds
    for part in args.parts:
        since = time.monotonic()
        tree[part] = ring(args.seeds) if part == "ring" else play(args.seeds, args.updates)
        tree[part]["seconds"] = round(time.monotonic() - since, 1)
        print(part, tree[part]["seconds"], "s")
    write_json(args.out, tree)


if __name__ == "__main__":
    main()
