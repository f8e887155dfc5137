"""Heun's second-order steps along the straight path (Heun for flows; Lipman et al. 2024, section 3.3).

Whatever path a field was trained on, its states are scaled to z = x / (alpha + sigma) = (1 - s) x0 + s eps, where s =
sigma / (alpha + sigma) runs from 1 at noise to 0 at data and the velocity eps - x0 is finite at both ends.
"""

from typing import Literal, NamedTuple

from torch import Tensor

from robopol.policies.field import Field
from robopol.policies.paths import Level
from robopol.policies.samplers.sampler import Draw, Hook, Sampler, SamplerConfig, Stepper, Visit, move


class HeunConfig(SamplerConfig):
    """Two evaluations a step, but one in the last: 2 steps - 1 in all. Needs 4 steps or more to beat Euler."""

    kind: Literal["heun"] = "heun"

    def build(self) -> "Heun":
        """Return the sampler."""
        return Heun(self)


class Row(NamedTuple):
    """One step: the frame's scale alpha + sigma before and after it, and how far s goes."""

    visit: Visit
    scale: float
    next_scale: float
    length: float


class Heun(Sampler[Row]):
    """See `HeunConfig`."""

    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        """See `Sampler._steps`."""
        table, clips = self.table(field), self.config.clip == "every"
        network, rows = field.prepare(table.schedule.since(first), cond), table.rows

        def step(x: Tensor, i: int) -> tuple[Tensor, Tensor]:
            row = rows[i]
            z = x / row.scale
            x0, eps = row.visit.estimate(x, network(x, i - first), clips)
            velocity = eps - x0
            following = z + row.length * velocity
            if i + 1 < len(rows):
                ahead = row.next_scale * following
                there = rows[i + 1].visit.estimate(ahead, network(ahead, i + 1 - first), clips)
                following = z + 0.5 * row.length * (velocity + there.eps - there.x0)
            return x0, move(row.visit, i, x, x0, row.next_scale * following, 0.0, draw, hook)

        return step

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Row]:
        scales = [(level.alpha + level.sigma).item() for level in levels]
        shares = [(level.sigma / (level.alpha + level.sigma)).item() for level in levels]
        return [Row(visited, scales[i], scales[i + 1], shares[i + 1] - shares[i]) for i, visited in enumerate(visits)]
