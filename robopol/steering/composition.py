"""Walk a convex mix of several policies' fields (General Policy Composition; Cao et al. 2025, arXiv 2510.01068).

At each noise level every member is asked about the same state, and their estimates are averaged; where they differ in
path or prediction, at equal noise (`robopol.steering.members`). Domain-level composition of PoCo (Wang et al. 2024,
eq. 11) is the same with weights that sum to 1; weights that do not are refused, since summed scores are not the score
of the product under these samplers.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.networks.denoiser import Walk
from robopol.policies import Policy
from robopol.policies.field import DerivedField, Field, Schedule
from robopol.steering.members import Member, Members, MembersConfig, translated
from robopol.steering.steering import Planning


class CompositionConfig(MembersConfig):
    """Mix the field of the policy with those of others.

    Attributes:
        weights: One for the policy that is steered and one for each other member; they sum to 1. All weight on the
            first is the base policy.
    """

    kind: Literal["composition"] = "composition"
    weights: tuple[Annotated[float, Bound(allow_inf_nan=False)], ...]

    @model_validator(mode="after")
    def _convex(self) -> Self:
        self.numbered(self.weights, "weights")
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights {self.weights} sum to {sum(self.weights):.6g}, and must sum to 1")
        return self

    def build(self, policy: Policy) -> "Composition":
        """See `SteeringConfig.build`."""
        return Composition(self, self.others(policy))


class Composition(Members):
    """See `CompositionConfig`."""

    config: CompositionConfig

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        mine, *weights = self.config.weights
        others = [(self.look(i, planning), weight) for i, weight in enumerate(weights) if weight != 0]
        return ComposedField(field, mine, others, planning.note) if others else field


class ComposedField(DerivedField):
    """The first member's estimate, and each other one's difference to it times its weight.

    A member is left out at noise levels that it was not trained for, and the weights of the rest are scaled up.
    """

    def __init__(
        self,
        field: Field,
        weight: float,
        others: Sequence[tuple[Member, float]],
        note: Callable[[str, Tensor], None],
    ) -> None:
        """Compose fields.

        Args:
            field: The base's.
            weight: Its weight; it is asked where that is not 0, or where no other member knows the level.
            others: The other members and their weights, none of them 0.
            note: Told how far the members disagree: the distance of what they say at one action, in the base network's
                words; see `Planning.note`.
        """
        super().__init__(field)
        self.weight, self.others, self.note = weight, others, note

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`."""
        base = self.field.prepare(schedule, cond)
        walks = [(translated(self.field, member, schedule), weight) for member, weight in self.others]

        def mixed(x: Tensor, i: int) -> Tensor:
            asked = [(walk.ask, weight) for walk, weight in walks if walk.at[i]]
            if self.weight != 0:
                asked.insert(0, (base, self.weight))
            total = sum(weight for _, weight in asked)
            if total == 0:
                return base(x, i)
            first, *rest = [(ask(x, i), weight) for ask, weight in asked]
            output = first[0]
            for theirs, weight in rest:
                difference = theirs - first[0]
                self.note("composition/disagreement", difference.norm(dim=-1))
                output = torch.add(output, difference, alpha=weight / total)
            return output

        return mixed
