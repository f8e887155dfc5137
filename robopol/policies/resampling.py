"""A saved policy, walked or computed in another way than it was saved."""

from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.config import Config, OneOf
from robopol.errors import ConfigError
from robopol.policies.generative import GenerativePolicy
from robopol.policies.policy import Policy
from robopol.policies.walking import WalkingPolicy


class Resampling(Config):
    """What is changed about a saved policy's walk.

    Attributes:
        sampler: Another sampler, or its name; None keeps the policy's.
        steps: Another number of steps; None keeps the sampler's.
    """

    sampler: Annotated[Any, OneOf("sampler")] | None = None
    steps: int | None = Field(None, ge=1)

    def apply(self, policy: Policy) -> None:
        """Change a policy, if anything is to be changed.

        Args:
            policy: A policy that walks a field.

        Raises:
            ConfigError: If the policy has no sampler, or its field cannot be walked so.
        """
        if self == type(self)():
            return
        policy = policy.inner()
        if not isinstance(policy, WalkingPolicy):
            kind = policy.config.tree()["kind"]
            raise ConfigError(f"a {kind} policy does not walk from noise: policy.* has nothing to change")
        chosen = self.sampler or policy.config.sampler
        policy.resample(chosen if self.steps is None else chosen.model_copy(update={"steps": self.steps}))


class Acting(Resampling):
    """What is changed about a saved policy that only acts.

    Attributes:
        weights: Packed weights on a CPU: ``"fp32"`` is faster and equal up to rounding, ``"bf16"`` faster still and
            less exact. None computes with the weights as they were saved.
    """

    weights: Literal["fp32", "bf16"] | None = None

    def apply(self, policy: Policy) -> None:
        """See `Resampling.apply`."""
        super().apply(policy)
        policy = policy.inner()
        if self.weights is not None and isinstance(policy, GenerativePolicy):
            policy.for_acting(self.weights)
