"""What all ways to act by several policies at once share: the members, laid over the policy that is steered.

Members may have other paths, predictions, networks and observations. A state x of the base's path is asked at the
member's time of equal noise, sigma / alpha, scaled to the member's path; the pair (x0, eps) that comes back is the same
in both, and is said in the words of the base's own network.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, cast

import torch
from pydantic import Field as Bound
from torch import Tensor, nn

from robopol.checkpoint import PartOf, describe, restore
from robopol.data.normalizer import Normalizer
from robopol.errors import ConfigError
from robopol.networks.denoiser import Walk
from robopol.policies import Policy
from robopol.policies.field import Field, Schedule
from robopol.policies.generative import GenerativePolicy
from robopol.policies.prediction import Reading, reading
from robopol.policies.samplers.sampler import DEEPEST
from robopol.steering.steering import Planning, Steering, SteeringConfig, generative


class MembersConfig(SteeringConfig):
    """What all ways to act by several policies are told.

    Attributes:
        policies: The other members, each a run, a checkpoint or a policy folder of a generative policy.
    """

    policies: tuple[Annotated[Any, PartOf("policy")], ...] = Bound(min_length=1)

    def others(self, policy: Policy) -> list[GenerativePolicy]:
        """Return the other members.

        Args:
            policy: The policy that is steered.

        Raises:
            ConfigError: Names every difference that cannot be bridged.
            CheckpointError: If one cannot be loaded.
        """
        what = self.tree()["kind"]
        base = generative(policy, what)
        return [join(base, cast(Policy, restore(named, "policy", policy.device)), what) for named in self.policies]

    def numbered(self, values: Sequence[float], name: str) -> None:
        """Check that there is a number for each member, the first for the policy that is steered.

        Raises:
            ValueError: If there is not.
        """
        if len(values) != len(self.policies) + 1:
            raise ValueError(
                f"{len(values)} {name} for {len(self.policies) + 1} members: give one for the policy that is steered, "
                "then one for each of policies"
            )


class Members(Steering):
    """Acts by several policies; their weights are saved and moved with it."""

    config: MembersConfig

    def __init__(self, config: MembersConfig, members: Sequence[GenerativePolicy]) -> None:
        """Join the members.

        Args:
            config: Its config.
            members: The others, as `MembersConfig.others` returns them.

        Raises:
            ConfigError: If two of them see the same observation in different shapes.
        """
        super().__init__(config.model_copy(update={"policies": tuple(describe(one) for one in members)}))
        self.members = nn.ModuleList(one.requires_grad_(False) for one in members)
        for one in members:
            for key, shape in one.spec.obs_shapes.items():
                if tuple(self.obs_shapes.setdefault(key, shape)) != tuple(shape):
                    raise ConfigError(
                        f"one of policies looks at an observation '{key}' of shape {tuple(shape)}, another at one of "
                        f"{tuple(self.obs_shapes[key])}: they were made for different worlds"
                    )

    def look(self, index: int, planning: Planning) -> "Member":
        """Let the other member of that number look at a plan's observations."""
        policy = cast(GenerativePolicy, self.members[index])
        cond = policy.observation(planning.obs, policy.spec.n_obs_steps).repeat_interleave(planning.proposals, 0)
        base = planning.policy
        frame = frame_of(base.action_normalizer, policy.action_normalizer, base.spec.action_names)
        return Member(policy.walked, cond, frame)


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


class Member(NamedTuple):
    """A member in one plan.

    Attributes:
        field: Its field.
        cond: Its encoded observations, (B K, To, D).
        frame: How its normalised actions lie beside the base's.
    """

    field: Field
    cond: Tensor
    frame: Frame


class Translated(NamedTuple):
    """A member along a walk of the base's path.

    Attributes:
        at: Whether the member knows the level, for each time.
        ask: (x (R, Tp, A) of the base, i) -> what the base's network would have to say to mean the same.
    """

    at: list[bool]
    ask: Walk


def translated(base: Field, member: Member, schedule: Schedule) -> Translated:
    """Prepare a member for a walk of another field.

    With x_m = sigma_m / sigma x + alpha_m offset at kappa_m = scale kappa, both see the same eps, and
    x0_m = scale x0 + offset.

    Args:
        base: The field that is walked.
        member: The member.
        schedule: Of the walk.
    """
    field, (scale, offset) = member.field, member.frame
    level = base.path.level(schedule.times)
    low, high = field.path.kappa_range
    kappa, slack = scale * level.kappa, 1e-6
    known = (kappa >= low * (1 - slack)) & (kappa <= high * (1 + slack))
    if field.prediction in ("eps", "score"):
        known &= kappa <= DEEPEST
    times, own = schedule.times, field.path.level(schedule.times)
    if scale != 1 or not (torch.equal(own.alpha, level.alpha) and torch.equal(own.sigma, level.sigma)):
        times = field.path.time_of(kappa.clamp(low, high))
        own = field.path.level(times)
    walk = field.prepare(field.schedule(times), member.cond)
    mine = _table(reading(base.prediction, level, base.path))
    theirs = _table(reading(field.prediction, own, field.path))
    if times is schedule.times and member.frame.same and mine == theirs:
        return Translated(known.tolist(), walk)  # nothing is computed, so that nothing is rounded
    gain, lift = (own.sigma / level.sigma).tolist(), own.alpha.tolist()

    def ask(x: Tensor, i: int) -> Tensor:
        y = gain[i] * x if member.frame.same else gain[i] * x + lift[i] * offset
        output, there, here = walk(y, i), theirs[i], mine[i]
        # of x0 and eps the one that the base's output hangs on more is read: the other would be divided by little
        if abs(here[1]) >= abs(here[3]):
            x0 = (there[0] * y + there[1] * output - offset) / scale
            return (x0 - here[0] * x) / here[1]
        return (there[2] * y + there[3] * output - here[2] * x) / here[3]

    return Translated(known.tolist(), ask)


def _table(read: Reading) -> list[tuple[float, ...]]:
    """Return a reading's coefficients level by level: x0_x, x0_out, eps_x, eps_out."""
    return list(zip(*(value.tolist() for value in read), strict=True))


def join(base: GenerativePolicy, policy: Policy, what: str) -> GenerativePolicy:
    """Check that a policy can be mixed with another.

    Args:
        base: The policy that is steered.
        policy: The other.
        what: What mixes them, for the error.

    Raises:
        ConfigError: Names every difference that cannot be bridged.
    """
    member = generative(policy, what)
    if not (base.field.says_means and member.field.says_means):
        raise ConfigError(
            f"{what} compares what policies say at one noise level, where a consistency model says where a walk ends "
            "and not the mean: take the policy that it learned from"
        )
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
