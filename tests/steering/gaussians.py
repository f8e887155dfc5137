"""Policies whose actions are a mixture of Gaussians, and whose networks say exactly what perfect ones would."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robopol.config import parse
from robopol.networks.denoiser import Denoiser
from robopol.policies import PolicySpec
from robopol.policies.field import Field
from robopol.policies.generative import GenerativePolicy
from robopol.policies.paths import Path
from robopol.policies.prediction import target
from robopol.registry import lookup

HORIZON = 2


class Gaussians(Denoiser):
    """What a perfect network says of data that are N(mean, std^2) about one of some means, in every direction."""

    def __init__(self, path: Path, prediction: str, means: Sequence[Sequence[float]], std: float) -> None:
        super().__init__()
        self.path, self.prediction, self.std = path, prediction, std
        self.means = torch.tensor(means, dtype=torch.float64)  # (M, A)
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.calls = 0

    def x0(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] of x (B, Tp, A) float64, every action of a plan on its own."""
        var = (alpha * self.std) ** 2 + sigma**2
        apart = x[..., None, :] - alpha * self.means
        weights = (-(apart**2).sum(-1) / (2 * var)).softmax(-1)
        return (weights[..., None] * (self.means + alpha * self.std**2 / var * apart)).sum(-2)

    def log_density(self, y: Tensor, kappa: float) -> Tensor:
        """Return log q (B,) of y (B, Tp, A) at noise level kappa, up to what is the same for all means."""
        var = self.std**2 + kappa**2
        apart = (y.double()[..., None, :] - self.means) ** 2
        each = torch.logsumexp(-apart.sum(-1) / (2 * var), -1) - 0.5 * y.shape[-1] * torch.as_tensor(var).log()
        return each.sum(-1)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.calls += 1
        told = t[:1].double() / self.path.time_scale
        time = (4 * told).exp() if self.path.ends[0] == self.path.kappa_range[1] else told
        level = self.path.level(time)
        x = x.double() / self.path.input_scale(level)
        x0 = self.x0(x, level.alpha, level.sigma)
        eps = (x - level.alpha * x0) / level.sigma
        return target(self.prediction, x0, eps, level, self.path).float()


def field(path: Path, prediction: str, means: Sequence[Sequence[float]], std: float = 0.2) -> Field:
    return Field(Gaussians(path, prediction, means, std), path, prediction)


def spec(names: Sequence[str] = ("a",), **changed: object) -> PolicySpec:
    tree: dict[str, object] = {
        "obs_shapes": {"state": (1,)},
        "action_names": tuple(names),
        "action_low": (-9.0,) * len(names),
        "action_high": (9.0,) * len(names),
        "action_space": "box",
        "control_hz": 10.0,
        "n_obs_steps": 1,
        "horizon": HORIZON,
        "n_action_steps": 1,
    }
    return PolicySpec(**(tree | changed))  # type: ignore[arg-type]


def policy(
    kind: str,
    means: Sequence[Sequence[float]] | None,
    std: float = 0.2,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    seed: int = 0,
    contract: PolicySpec | None = None,
    **tree: object,
) -> GenerativePolicy:
    """Return a policy of a kind.

    Args:
        kind: ``"diffusion"``, ``"flow"`` and so on.
        means: Of its actions, environment units; None leaves it an untrained network.
        std: The same.
        scale: Of its action normaliser, (action - offset) scale.
        offset: The same.
        seed: Of an untrained network.
        contract: None is made to fit the means.
        **tree: What else it is told.
    """
    contract = contract or spec(names=[f"a{i}" for i in range(1 if means is None else len(means[0]))])
    common = {"obs_normalization": "identity", "action_normalization": "identity", "n_obs_steps": contract.n_obs_steps}
    told = {**common, "horizon": contract.horizon, "n_action_steps": 1, "net": {"kind": "mlp", "width": 8}, **tree}
    told.setdefault("sampler", {"kind": "ddpm", "clip": "never", "steps": None if kind == "diffusion" else 100})
    torch.manual_seed(seed)
    found = parse(lookup("policy", kind), told).build(contract)
    normalizer = found.action_normalizer
    normalizer.scale.fill_(scale)
    normalizer.unscale.fill_(1 / scale)
    normalizer.offset.fill_(offset)
    if means is not None:
        inside = [[(value - offset) * scale for value in mean] for mean in means]
        found.field.net = Gaussians(found.field.path, found.field.prediction, inside, std * scale)
    return found.eval()


def act(steered: torch.nn.Module, rows: int = 3, n: int = 2, seed: int = 0, dim: int = 1) -> Tensor:
    """Return actions (rows, n, H, A) from generators of their own."""
    generators = [torch.Generator().manual_seed(seed + row) for row in range(rows)]
    obs = {"state": torch.linspace(-1, 1, rows).reshape(rows, 1, 1).expand(rows, 1, dim).clone()}
    return steered.act(obs, n, generators)  # type: ignore[operator]


def many(steered: torch.nn.Module, count: int = 20000, seed: int = 0) -> Tensor:
    """Return first actions (count, A)."""
    obs = {"state": torch.zeros(1, 1, 1)}
    return steered.act(obs, count, torch.Generator().manual_seed(seed))[0, :, 0]  # type: ignore[operator]
