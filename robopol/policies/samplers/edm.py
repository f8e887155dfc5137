"""The sampler of EDM (Karras et al. 2022, algorithm 2): Heun's steps in kappa, with noise that is added on the way."""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies.field import Field
from robopol.policies.paths import Level, Path
from robopol.policies.samplers.sampler import Draw, Hook, Sampler, SamplerConfig, Spacing, Stepper, Visit, move, visit


class EDMConfig(SamplerConfig):
    """Heun's steps in y = x / alpha; 2 steps - 1 evaluations. Without churn it is the ODE's deterministic sampler.

    Attributes:
        churn: S_churn: before a step kappa is raised by the factor 1 + min(churn / steps, sqrt 2 - 1).
        churn_min: Smallest kappa at which that is done.
        churn_max: Largest; None is any.
        noise_inflation: S_noise, standard deviation of the noise that is added.
    """

    kind: Literal["edm"] = "edm"
    steps: int | None = Bound(18, ge=1)
    spacing: Spacing | None = "karras"
    churn: float = Bound(0.0, ge=0)
    churn_min: float = Bound(0.0, ge=0)
    churn_max: float | None = Bound(None, gt=0)
    noise_inflation: float = Bound(1.0, gt=0)

    def build(self) -> "EDM":
        """Return the sampler."""
        return EDM(self)


class Row(NamedTuple):
    """One step: from `raised`, where the churn arrives, to the next level.

    Attributes:
        visit: Before the churn.
        raised: After it; the same where there is none.
        std: Standard deviation of the churn's noise, in x.
        next_alpha: Scale of the data after the step.
        length: kappa' - kappa of `raised`.
        looks: Numbers of its evaluations of the field along the walk: two, one in the last step.
    """

    visit: Visit
    raised: Visit
    std: float
    next_alpha: float
    length: float
    looks: tuple[int, ...]


class EDM(Sampler[Row]):
    """See `EDMConfig`."""

    config: EDMConfig

    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        """See `Sampler._steps`. A step with churn is told as two: the noise, which keeps x0, and the way down."""
        table, clips = self.table(field), self.config.clip == "every"
        network, rows = field.prepare(table.schedule, cond), table.rows
        number = first
        x0: Tensor | None = None

        def step(x: Tensor, i: int) -> tuple[Tensor, Tensor]:
            nonlocal number, x0
            row = rows[i]
            if row.std > 0:
                scaled = (row.raised.at.alpha / row.visit.at.alpha).item() * x
                seen = x / row.visit.at.alpha.item() if x0 is None else x0  # before the first look, what is there
                x = move(row.visit, number, x, seen, scaled, row.std, draw, hook)
                number += 1
            y = x / row.raised.at.alpha.item()
            x0, eps = row.raised.estimate(x, network(x, row.looks[0]), clips)
            following = y + row.length * eps
            if len(row.looks) == 2:
                ahead = row.next_alpha * following
                there = rows[i + 1].visit.estimate(ahead, network(ahead, row.looks[1]), clips)
                following = y + 0.5 * row.length * (eps + there.eps)
            x = move(row.raised, number, x, x0, row.next_alpha * following, 0.0, draw, hook)
            number += 1
            return x0, x

        return step

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Row]:
        if math.isinf(visits[0].kappa) or visits[0].at.alpha.item() == 0:
            raise ConfigError(
                "the edm sampler walks in sigma/alpha, which is infinite where this walk begins: set its spacing to "
                "karras, exponential or linear"
            )
        gain = 1 + min(self.config.churn / len(visits), math.sqrt(2) - 1)
        rows = []
        for i, (visited, then) in enumerate(zip(visits, levels[1:], strict=True)):
            raised = visited
            if gain > 1 and self.config.churn_min <= visited.kappa <= (self.config.churn_max or math.inf):
                raised = self._raise(field, visited, gain)
            # where a walk begins at the path's end nothing is raised, and rounding may even lower it
            added = math.sqrt(max(raised.kappa**2 - visited.kappa**2, 0.0)) * raised.at.alpha.item()
            last = i + 1 == len(visits)
            rows.append(
                Row(
                    visited,
                    raised,
                    added * self.config.noise_inflation,
                    then.alpha.item(),
                    then.kappa.item() - raised.kappa,
                    (2 * i,) if last else (2 * i, 2 * i + 1),
                )
            )
        return rows

    def _looks(self, times: Tensor, rows: list[Row]) -> Tensor:
        looks = [row.raised.t for row in rows]
        ahead = [row.visit.t for row in rows[1:]]
        between = [t for pair in zip(looks[:-1], ahead, strict=True) for t in pair]
        return torch.tensor([*between, looks[-1]], dtype=torch.float64)

    @staticmethod
    def _raise(field: Field, visited: Visit, gain: float) -> Visit:
        """Return the visit at ``gain`` times the noise level, or at the highest that the path has."""
        path: Path = field.path
        kappa = min(gain * visited.kappa, path.kappa_range[1])
        t = path.time_of(torch.tensor(kappa, dtype=torch.float64))
        return visit(field, t.item(), path.level(t))
