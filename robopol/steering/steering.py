"""What every steering is: hooks into the four parts of a plan, each doing nothing where it is not overridden.

A generative policy is noise -> field -> sampler -> selector. A steering may change the noise that walks begin from
(`noise`), or say where some begin instead (`starts`, `start`), wrap the field that is walked (`field`), say what
happens at a level before the walk goes on (`kernel`), and choose one of several proposals (`proposals`, `select`). At
its neutral setting each hook does nothing at all, so that the steered policy is the base policy to the bit.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from robopol.config import Config, OneOf
from robopol.errors import ConfigError
from robopol.policies import Policy, Previous
from robopol.policies.field import Field
from robopol.policies.generative import GenerativePolicy
from robopol.policies.policy import Filler, Generators, standard_normal
from robopol.policies.samplers.sampler import Kernel
from robopol.steering.log import Log


@dataclass(frozen=True)
class Planning:
    """One plan in the making, for B rows with K proposals each.

    Attributes:
        policy: The base policy.
        obs: Observation histories, key -> (B, To, ...), oldest first.
        proposals: K. Walks are (B K, Tp, A), the proposals of a row side by side.
        generator: As for `robopol.policies.Policy.plan`.
        previous: The plan that the episode of each row has, None where it has none.
        log: Takes what is worth knowing, by `note`.
    """

    policy: Policy
    obs: Mapping[str, Tensor]
    proposals: int
    generator: Generators
    previous: Sequence[Previous | None]
    log: Log
    _coming: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """B."""
        return len(self.previous)

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        return self.policy.device

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers (B, *shape), those of a row from its generator."""
        return standard_normal((self.rows, *shape), self.generator, self.device)

    def draw(self) -> Tensor:
        """Draw the noise of a walk, (B K, Tp, A)."""
        noise = self.coming()
        self._coming.clear()
        return noise

    def coming(self) -> Tensor:
        """Return the noise (B K, Tp, A) that `draw` will return next, for who has to know it before the step."""
        if not self._coming:
            spec = self.policy.spec
            self._coming.append(self.normal(self.proposals, spec.horizon, spec.action_dim).flatten(0, 1))
        return self._coming[0]

    def note(self, name: str, values: Tensor) -> None:
        """Log values (B, ...) or (B K, ...), but those of rows that only fill up."""
        if not (self.generator is None or isinstance(self.generator, torch.Generator)):
            meant = [row for row, source in enumerate(self.generator) if not isinstance(source, Filler)]
            values = values.unflatten(0, (self.rows, -1))[meant]
        self.log.add(name, values)

    def windows(self, x: Tensor) -> Tensor:
        """Bring normalised chunks (B K, Tp, A) to environment units and their rows, (B, K, Tp, A)."""
        return self.policy.action_normalizer.unnormalize(x).unflatten(0, (self.rows, self.proposals))

    def only(self, rows: Tensor) -> "Planning":
        """Return the same plan with other noise for the rows (B,) bool that are not meant, whose generators stay."""
        if self.generator is None or isinstance(self.generator, torch.Generator) or bool(rows.all()):
            return self
        spare = Filler(self.generator[0].device).manual_seed(0)
        chosen = zip(self.generator, rows.tolist(), strict=True)
        return replace(self, generator=[own if meant else spare for own, meant in chosen])


class Steering(nn.Module):
    """See the module's text; parts with weights are its submodules, so that they are saved and moved with it.

    Attributes:
        config: Its config; parts that it names are described in it, so that it can be saved.
        proposals: How many proposals it chooses one of.
        once: Whether its field can be asked once only at each level.
        goes_on: Whether it looks at the plan before.
        obs_shapes: Observations that it looks at besides the base policy's, key -> shape.
    """

    proposals: int = 1
    once: ClassVar[bool] = False
    goes_on: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Take over the config.

        Args:
            config: A `SteeringConfig` of the steering's own kind.
        """
        super().__init__()
        self.config = config
        self.obs_shapes: dict[str, tuple[int, ...]] = {}

    def starts(self, planning: Planning) -> Tensor | None:
        """Say which rows do not begin from noise at the walk's first step, (B,) bool; None is no row ever."""
        return None

    def start(self, planning: Planning) -> tuple[Tensor, int]:
        """Return the states (B K, Tp, A), on the path of the field, and the number of the step that they begin with."""
        raise AssertionError("only asked of a steering that starts rows")

    def noise(self, noise: Tensor, planning: Planning) -> Tensor:
        """Return what walks begin from instead of standard normal noise (B, K, ...), of the same shape."""
        return noise

    def field(self, field: Field, planning: Planning) -> Field:
        """Return the field that is walked instead of the one that is given."""
        return field

    def kernel(self) -> Kernel | None:
        """Return what happens at each level; None takes every step once."""
        return None

    def output(self, windows: Tensor, planning: Planning) -> Tensor:
        """Return what becomes of the proposals (B, M, Tp, A) in environment units, before it chooses among them."""
        return windows

    def select(self, windows: Tensor, planning: Planning) -> Tensor:
        """Choose one of N = `proposals` windows.

        Args:
            windows: (B, M, N, Tp, A) in environment units.
            planning: The plan.

        Returns:
            (B, M) int64 in [0, N).
        """
        raise AssertionError("only asked of a steering with several proposals")


class SteeringConfig(Config):
    """What all steerings are told."""

    @abstractmethod
    def build(self, policy: Policy) -> Steering:
        """Return the steering of a policy.

        Args:
            policy: The base policy.

        Raises:
            ConfigError: If the policy cannot be steered so.
            CheckpointError: If a part that it names cannot be loaded.
        """


def _listed(value: Any) -> Any:
    if isinstance(value, str | Mapping | SteeringConfig):
        return (value,)
    return tuple(value) if isinstance(value, list) else value  # what comes out of here is no longer read as JSON


Steerings = Annotated[tuple[Annotated[Any, OneOf("steering")], ...], BeforeValidator(_listed)]
"""Field of a config: some steerings, or one without a list around it."""


def generative(policy: Policy, what: str) -> GenerativePolicy:
    """Return a policy that is known to walk a field.

    Args:
        policy: Any.
        what: Who needs it, for the error.

    Raises:
        ConfigError: If it does not.
    """
    if isinstance(policy, GenerativePolicy):
        return policy
    raise ConfigError(
        f"{what} acts on the way from noise to an action, and a {policy.config.tree()['kind']} policy has none: it can "
        "only be steered by choosing among its proposals (best_of)"
    )


def of_means(policy: Policy, what: str) -> GenerativePolicy:
    """Return a policy whose field says the mean of the clean plans at a noise level (Tweedie's formula).

    A score moves this mean by sigma^2 / alpha times the score's change. A consistency model says one clean plan, the
    end of the way from a state; moved by as much it is no sample of anything.

    Args:
        policy: Any.
        what: Who needs it, for the error.

    Raises:
        ConfigError: If it walks no field, or this one jumps.
    """
    found = generative(policy, what)
    if found.field.says_means:
        return found
    raise ConfigError(
        f"{what} needs the mean of the clean actions at a noise level, and a consistency policy says one of them: "
        "choose among its plans (best_of) or where it begins (start_noise, learned_noise, warm_start), or steer the "
        "policy that it learned from"
    )


def of_levels(policy: Policy, what: str) -> GenerativePolicy:
    """Return a policy that looks at more than pure noise on its way, so that known actions can be followed.

    Args:
        policy: Any.
        what: Who needs it, for the error.

    Raises:
        ConfigError: If it walks no field, or jumps once.
    """
    found = generative(policy, what)
    if found.field.says_means or len(found.sampler.table(found.field).rows) > 1:
        return found
    raise ConfigError(
        f"{what} lets the walk go on from known actions at the noise levels between, and a policy that jumps once has "
        "none: set policy.steps=2 or more for one that learned to, or steer the policy that it learned from"
    )


def last_steps(policy: Policy, steps: int | None, what: str) -> None:
    """Check that a walk can begin in the middle, from something else than noise.

    Args:
        policy: Any.
        steps: How many of its last steps are walked; None is all of them, from noise.
        what: Who begins there, for the error.

    Raises:
        ConfigError: If it cannot.
    """
    found = generative(policy, what)
    walk = len(found.sampler.times(found.field.path))
    if steps is not None and steps > walk:
        raise ConfigError(f"the last {steps} steps cannot be walked: the policy's sampler walks {walk} in all")
    if steps is not None and steps == walk and not found.field.says_means:
        raise ConfigError(
            f"{what} with steps={steps} begins with a consistency policy's first jump, which is from pure noise, where "
            f"nothing is left of other actions: take fewer steps than its {walk} (more jumps: policy.steps)"
        )
