"""A steered policy: a frozen base and what steers it, which together are a policy again."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field as Bound
from torch import Tensor, nn

from robopol.checkpoint import PartOf, describe, restore
from robopol.config import Config, OneOf
from robopol.errors import ConfigError, ShapeError
from robopol.networks.autograd import recordable
from robopol.policies import Needs, Policy, PolicySpec, Previous
from robopol.policies.generative import GenerativePolicy
from robopol.policies.observation import take
from robopol.policies.policy import Choice, Generators, check_generators, fingerprint
from robopol.policies.samplers.sampler import Kernel
from robopol.steering.log import Log
from robopol.steering.steering import Planning, Steering


class SteeredConfig(Config):
    """A steered policy.

    Attributes:
        base: The policy that is steered.
        steerings: What steers it, in the order in which it acts: the first one's field is innermost, and the first one
            chooses among the proposals first.
    """

    kind: Literal["steered"] = "steered"
    base: Annotated[Any, PartOf("policy")]
    steerings: tuple[Annotated[Any, OneOf("steering")], ...] = Bound(min_length=1)

    group: ClassVar[str] = "policy"

    @property
    def action_normalization(self) -> str:
        """How each action entry is scaled: as the base has it."""
        mode: str = self.base.config.action_normalization
        return mode

    def build(self, spec: PolicySpec) -> "SteeredPolicy":
        """Return the policy.

        Args:
            spec: Not read: the contract is that of the base and of what steers it.

        Raises:
            ConfigError: If the parts do not go together.
        """
        base = cast(Policy, restore(self.base, "policy"))
        return SteeredPolicy(base, [steering.build(base) for steering in self.steerings])

    @staticmethod
    def over(policy: Policy, steerings: Sequence[Any]) -> "SteeredPolicy":
        """Steer a policy; see `robopol.policies.Policy.steered`."""
        base, before = policy, list[Any]()
        if isinstance(policy, SteeredPolicy):
            base, before = policy.base, list(policy.steerings)
        built = [steering.build(base).to(base.device).eval() for steering in steerings]
        return SteeredPolicy(base, [*before, *built])


class SteeredPolicy(Policy):
    """See `SteeredConfig`. Its base is shared with whoever else holds it, and is not changed.

    Attributes:
        base: The policy that is steered.
        steerings: What steers it.
        log: What steering did since it was last asked.
    """

    def __init__(self, base: Policy, steerings: Sequence[Steering]) -> None:
        """Put a policy and what steers it together.

        Args:
            base: A policy that is not steered itself.
            steerings: At least one, built for it.

        Raises:
            ConfigError: If they do not go together.
        """
        nn.Module.__init__(self)  # the normalisers are the base's
        self.base = base
        self.steerings = nn.ModuleList(steerings)
        self.log = Log()
        self._choice: Choice | None = None
        self.spec = base.spec.model_copy(update={"obs_shapes": _union(base, steerings)})
        kernels = [one for one in steerings if one.kernel() is not None]
        starting = [one for one in steerings if _starts(one)]
        for found, what in ((kernels, "what happens between two levels"), (starting, "where a walk begins")):
            if len(found) > 1:
                names = " and ".join(one.config.kind for one in found)
                raise ConfigError(f"{names} both say {what}: leave one of them out")
        for one in steerings:
            if one.once and kernels:
                raise ConfigError(
                    f"{one.config.kind} follows a walk that takes every step once, and {kernels[0].config.kind} takes "
                    "them several times: leave one of them out"
                )

    @property
    def config(self) -> SteeredConfig:  # type: ignore[override]
        """What it is now: its base may be walked otherwise after it was steered."""
        steerings = cast(Sequence[Steering], self.steerings)
        return SteeredConfig(base=describe(self.base), steerings=tuple(one.config for one in steerings))

    @property
    def observation(self) -> Any:  # type: ignore[override]
        """The base's encoder."""
        return self.base.observation

    @property
    def action_normalizer(self) -> Any:  # type: ignore[override]
        """The base's normaliser."""
        return self.base.action_normalizer

    @property
    def device(self) -> torch.device:
        """See `Policy.device`."""
        return self.base.device

    @property
    def rowwise(self) -> bool:
        """See `Policy.rowwise`; whoever chooses among proposals may look at all rows at once."""
        return False

    @property
    def needs(self) -> Needs:
        """See `Policy.needs`."""
        return self.base.needs

    @property
    def goes_on(self) -> bool:
        """See `Policy.goes_on`."""
        return self.base.goes_on or any(cast(Steering, one).goes_on for one in self.steerings)

    @property
    def choice(self) -> Choice | None:
        """See `Policy.choice`."""
        return self._choice

    def fingerprint(self) -> bytes:
        """See `Policy.fingerprint`."""
        return fingerprint(self.config, self.spec, self.steerings.state_dict(), self.base.fingerprint())

    def inner(self) -> Policy:
        """See `Policy.inner`."""
        return self.base

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the base's loss; see `Policy.loss`."""
        return self.base.loss(batch, generator)

    @torch.no_grad()
    def plan(
        self,
        obs: Mapping[str, Tensor],
        n: int = 1,
        generator: Generators = None,
        previous: Sequence[Previous | None] | None = None,
    ) -> Tensor:
        """See `Policy.plan`.

        Raises:
            ShapeError: As there, and if there is not a last plan, or None, for each row.
        """
        steerings, (key, shape) = cast(Sequence[Steering], self.steerings), next(iter(self.spec.obs_shapes.items()))
        rows = len(take(obs, key, (self.spec.n_obs_steps, *shape)))
        check_generators(generator, rows)
        known = [None] * rows if previous is None else list(previous)
        if len(known) != rows:
            raise ShapeError(f"{len(known)} last plans for {rows} rows: give each its own, None where there is none")
        proposals = n * prod(one.proposals for one in steerings)
        with torch.inference_mode(False), torch.no_grad():  # some steer by gradients, in whatever mode the caller is
            seen = {key: recordable(value) for key, value in obs.items()}
            return self._steered(Planning(self.base, seen, proposals, generator, known, self.log), n)

    def _steered(self, planning: Planning, n: int) -> Tensor:
        """Return the windows (B, n, Tp, A) that are chosen of all proposals."""
        steerings, proposals = cast(Sequence[Steering], self.steerings), planning.proposals
        windows = self._walked(planning) if isinstance(self.base, GenerativePolicy) else self._proposed(planning)
        places = torch.arange(proposals, device=windows.device).expand(planning.rows, -1)
        for one in steerings:
            windows = one.output(windows, planning)
            if one.proposals > 1:
                grouped = windows.unflatten(1, (-1, one.proposals))  # (B, M, N, Tp, A)
                chosen = one.select(grouped, planning)
                windows = grouped.take_along_dim(chosen[:, :, None, None, None], 2).squeeze(2)
                places = places.unflatten(1, (-1, one.proposals)).take_along_dim(chosen[:, :, None], 2).squeeze(2)
        candidates = proposals // n
        self._choice = Choice(candidates, places % candidates) if candidates > 1 else None
        return windows

    def _proposed(self, planning: Planning) -> Tensor:
        if all(type(one).noise is Steering.noise for one in cast(Sequence[Steering], self.steerings)):
            return self.base.plan(planning.obs, planning.proposals, planning.generator, planning.previous)
        noise = planning.normal(planning.proposals, *(self.base.noise_shape or ()))
        return self.base.plan_from(planning.obs, self._noise(noise, planning), planning.previous)

    def _noise(self, noise: Tensor, planning: Planning) -> Tensor:
        """Let every steering have its say about standard normal noise (B, K, ...)."""
        for one in cast(Sequence[Steering], self.steerings):
            noise = one.noise(noise, planning)
        return noise

    def _walked(self, planning: Planning) -> Tensor:
        """Walk from noise, or from where a steering says, to windows (B, K, Tp, A)."""
        steerings = cast(Sequence[Steering], self.steerings)
        kernel = next((one.kernel() for one in steerings if one.kernel() is not None), None)
        for one in steerings:
            begun = one.starts(planning)
            if begun is not None and bool(begun.any()):
                break
        else:
            return planning.windows(self._walk(planning, None, kernel))
        # a batch is never cut in pieces: products round differently for another number of rows
        started = planning.windows(self._walk(planning.only(begun), one, kernel))
        if bool(begun.all()):
            return started
        fresh = planning.windows(self._walk(planning.only(~begun), None, kernel))
        return torch.where(begun[:, None, None, None], started, fresh)

    def _walk(self, planning: Planning, starter: Steering | None, kernel: Kernel | None) -> Tensor:
        policy = cast(GenerativePolicy, self.base)
        sampler, field = policy.sampler, policy.walked
        if not sampler.repeats and (kernel is not None or starter is not None):
            raise ConfigError(
                f"the {sampler.config.kind} sampler cannot take a step again or begin in the middle: choose ddim, "
                "ddpm, euler or another of robopol's own by policy.sampler"
            )
        cond = policy.observation(planning.obs, policy.spec.n_obs_steps)
        for one in cast(Sequence[Steering], self.steerings):
            field = one.field(field, planning)
        told = cond.repeat_interleave(planning.proposals, 0)
        if starter is None:
            drawn = planning.draw().unflatten(0, (planning.rows, planning.proposals))
            noise = self._noise(drawn, planning).flatten(0, 1)
            return sampler.sample(field, noise, told, planning.draw, kernel=kernel)
        x, first = starter.start(planning)
        return sampler.walk(field, x, told, planning.draw, first=first, kernel=kernel)

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        raise AssertionError("a steered policy plans by its base")


def _starts(steering: Steering) -> bool:
    return type(steering).starts is not Steering.starts


def _union(base: Policy, steerings: Sequence[Steering]) -> dict[str, tuple[int, ...]]:
    """Join what is looked at.

    Raises:
        ConfigError: If two parts see the same observation in different shapes.
    """
    shapes = dict(base.spec.obs_shapes)
    for one in steerings:
        for key, shape in one.obs_shapes.items():
            if tuple(shapes.setdefault(key, shape)) != tuple(shape):
                raise ConfigError(
                    f"{one.config.kind} looks at an observation '{key}' of shape {tuple(shape)}, the policy at one of "
                    f"{tuple(shapes[key])}: they were made for different worlds"
                )
    return shapes
