"""Annealed Langevin dynamics (Song & Ermon 2019): noisy gradient ascent on log p at one noise level after the other.

At each level, some steps of

    x <- x + delta sigma^2 score + sqrt(2 delta) sigma z = x - delta sigma eps + sqrt(2 delta) sigma z;

between levels y = x / alpha stays. The walk ends with the x0-estimate of its last state.
"""

import math
from typing import Literal, NamedTuple

from pydantic import Field as Bound
from pydantic import PositiveInt
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies.field import Field
from robopol.policies.paths import Level
from robopol.policies.samplers.sampler import Draw, Hook, Sampler, SamplerConfig, Spacing, Stepper, Visit, move


class LangevinConfig(SamplerConfig):
    """Annealed Langevin dynamics; steps times corrections + 1 evaluations.

    Attributes:
        corrections: Langevin steps at each level.
        step_size: delta, the step in units of the level's variance.
    """

    kind: Literal["langevin"] = "langevin"
    steps: int | None = Bound(20, ge=1)
    spacing: Spacing | None = "exponential"
    corrections: PositiveInt = 5
    step_size: float = Bound(0.1, gt=0, lt=1)

    def build(self) -> "Langevin":
        """Return the sampler."""
        return Langevin(self)


class Row(NamedTuple):
    """One level: x is brought to it by `scale`; then next mean = x - pull eps, drawn with `std`."""

    visit: Visit
    scale: float
    pull: float
    std: float


class Langevin(Sampler[Row]):
    """See `LangevinConfig`."""

    config: LangevinConfig
    repeats = False  # a step leaves its state at its own level

    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        """See `Sampler._steps`; each correction is told as a step."""
        table, clips = self.table(field), self.config.clip == "every"
        network, rows = field.prepare(table.schedule.since(first), cond), table.rows

        def step(x: Tensor, i: int) -> tuple[Tensor, Tensor]:
            row, number = rows[i], i * self.config.corrections
            if i > first:
                x = row.scale * x
            for _ in range(self.config.corrections):
                x0, eps = row.visit.estimate(x, network(x, i - first), clips)
                x = move(row.visit, number, x, x0, x - row.pull * eps, row.std, draw, hook)
                number += 1
            if i + 1 == len(rows):
                x0 = row.visit.estimate(x, network(x, i - first), clips).x0
                x = move(row.visit, number, x, x0, x0, 0.0, draw, hook)
            return x0, x

        return step

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Row]:
        if visits[0].at.alpha.item() < 1e-12:
            raise ConfigError(
                "the langevin sampler compares levels by sigma/alpha, which is infinite where this walk begins: set "
                "its spacing to exponential, karras or linear"
            )
        delta, rows, before = self.config.step_size, [], visits[0]
        for visited in visits:
            sigma = visited.at.sigma.item()
            scale = (visited.at.alpha / before.at.alpha).item()
            rows.append(Row(visited, scale, delta * sigma, math.sqrt(2 * delta) * sigma))
            before = visited
        return rows
