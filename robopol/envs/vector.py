"""Many equal environments behind one call, with tensors in and out."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.spec import EnvSpec
from robopol.errors import EnvError

Observation = dict[str, Tensor]


class StepResult(NamedTuple):
    """What one step of some slots gave; every tensor has one row per slot, in the order given."""

    obs: Observation
    """The true observations after the step, final ones included."""
    reward: Tensor
    """(n,) float32."""
    terminated: Tensor
    """(n,) bool."""
    truncated: Tensor
    """(n,) bool."""
    success: Tensor
    """(n,) bool: the episode has succeeded so far."""
    way: Tensor
    """(n,) int64: index into ``spec.way_names``, -1 while undecided or if there is none."""


class VectorEnv:
    """A batch of environments whose slots are reset and stepped by the caller; nothing resets itself.

    The outcome of an episode depends on its seed and its actions alone, not on its slot or on the other
    slots.

    Attributes:
        envs: The single environments, one per slot.
        spec: What each of them looks like.
        num_envs: How many slots there are.
        device: Where the tensors live.
    """

    def __init__(self, envs: Sequence[gymnasium.Env[Any, Any]], spec: EnvSpec) -> None:
        """Wrap environments.

        Args:
            envs: Equal environments with dict observations.
            spec: Their contract.
        """
        self.envs = list(envs)
        self.spec = spec
        self.num_envs = len(self.envs)
        self.device = torch.device("cpu")
        self._running = np.zeros(self.num_envs, dtype=bool)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Start an episode in each of some slots.

        Args:
            slots: Distinct slots.
            seeds: One seed of at least 0 per slot.

        Returns:
            Their first observations, key -> (len(slots), ...).

        Raises:
            EnvError: If the slots or seeds are not as said.
        """
        slots = self._checked(slots)
        if len(seeds) != len(slots):
            raise EnvError(
                f"{self.spec.id}: reset of {len(slots)} slots with {len(seeds)} seeds; one per slot is needed"
            )
        observations = []
        for slot, seed in zip(slots, seeds, strict=True):
            if seed < 0:
                raise EnvError(f"{self.spec.id}: a seed must be at least 0, got {seed}")
            observations.append(self.envs[slot].reset(seed=int(seed))[0])
            self._running[slot] = True
        return self._stack(observations)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """Execute one action in each of some slots.

        Args:
            slots: Distinct slots whose episodes are running.
            actions: (len(slots), A) in environment units; clipped to the box ``spec.action_low`` to
                ``spec.action_high``.

        Returns:
            What came of it, one row per slot.

        Raises:
            EnvError: If a slot was not reset or its episode is over, or the actions have a wrong shape or a
                number that is not finite.
        """
        slots = self._checked(slots)
        array = actions.detach().cpu().numpy()
        if array.shape != (len(slots), len(self.spec.action_low)):
            raise EnvError(
                f"{self.spec.id}: the actions have shape {array.shape}, needed ({len(slots)}, "
                f"{len(self.spec.action_low)}): one row per slot of {', '.join(self.spec.action_names)}"
            )
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise EnvError(f"{self.spec.id}: the action of slot {slots[row]} is not finite: {array[row].tolist()}")
        stopped = [slot for slot in slots if not self._running[slot]]
        if stopped:
            raise EnvError(
                f"{self.spec.id}: slots {stopped} were never reset or their episodes are over; reset them first"
            )
        array = np.clip(array, self.spec.action_low, self.spec.action_high).astype(np.float32)
        observations, rewards, flags, ways = [], [], [], []
        for slot, action in zip(slots, array, strict=True):
            observation, reward, terminated, truncated, info = self.envs[slot].step(action)
            observations.append(observation)
            rewards.append(float(reward))
            success = bool(info.get("success", info.get("is_success", False)))
            flags.append((bool(terminated), bool(truncated), success))
            ways.append(int(info.get("way", -1)))
            self._running[slot] = not (terminated or truncated)
        terminated_, truncated_, success_ = torch.tensor(flags, dtype=torch.bool).reshape(-1, 3).unbind(1)
        return StepResult(
            self._stack(observations),
            torch.tensor(rewards, dtype=torch.float32),
            terminated_,
            truncated_,
            success_,
            torch.tensor(ways, dtype=torch.int64),
        )

    def render(self, slot: int) -> NDArray[np.uint8]:
        """Return a picture of one slot, (H, W, 3) uint8.

        Raises:
            EnvError: If it cannot be rendered here; the message says why.
        """
        picture = self.envs[self._checked([slot])[0]].render()
        if not isinstance(picture, np.ndarray):
            raise EnvError(f"{self.spec.id} gave no picture; pass render_mode='rgb_array' to make_env")
        return picture

    def close(self) -> None:
        """Free what the environments hold."""
        for env in self.envs:
            env.close()
        self._running[:] = False

    def __enter__(self) -> "VectorEnv":
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _checked(self, slots: Sequence[int]) -> list[int]:
        listed = [int(slot) for slot in slots]
        if len(set(listed)) < len(listed) or not all(0 <= slot < self.num_envs for slot in listed):
            raise EnvError(f"{self.spec.id}: slots must be distinct and within 0..{self.num_envs - 1}, got {listed}")
        return listed

    def _stack(self, observations: list[dict[str, NDArray[Any]]]) -> Observation:
        return {
            key: torch.from_numpy(np.stack([observation[key] for observation in observations]))
            if observations
            else torch.empty((0, *shape), dtype=getattr(torch, self.spec.obs_dtypes[key]))
            for key, shape in self.spec.obs_shapes.items()
        }


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
