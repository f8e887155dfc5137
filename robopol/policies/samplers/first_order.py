"""First-order samplers: the estimate (x0, eps) is held over a step.

    x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s z

s = eta alpha' (kappa' / kappa) sqrt(kappa^2 - kappa'^2) is DDIM (Song et al. 2021, eq. 12 and 16): eta = 0 is
deterministic, and on a straight path exactly an Euler step; eta = 1 is the DDPM posterior with its smaller variance (Ho
et al. 2020, eq. 7) and, on a variance-exploding path, Euler-ancestral. Few-step consistency models forget the old noise
altogether (Song et al. 2023, algorithm 1): their x0 is a sample at the smallest level of the path, and the next state
has as much new noise as it lacks.
"""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.policies.field import Field
from robopol.policies.paths import Level, Path
from robopol.policies.samplers.sampler import Clip, Draw, Hook, Sampler, SamplerConfig, Spacing, Stepper, Visit, move


class FirstOrderConfig(SamplerConfig):
    """What all first-order samplers are told."""

    def build(self) -> "FirstOrder":
        """Return the sampler."""
        return FirstOrder(self)

    def noise_share(self, now: Level, then: Level) -> float:
        """Return s / sigma', the share of the next state's noise that is drawn anew."""
        return 0.0

    @property
    def keeps_raw_eps(self) -> bool:
        """Whether eps stays the network's own when x0 was clipped."""
        return False


def posterior_share(eta: float, now: Level, then: Level) -> float:
    """Return s / sigma' = eta sqrt(1 - (kappa' / kappa)^2)."""
    return eta * math.sqrt(1 - (then.kappa / now.kappa).item() ** 2)


class DDPMConfig(FirstOrderConfig):
    """Ancestral sampling with the smaller posterior variance (Ho et al. 2020); by default of the whole chain."""

    kind: Literal["ddpm"] = "ddpm"
    steps: int | None = Bound(None, ge=1)
    clip: Clip = "every"

    def noise_share(self, now: Level, then: Level) -> float:
        """See `FirstOrderConfig.noise_share`."""
        return posterior_share(1.0, now, then)


class DDIMConfig(FirstOrderConfig):
    """Deterministic (or partly stochastic) few-step sampling (Song et al. 2021).

    Attributes:
        eta: 0 deterministic, 1 as noisy as DDPM.
        eps_from_clipped: Recompute eps after clipping. The published policies keep the raw eps.
    """

    kind: Literal["ddim"] = "ddim"
    clip: Clip = "every"
    eta: float = Bound(0.0, ge=0, le=1)
    eps_from_clipped: bool = False

    def noise_share(self, now: Level, then: Level) -> float:
        """See `FirstOrderConfig.noise_share`."""
        return posterior_share(self.eta, now, then)

    @property
    def keeps_raw_eps(self) -> bool:
        """See `FirstOrderConfig.keeps_raw_eps`."""
        return not self.eps_from_clipped


class EulerConfig(FirstOrderConfig):
    """Euler steps along the flow's velocity."""

    kind: Literal["euler"] = "euler"


class AncestralConfig(FirstOrderConfig):
    """Euler-ancestral steps (Karras et al. 2022; one of BESO's three-step samplers)."""

    kind: Literal["ancestral"] = "ancestral"

    def noise_share(self, now: Level, then: Level) -> float:
        """See `FirstOrderConfig.noise_share`."""
        return posterior_share(1.0, now, then)


class ConsistencyConfig(FirstOrderConfig):
    """One jump to the data, or several with all noise drawn anew in between (Song et al. 2023, algorithm 1).

    The levels of ``steps`` jumps are those of a grid of ``steps`` + 1 without its last, where a consistency model is
    the identity.
    """

    kind: Literal["consistency"] = "consistency"
    steps: int = Bound(1, ge=1)
    spacing: Spacing = "exponential"
    clip: Clip = "every"

    def build(self) -> "Jumps":
        """Return the sampler."""
        return Jumps(self)


class Row(NamedTuple):
    """One step: next mean = x0_part x0 + x_part x + out_part output."""

    visit: Visit
    x0_part: float
    x_part: float
    out_part: float
    std: float


class FirstOrder(Sampler[Row]):
    """See the module's text."""

    config: FirstOrderConfig

    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        """See `Sampler._steps`."""
        table, clips = self.table(field), self.config.clip == "every"
        network = field.prepare(table.schedule.since(first), cond)

        def step(x: Tensor, i: int) -> tuple[Tensor, Tensor]:
            row, output = table.rows[i], network(x, i - first)
            x0 = torch.add(row.visit.x0_x * x, output, alpha=row.visit.x0_out)
            if clips:
                x0 = x0.clamp_(-1, 1)
            mean = row.x0_part * x0
            if row.x_part != 0:
                mean = mean.add_(x, alpha=row.x_part)
            if row.out_part != 0:
                mean = mean.add_(output, alpha=row.out_part)
            return x0, move(row.visit, i, x, x0, mean, row.std, draw, hook)

        return step

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Row]:
        rows = []
        for visited, then in zip(visits, levels[1:], strict=True):
            now, sigma = visited.at, then.sigma.item()
            share = self.config.noise_share(now, then) if sigma > 0 else 0.0
            kept = sigma * math.sqrt(1 - share**2)
            if self.config.clip == "every" and not self.config.keeps_raw_eps:
                # eps = (x - alpha x0) / sigma of the clipped x0
                x0, x, out = then.alpha - kept * now.kappa**-1, kept / now.sigma, torch.zeros(())
            else:
                x0, x, out = then.alpha, torch.tensor(kept * visited.eps_x), torch.tensor(kept * visited.eps_out)
            rows.append(Row(visited, x0.item(), x.item(), out.item(), sigma * share))
        return rows


class Jumps(FirstOrder):
    """See `ConsistencyConfig`."""

    config: ConsistencyConfig
    jumps = True

    def times(self, path: Path) -> Tensor:
        """See `Sampler.times`."""
        return path.grid(self.config.steps + 1, self.config.spacing)[:-1]

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Row]:
        lowest, rows = field.path.kappa_range[0], []
        for visited, then in zip(visits, levels[1:], strict=True):
            std = then.alpha * (then.kappa**2 - lowest**2).clamp(min=0).sqrt()
            rows.append(Row(visited, then.alpha.item(), 0.0, 0.0, std.item()))
        return rows
