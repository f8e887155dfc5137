"""Act as several policies at once (the AND of SuperDiff; Skreta et al. 2024): all find the sample equally likely.

The estimate is x0 = sum_i w_i x0_i with weights that sum to 1 and that make log q of all members change alike in the
very step that is taken next, with the noise n that it will draw. With u_i = x0_i - x0_0 these are linear equations,

    sum_j <u_i, u_j> w_j = |u_i|^2 / 2 - (<u_i, n> + kappa^2 (log q_i - log q_0)) / (1 - r),    r = (kappa' / kappa)^2;

for two members that agree so far, w = 1/2 - <u, n> / ((1 - r) |u|^2): the two are averaged, and the noise is cancelled
along the direction in which they disagree. The last term makes up for what earlier steps missed where weights or
estimates were clipped.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.policies import Policy
from robopol.policies.field import Field
from robopol.steering.members import Member, Members, MembersConfig
from robopol.steering.steering import Planning
from robopol.steering.superposition import Moment, SuperposedField

RIDGE = 1e-9
"""Added to the squared distances of the estimates, in parts of the largest: where members agree, any weight will do."""


class AgreementConfig(MembersConfig):
    """Sample what all of several policies find equally likely.

    Attributes:
        reach: How far a weight may be from equal ones. Where members hardly differ, as near pure noise, large weights
            are needed to move the sample at all.
    """

    kind: Literal["agreement"] = "agreement"
    reach: float = Bound(10.0, gt=0, allow_inf_nan=False)

    def build(self, policy: Policy) -> "Agreement":
        """See `SteeringConfig.build`."""
        return Agreement(self, self.others(policy))


class Agreement(Members):
    """See `AgreementConfig`."""

    once = True

    config: AgreementConfig

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        others = [self.look(i, planning) for i in range(len(self.members))]
        return AgreedField(field, others, planning, self.config.reach)


class AgreedField(SuperposedField):
    """A field along which all members stay equally likely."""

    what = "agreement"

    def __init__(self, field: Field, others: Sequence[Member], planning: Planning, reach: float) -> None:
        """Let fields agree.

        Args:
            field: See `SuperposedField`.
            others: See `SuperposedField`.
            planning: See `SuperposedField`; the noise of a step is taken from it before the sampler draws it.
            reach: See `AgreementConfig`.
        """
        super().__init__(field, True, others, planning)
        self.reach = reach

    def weigh(self, at: Moment) -> Tensor:
        """See `SuperposedField.weigh`."""
        self.planning.note("agreement/difference", at.odds.abs().T)
        apart = at.apart.transpose(0, 1)  # (R, M - 1, Tp A)
        gram = apart @ apart.mT
        size = gram.diagonal(dim1=1, dim2=2)
        owed = torch.zeros_like(at.odds) if math.isinf(at.kappa) else at.kappa**2 * at.odds
        if at.spread > 0:
            noise = at.spread * self.planning.coming().to(apart).flatten(1)
            owed = owed + (apart @ noise[:, :, None])[..., 0].T
        wanted = 0.5 * size - owed.T / (1 - at.kept)
        ridge = (RIDGE * size.amax(1)).clamp(min=1e-30)
        weights = torch.linalg.solve(gram + torch.diag_embed(ridge[:, None].expand_as(size)), wanted)
        equal = 1 / (apart.shape[1] + 1)
        return weights.clamp(equal - self.reach, equal + self.reach).T
