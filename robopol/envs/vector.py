"""The contract of a batch of equal environments: tensors in and out, slots reset and stepped by the caller."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

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

    def cpu(self) -> "StepResult":
        """Return the same on the CPU."""
        return StepResult({key: rows.cpu() for key, rows in self.obs.items()}, *(column.cpu() for column in self[1:]))


class VectorEnv(ABC):
    """A batch of environments whose slots are reset and stepped by the caller; nothing resets itself.

    The outcome of an episode depends on its seed and its actions alone, not on its slot or on the other
    slots.

    Attributes:
        spec: What each of them looks like.
        num_envs: How many slots there are.
        device: Where the tensors live.
        envs: The single worlds behind the slots, for those who read their inside (experts, recorders); empty
            where a batch is simulated as one.
    """

    spec: EnvSpec
    num_envs: int
    device: torch.device
    envs: Sequence[Any] = ()

    @abstractmethod
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

    @abstractmethod
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

    @abstractmethod
    def render(self, slot: int) -> NDArray[np.uint8]:
        """Return a picture of one slot, (H, W, 3) uint8.

        Raises:
            EnvError: If it cannot be rendered here; the message says why.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the environments hold."""

    @property
    def model(self) -> str | None:
        """The simulator's model as text (MJCF), or None if the world has none to show."""
        return None

    def save_state(self, slot: int) -> Tensor | None:
        """Return all that decides how the episode in a slot goes on, (D,) float64; None if it cannot be told."""
        return None

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """Continue the episode in a slot from a saved state.

        Args:
            slot: A slot that was reset.
            state: (D,) float64, what `save_state` of an environment of the same id and options returned.

        Returns:
            The observation there, key -> (1, ...).

        Raises:
            EnvError: If the state does not fit, or this world cannot restore one.
        """
        raise EnvError(f"{self.spec.id} cannot continue from a saved state")

    @property
    def loads_models(self) -> bool:
        """Whether `load_model` is possible."""
        return False

    def load_model(self, slot: int, model: str) -> None:
        """Let the episode in a slot go on in a model that was recorded; a state is restored after that.

        Args:
            slot: A slot that was reset.
            model: What `model` was then, MJCF; it is not trusted.

        Raises:
            EnvError: If this world cannot load one, the model may do more than it should, or it does not fit.
        """
        raise EnvError(f"{self.spec.id} does not load recorded models")

    def __enter__(self) -> "VectorEnv":
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def check_slots(self, slots: Sequence[int]) -> list[int]:
        """Return the slots as a list.

        Raises:
            EnvError: If they are not distinct or one does not exist.
        """
        if isinstance(slots, list) and slots == self._everyone:  # by far the most frequent
            return self._everyone
        listed = list(map(int, slots))
        if len(set(listed)) < len(listed) or (listed and not 0 <= min(listed) <= max(listed) < self.num_envs):
            raise EnvError(f"{self.spec.id}: slots must be distinct and within 0..{self.num_envs - 1}, got {listed}")
        return listed

    @functools.cached_property
    def _everyone(self) -> list[int]:
        return list(range(self.num_envs))

    def check_seeds(self, slots: Sequence[int], seeds: Sequence[int]) -> list[int]:
        """Return the seeds as a list.

        Raises:
            EnvError: If there is not one per slot, or one is negative.
        """
        if len(seeds) != len(slots):
            raise EnvError(
                f"{self.spec.id}: reset of {len(slots)} slots with {len(seeds)} seeds; one per slot is needed"
            )
        listed = [int(seed) for seed in seeds]
        if listed and min(listed) < 0:
            raise EnvError(f"{self.spec.id}: a seed must be at least 0, got {min(listed)}")
        return listed

    def check_actions(self, slots: Sequence[int], actions: Tensor) -> NDArray[np.float32]:
        """Return the actions, (len(slots), A) float32, clipped to the action box.

        Raises:
            EnvError: If they have a wrong shape or a number that is not finite.
        """
        self.check_shape(slots, actions)
        array = actions.numpy(force=True)
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise EnvError(f"{self.spec.id}: the action of slot {slots[row]} is not finite: {array[row].tolist()}")
        low, high = self._box
        return np.minimum(np.maximum(array.astype(np.float32, copy=False), low), high)

    @functools.cached_property
    def _box(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The action box as arrays; made of the spec's lists, they would take longer than the clipping."""
        return np.array(self.spec.action_low, np.float32), np.array(self.spec.action_high, np.float32)

    def check_shape(self, slots: Sequence[int], actions: Tensor) -> None:
        """Check that there is one action per slot.

        Raises:
            EnvError: If not.
        """
        if actions.shape != (len(slots), len(self.spec.action_low)):
            raise EnvError(
                f"{self.spec.id}: the actions have shape {tuple(actions.shape)}, needed ({len(slots)}, "
                f"{len(self.spec.action_low)}): one row per slot of {', '.join(self.spec.action_names)}"
            )

    def check_running(self, slots: Sequence[int], running: Sequence[bool] | NDArray[np.bool_]) -> None:
        """Check that every slot has a running episode.

        Raises:
            EnvError: If one was never reset, or its episode is over.
        """
        stopped = [slot for slot in slots if not running[slot]]
        if stopped:
            raise EnvError(
                f"{self.spec.id}: slots {stopped} were never reset or their episodes are over; reset them first"
            )
