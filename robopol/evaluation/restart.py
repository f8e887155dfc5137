"""How far a world is from itself when a state that it saved is restored: what a replay cannot be blamed for."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robopol.data import Episodes
from robopol.envs import VectorEnv
from robopol.evaluation.replay import Units, spaced

_PROBED = 20  # steps from which a world is restored to see whether it can be
_RELOADED = 4  # those of a world that must load a model each time
_FREE = 1.0  # standard deviations beyond which a column is taken to hold what the state does not decide
_DECIDED = 0.1  # standard deviations within which an observation follows from the recorded state
_ROWS = 9  # of the first episode, at which its observations are held against its states


@dataclass(frozen=True)
class Restart:
    """How far a world is from itself, in the units of `robopol.evaluation.replay.Drift`.

    Attributes:
        there: Greatest deviation of the observation at a restored state (a world may observe forces that the simulator
            left from before).
        later: (D,) float64, that of each column of the observation a step later.
        reward: That of the reward of this step.
        names: Names of the columns.
        undecided: (D,) bool, columns that in most rows are not what is observed at the state that the file holds: who
            observes a saved state sees no control, and other accelerations and forces than who lived through it. Only
            where the file's states are positions and velocities alone and the world observes more than those.
    """

    there: float
    later: Tensor
    reward: float
    names: tuple[str, ...]
    undecided: Tensor

    @property
    def free(self) -> list[str]:
        """Columns that the state does not decide: accelerations and forces, mostly."""
        return [name for name, free in zip(self.names, self._free.tolist(), strict=True) if free]

    @property
    def _free(self) -> Tensor:
        return self.undecided | (self.later > _FREE)

    @property
    def greatest(self) -> float:
        """Greatest deviation a step later, reward included, of what the state decides."""
        return max([self.reward, *self.later[~self._free].tolist()])

    def beyond(self, tolerance: float) -> Tensor:
        """Return what `robopol.evaluation.replay.replay` takes as ``own``, so that a tolerance holds where it can.

        A column may be as far off as the tolerance says or as the world itself is, whichever is more.
        """
        own = torch.cat([self.later, torch.tensor([self.reward], dtype=torch.float64)])
        allowed = (own - tolerance).clamp(min=0)
        allowed[:-1][self._free] = torch.inf
        return allowed


def restart_deviations(episodes: Episodes, env: VectorEnv) -> Restart:
    """Measure a world on itself.

    Args:
        episodes: The dataset; its first actions are taken.
        env: The world; it can restore states.
    """
    units, seed = Units(episodes, env), int(episodes.seed[0])
    seen = env.reset([0], [max(0, seed)])
    # what an unknown seed decides is not restored, unless it is in the model
    model = env.model if seed < 0 and env.loads_models else None
    if model is not None and (state := env.save_state(0)) is not None:
        env.load_model(0, model)
        seen = env.restore_state(0, state)
    trail = []
    for action in episodes.action[: min(_PROBED, int(episodes.lengths[0]))]:
        state, result = env.save_state(0), env.step([0], action[None])
        if state is not None:
            trail.append((state, seen, action, result))
        seen = result.obs
        if bool(result.terminated | result.truncated):
            break
    there = reward = 0.0
    later = torch.zeros(len(units.names), dtype=torch.float64)
    for probe in spaced(len(trail), None if model is None else _RELOADED):
        state, before, action, after = trail[probe]
        env.reset([0], [seed if seed >= 0 else 1])
        if model is not None:
            env.load_model(0, model)
        there = max(there, float(units.deviation(env.restore_state(0, state), before).max()))
        again = env.step([0], action[None])
        later = torch.maximum(later, units.deviation(again.obs, after.obs))
        reward = max(reward, abs(float(again.reward) - float(after.reward)) / units.reward)
    undecided = _undecided(episodes, env, units) if there else torch.zeros(len(units.names), dtype=torch.bool)
    return Restart(there, later, reward, tuple(units.names), undecided)


def _undecided(episodes: Episodes, env: VectorEnv, units: Units) -> Tensor:
    """Hold the observations of the first episode against its states."""
    whole, states, model = env.save_state(0), episodes.states, episodes.model
    off = torch.zeros(len(units.names), dtype=torch.float64)
    if whole is None or states is None or whole.shape == states[0].shape:
        return off > 0
    env.reset([0], [max(0, int(episodes.seed[0]))])
    if model is not None and int(model[0]) >= 0 and env.loads_models:
        env.load_model(0, episodes.meta.models[int(model[0])])
    rows = spaced(int(episodes.lengths[0]), _ROWS)
    for row in rows:
        recorded = {key: episodes.obs[key][[row]] for key in units.keys}
        off += units.deviation(env.restore_state(0, states[row]), recorded) > _DECIDED
        result = env.step([0], episodes.action[[row]])  # or the next row would be observed as calmly as the record
        if bool(result.terminated | result.truncated):
            break
    return off > len(rows) / 2
