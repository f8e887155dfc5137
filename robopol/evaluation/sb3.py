"""Agents trained with Stable-Baselines3, as actors."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from robopol.envs import VectorEnv
from robopol.errors import CheckpointError, ConfigError, MissingExtraError


class SB3Actor:
    """Lets an agent of Stable-Baselines3 or sb3-contrib act, with its mean action."""

    ALGORITHMS = ("SAC", "TD3", "PPO", "DDPG", "A2C", "TQC", "TRPO", "CrossQ")

    def __init__(self, path: Path, algorithm: str, env: VectorEnv, *, trust: bool) -> None:
        """Load an agent.

        Args:
            path: Its ``.zip``.
            algorithm: Which of `ALGORITHMS` wrote it.
            env: The environment it acts in.
            trust: Loading such a file unpickles it, which runs whatever code it holds: only with True.

        Raises:
            CheckpointError: If the file is not trusted or cannot be loaded.
            ConfigError: If the algorithm is unknown or the agent was made for another world.
            MissingExtraError: If Stable-Baselines3 is not installed.
        """
        if not trust:
            raise CheckpointError(
                f"{path} is a Stable-Baselines3 file; loading it runs whatever code it holds. If you know who "
                "made it, say trust=true"
            )
        if algorithm not in self.ALGORITHMS:
            raise ConfigError(f"unknown algorithm '{algorithm}'; known: {', '.join(self.ALGORITHMS)}")
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is not a Stable-Baselines3 file (a .zip)")
        try:
            import sb3_contrib
            import stable_baselines3
        except ImportError as error:
            raise MissingExtraError(error.name or "stable_baselines3", "sb3", "an SB3 agent") from error
        cls = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
        # Schedules and spaces of old files may not unpickle; acting does not need the former, and the env
        # knows the latter.
        objects = {
            "learning_rate": 0.0,
            "lr_schedule": lambda _: 0.0,
            "clip_range": lambda _: 0.0,
            "observation_space": Box(-np.inf, np.inf, env.spec.obs_shapes["state"]),
            "action_space": Box(np.array(env.spec.action_low, np.float32), np.array(env.spec.action_high, np.float32)),
        }
        try:
            self.agent = cls.load(path, device="cpu", custom_objects=objects)
        except Exception as error:  # unpickling can raise anything
            raise CheckpointError(f"{path} cannot be loaded as {algorithm}: {error}") from error

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """See `Actor.reset`; the mean action needs no randomness."""

    def act(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Tensor:
        """See `Actor.act`; one row at a time, so that no row depends on another."""
        rows = [self.agent.predict(state.numpy(), deterministic=True)[0] for state in obs["state"]]
        return torch.stack([torch.as_tensor(row, dtype=torch.float32) for row in rows])
