"""A batch whose slots are dealt out to workers in turn; its results are those of a batch in one process."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.errors import ConfigError, EnvError, RobopolError


class DealtVectorEnv(VectorEnv):
    """Slot s is slot s // W of worker s % W.

    There is no looking inside: `envs` is empty, so that experts, which read the world, cannot act. A subclass starts
    the workers, sets `num_envs`, `spec`, `model_text` and `count`, and carries requests to them.

    Attributes:
        count: W, how many workers there are.
        model_text: See `VectorEnv.model`.
    """

    device = torch.device("cpu")
    count: int
    model_text: str | None

    @abstractmethod
    def ask(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Send a request to some workers, and wait for all answers.

        Args:
            requests: Worker -> verb, slots of that worker, and more; see `serve`.

        Raises:
            RobopolError: The first that a worker answered with, once all have answered.
        """

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        slots = self.check_slots(slots)
        seeds = self.check_seeds(slots, seeds)
        rows = self._deal(slots)
        parts = self._asked(
            {w: ("reset", [slots[r] for r in mine], [seeds[r] for r in mine]) for w, mine in rows.items()}
        )
        return self._merge(rows, parts, len(slots))

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        slots = self.check_slots(slots)
        array = self.check_actions(slots, actions)
        rows = self._deal(slots)
        parts = self._asked({w: ("step", [slots[r] for r in mine], array[mine]) for w, mine in rows.items()})
        obs = self._merge(rows, {worker: part[0] for worker, part in parts.items()}, len(slots))
        dtypes = (torch.float32, torch.bool, torch.bool, torch.bool, torch.int64)
        columns = [torch.zeros(len(slots), dtype=dtype) for dtype in dtypes]
        for worker, mine in rows.items():
            for column, part in zip(columns, parts[worker][1:], strict=True):
                column[mine] = torch.tensor(part)
        return StepResult(obs, *columns)

    def render(self, slot: int) -> NDArray[np.uint8]:
        """See `VectorEnv.render`."""
        picture: NDArray[np.uint8] = self._one("render", slot)
        return picture

    @property
    def model(self) -> str | None:
        """See `VectorEnv.model`."""
        return self.model_text

    def save_state(self, slot: int) -> Tensor | None:
        """See `VectorEnv.save_state`."""
        state = self._one("save_state", slot)
        return None if state is None else torch.tensor(state)

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        observation = self._one("restore_state", slot, state.numpy())
        return {key: torch.tensor(value) for key, value in observation.items()}

    def _deal(self, slots: list[int]) -> dict[int, list[int]]:
        """Return worker -> rows of the slots that it holds."""
        rows: dict[int, list[int]] = {}
        for row, slot in enumerate(slots):
            rows.setdefault(slot % self.count, []).append(row)
        return rows

    def _one(self, verb: str, slot: int, *more: Any) -> Any:
        (slot,) = self.check_slots([slot])
        worker = slot % self.count
        return self._asked({worker: (verb, [slot], *more)})[worker]

    def _asked(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Ask workers about slots by their own numbers."""
        return self.ask(
            {w: (verb, [slot // self.count for slot in slots], *more) for w, (verb, slots, *more) in requests.items()}
        )

    def _merge(self, rows: dict[int, list[int]], parts: dict[int, dict[str, Any]], count: int) -> Observation:
        merged = {
            key: torch.zeros(count, *shape, dtype=getattr(torch, self.spec.obs_dtypes[key]))
            for key, shape in self.spec.obs_shapes.items()
        }
        for worker, mine in rows.items():
            for key, value in parts[worker].items():
                merged[key][mine] = torch.tensor(value)
        return merged


def portable(error: RobopolError) -> RobopolError:
    """Return an error that can be sent: some are not made from their text alone."""
    return error if type(error) in (ConfigError, EnvError) else EnvError(str(error))


def serve(env: VectorEnv, verb: str, slots: list[int], more: list[Any]) -> Any:
    """Answer one request in numpy arrays, which travel without shared memory."""
    if verb == "reset":
        return {key: value.numpy() for key, value in env.reset(slots, more[0]).items()}
    if verb == "step":
        result = env.step(slots, torch.from_numpy(more[0]))
        return {key: value.numpy() for key, value in result.obs.items()}, *(part.numpy() for part in result[1:])
    if verb == "render":
        return env.render(slots[0])
    if verb == "save_state":
        state = env.save_state(slots[0])
        return None if state is None else state.numpy()
    return {key: value.numpy() for key, value in env.restore_state(slots[0], torch.from_numpy(more[0])).items()}
