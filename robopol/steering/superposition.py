"""Members weighed by how likely each finds the sample (SuperDiff; Skreta et al. 2024, arXiv 2412.17762).

In the frame y = x / alpha noise is added by dy = sqrt(d kappa^2) dW on every path, and along a walk with as much noise
as that, an Ito sum tells how log q of a member changes, without a divergence of its network:

    d log q = <dy, s> - |s|^2 d(kappa^2) / 2,    s = (x0 - y) / kappa^2.

Of two members only the difference is needed, which stays finite at pure noise, where all are equally likely:

    d (log q_i - log q_0) = <x0_i - x0_0, y' - r y - (1 - r) (x0_i + x0_0) / 2> / kappa^2,    r = (kappa' / kappa)^2.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from robopol.errors import ConfigError
from robopol.networks.denoiser import Walk
from robopol.policies.field import DerivedField, Field, Schedule
from robopol.policies.generative import GenerativePolicy
from robopol.policies.prediction import reading
from robopol.policies.samplers.first_order import FirstOrder, posterior_share
from robopol.steering.members import Member, translated
from robopol.steering.steering import Planning


class Moment(NamedTuple):
    """What is known of R samples at one level, before it is said what is made of the members.

    Attributes:
        x: State, (R, Tp, A).
        apart: x0 of each further member, less that of the first, (M - 1, R, Tp A) float64.
        odds: How much likelier each further member finds the sample than the first, log q_i - log q_0, (M - 1, R)
            float64.
        kappa: sigma / alpha of the level.
        kept: r = (kappa' / kappa)^2; 0 in the last step.
        spread: Standard deviation of the noise of the step in the frame y; 0 in the last step.
    """

    x: Tensor
    apart: Tensor
    odds: Tensor
    kappa: float
    kept: float
    spread: float


class SuperposedField(DerivedField):
    """A mix of members whose weights follow how likely each finds the sample; one walk of it goes once down the levels.

    Attributes:
        what: What it is called in errors.
    """

    what: str

    def __init__(self, field: Field, first: bool, others: Sequence[Member], planning: Planning) -> None:
        """Superpose fields.

        Args:
            field: The base's.
            first: Whether it is a member itself.
            others: The other members.
            planning: For which plans.

        Raises:
            ConfigError: If the likelihoods of the members are not known along the walks of the policy's sampler.
        """
        super().__init__(field)
        if first + len(others) > 1:
            _check_walk(planning, self.what)
        self.first, self.others, self.planning = first, others, planning

    @abstractmethod
    def weigh(self, at: Moment) -> Tensor:
        """Return the weights of all members but the first, (M - 1, R) float64; that of the first is what lacks to 1."""

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`.

        Raises:
            ConfigError: If a member was not trained for all levels of the walk, or it does not begin at the first; when
                it does not go on from level to level.
        """
        policy = cast(GenerativePolicy, self.planning.policy)
        if self.first + len(self.others) > 1 and len(schedule.times) < len(policy.sampler.table(policy.field).rows):
            raise ConfigError(
                f"{self.what} follows a walk from pure noise on, and this one begins in the middle, where nothing is "
                "known of how likely its members are: leave warm_start out"
            )
        asked = [self.field.prepare(schedule, cond)] if self.first else []
        for member in self.others:
            walk = translated(self.field, member, schedule)
            if not all(walk.at):
                low, high = member.field.path.kappa_range
                raise ConfigError(
                    f"{self.what} needs every member at every level, and one was trained for sigma/alpha in "
                    f"[{low:.3g}, {high:.3g}] only: steer that one, with this policy among its policies, or set the "
                    "sampler's spacing so that the walk lies within"
                )
            asked.append(walk.ask)
        if len(asked) == 1:
            return asked[0]
        level = self.path.level(schedule.times)
        alpha, kappa = level.alpha.tolist(), level.kappa.tolist()
        read = [values.tolist() for values in reading(self.prediction, level, self.path)[:2]]
        moment: Moment | None = None
        mean = torch.empty(0)  # x0 of the first member in the moment
        number = -1

        def mixed(x: Tensor, i: int) -> Tensor:
            nonlocal moment, mean, number
            if i != number + 1:
                raise ConfigError(f"{self.what} follows a walk from level to level, and this one goes another way")
            output, *further = (ask(x, i) for ask in asked)
            differences = torch.stack([theirs - output for theirs in further])
            seen = x.detach().double().flatten(1)
            odds = seen.new_zeros(len(further), len(x))
            if moment is not None:
                odds = moment.odds + _change(moment, mean, moment.x.double().flatten(1) / alpha[i - 1], seen / alpha[i])
            kept = (kappa[i + 1] / kappa[i]) ** 2 if i + 1 < len(kappa) else 0.0
            spread = kappa[i + 1] * math.sqrt(1 - kept) if i + 1 < len(kappa) else 0.0
            apart = read[1][i] * differences.detach().double().flatten(2)
            mean = read[0][i] * seen + read[1][i] * output.detach().double().flatten(1)
            moment, number = Moment(x.detach(), apart, odds, kappa[i], kept, spread), i
            weights = self.weigh(moment)
            return output + (weights.to(x)[:, :, None, None] * differences).sum(0)

        return mixed


def _change(at: Moment, x0: Tensor, y: Tensor, y_next: Tensor) -> Tensor:
    """Return by how much the odds (M - 1, R) changed in a step from y to y_next (R, Tp A)."""
    if math.isinf(at.kappa):
        return torch.zeros_like(at.odds)  # of what is only noise, nothing is more or less likely
    drawn = y_next - at.kept * y - (1 - at.kept) * x0
    return (at.apart * (drawn - 0.5 * (1 - at.kept) * at.apart)).sum(-1) / at.kappa**2


def _check_walk(planning: Planning, what: str) -> None:
    """Refuse a sampler that evaluates the field several times a step, or draws less noise than the level loses."""
    policy = cast(GenerativePolicy, planning.policy)
    sampler, kind = policy.sampler, policy.sampler.config.kind
    hint = "walk by policy.sampler=ddpm, ancestral or {kind: ddim, eta: 1.0}"
    if not isinstance(sampler, FirstOrder):
        raise ConfigError(
            f"{what} follows how likely each member finds the sample from one evaluation a step, and the {kind} "
            f"sampler's steps are of another kind: {hint}"
        )
    table = sampler.table(policy.field)
    for row, now, then in zip(table.rows, table.levels[:-1], table.levels[1:], strict=True):
        whole = then.sigma.item() * posterior_share(1.0, now, then) if then.sigma > 0 else 0.0
        if not math.isclose(row.std, whole, rel_tol=1e-6):
            raise ConfigError(
                f"{what} follows how likely each member finds the sample from the noise of the walk, and the {kind} "
                f"sampler does not draw as much as a level loses: {hint}"
            )
