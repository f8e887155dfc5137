"""Two denoisers of one distribution whose errors are known, mixed: the toy of benchmarks/gpc.py.

The target are eight Gaussians on a ring. Each member is a perfect denoiser of a wrong ring, whose modes were moved at
random, independently: errors around one truth, which is what convex mixing is for. One walks the discrete chain of
diffusion policies, the other a straight path. The picture also shows what becomes of members that are two different
skills: a convex mix lands between them, a mixture (OR) keeps both, an agreement (AND) keeps what both find as likely.
"""

import importlib
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from robopol.config import parse
from robopol.files import whole_file
from robopol.networks.denoiser import Denoiser
from robopol.policies import PolicySpec
from robopol.policies.generative import GenerativePolicy
from robopol.policies.paths import Path as Walked
from robopol.policies.prediction import target
from robopol.registry import lookup
from robopol.steering import SteeredPolicy
from robopol.steering.members import join

STD = 0.05
MOVED = (0.15, 0.10)
"""Standard deviation by which the modes of each member were moved, in each direction."""
WEIGHTS = [i / 10 for i in range(11)]
DRAWS, SAMPLES = 12, 1500


class Perfect(Denoiser):
    """A perfect denoiser of equal Gaussians."""

    def __init__(self, path: Walked, prediction: str, means: Tensor, std: float) -> None:
        """Take over the Gaussians: ``means`` (M, 2) and their standard deviation."""
        super().__init__()
        self.path, self.prediction, self.means, self.std = path, prediction, means.double(), std
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        level = self.path.level(t[:1].double() / self.path.time_scale)
        y, var = x.double(), (level.alpha * self.std) ** 2 + level.sigma**2
        apart = y[..., None, :] - level.alpha * self.means
        weights = (-(apart**2).sum(-1) / (2 * var)).softmax(-1)
        x0 = (weights[..., None] * (self.means + level.alpha * self.std**2 / var * apart)).sum(-2)
        eps = (y - level.alpha * x0) / level.sigma
        return target(self.prediction, x0, eps, level, self.path).float()


def policy(kind: str, means: Tensor, std: float = STD) -> GenerativePolicy:
    """Return a policy whose one action is two-dimensional and distributed so."""
    spec = PolicySpec(
        obs_shapes={"state": (1,)},
        action_names=("x", "y"),
        action_low=(-9.0, -9.0),
        action_high=(9.0, 9.0),
        action_space="box",
        control_hz=1.0,
        n_obs_steps=1,
        horizon=1,
        n_action_steps=1,
    )
    tree = {"obs_normalization": "identity", "action_normalization": "identity", "n_obs_steps": 1, "horizon": 1}
    tree |= {"n_action_steps": 1, "net": {"kind": "mlp", "width": 8}, "sampler": {"kind": "ddpm", "clip": "never"}}
    if kind == "flow":
        tree["sampler"] = {"kind": "euler", "clip": "never"}
    found = cast(GenerativePolicy, parse(lookup("policy", kind), tree).build(spec))
    found.field.net = Perfect(found.field.path, found.field.prediction, means, std)
    return found.eval()


def samples(acting: Any, count: int = SAMPLES, seed: int = 0) -> Tensor:
    chunk: Tensor = acting.act({"state": torch.zeros(1, 1, 1)}, count, torch.Generator().manual_seed(seed))
    return chunk[0, :, 0]


def steered(kind: str, base: GenerativePolicy, other: GenerativePolicy, **tree: Any) -> SteeredPolicy:
    config = parse(lookup("steering", kind), {"kind": kind, "policies": ["in memory"], **tree})
    built: Any = {"composition": "Composition", "mixture": "Mixture", "agreement": "Agreement"}[kind]
    module = importlib.import_module(f"robopol.steering.{kind}")
    return SteeredPolicy(base, [getattr(module, built)(config, [join(base, other, kind)])])


def energy_distance(one: Tensor, other: Tensor) -> float:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely & Rizzo 2013)."""
    n, m = len(one), len(other)
    within = torch.cdist(one, one).sum() / (n * (n - 1)) + torch.cdist(other, other).sum() / (m * (m - 1))
    return float(2 * torch.cdist(one, other).mean() - within)


def curve() -> dict[str, Any]:
    """Return the energy distance to the target over the weight of the second member, mean over draws of the errors."""
    angles = torch.arange(8) * math.pi / 4
    ring = 0.8 * torch.stack([angles.cos(), angles.sin()], -1)
    rng = torch.Generator().manual_seed(0)
    truth = ring[torch.randint(8, (4 * SAMPLES,), generator=rng)] + STD * torch.randn(4 * SAMPLES, 2, generator=rng)
    rows = []
    for draw in range(DRAWS):
        moved = [ring + std * torch.randn(8, 2, generator=rng) for std in MOVED]
        a, b = policy("diffusion", moved[0]), policy("flow", moved[1])
        rows.append(
            [
                energy_distance(samples(steered("composition", a, b, weights=[1 - w, w]), seed=draw), truth)
                for w in WEIGHTS
            ]
        )
    found = torch.tensor(rows)
    best = found.mean(0).argmin().item()
    return {
        "weights": WEIGHTS,
        "moved": MOVED,
        "draws": DRAWS,
        "energy_distance": found.mean(0).tolist(),
        "energy_distance_se": (found.std(0) / math.sqrt(DRAWS)).tolist(),
        "best": WEIGHTS[int(best)],
        "predicted": MOVED[0] ** 2 / (MOVED[0] ** 2 + MOVED[1] ** 2),
        "interior": sum(0 < int(row.argmin()) < len(WEIGHTS) - 1 for row in found),
    }


def draw(found: dict[str, Any], out: Path) -> None:
    """Draw the curve, and two skills that are mixed in three ways."""
    from matplotlib.figure import Figure

    one, two = policy("diffusion", torch.tensor([[-0.5, 0.3]]), 0.25), policy("flow", torch.tensor([[0.5, -0.1]]), 0.25)
    panels = {
        "members": None,
        "composition, 1/2": steered("composition", one, two, weights=[0.5, 0.5]),
        "mixture (OR)": steered("mixture", one, two),
        "agreement (AND)": steered("agreement", one, two),
    }
    figure = Figure(figsize=(15, 3.2), layout="constrained")
    first, *rest = figure.subplots(1, 5)
    first.errorbar(found["weights"], found["energy_distance"], found["energy_distance_se"], marker="o", capsize=2)
    first.axvline(found["predicted"], color="0.5", linestyle="--", label="MSE a / (MSE a + MSE b)")
    first.set_xlabel("weight of the second member")
    first.set_ylabel("energy distance to the target")
    first.legend(frameon=False, fontsize=8)
    for axes, (name, acting) in zip(rest, panels.items(), strict=True):
        shown = [samples(one, 600), samples(two, 600)] if acting is None else [samples(acting, 1200)]
        for each in shown:
            axes.plot(*each.T, ".", markersize=2, alpha=0.5)
        axes.set_title(name, fontsize=10)
        axes.set_xlim(-1.6, 1.6)
        axes.set_ylim(-1.2, 1.4)
        axes.set_aspect("equal")
    with whole_file(out) as draft:
        figure.savefig(draft, format="png", dpi=110)
