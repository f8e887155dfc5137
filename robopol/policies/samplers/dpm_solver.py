"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095): exact in the linear part, two estimates of x0 for the rest.

With lambda = -ln kappa and h = lambda' - lambda, the ODE step is

    x' = (sigma' / sigma) x + alpha' (1 - exp(-h)) D,   D = x0 + (x0 - x0_before) h / (2 h_before),

and the step of its SDE has exp(-h) more in the first factor, exp(-2 h) in the second and adds noise of standard
deviation sigma' sqrt(1 - exp(-2 h)). The first and the last step use D = x0.
"""

import math
from typing import Literal, NamedTuple

from torch import Tensor

from robopol.policies.field import Field
from robopol.policies.paths import Level
from robopol.policies.samplers.sampler import Draw, Hook, Sampler, SamplerConfig, Stepper, Visit, move


class DPMSolverConfig(SamplerConfig):
    """DPM-Solver++(2M), one evaluation a step.

    Attributes:
        sde: Walk the SDE instead of the ODE.
    """

    kind: Literal["dpm_solver"] = "dpm_solver"
    sde: bool = False

    def build(self) -> "DPMSolver":
        """Return the sampler."""
        return DPMSolver(self)


class Row(NamedTuple):
    """One step: next mean = x_part x + x0_part (x0 + extrapolation (x0 - x0 of the step before))."""

    visit: Visit
    x_part: float
    x0_part: float
    extrapolation: float
    std: float


class DPMSolver(Sampler[Row]):
    """See `DPMSolverConfig`."""

    config: DPMSolverConfig

    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        """See `Sampler._steps`."""
        table, clips = self.table(field), self.config.clip == "every"
        network = field.prepare(table.schedule.since(first), cond)
        estimates: dict[int, Tensor] = {}  # by step, so that a step that is taken again looks back to the one before

        def step(x: Tensor, i: int) -> tuple[Tensor, Tensor]:
            row, before = table.rows[i], estimates.get(i - 1)
            x0 = row.visit.x0_x * x + row.visit.x0_out * network(x, i - first)
            if clips:
                x0 = x0.clamp(-1, 1)
            mean = row.x_part * x + row.x0_part * x0
            if before is not None and row.extrapolation != 0:
                mean = mean + row.x0_part * row.extrapolation * (x0 - before)
            estimates[i] = x0
            return x0, move(row.visit, i, x, x0, mean, row.std, draw, hook)

        return step

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Row]:
        rows: list[Row] = []
        h_before = math.inf
        for i, (visited, then) in enumerate(zip(visits, levels[1:], strict=True)):
            kappa_next, sigma_next = then.kappa.item(), then.sigma.item()
            shrink = kappa_next / visited.kappa  # exp(-h); 0 from pure noise and to the data
            h = math.inf if shrink == 0 else -math.log(shrink)
            last = i + 1 == len(visits)
            extrapolation = 0.0 if last or math.isinf(h_before) else h / (2 * h_before)
            ratio = sigma_next / visited.at.sigma.item()
            power = 2 if self.config.sde else 1
            x_part = ratio * shrink ** (power - 1)
            x0_part = then.alpha.item() * (1 - shrink**power)
            std = sigma_next * math.sqrt(1 - shrink**2) if self.config.sde else 0.0
            rows.append(Row(visited, x_part, x0_part, extrapolation, std))
            h_before = h
        return rows
