"""Records the episodes of a rollout as a dataset."""

from collections.abc import Mapping
from importlib.metadata import version

from torch import Tensor

from robopol import __version__
from robopol.data import EpisodeBuilder, Episodes, EpisodesMeta
from robopol.envs import StepResult, VectorEnv


class Recorder:
    """Builds one dataset from the steps of many slots, simulator states included where the world has them.

    Attributes:
        meta: What is true of every recorded episode.
    """

    def __init__(self, env: VectorEnv, source: str) -> None:
        """Prepare to record.

        Args:
            env: What is recorded.
            source: Who chooses the actions, e.g. ``"expert"``.
        """
        self._env, model = env, env.model
        spec = env.spec
        self.meta = EpisodesMeta(
            env_id=spec.id,
            env_options=spec.options,
            env_wrappers=spec.wrappers,
            control_hz=spec.control_hz or None,
            action_space=spec.action_space,
            action_names=spec.action_names,
            action_low=tuple(spec.action_low),
            action_high=tuple(spec.action_high),
            way_names=spec.way_names,
            source_names=(source,),
            models=() if model is None else (model,),
            versions={"robopol": __version__}
            | {name: version(name) for name in ("mujoco", "gymnasium", *spec.packages)},
        )
        self._model = None if model is None else 0
        self._building: dict[int, tuple[EpisodeBuilder, int]] = {}
        self._done: dict[int, Episodes] = {}

    def begin(self, slot: int, seed: int) -> None:
        """Begin an episode in a slot that was just reset."""
        self._building[slot] = (EpisodeBuilder(), seed)

    def states(self, slots: list[int]) -> list[Tensor | None]:
        """Return the simulator states of slots before they are stepped, (D,) float64 each, where they can be told."""
        return [self._env.save_state(slot) for slot in slots]

    def add(
        self,
        slots: list[int],
        obs: Mapping[str, Tensor],
        states: list[Tensor | None],
        actions: Tensor,
        result: StepResult,
    ) -> None:
        """Add one step of each slot; rows of everything are in the order of ``slots``."""
        for row, slot in enumerate(slots):
            self._building[slot][0].add(
                obs={key: rows[row] for key, rows in obs.items()},
                action=actions[row],
                reward=result.reward[row].item(),
                terminated=bool(result.terminated[row]),
                truncated=bool(result.truncated[row]),
                state=states[row],
            )

    def finish(self, slot: int, row: int, result: StepResult, index: int) -> None:
        """End the episode of a slot with its last step's ``result``; ``index`` is its place in the dataset."""
        builder, seed = self._building.pop(slot)
        builder.finish(
            {key: rows[row] for key, rows in result.obs.items()},
            success=bool(result.success[row]),
            way=int(result.way[row]),
            seed=seed,
            model=self._model,
        )
        self._done[index] = builder.build(self.meta)

    def whole(self) -> list[Episodes]:
        """Return each episode that has ended, in the order of the rollout's seeds."""
        return [self._done[index] for index in sorted(self._done)]

    def episodes(self) -> Episodes:
        """Return everything recorded, in the order of the rollout's seeds."""
        return Episodes.concat(self.whole())
