"""What the scorings of generative policies share: a walk whose states can be seen."""

from collections.abc import Callable

from torch import Generator, Tensor

from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy
from robopol.policies.policy import standard_normal
from robopol.policies.samplers import Hook


def generative(policy: Policy, scoring: str) -> GenerativePolicy:
    """Check that a policy walks a field of its own.

    Args:
        policy: The policy.
        scoring: What it is to be scored by.

    Raises:
        ConfigError: If it does not, or is pulled to a goal while it walks.
    """
    if not isinstance(policy, GenerativePolicy):
        raise ConfigError(
            f"algo.scoring={scoring} looks at a walk from noise to actions, and a {policy.config.tree()['kind']} "
            "policy takes none: train a diffusion or flow policy, or set algo.scoring=density for a Gaussian"
        )
    if policy.config.guidance is not None:
        raise ConfigError("a policy that is guided to a goal cannot be fine-tuned here: train one without guidance")
    return policy


def walk(policy: GenerativePolicy, seen: Tensor, generator: Generator, hook: Callable[..., Hook] | None) -> Tensor:
    """Walk from noise to normalised windows (B, Tp, A), not clipped at the end.

    Args:
        policy: Whose field and sampler.
        seen: (B, To, D).
        generator: Source of all noise.
        hook: Given the source of noise, returns what sees every step and may replace the next state.
    """
    shape = (len(seen), policy.spec.horizon, policy.spec.action_dim)

    def draw() -> Tensor:
        return standard_normal(shape, generator, seen.device)

    table = policy.sampler.table(policy.field)
    x = table.start_std * draw()
    step = policy.sampler.steps(policy.field, seen, draw, hook=None if hook is None else hook(draw))
    for i in range(len(table.levels) - 1):
        _, x = step(x, i)
    return x


def executed(policy: GenerativePolicy, window: Tensor) -> Tensor:
    """Return what is executed of a walk's end, in environment units; clipped as the sampler clips it."""
    within = window.clamp(-1, 1) if policy.config.sampler.clip == "last" else window
    return policy.action_normalizer.unnormalize(within)
