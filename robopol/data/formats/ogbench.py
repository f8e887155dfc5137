"""OGBench npz: trajectories with one row more than steps (format: ogbench 1.2, ``ogbench/utils.py``).

Layout of the raw file: ``observations`` (R, d), or uint8 (R, H, W, C) of visual tasks; ``actions`` (R, A);
``terminals`` (R,), 1 in the last row of each trajectory and nothing else: that row holds the observation after
the last step, and its action is unused. Some have ``qpos``, ``qvel``, ``button_states``, and ``rewards`` and
``masks`` of one task. The views that OGBench's loader makes of it (``next_observations``, ``valids``) are not
files.
"""

from pathlib import Path

import numpy as np

from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.formats.foreign import Outcomes, check_rows, episodes_of, flags, one_error
from robopol.data.formats.losses import Losses
from robopol.data.formats.npz import Npz
from robopol.data.image_columns import image_column
from robopol.errors import DataError

_BEYOND = 1.01  # actions may leave [-1, 1] by what casts of their type do, not by more


def read(path: Path, *, env: str | None = None) -> Episodes:
    """Read an OGBench file.

    Every episode is truncated in its last row, and its final observation is known. Where the file has ``masks``,
    rows with mask 0 are terminated (they are not bootstrapped from, wherever they lie), and an episode with such
    a row is a success; without ``masks`` nothing is terminated and no success is known. Without ``rewards`` the
    reward is 0: the file is for goals that are drawn later. Actions are clipped to [-1, 1]. ``states`` is
    qpos, qvel and button_states, as far as there are any. One `DataWarning` names what has no place in `Episodes`,
    and what rounding to float32 changes.

    Args:
        path: The raw file, e.g. ``antmaze-large-navigate-v0.npz``.
        env: Id of the environment, which the file does not say.

    Returns:
        The episodes, with the observation ``"state"``, or ``"images.pixels"`` of visual tasks.

    Raises:
        DataError: If the file is damaged, incomplete, or no raw file.
    """
    losses = Losses()
    with one_error(path), Npz(path) as file:
        for name in ("next_observations", "valids"):
            if name in file:
                raise DataError(f"it has '{name}', so it is a view that OGBench's loader made; read the raw file")
        action = file.array("actions")
        found = [name for name in ("rewards", "masks", "qpos", "qvel", "button_states") if name in file]
        more = {name: file.array(name) for name in found}
        losses.leave_others(file.names, (*found, "observations", "actions", "terminals"))
        last = flags("terminals", file.array("terminals"))
        check_rows({"terminals": last} | more, len(action))
        _check_actions(action, losses)
        if not last.any() or not last[-1]:
            raise DataError("the last row must have terminal 1; the file was cut off, or is no raw OGBench file")
        kept, bounds = ~last, np.flatnonzero(last)
        lengths = np.diff(bounds, prepend=-1) - 1
        if lengths.min() < 1:
            raise DataError(f"trajectory {lengths.argmin()} has no step; a raw file has T + 1 rows for T steps")

        key, obs, final = _observations(file, kept)
        over = flags("masks", 1 - more["masks"])[kept] if "masks" in more else np.zeros(kept.sum(), bool)
        truncated = np.zeros_like(over)
        truncated[np.cumsum(lengths) - 1] = True
        infos = [more[name][kept] for name in ("qpos", "qvel", "button_states") if name in more]
        if infos:
            losses.leave("simulator states after the last steps")
        episodes = episodes_of(
            lengths,
            Outcomes(over, truncated, np.logical_or.reduceat(over, np.cumsum(lengths) - lengths)),
            EpisodesMeta(env_id=env or ""),
            obs={key: obs},
            final_obs={key: final},
            action=np.clip(action[kept], -1, 1),
            reward=more["rewards"][kept].reshape(-1) if "rewards" in more else np.zeros(len(over)),
            losses=losses,
            states=np.concatenate([info.reshape(len(info), -1) for info in infos], axis=1) if infos else None,
        )
    losses.warn(path)
    return episodes


def _observations(file: Npz, kept: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the key, the observations of the steps (N, ...) and those after the last steps (E, ...)."""
    shape = file.shape("observations")
    if len(shape) not in (2, 4) or shape[0] != len(kept):
        raise DataError(f"observations have shape {shape}; they must be ({len(kept)}, d) or ({len(kept)}, H, W, C)")
    if len(shape) == 2:
        obs = file.array("observations")
        return "state", obs[kept], obs[~kept]
    images = image_column((kept.sum(), *shape[1:])).numpy()
    final = image_column(((~kept).sum(), *shape[1:])).numpy()
    done = 0
    for rows, block in file.blocks("observations", np.uint8):
        here = kept[rows]
        images[done : done + here.sum()] = block[here]
        final[rows.start - done : rows.stop - done - here.sum()] = block[~here]
        done += here.sum()
    return "images.pixels", images, final


def _check_actions(action: np.ndarray, losses: Losses) -> None:
    if action.dtype.kind != "f" or action.ndim != 2:
        raise DataError(f"actions are {action.dtype} {action.shape}; only continuous actions (R, A) are read")
    if not np.isfinite(action).all() or np.abs(action).max(initial=0) > _BEYOND:
        raise DataError("actions must be finite and lie in [-1, 1], as OGBench's do")
    if np.abs(action).max(initial=0) > 1:
        losses.leave("actions beyond [-1, 1], which are clipped")
