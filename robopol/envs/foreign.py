"""Environments that are not robopol's: any gymnasium id with a flat box of observations and a box of actions."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robopol.envs.spec import EnvSpec
from robopol.errors import EnvError
from robopol.registry import nearest


def make_foreign(id: str, num_envs: int, options: dict[str, Any]) -> tuple[list[gymnasium.Env], EnvSpec]:
    """Make environments that are not robopol's."""
    try:
        envs = [FlatObservation(gymnasium.make(id, **options)) for _ in range(num_envs)]
    except gymnasium.error.UnregisteredEnv as error:
        close = nearest(id, gymnasium.registry)
        raise EnvError(f"there is no environment '{id}'{close}; `robopol list envs` names robopol's own") from error
    except (gymnasium.error.Error, TypeError) as error:
        raise EnvError(f"gymnasium cannot make '{id}' with {options or 'no options'}: {error}") from error
    return list(envs), foreign_spec(id, envs[0], options)


class FlatObservation(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Turns the flat box of an environment that is not robopol's into {"state": float32}."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Check that the environment fits.

        Raises:
            EnvError: If its observations are not a flat box or its actions not a box.
        """
        super().__init__(env)
        name = env.spec.id if env.spec else type(env.unwrapped).__name__
        for what, space in (("observations", env.observation_space), ("actions", env.action_space)):
            if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
                raise EnvError(f"'{name}' has {what} {space}; a flat box (gymnasium.spaces.Box of one axis) is needed")
        box = gymnasium.spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
        self.observation_space = gymnasium.spaces.Dict({"state": box})

    def observation(self, observation: Any) -> dict[str, NDArray[np.float32]]:
        """Name the vector."""
        return {"state": np.asarray(observation, dtype=np.float32)}


def foreign_spec(id: str, env: FlatObservation, options: dict[str, Any]) -> EnvSpec:
    """Describe an environment that is not robopol's."""
    box: Any = env.action_space
    state: Any = env.observation_space
    steps = env.spec.max_episode_steps if env.spec else None
    period = getattr(env.unwrapped, "dt", None)
    return EnvSpec(
        id=id,
        obs_shapes={"state": state["state"].shape},
        obs_dtypes={"state": "float32"},
        action_low=box.low.astype(float).tolist(),
        action_high=box.high.astype(float).tolist(),
        action_names=tuple(f"action {i}" for i in range(box.shape[0])),
        action_space="box",
        control_hz=1.0 / period if period else 0.0,
        max_episode_steps=steps or 0,
        options=options,
    )
