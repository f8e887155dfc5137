"""Policies and objectives whose answers are known in closed form."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from robopol.config import parse
from robopol.networks.denoiser import Denoiser
from robopol.policies import Policy, PolicySpec
from robopol.registry import lookup
from robopol.steering.objectives import Objective, ObjectiveConfig


class Gaussian(Denoiser):
    """What a perfect network says of plans whose entries are all N(mean + observation, std^2)."""

    def __init__(self, policy, mean: float, std: float):
        super().__init__()
        self.path, self.prediction = policy.field.path, policy.field.prediction
        self.mean, self.std = mean, std
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        time = t.double() / self.path.time_scale
        level = self.path.level(time)
        alpha, sigma = (value.float()[:, None, None] for value in (level.alpha, level.sigma))
        mean = self.mean + cond[:, -1:, :1]
        x0 = mean + alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2) * (x - alpha * mean)
        eps = (x - alpha * x0) / sigma
        if self.prediction == "eps":
            return eps
        if self.prediction == "x0":
            return x0
        d_alpha, d_sigma = (value.float()[:, None, None] for value in (level.d_alpha, level.d_sigma))
        return d_alpha * x0 + d_sigma * eps  # the velocity


def gaussian(kind: str = "diffusion", mean: float = 0.0, std: float = 0.5, entries: int = 2, **changes) -> Policy:
    """Return a policy whose normalised actions are their own units, and whose network is exact."""
    tree = {
        "kind": kind,
        "net": {"kind": "mlp", "width": 8},
        "horizon": 8,
        "n_action_steps": 4,
        "n_obs_steps": 1,
        "obs_normalization": "identity",
        "action_normalization": "identity",
        "sampler": {"kind": "ddim" if kind == "diffusion" else "euler", "steps": 10, "clip": "never"},
    }
    spec = PolicySpec(
        obs_shapes={"state": (1,)},
        action_names=tuple("abcdefgh"[:entries]),
        action_low=(-9.0,) * entries,
        action_high=(9.0,) * entries,
        action_space="box",
        control_hz=10.0,
        n_obs_steps=1,
        horizon=8,
        n_action_steps=4,
    )
    policy = parse(lookup("policy", kind), tree | changes).build(spec).eval()
    policy.field.net = Gaussian(policy, mean, std)
    return policy


def observe(rows: int, value: float = 0.0) -> dict[str, Tensor]:
    return {"state": torch.full((rows, 1, 1), value)}


class LinearConfig(ObjectiveConfig):
    """Scores the mean of all entries times a slope."""

    kind: Literal["linear"] = "linear"
    slope: float = 1.0

    def build(self, policy: Policy) -> "Linear":
        return Linear(self)


class Linear(Objective):
    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        return self.config.slope * windows.flatten(2).sum(-1)


class NearConfig(ObjectiveConfig):
    """Scores -(a - target)^2 / (2 variance), summed over the entries."""

    kind: Literal["near"] = "near"
    target: float = 1.0
    variance: float = 0.05

    def build(self, policy: Policy) -> "Near":
        return Near(self)


class Near(Objective):
    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        return -((windows - self.config.target) ** 2).flatten(2).sum(-1) / (2 * self.config.variance)
