"""A saved policy, walked or computed in another way than it was saved."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from robopol.config import Config, OneOf
from robopol.errors import ConfigError
from robopol.policies.policy import Policy
from robopol.policies.walking import NO_STEERING, Backend, WalkingPolicy


class Resampling(Config):
    """What is changed about a saved policy's walk.

    Attributes:
        sampler: Another sampler, or its name; None keeps the policy's. It does not clip what that one left alone, see
            `WalkingPolicy.resample`.
        steps: Another number of steps; None keeps the sampler's.
        deterministic: Whether a policy of Gaussians acts with their means, or draws; None leaves it as it was saved.
    """

    sampler: Annotated[Any, OneOf("sampler")] | None = None
    steps: int | None = Field(None, ge=1)
    deterministic: bool | None = None

    def apply(self, policy: Policy, steerings: Sequence[Any] = ()) -> Policy:
        """Change a policy, if anything is to be changed, and only then steer it: what steers it is made for its walk.

        Args:
            policy: A policy that walks a field.
            steerings: As for `Policy.steered`; none leaves it unsteered.

        Returns:
            The policy, changed in place, or what it became by steering.

        Raises:
            ConfigError: If the policy has no sampler, or its field cannot be walked so; or it has no Gaussians; or it
                cannot be steered so.
        """
        self._change(policy.inner())
        return policy.steered(*steerings) if steerings else policy

    def _change(self, policy: Policy) -> None:
        kind = policy.config.tree()["kind"]
        if self.deterministic is not None:
            if "deterministic" not in type(policy.config).model_fields:
                raise ConfigError(f"a {kind} policy has no Gaussians to draw from: leave out policy.deterministic")
            policy.config = policy.config.model_copy(update={"deterministic": self.deterministic})
        if self == type(self)(deterministic=self.deterministic):
            return
        if not isinstance(policy, WalkingPolicy):
            raise ConfigError(f"a {kind} policy does not walk from noise: policy.* has nothing to change")
        chosen = self.sampler or policy.config.sampler
        policy.resample(chosen if self.steps is None else chosen.model_copy(update={"steps": self.steps}))


class Acting(Resampling):
    """What is changed about a saved policy that only acts.

    Attributes:
        backend: What computes it, if not torch operation by operation: ``packed`` weights on a CPU, faster and equal up
            to rounding; ``packed_fp16`` and ``packed_bf16``, faster still and less exact; ``compile``, the network's
            steps by torch.compile, on any device; ``cuda_graph``, whole walks replayed on a GPU, unless they are
            steered.
    """

    backend: Backend | None = None

    def apply(self, policy: Policy, steerings: Sequence[Any] = ()) -> Policy:
        """See `Resampling.apply`; what computes it is chosen last, when it is known whether it is steered."""
        policy = super().apply(policy, steerings)
        base = policy.inner()
        if self.backend is None or not isinstance(base, WalkingPolicy):  # the latter was refused above
            return policy
        if self.backend == "cuda_graph" and base is not policy:
            raise ConfigError(NO_STEERING)
        base.for_acting(self.backend)
        return policy
