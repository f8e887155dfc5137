"""Policies whose actions are positions or moves on a plane, and which know their Gaussian plans in closed form."""

import torch
from torch import Tensor

from robopol.config import parse
from robopol.networks.denoiser import Denoiser
from robopol.policies import Policy, PolicySpec
from robopol.policies.prediction import target
from robopol.registry import lookup

HORIZON = 8
ABSOLUTE = {"actions": [0, 1], "means": "absolute"}
DELTA = {"actions": [0, 1], "means": "delta", "start": [1, 2]}


class Known(Denoiser):
    """What a perfect network says of plans whose entries are all N(0, std^2)."""

    def __init__(self, policy: Policy, std: float):
        super().__init__()
        self.path, self.prediction, self.std = policy.field.path, policy.field.prediction, std
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        level = self.path.level(t[:1].double() / self.path.time_scale)
        x0 = (level.alpha * self.std**2 / (level.alpha**2 * self.std**2 + level.sigma**2)) * x.double()
        eps = (x - level.alpha * x0) / level.sigma
        return target(self.prediction, x0, eps, level, self.path).to(x.dtype)


def planar(
    kind: str = "diffusion", std: float = 0.3, n_obs_steps: int = 1, horizon: int = HORIZON, **changes
) -> Policy:
    """Return a policy of two action entries, whose normalised actions are their own units."""
    tree = {
        "kind": kind,
        "net": {"kind": "mlp", "width": 8},
        "horizon": horizon,
        "n_action_steps": 2,
        "n_obs_steps": n_obs_steps,
        "obs_normalization": "identity",
        "action_normalization": "identity",
        "sampler": {"kind": "ddim" if kind == "diffusion" else "euler", "steps": 10, "clip": "never"},
    }
    spec = PolicySpec(
        obs_shapes={"state": (3,)},
        action_names=("east [m]", "north [m]"),
        action_low=(-9.0, -9.0),
        action_high=(9.0, 9.0),
        action_space="box",
        control_hz=10.0,
        n_obs_steps=n_obs_steps,
        horizon=horizon,
        n_action_steps=2,
    )
    policy = parse(lookup("policy", kind), tree | changes).build(spec).eval()
    if kind in ("diffusion", "flow"):
        policy.field.net = Known(policy, std)
    return policy


def built(tree: dict, policy: Policy | None = None, group: str = "objective"):
    """Return an objective or a steering of its plain tree."""
    return parse(lookup(group, tree["kind"]), tree).build(policy or planar())


def steered(policy: Policy, *trees: dict) -> Policy:
    return policy.steered(*(parse(lookup("steering", tree["kind"]), tree) for tree in trees))


def observe(rows: int, n_obs_steps: int = 1) -> dict[str, Tensor]:
    return {"state": torch.zeros(rows, n_obs_steps, 3)}


def generators(rows: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(10 + row) for row in range(rows)]
