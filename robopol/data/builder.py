"""Recording one episode step by step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.errors import DataError

Array: TypeAlias = Tensor | np.ndarray


@dataclass(frozen=True)
class _End:
    """What is known once an episode is over."""

    final_obs: dict[str, Tensor] | None
    success: bool
    way: int
    seed: int
    model: int | None
    task: int | None


class EpisodeBuilder:
    """Collects the steps of one episode and returns it whole; a rollout has one per running episode.

    Many are put together by `Episodes.concat`. Arrays are copied when added, so that environments may reuse
    their buffers.
    """

    def __init__(self) -> None:
        """Begin an episode."""
        self._obs: list[dict[str, Tensor]] = []
        self._actions: list[Tensor] = []
        self._scalars: list[tuple[float, bool, bool, int, bool]] = []
        self._states: list[Tensor] = []
        self._end: _End | None = None

    def __len__(self) -> int:
        """Return the number of steps so far."""
        return len(self._actions)

    def add(
        self,
        obs: Mapping[str, Array],
        action: Array,
        reward: float,
        terminated: bool,
        truncated: bool,
        *,
        source: int = 0,
        intervention: bool = False,
        state: Array | None = None,
    ) -> None:
        """Add one step.

        Args:
            obs: Key -> (...), the observation before the step, without a batch axis.
            action: (A,), what was executed, environment units.
            reward: What the step returned.
            terminated: The task ended because of the state that the step led to.
            truncated: The episode was cut after the step.
            source: Who chose the action; index into ``meta.source_names``.
            intervention: A human overruled the policy.
            state: (D,), full simulator state before the step; in every step or in none.
        """
        self._obs.append({key: _copy(value) for key, value in obs.items()})
        self._actions.append(_copy(action))
        self._scalars.append((float(reward), bool(terminated), bool(truncated), source, bool(intervention)))
        if state is not None:
            self._states.append(_copy(state))

    def finish(
        self,
        final_obs: Mapping[str, Array] | None,
        success: bool,
        way: int = -1,
        seed: int = -1,
        model: int | None = None,
        task: int | None = None,
    ) -> None:
        """End the episode.

        Args:
            final_obs: Key -> (...), the observation after the last step; None if nobody saw it.
            success: The task was solved.
            way: Which way was taken; index into ``meta.way_names``, -1 for none.
            seed: Of the reset; -1 if unknown.
            model: Which of ``meta.models`` the simulator ran, if models are recorded.
            task: Which of ``meta.tasks`` was to be done, if tasks are recorded.
        """
        last = None if final_obs is None else {key: _copy(value) for key, value in final_obs.items()}
        self._end = _End(last, bool(success), int(way), int(seed), model, task)

    def build(self, meta: EpisodesMeta) -> Episodes:
        """Return the finished episode.

        Args:
            meta: What is true of the dataset that the episode belongs to.

        Returns:
            `Episodes` that hold this one episode.

        Raises:
            ShapeError: If a column has the wrong shape.
            DataError: If the episode is not finished, has no steps, or its steps do not fit together.
        """
        end = self._end
        if end is None or not self._actions:
            raise DataError(
                f"an episode needs steps and an end before it is built; it has {len(self)} steps"
                + ("" if end else " and finish() was not called")
            )
        keys = self._obs[0].keys()
        final_obs = end.final_obs or {key: torch.zeros_like(value) for key, value in self._obs[0].items()}
        for step in [*self._obs, final_obs]:
            if step.keys() != keys:
                raise DataError(f"the observation keys changed from {sorted(keys)} to {sorted(step)}")
        if len(self._states) not in (0, len(self)):
            raise DataError(f"{len(self._states)} of {len(self)} steps have a simulator state; all must or none")
        reward, terminated, truncated, source, intervention = zip(*self._scalars, strict=True)
        return Episodes(
            obs={key: _stack(f"obs.{key}", [step[key] for step in self._obs]) for key in keys},
            action=_stack("action", self._actions),
            reward=torch.tensor(reward, dtype=torch.float32),
            terminated=torch.tensor(terminated),
            truncated=torch.tensor(truncated),
            source=torch.tensor(source),
            intervention=torch.tensor(intervention),
            starts=torch.tensor([0]),
            lengths=torch.tensor([len(self)]),
            final_obs={key: final_obs[key][None].contiguous() for key in keys},
            has_final=torch.tensor([end.final_obs is not None]),
            success=torch.tensor([end.success]),
            way=torch.tensor([end.way]),
            seed=torch.tensor([end.seed]),
            meta=meta,
            states=_stack("states", self._states) if self._states else None,
            model=None if end.model is None else torch.tensor([end.model]),
            task=None if end.task is None else torch.tensor([end.task]),
        )


def _copy(value: Array) -> Tensor:
    return torch.as_tensor(value).detach().to("cpu", copy=True)


def _stack(name: str, steps: list[Tensor]) -> Tensor:
    shapes = {tuple(step.shape) for step in steps}
    if len(shapes) > 1:
        raise DataError(f"column {name} changed shape within the episode: {sorted(shapes)}")
    return torch.stack(steps)
