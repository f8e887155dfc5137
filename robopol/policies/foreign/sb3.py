"""Agents trained with Stable-Baselines3 or sb3-contrib, as policies."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from robopol.envs.spec import EnvSpec
from robopol.errors import CheckpointError, ConfigError, MissingExtraError
from robopol.policies.foreign.policy import ForeignConfig, ForeignPolicy
from robopol.policies.part import PolicySpec
from robopol.policies.plan_only import contract
from robopol.registry import nearest

ALGORITHMS = ("A2C", "CrossQ", "DDPG", "PPO", "SAC", "TD3", "TQC", "TRPO")


class SB3Policy(ForeignPolicy):
    """Acts with an agent's mean action; several proposals for a row are drawn from its distribution.

    Those of an algorithm that has none (TD3, DDPG) are equal.
    """

    def __init__(self, config: ForeignConfig, spec: PolicySpec, agent: Any) -> None:
        """See `load_sb3`."""
        super().__init__(config, spec)
        self.agent = agent

    def _action(self, obs: Mapping[str, NDArray[Any]], n: int) -> NDArray[np.float32]:
        if n > 1 and getattr(self.agent, "use_sde", False):
            self.agent.policy.reset_noise()  # it holds the noise of a rollout, which would be every proposal's
        action: NDArray[np.float32] = self.agent.predict(obs["state"][-1], deterministic=n == 1)[0]
        return action


def load_sb3(path: str, algorithm: str, world: EnvSpec | None) -> SB3Policy:
    """Load an agent; this runs whatever code is in its file.

    Args:
        path: Its ``.zip``.
        algorithm: Which of `ALGORITHMS` wrote it.
        world: Where it will act. It looks at "state".

    Raises:
        CheckpointError: If the file cannot be loaded.
        ConfigError: If the algorithm is unknown, or the world was not named or has no "state".
        MissingExtraError: If Stable-Baselines3 is not installed.
    """
    if algorithm not in ALGORITHMS:
        raise ConfigError(
            f"Stable-Baselines3 has no algorithm '{algorithm}'{nearest(algorithm, ALGORITHMS)} that acts with numbers; "
            f"there are {', '.join(ALGORITHMS)}, e.g. checkpoint=sb3:SAC:agent.zip"
        )
    spec = contract(world, f"the agent {path}", ["state"])
    if not zipfile.is_zipfile(Path(path)):
        raise CheckpointError(f"{path} is not a file of Stable-Baselines3 (a .zip)")
    try:
        import sb3_contrib
        import stable_baselines3
    except ImportError as error:
        raise MissingExtraError(error.name or "stable_baselines3", "sb3", "an SB3 agent") from error
    cls = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
    # Schedules and spaces of old files may not unpickle; acting does not need the former, and the world knows the
    # latter.
    objects = {
        "learning_rate": 0.0,
        "lr_schedule": lambda _: 0.0,
        "clip_range": lambda _: 0.0,
        "observation_space": Box(-np.inf, np.inf, spec.obs_shapes["state"]),
        "action_space": Box(np.array(spec.action_low, np.float32), np.array(spec.action_high, np.float32)),
    }
    try:
        agent = cls.load(path, device="cpu", custom_objects=objects)
    except Exception as error:  # unpickling can raise anything
        raise CheckpointError(f"{path} cannot be loaded as {algorithm}: {error}") from error
    return SB3Policy(ForeignConfig(kind="sb3", algorithm=algorithm, path=path), spec, agent)
