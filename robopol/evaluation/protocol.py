"""The one evaluation protocol: held-out seeds, per-episode outcomes, intervals."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from robopol.config import Config
from robopol.envs import VectorEnv
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError
from robopol.evaluation.execution import Execution, Monitor
from robopol.evaluation.rollout import Outcome, Watcher, rollout
from robopol.evaluation.statistics import bootstrap_mean, wilson
from robopol.execution import RecedingHorizonConfig
from robopol.policies import Policy
from robopol.steering import SteeredPolicy

SEED0 = 100_000
"""Seed of the first held-out episode; demonstrations and training use small seeds."""


class Evaluation(Config):
    """What an evaluation found.

    Attributes:
        env: Where.
        episodes: How many.
        seeds: First and last seed.
        success_rate: Share of successful episodes.
        success_ci95: Wilson interval of it.
        return_mean: Mean undiscounted return.
        return_ci95: Bootstrap interval of it.
        length_mean: Mean number of steps.
        ways: Way to succeed -> successful episodes that took it.
        outcomes: Every episode.
        execution: How the plans were executed; None for an actor that has none.
        steering: Means of what steering the policy did; None for a policy that is not steered.
    """

    env: EnvConfig
    episodes: int
    seeds: tuple[int, int]
    success_rate: float
    success_ci95: tuple[float, float]
    return_mean: float
    return_ci95: tuple[float, float]
    length_mean: float
    ways: dict[str, int]
    outcomes: tuple[Outcome, ...]
    execution: Execution | None = None
    steering: dict[str, float] | None = None


def evaluate(
    policy: Policy,
    env: VectorEnv,
    episodes: int = 100,
    seed: int = SEED0,
    *,
    execution: Any = None,
    watcher: Watcher | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Evaluation:
    """Evaluate a policy over held-out episodes.

    Episode i is reset with ``seed + i`` and its outcome depends on that seed alone, not on the number of
    environments or on what else runs beside it.

    Args:
        policy: The policy.
        env: Where it acts.
        episodes: How many, at least 1.
        seed: Seed of the first.
        execution: How its plans are executed, an `robopol.execution.ExecutorConfig`; None is receding horizon.
        watcher: Given rendered frames of the episodes that it wants.
        on_outcome: Told of each episode as it ends.

    Returns:
        The evaluation, with every episode's outcome.

    Raises:
        ConfigError: If the policy was made for another world, or cannot be executed so.
    """
    if episodes < 1:
        raise ConfigError(f"an evaluation needs at least 1 episode, got {episodes}")
    check_contract(policy, env)
    seeds = range(seed, seed + episodes)
    execution = execution or RecedingHorizonConfig()
    monitor = Monitor(execution.build(policy))
    if isinstance(monitor.executor.policy, SteeredPolicy):
        monitor.executor.policy.log.means()  # begin anew
    outcomes = rollout(monitor, env, seeds, watcher=watcher, on_outcome=on_outcome)
    steered = monitor.executor.policy
    steering = steered.log.means() if isinstance(steered, SteeredPolicy) else None
    found = {"execution": monitor.execution(execution), "steering": steering}
    return summarise(outcomes, env).model_copy(update=found)


def summarise(outcomes: list[Outcome], env: VectorEnv) -> Evaluation:
    """Return rates, means and intervals of at least one outcome."""
    wins = [outcome for outcome in outcomes if outcome.success]
    returns = [outcome.total_reward for outcome in outcomes]
    taken = Counter(outcome.way for outcome in wins)
    return Evaluation(
        env=EnvConfig.of(env.spec),
        episodes=len(outcomes),
        seeds=(outcomes[0].seed, outcomes[-1].seed),
        success_rate=len(wins) / len(outcomes),
        success_ci95=wilson(len(wins), len(outcomes)),
        return_mean=float(np.mean(returns)),
        return_ci95=bootstrap_mean(returns),
        length_mean=float(np.mean([outcome.length for outcome in outcomes])),
        ways={name: taken[name] for name in env.spec.way_names},
        outcomes=tuple(outcomes),
    )


def check_contract(policy: Policy, env: VectorEnv) -> None:
    """Refuse, in words, to let a policy act in a world that it was not made for.

    Raises:
        ConfigError: Names every difference.
    """
    spec, world = policy.spec, env.spec
    faults = [
        f"observation '{key}' has shape {world.obs_shapes.get(key, 'none')}, the policy needs {shape}"
        for key, shape in spec.obs_shapes.items()
        if tuple(world.obs_shapes.get(key, ())) != tuple(shape)
    ]
    if len(spec.action_names) != len(world.action_names):
        faults.append(f"it takes {len(world.action_names)} action entries, the policy gives {spec.action_dim}")
    if spec.action_space != world.action_space:
        faults.append(f"its actions are '{world.action_space}', the policy's are '{spec.action_space}'")
    if abs(spec.control_hz - world.control_hz) > 1e-6:
        faults.append(f"it is controlled at {world.control_hz} Hz, the policy acts at {spec.control_hz} Hz")
    if faults:
        raise ConfigError(f"the policy was not made for {world.id}: " + "; ".join(faults))
