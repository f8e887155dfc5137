"""Labels of demonstrations: which actions were better than usual, by a critic (CFGRL; Frans et al. 2025)."""

from dataclasses import replace

import torch
from torch import Tensor

from robopol.data import Episodes, Windows
from robopol.errors import DataError
from robopol.models.value import ValueModel

BATCH = 4096


@torch.no_grad()
def advantages(critic: ValueModel, episodes: Episodes) -> Tensor:
    """Return A = min_e Q_e(s, a) - V(s) of every step, (N,) float32.

    Args:
        critic: Of the actions from each step on; beyond the end of an episode the last one is repeated.
        episodes: With the observations and the actions that the critic was trained for.

    Raises:
        DataError: If they are others.
    """
    spec = critic.spec
    shapes = {key: tuple(column.shape[1:]) for key, column in episodes.obs.items() if key in spec.obs_shapes}
    wanted = {key: tuple(shape) for key, shape in spec.obs_shapes.items()}
    if shapes != wanted or episodes.action.shape[1] != spec.action_dim:
        raise DataError(
            f"the episodes have observations {shapes} and {episodes.action.shape[1]} action entries, the critic was "
            f"trained for {wanted} and {spec.action_dim}"
        )
    windows = Windows(episodes, spec.n_obs_steps, spec.horizon, keys=spec.obs_shapes)
    found = []
    for indices in torch.arange(len(windows)).split(BATCH):  # every step is "now" once, in order
        batch = windows.gather(indices)
        obs = {key: column.to(critic.device) for key, column in batch["obs"].items()}
        found.append((critic.q(obs, critic.actions(batch).to(critic.device)).amin(0) - critic.v(obs)).cpu())
    return torch.cat(found)


def label(episodes: Episodes, good: Tensor, key: str) -> Episodes:
    """Return episodes with one more observation, 1 where the step's action was good and 0 where it was not.

    Args:
        episodes: Any.
        good: (N,) bool.
        key: What the observation is called.

    Raises:
        DataError: If there is one of that name.
    """
    if key in episodes.obs:
        raise DataError(f"the episodes have an observation '{key}' already: choose another key=")
    final = torch.zeros(len(episodes), 1)
    return replace(
        episodes,
        obs=episodes.obs | {key: good.float()[:, None]},
        final_obs=episodes.final_obs | {key: final},
    )
