"""Where a walk begins, chosen by a small policy: what DSRL learns (Wagenmaker et al. 2025, arXiv 2506.15799).

Where noise alone decides what a frozen policy does, noise is an action, and it never leaves what was demonstrated.
"""

import math
from typing import Annotated, Any, Literal, cast

from pydantic import Field as Bound
from torch import Tensor

from robopol.checkpoint import PartOf, describe, restore
from robopol.data.windows import newest
from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.policies.squashed_gaussian import SquashedGaussianPolicy
from robopol.steering.steering import Planning, Steering, SteeringConfig


class LearnedNoiseConfig(SteeringConfig):
    """Begin from noise that an actor chooses.

    Attributes:
        actor: A squashed Gaussian whose action entries are the entries of the noise, within their bounds.
        weight: How far to go towards its choice; 0 is the base policy.
    """

    kind: Literal["learned_noise"] = "learned_noise"
    actor: Annotated[Any, PartOf("policy")]
    weight: float = Bound(1.0, ge=0, le=1)

    def build(self, policy: Policy) -> "LearnedNoise":
        """See `SteeringConfig.build`."""
        return LearnedNoise(cast(Policy, restore(self.actor, "policy")), policy, self.weight)


class LearnedNoise(Steering):
    """See `LearnedNoiseConfig`.

    Attributes:
        actor: Who chooses.
    """

    config: LearnedNoiseConfig

    def __init__(self, actor: Policy, policy: Policy, weight: float = 1.0) -> None:
        """Let an actor choose where the walks of a policy begin.

        Args:
            actor: The actor.
            policy: The base policy.
            weight: See `LearnedNoiseConfig`.

        Raises:
            ConfigError: If it is no such actor, or not one of this policy.
        """
        super().__init__(LearnedNoiseConfig(actor=describe(actor), weight=weight))
        size, steps = math.prod(policy.noise_shape or ()), policy.spec.n_obs_steps
        if not isinstance(actor, SquashedGaussianPolicy):
            raise ConfigError(f"noise is chosen by a squashed_gaussian, not by a {actor.config.tree()['kind']} policy")
        if policy.noise_shape is None or actor.spec.action_dim != size or actor.spec.n_obs_steps > steps:
            raise ConfigError(
                f"the actor chooses {actor.spec.action_dim} numbers and looks at {actor.spec.n_obs_steps} "
                f"observations, the policy begins from {size} and looks at {steps}: they were not made for each other"
            )
        self.actor = actor
        self.obs_shapes = dict(actor.spec.obs_shapes)

    def noise(self, noise: Tensor, planning: Planning) -> Tensor:
        """See `Steering.noise`; what comes in is the actor's own source of chance."""
        seen = newest(planning.obs, self.actor.spec.n_obs_steps)
        chosen = self.actor.plan_from(seen, noise.flatten(2)[:, :, None]).view_as(noise)
        return noise.lerp(chosen, self.config.weight)
