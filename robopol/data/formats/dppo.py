"""DPPO npz: trajectories in one line, scaled to [-1, 1] (format: irom-lab/dppo, ``script/dataset``).

Layout of ``train.npz``: ``states`` (N, d), ``actions`` (N, A), ``rewards`` (N,), ``terminals`` (N,),
``traj_lengths`` (E,), sometimes ``images`` uint8 (N, 3K, H, W) or (N, H, W, 3K) of K cameras. States and actions
are stored as ``2 (x - min) / (max - min + 1e-6) - 1``; ``normalization.npz`` beside it holds ``obs_min``,
``obs_max``, ``action_min``, ``action_max``.
"""

import re
from pathlib import Path

import numpy as np

from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.formats.foreign import Outcomes, check_rows, endings, episodes_of, flags, one_error
from robopol.data.formats.losses import Losses
from robopol.data.formats.npz import Npz
from robopol.data.image_columns import image_column
from robopol.errors import DataError

_EPSILON = 1e-6  # in DPPO's scaling
_READ = ("states", "actions", "rewards", "terminals", "traj_lengths", "images")
_BEYOND = 1.001  # scaled values leave [-1, 1] by rounding only


def read(
    path: Path,
    *,
    ends: str | None = None,
    cameras: str | None = None,
    values: str | None = None,
    env: str | None = None,
) -> Episodes:
    """Read a DPPO file; states and actions come back in the units they had before DPPO scaled them.

    The observation after the last step is not in the file. Arrays of other names have no place in `Episodes`; one
    `DataWarning` names them, and what rounding to float32 changes.

    Args:
        path: ``train.npz`` or ``val.npz`` (perhaps with a prefix), or the folder of ``train.npz``.
        ends: Why episodes ended; needed where no terminal is set, because DPPO's robomimic files never set one.
            ``truncated``: they were cut off. ``terminated``: they ended in the last state. ``success``: so they
            did, because the task was solved. Where terminals are set they say it, and other last rows are truncated.
        cameras: Comma-separated names of the cameras, in the order of the channels; needed where there are
            images.
        values: ``stored`` keeps states and actions as they are stored, for files that were not scaled or shall
            stay so; no normalization file is needed then.
        env: Id of the environment, which the file does not say.

    Returns:
        The episodes, with the observation ``"state"`` and ``"images.<camera>"``; ``success`` is True only by
        ``ends=success``.

    Raises:
        DataError: If a file is damaged, incomplete or ambiguous.
    """
    path = path / "train.npz" if path.is_dir() else path
    if values not in (None, "stored"):
        raise DataError(f"{path}: values is 'stored' or left out; got '{values}'")
    losses = Losses()
    with one_error(path), Npz(path) as file:
        losses.leave_others(file.names, _READ)
        action, reward = file.array("actions"), file.array("rewards")
        state, lengths = file.array("states"), file.array("traj_lengths")
        terminal = flags("terminals", file.array("terminals"))
        check_rows({"actions": action, "rewards": reward, "terminals": terminal}, len(state))
        if (state.ndim, action.ndim, reward.ndim, state.dtype.kind + action.dtype.kind) != (2, 2, 1, "ff"):
            raise DataError(
                f"states {state.dtype} {state.shape} and actions {action.dtype} {action.shape} must be floats, "
                f"(N, d) and (N, A), rewards {reward.shape} (N,)"
            )
        _check_lengths(lengths, len(state))
        obs = {"state": state}
        if values is None:
            beside = path.with_name(re.sub(r"(train|val)$", "normalization", path.stem) + path.suffix)
            obs["state"], action = _unscaled(beside, state, action)
        if "images" in file:
            obs |= _cameras(file, cameras, len(state))
        elif cameras is not None:
            raise DataError("there are no images; leave out the option 'cameras'")
        episodes = episodes_of(
            lengths,
            _outcomes(ends, terminal, lengths),
            EpisodesMeta(env_id=env or ""),
            obs=obs,
            action=action,
            reward=reward,
            losses=losses,
        )
    losses.warn(path)
    return episodes


def _check_lengths(lengths: np.ndarray, rows: int) -> None:
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths) or lengths.min() < 1:
        raise DataError(f"traj_lengths are {lengths.dtype} {lengths.shape}; they must be whole numbers of at least 1")
    if lengths.max() > rows or lengths.sum() != rows:
        raise DataError(f"traj_lengths add up to {lengths.sum()}; there are {rows} rows")


def _unscaled(path: Path, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo DPPO's scaling, in double precision; what comes back is as precise as what is stored."""
    if not path.is_file():
        raise DataError(
            f"there is no {path.name} beside it to undo the scaling with; put it there, or say values=stored to keep "
            "states and actions as they are stored"
        )
    columns = []
    with Npz(path) as file:
        for name, scaled in (("obs", state), ("action", action)):
            low, high = (file.array(f"{name}_{bound}").astype(np.float64) for bound in ("min", "max"))
            if low.shape != scaled.shape[1:] or high.shape != low.shape or not (low <= high).all():
                raise DataError(
                    f"{path.name}: {name}_min {low.shape} and {name}_max {high.shape} must be {scaled.shape[1:]}, "
                    "min not above max"
                )
            if not (np.abs(scaled) <= _BEYOND).all():
                raise DataError(
                    f"values of {name} are not in [-1, 1], so {path.name} did not scale them; say values=stored if "
                    "they were never scaled"
                )
            values = (scaled.astype(np.float64) + 1) / 2 * (high - low + _EPSILON) + low
            columns.append(values.astype(scaled.dtype))
    return columns[0], columns[1]


def _cameras(file: Npz, cameras: str | None, rows: int) -> dict[str, np.ndarray]:
    """Split the channels (N, 3K, H, W) or (N, H, W, 3K) into one image column a camera."""
    shape = file.shape("images")
    names = cameras.split(",") if cameras else []
    axes = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] == 3 * len(names)]
    if len(shape) != 4 or shape[0] != rows:
        raise DataError(f"images have shape {shape}; they must have {rows} rows and four axes")
    if len(axes) != 1 or len(set(names)) < len(names) or "" in names:
        raise DataError(
            f"the file does not name the cameras of its images {shape}; say cameras= as many different names "
            f"as there are groups of three channels, got {cameras!r}"
        )
    height, width = shape[1:3] if axes == [3] else shape[2:4]
    columns = {f"images.{name}": image_column((rows, height, width, 3)).numpy() for name in names}
    for block_rows, block in file.blocks("images", np.uint8):
        last = np.moveaxis(block, axes[0], -1)
        for k, column in enumerate(columns.values()):
            column[block_rows] = last[..., 3 * k : 3 * k + 3]
    return columns


def _outcomes(ends: str | None, terminal: np.ndarray, lengths: np.ndarray) -> Outcomes:
    """How each episode ended."""
    if not terminal.any():
        return endings(ends, lengths)
    if ends is not None:
        raise DataError("the file itself says which episodes were terminated; leave out the option 'ends'")
    outcomes = endings("truncated", lengths)
    last = outcomes.truncated
    if (terminal & ~last).any():
        row = (terminal & ~last).argmax()
        raise DataError(f"terminal row {row} is not the last of its trajectory: terminals and traj_lengths disagree")
    return Outcomes(terminal, last & ~terminal, outcomes.success)
