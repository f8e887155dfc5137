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


@dataclass(frozen=True)
class Restart:
    """How far a world is from itself, in the units of `robopol.evaluation.replay.Drift`.

    Attributes:
        there: Greatest deviation of the observation at a restored state (a world may observe forces that the simulator
            left from before).
        later: (D,) float64, that of each column of the observation a step later.
        reward: That of the reward of this step.
        names: Names of the columns.
    """

    there: float
    later: Tensor
    reward: float
    names: tuple[str, ...]

    @property
    def free(self) -> list[str]:
        """Columns that the state does not decide: accelerations and forces, mostly."""
        return [name for name, off in zip(self.names, self.later.tolist(), strict=True) if off > _FREE]

    @property
    def greatest(self) -> float:
        """Greatest deviation a step later, reward included, of what the state decides."""
        return max([self.reward, *(off for off in self.later.tolist() if off <= _FREE)])

    def beyond(self, tolerance: float) -> Tensor:
        """Return what `robopol.evaluation.replay.replay` takes as ``own``, so that a tolerance holds where it can.

        A column may be as far off as the tolerance says or as the world itself is, whichever is more.
        """
        own = torch.cat([self.later, torch.tensor([self.reward], dtype=torch.float64)])
        allowed = (own - tolerance).clamp(min=0)
        allowed[:-1][self.later > _FREE] = torch.inf
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
    return Restart(there, later, reward, tuple(units.names))
