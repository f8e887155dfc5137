"""What fine-tuning learns beside a policy: parts that look at the world as the policy does."""

import copy
from typing import Any

from robopol.errors import ConfigError
from robopol.policies import Policy, PolicySpec
from robopol.policies.actor import ActorConfig
from robopol.policies.observation import LowDimObservation
from robopol.policies.policy import PolicyConfig


def executed(base: Policy) -> PolicySpec:
    """Return the contract of what judges the actions that a policy executes before it plans again."""
    taken = base.spec.n_action_steps
    return base.spec.model_copy(update={"horizon": base.spec.n_obs_steps - 1 + taken, "n_action_steps": taken})


def sharing(config: Any, base: Policy, spec: PolicySpec) -> Any:
    """Make a part under another contract that scales observations as a policy does.

    Args:
        config: Of an actor or of a model.
        base: The policy.
        spec: The contract; if it lets the part look at what the policy does not, its scale is still to be said.

    Returns:
        What is built; if it looks at the same, with a copy of the policy's encoder.

    Raises:
        ConfigError: If the policy is steered, or looks at anything but vectors.
    """
    if not isinstance(base.config, PolicyConfig):
        raise ConfigError(
            f"a {base.config.tree()['kind']} policy has no encoder of its own that could be shared: begin from the "
            "policy inside, and steer the result"
        )
    if not isinstance(base.observation, LowDimObservation):
        raise ConfigError(
            "what is learned beside a policy here looks at vectors as the policy does, and this one looks at pictures "
            "or at a goal that can be left out"
        )
    told = {
        "n_obs_steps": spec.n_obs_steps,
        "n_action_steps": spec.n_action_steps,
        "encoder": base.config.encoder,
        "obs_normalization": base.config.obs_normalization,
        "action_normalization": "bounds",
    }
    if isinstance(config, ActorConfig):
        told["horizon"] = spec.horizon
    if spec.obs_shapes.keys() != base.spec.obs_shapes.keys():
        told["encoder"] = base.config.encoder.model_copy(update={"keys": tuple(sorted(spec.obs_shapes))})
    made = config.model_copy(update=told).build(spec)
    if spec.obs_shapes.keys() == base.spec.obs_shapes.keys():
        made.observation = copy.deepcopy(base.observation).requires_grad_(False)
    return made.to(base.device)
