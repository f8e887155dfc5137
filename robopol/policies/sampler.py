"""Samplers: how x_t walks from noise to an action.

One step rule serves DDPM, DDIM and Euler: with the estimate (x0, eps) held over the step,

    x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s z,   s = eta alpha' (kappa' / kappa) sqrt(kappa^2 - kappa'^2),

where eta = 0 is DDIM, and on a rectified flow is exactly an Euler step; eta = 1 is the DDPM posterior with its
smaller variance (Ho et al. 2020, eq. 7; Song et al. 2021, eq. 12 and 16).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.config import Config
from robopol.policies.field import Field
from robopol.policies.path import DATA_END, Level, Path

Draw = Callable[[], Tensor]
"""Returns the next standard normal tensor, shaped like the chunks that are being sampled."""


class Step(NamedTuple):
    """What happened in one step of a walk.

    Attributes:
        number: 0 for the first step, at the noise end.
        t: Path time before the step.
        kappa: sigma / alpha before the step.
        x: State before the step, (B, Tp, A).
        x0: The estimate that was used, after clipping, (B, Tp, A).
        mean: Mean of the next state, (B, Tp, A).
        std: Standard deviation of every entry of the next state; 0 where the step is deterministic.
        next: The next state, (B, Tp, A).
    """

    number: int
    t: float
    kappa: float
    x: Tensor
    x0: Tensor
    mean: Tensor
    std: float
    next: Tensor

    def log_prob(self) -> Tensor:
        """Return log N(next; mean, std^2), element by element (B, Tp, A); only for stochastic steps."""
        z = (self.next - self.mean) / self.std
        return -0.5 * z**2 - math.log(self.std) - 0.5 * math.log(2 * math.pi)


class Coefficients(NamedTuple):
    """Everything about a step that depends on the noise levels only."""

    t: float
    level: Level
    kappa: float
    x0: float
    eps: float
    std: float


class Sampler:
    """A walk down a grid of noise levels, as a pure function of the field, the start and the noise drawn."""

    def __init__(
        self,
        *,
        steps: int | None,
        spacing: str,
        eta: float,
        clip: bool,
        clip_final: bool,
        eps_from_clipped: bool,
    ) -> None:
        """Choose the walk; see the config classes of this file for the named ones.

        Args:
            steps: Number of network evaluations; None visits every level of a discrete path.
            spacing: See the path's ``grid``.
            eta: 0 deterministic, 1 the full posterior noise.
            clip: Clip every x0-estimate to [-1, 1].
            clip_final: Clip the result to [-1, 1].
            eps_from_clipped: Recompute eps from the clipped x0, so that the pair stays consistent.
        """
        self.steps, self.spacing, self.eta = steps, spacing, eta
        self.clip, self.clip_final, self.eps_from_clipped = clip, clip_final, eps_from_clipped
        self._tables: dict[Path, list[Coefficients]] = {}

    def sample(
        self,
        field: Field,
        x: Tensor,
        cond: Tensor,
        draw: Draw,
        on_step: Callable[[Step], None] | None = None,
    ) -> Tensor:
        """Walk from noise to chunks.

        Args:
            field: The field to follow.
            x: Start, standard normal, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).
            draw: Source of the noise of stochastic steps.
            on_step: Told about every step.

        Returns:
            Normalised action chunks, (B, Tp, A).
        """
        times = torch.empty(len(x), device=x.device)
        for index, at in enumerate(self.table(field.path)):
            level = at.level.like(x)
            x0, eps = field(x, times.fill_(at.t), level, cond)
            if self.clip:
                x0 = x0.clamp(-1, 1)
                if self.eps_from_clipped:
                    eps = (x - level.alpha * x0) / level.sigma
            mean = at.x0 * x0 + at.eps * eps
            following = mean + at.std * draw() if at.std > 0 else mean
            if on_step is not None:
                on_step(Step(index, at.t, at.kappa, x, x0, mean, at.std, following))
            x = following
        return x.clamp(-1, 1) if self.clip_final else x

    def table(self, path: Path) -> list[Coefficients]:
        """Return the coefficients for a path, computed once, in float64."""
        if path not in self._tables:
            times = path.grid(self.steps, self.spacing)
            levels = [path.level(t) for t in times] + [DATA_END]
            table = []
            for t, now, then in zip(times.tolist(), levels[:-1], levels[1:], strict=True):
                kappa, kappa_next = now.kappa.item(), then.kappa.item()
                shrink = 1 - (kappa_next / kappa) ** 2 if math.isfinite(kappa) else 1.0
                std = self.eta * then.sigma.item() * math.sqrt(shrink)
                eps = math.sqrt(then.sigma.item() ** 2 - std**2)
                table.append(Coefficients(t, now, kappa, then.alpha.item(), eps, std))
            self._tables[path] = table
        return self._tables[path]


class DDPMConfig(Config):
    """Ancestral sampling with the smaller posterior variance (Ho et al. 2020).

    Attributes:
        steps: Network evaluations; None walks the whole training chain.
        spacing: Which indices are visited when fewer than all are.
        clip_sample: Clip each x0-estimate to [-1, 1], as published for normalised actions.
    """

    kind: Literal["ddpm"] = "ddpm"
    steps: int | None = Bound(None, ge=1)
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    clip_sample: bool = True

    def build(self) -> Sampler:
        """Return the sampler."""
        return Sampler(
            steps=self.steps,
            spacing=self.spacing,
            eta=1.0,
            clip=self.clip_sample,
            clip_final=False,
            eps_from_clipped=True,
        )


class DDIMConfig(Config):
    """Deterministic (or partly stochastic) few-step sampling (Song et al. 2021).

    Attributes:
        steps: Network evaluations.
        spacing: Which indices are visited.
        eta: 0 deterministic, 1 as noisy as DDPM.
        clip_sample: Clip each x0-estimate to [-1, 1].
        eps_from_clipped: Recompute eps after clipping. The published policies keep the raw eps.
    """

    kind: Literal["ddim"] = "ddim"
    steps: int = Bound(10, ge=1)
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    eta: float = Bound(0.0, ge=0, le=1)
    clip_sample: bool = True
    eps_from_clipped: bool = False

    def build(self) -> Sampler:
        """Return the sampler."""
        return Sampler(
            steps=self.steps,
            spacing=self.spacing,
            eta=self.eta,
            clip=self.clip_sample,
            clip_final=False,
            eps_from_clipped=self.eps_from_clipped,
        )


class EulerConfig(Config):
    """Euler steps along the flow's velocity.

    Attributes:
        steps: Network evaluations.
        clip_final: Clip the result, and only the result, to [-1, 1].
    """

    kind: Literal["euler"] = "euler"
    steps: int = Bound(10, ge=1)
    clip_final: bool = True

    def build(self) -> Sampler:
        """Return the sampler."""
        return Sampler(
            steps=self.steps,
            spacing="uniform",
            eta=0.0,
            clip=False,
            clip_final=self.clip_final,
            eps_from_clipped=False,
        )
