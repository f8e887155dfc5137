"""Act as one or the other of several policies (the OR of SuperDiff; Skreta et al. 2024).

The score of a mixture is that of its members, each weighted by the probability that the sample is its own. Modes that
lie far apart stay apart, where a convex mix (`robopol.steering.composition`) goes between them.
"""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.policies import Policy
from robopol.policies.field import Field
from robopol.steering.members import Member, Members, MembersConfig
from robopol.steering.steering import Planning
from robopol.steering.superposition import Moment, SuperposedField


class MixtureConfig(MembersConfig):
    """Sample from the mixture of several policies.

    Attributes:
        priors: How likely each member is beforehand, relative to the others, the first for the policy that is steered;
            None is all alike. A member at 0 is never asked, and with all but the first at 0 it is the base policy.
        temperature: T of the weights softmax(T log q_i + log prior_i): 1 is the mixture, 0 keeps the priors.
    """

    kind: Literal["mixture"] = "mixture"
    priors: tuple[Annotated[float, Bound(ge=0, allow_inf_nan=False)], ...] | None = None
    temperature: float = Bound(1.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _likely(self) -> Self:
        if self.priors is not None:
            self.numbered(self.priors, "priors")
            if not any(self.priors):
                raise ValueError("priors are all 0: at least one member must be possible")
        return self

    def build(self, policy: Policy) -> "Mixture":
        """See `SteeringConfig.build`."""
        return Mixture(self, self.others(policy))


class Mixture(Members):
    """See `MixtureConfig`."""

    once = True

    config: MixtureConfig

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        mine, *priors = self.config.priors or (1.0,) * (len(self.members) + 1)
        asked = [i for i, prior in enumerate(priors) if prior > 0]
        if not asked:
            return field
        possible = [prior for prior in (mine, *priors) if prior > 0]
        others = [self.look(i, planning) for i in asked]
        return MixedField(field, mine > 0, others, planning, possible, self.config.temperature)


class MixedField(SuperposedField):
    """The field of a mixture."""

    what = "mixture"

    def __init__(
        self,
        field: Field,
        first: bool,
        others: list[Member],
        planning: Planning,
        priors: list[float],
        temperature: float,
    ) -> None:
        """Mix fields.

        Args:
            field: See `SuperposedField`.
            first: See `SuperposedField`.
            others: See `SuperposedField`.
            planning: See `SuperposedField`.
            priors: Of the members that are asked, all above 0.
            temperature: See `MixtureConfig`.
        """
        super().__init__(field, first, others, planning)
        self.log_priors = torch.tensor(priors, dtype=torch.float64).log()[:, None]
        self.temperature = temperature

    def weigh(self, at: Moment) -> Tensor:
        """See `SuperposedField.weigh`."""
        odds = torch.cat([torch.zeros_like(at.odds[:1]), at.odds])
        weights = (self.temperature * odds + self.log_priors.to(odds)).softmax(0)
        self.planning.note("mixture/effective_number", 1 / weights.square().sum(0))
        return weights[1:]
