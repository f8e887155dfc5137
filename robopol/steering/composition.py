"""Walk a convex mix of several policies' fields (General Policy Composition; Cao et al. 2025, arXiv 2510.01068).

At each noise level every member is asked about the same state, and their estimates are averaged. Members may have
other paths, predictions, networks and observations: a state x of the base's path is asked at the member's time of
equal noise, sigma / alpha, scaled to the member's path, and the pair (x0, eps) that comes back is the same in both.
Domain-level composition of PoCo (Wang et al. 2024, eq. 11) is the same with weights that sum to 1; weights that do
not are refused, since summed scores are not the score of the product under these samplers.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self, cast

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor, nn

from robopol.checkpoint import PartOf, describe, restore
from robopol.data.normalizer import Normalizer
from robopol.errors import ConfigError
from robopol.networks.denoiser import Walk
from robopol.policies import Policy
from robopol.policies.field import DerivedField, Field, Schedule
from robopol.policies.generative import GenerativePolicy
from robopol.policies.prediction import Reading, reading
from robopol.steering.steering import Planning, Steering, SteeringConfig, generative


class CompositionConfig(SteeringConfig):
    """Mix the field of the policy with those of others.

    Attributes:
        policies: The other members, each a run, a checkpoint or a policy folder of a generative policy.
        weights: One for the policy that is steered and one for each other member; they sum to 1. All weight on the
            first is the base policy.
    """

    kind: Literal["composition"] = "composition"
    policies: tuple[Annotated[Any, PartOf("policy")], ...] = Bound(min_length=1)
    weights: tuple[Annotated[float, Bound(allow_inf_nan=False)], ...]

    @model_validator(mode="after")
    def _convex(self) -> Self:
        if len(self.weights) != len(self.policies) + 1:
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.policies) + 1} members: give one for the policy that is "
                "steered, then one for each of policies"
            )
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights {self.weights} sum to {sum(self.weights):.6g}, and must sum to 1")
        return self

    def build(self, policy: Policy) -> "Composition":
        """See `SteeringConfig.build`."""
        base = generative(policy, "composition")
        found = [join(base, cast(Policy, restore(named, "policy", policy.device))) for named in self.policies]
        return Composition(self, found)


class Frame(NamedTuple):
    """How a member's normalised actions lie beside the base's: member = scale base + offset.

    Attributes:
        scale: One number: noise that is alike in all directions here is so there.
        offset: (A,).
    """

    scale: float
    offset: Tensor

    @property
    def same(self) -> bool:
        """Whether they are the same."""
        return self.scale == 1 and not bool(self.offset.any())


class Composition(Steering):
    """See `CompositionConfig`."""

    config: CompositionConfig

    def __init__(self, config: CompositionConfig, members: Sequence[GenerativePolicy]) -> None:
        """Join the members; see `CompositionConfig.build`."""
        super().__init__(config.model_copy(update={"policies": tuple(describe(one) for one in members)}))
        self.members = nn.ModuleList(one.requires_grad_(False) for one in members)
        for one in members:
            self.obs_shapes |= one.spec.obs_shapes

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        mine, *weights = self.config.weights
        chosen = [
            (cast(GenerativePolicy, member), weight)
            for member, weight in zip(self.members, weights, strict=True)
            if weight != 0
        ]
        if not chosen:
            return field
        others = [Other.of(member, weight, planning) for member, weight in chosen]
        return ComposedField(field, mine, others, planning)


class Other(NamedTuple):
    """A member in one plan.

    Attributes:
        field: Its field.
        weight: Its weight.
        cond: Its encoded observations, (B K, To, D).
        frame: How its normalised actions lie beside the base's.
    """

    field: Field
    weight: float
    cond: Tensor
    frame: Frame

    @classmethod
    def of(cls, policy: GenerativePolicy, weight: float, planning: Planning) -> "Other":
        """Let a member look at a plan's observations."""
        cond = policy.observation(planning.obs, policy.spec.n_obs_steps).repeat_interleave(planning.proposals, 0)
        frame = frame_of(planning.policy.action_normalizer, policy.action_normalizer, planning.policy.spec.action_names)
        return cls(policy.walked, weight, cond, frame)


class ComposedField(DerivedField):
    """The base's estimate, and each other member's difference to it times its weight.

    A member is left out at noise levels that it was not trained for, and the weights of the rest are scaled up.
    """

    def __init__(self, field: Field, weight: float, others: Sequence[Other], planning: Planning) -> None:
        """Compose fields.

        Args:
            field: The base's.
            weight: Its weight.
            others: The other members.
            planning: For which plans.
        """
        super().__init__(field)
        self.weight, self.others, self.planning = weight, others, planning

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`."""
        base = self.field.prepare(schedule, cond)
        walks = [translated(self.field, other, schedule) for other in self.others]

        def mixed(x: Tensor, i: int) -> Tensor:
            own = base(x, i)
            asked = [
                (other.weight, walk.ask(x, i)) for other, walk in zip(self.others, walks, strict=True) if walk.at[i]
            ]
            total = self.weight + sum(weight for weight, _ in asked)
            if not asked or total == 0:
                return own
            output = own
            for weight, theirs in asked:
                difference = theirs - own
                self.planning.log.add("composition/disagreement", difference.norm(dim=-1))
                output = torch.add(output, difference, alpha=weight / total)
            return output

        return mixed


class Translated(NamedTuple):
    """A member along a walk of the base's path.

    Attributes:
        at: Whether the member knows the level, for each time.
        ask: (x (R, Tp, A) of the base, i) -> what the base's network would have to say to mean the same.
    """

    at: list[bool]
    ask: Walk


def translated(base: Field, other: Other, schedule: Schedule) -> Translated:
    """Prepare a member for a walk of another field.

    With x_m = sigma_m / sigma x + alpha_m offset at kappa_m = scale kappa, both see the same eps, and
    x0_m = scale x0 + offset.

    Args:
        base: The field that is walked.
        other: The member.
        schedule: Of the walk.
    """
    level = base.path.level(schedule.times)
    scale, offset = other.frame
    low, high = other.field.path.kappa_range
    kappa, slack = scale * level.kappa, 1e-6
    known = (kappa >= low * (1 - slack)) & (kappa <= high * (1 + slack))
    times = other.field.path.time_of(kappa.clamp(low, high).nan_to_num(posinf=high))
    own = other.field.path.level(times)
    if other.frame.same and _alike(base, other.field, schedule):
        return Translated(known.tolist(), other.field.prepare(schedule, other.cond))
    walk = other.field.prepare(other.field.schedule(times), other.cond)
    mine = _table(reading(base.prediction, level, base.path))
    theirs = _table(reading(other.field.prediction, own, other.field.path))
    gain, lift = (own.sigma / level.sigma).tolist(), own.alpha.tolist()

    def ask(x: Tensor, i: int) -> Tensor:
        y = gain[i] * x if other.frame.same else gain[i] * x + lift[i] * offset
        output, there, here = walk(y, i), theirs[i], mine[i]
        # of x0 and eps the one that the base's output hangs on more is read: the other would be divided by little
        if abs(here[1]) >= abs(here[3]):
            x0 = (there[0] * y + there[1] * output - offset) / scale
            return (x0 - here[0] * x) / here[1]
        return (there[2] * y + there[3] * output - here[2] * x) / here[3]

    return Translated(known.tolist(), ask)


def _alike(one: Field, other: Field, schedule: Schedule) -> bool:
    """Say whether the outputs of two networks mean the same all along a walk."""
    asked = other.schedule(schedule.times)
    return (
        (one.prediction, one.path.data_std) == (other.prediction, other.path.data_std)
        and all(map(torch.equal, one.path.level(schedule.times), other.path.level(schedule.times)))
        and torch.equal(asked.told, schedule.told)
        and asked.scales == schedule.scales
    )


def _table(read: Reading) -> list[tuple[float, ...]]:
    """Return a reading's coefficients level by level: x0_x, x0_out, eps_x, eps_out."""
    return list(zip(*(value.tolist() for value in read), strict=True))


def join(base: GenerativePolicy, policy: Policy) -> GenerativePolicy:
    """Check that a policy can be mixed with another.

    Args:
        base: The policy that is steered.
        policy: The other.

    Raises:
        ConfigError: Names every difference that cannot be bridged.
    """
    member = generative(policy, "composition")
    same = ("action_names", "action_space", "control_hz", "n_obs_steps", "horizon")
    faults = [
        f"{key} is {getattr(member.spec, key)} there, {getattr(base.spec, key)} here"
        for key in same
        if getattr(member.spec, key) != getattr(base.spec, key)
    ]
    if faults:
        raise ConfigError(
            "policies can be mixed if their plans mean the same step for step, and these do not: " + "; ".join(faults)
        )
    normalizers = base.action_normalizer, member.action_normalizer
    if all(bool(one.scale.isfinite().all()) for one in normalizers):  # else the weights are still to be loaded
        frame_of(*normalizers, base.spec.action_names)
    return member


def frame_of(base: Normalizer, member: Normalizer, names: Sequence[str]) -> Frame:
    """Return how a member's normalised actions lie beside the base's.

    Args:
        base: The base's normaliser.
        member: The member's.
        names: Of the action entries, for the error.

    Raises:
        ConfigError: If they are scaled differently in different entries: noise that is alike in all entries of the one
            would not be in the other, and no noise level fits.
    """
    varies, there = base.unscale != 0, member.unscale != 0
    scale, offset = base.unscale * member.scale, (base.offset - member.offset) * member.scale
    faults = []
    for i, name in enumerate(names):
        if bool(varies[i]) != bool(there[i]):
            faults.append(f"'{name}' never varied in the demonstrations of one of them")
        elif not bool(varies[i]) and not torch.isclose(base.offset[i], member.offset[i], atol=1e-5):
            faults.append(
                f"'{name}' was always {base.offset[i]:.4g} in the one and {member.offset[i]:.4g} in the other"
            )
    common = scale[varies]
    if len(common) and float(common.max() / common.min()) > 1 + 1e-4:
        listed = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, scale.tolist(), strict=True))
        faults.append(f"their actions are scaled differently entry by entry (ratios: {listed})")
    if faults:
        raise ConfigError(
            "the policies' normalised actions cannot be laid over each other: "
            + "; ".join(faults)
            + ". Train both on demonstrations with the same ranges of actions"
        )
    ratio = float(common.mean()) if len(common) else 1.0
    offset = torch.where(varies, offset, 0.0)
    if abs(ratio - 1) < 1e-6 and float(offset.abs().max()) < 1e-6:
        return Frame(1.0, torch.zeros_like(offset))
    return Frame(ratio, offset)
