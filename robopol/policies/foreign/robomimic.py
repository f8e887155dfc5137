"""Checkpoints of robomimic (Mandlekar et al. 2021), as policies; robomimic itself loads and runs them."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robopol.data.episodes import is_image
from robopol.envs.spec import EnvSpec
from robopol.errors import CheckpointError, ConfigError, MissingExtraError
from robopol.policies.foreign.policy import ForeignConfig, ForeignPolicy
from robopol.policies.part import PolicySpec
from robopol.policies.plan_only import contract

ALGORITHMS = ("bc", "bcq", "cql", "iql", "td3_bc")
"""Those whose action is a function of the last observations; the others plan subgoals and remember them."""


class RobomimicPolicy(ForeignPolicy):
    """Acts as robomimic does in its rollouts; its distributions are drawn from, if it has some."""

    def __init__(self, config: ForeignConfig, spec: PolicySpec, rollout: Any, frame_stack: int) -> None:
        """See `load_robomimic`.

        Args:
            config: Which file.
            spec: The contract with the world.
            rollout: robomimic's ``RolloutPolicy``.
            frame_stack: Observations that it takes at once; it wants no axis for one.
        """
        super().__init__(config, spec)
        self.rollout, self._now = rollout, frame_stack == 1
        rollout.start_episode()

    def _action(self, obs: Mapping[str, NDArray[Any]], n: int) -> NDArray[np.float32]:
        given = {}
        for key, value in obs.items():
            if is_image(key):  # height, width, channels as bytes -> channels first, in [0, 1]
                value = np.moveaxis(value, -1, -3).astype(np.float32) / 255
            given[_name_in_file(key)] = value[0] if self._now else value
        action: NDArray[np.float32] = self.rollout(given)
        return action


def load_robomimic(path: str, world: EnvSpec | None) -> RobomimicPolicy:
    """Load a checkpoint by robomimic's own loader; this runs whatever code is in its file.

    Args:
        path: A ``.pth`` of robomimic.
        world: Where it will act. It shows the observations under robomimic's names, pictures as ``images.<camera>``.

    Raises:
        CheckpointError: If the file cannot be loaded.
        ConfigError: If its policy is not a function of the last observations, the world was not named, or does not fit.
        MissingExtraError: If robomimic, or something that it imports, is not installed.
    """
    said = io.StringIO()  # robomimic greets whoever imports it
    try:
        with contextlib.redirect_stdout(said):
            from robomimic.utils.file_utils import config_from_checkpoint, policy_from_checkpoint
    except ImportError as error:
        purpose = "a checkpoint of robomimic (and after that extra: pip install --no-deps robomimic==0.3.0)"
        raise MissingExtraError(error.name or "robomimic", "robomimic", purpose) from error
    try:
        # Upstream's own torch.load refuses the arrays of numpy in a file, from torch 2.6 on.
        saved = torch.load(path, map_location="cpu", weights_only=False)
        algorithm, meta = str(saved["algo_name"]), saved["shape_metadata"]
        shapes, size = dict(meta["all_shapes"]), int(meta["ac_dim"])
    except Exception as error:  # unpickling can raise anything
        raise CheckpointError(f"{path} is not a checkpoint of robomimic: {error}") from error
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"{path} was trained by {algorithm}, which remembers; there are {', '.join(ALGORITHMS)}")
    try:
        config, _ = config_from_checkpoint(ckpt_dict=saved)
    except Exception as error:
        raise CheckpointError(f"robomimic cannot read the config in {path}: {error}") from error
    _check(path, config)
    spec = contract(
        world, f"the checkpoint {path}", [_key(name, shape) for name, shape in shapes.items()], _stack(config)
    )
    faults = [
        f"'{key}' is {spec.obs_shapes[key]} here, {tuple(shape)} in the checkpoint"
        for name, shape in shapes.items()
        if _shape_in_file(spec, key := _key(name, shape)) != tuple(shape)
    ]
    if size != spec.action_dim:
        faults.append(f"it takes {spec.action_dim} action entries, the checkpoint gives {size}")
    if faults:
        raise ConfigError(f"{path} was not made for {spec.env and spec.env.id}: " + "; ".join(faults))
    try:
        with contextlib.redirect_stdout(said):
            rollout, _ = policy_from_checkpoint(ckpt_dict=saved, device=torch.device("cpu"))
    except Exception as error:
        raise CheckpointError(f"robomimic cannot load {path}: {error}") from error
    return RobomimicPolicy(
        ForeignConfig(kind="robomimic", algorithm=algorithm, path=path), spec, rollout, _stack(config)
    )


def _check(path: str, config: Any) -> None:
    """Refuse what remembers, and what is told a goal."""
    if "rnn" in config.algo and config.algo.rnn.enabled:
        raise ConfigError(
            f"{path} is a recurrent policy: it remembers a state from step to step, and a policy here is a function of "
            "its last observations. Train one without algo.rnn (an MLP, or algo.transformer)"
        )
    if any(config.observation.modalities.goal.values()):
        raise ConfigError(f"{path} is told goals, which are not supported")


def _stack(config: Any) -> int:
    """Return how many observations the policy takes at once."""
    return int(config.train.frame_stack) if "frame_stack" in config.train else 1


def _key(name: str, shape: Any) -> str:
    """Return what an observation of the file is called here."""
    return f"images.{name.removesuffix('_image')}" if name.endswith("_image") and len(shape) == 3 else name


def _name_in_file(key: str) -> str:
    return f"{key.removeprefix('images.')}_image" if is_image(key) else key


def _shape_in_file(spec: PolicySpec, key: str) -> tuple[int, ...]:
    """Return the shape of an observation as robomimic's networks take it."""
    shape = spec.obs_shapes[key]
    return (shape[2], shape[0], shape[1]) if is_image(key) else shape
