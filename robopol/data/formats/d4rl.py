"""D4RL HDF5: all rows in one line (format: D4RL wiki; scripts/generation of Farama-Foundation/D4RL).

Layout: ``observations`` (N, d), ``actions`` (N, A), ``rewards`` (N,), ``terminals`` (N,), mostly ``timeouts``
(N,), ``next_observations`` (N, d), ``infos/qpos`` and ``infos/qvel``. Where an episode begins is not stored: it
is the row after an end.
"""

from pathlib import Path

import numpy as np

from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.formats.foreign import Outcomes, check_rows, episodes_of, flags, one_error
from robopol.data.formats.hdf5 import Hdf5
from robopol.data.formats.losses import Losses
from robopol.errors import DataError

TERMINALS = ("ends", "masks", "cuts")

_READ = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations", "infos")

_CLOSE = 1e-5  # of observations that were stored twice, perhaps once in another precision


def read(
    path: Path,
    *,
    terminals: str | None = None,
    steps: str | None = None,
    breaks: str | None = None,
    env: str | None = None,
) -> Episodes:
    """Read a D4RL file.

    A row is truncated where ``timeouts`` is 1 and where the file ends in the middle of an episode; a row may be
    both terminated and truncated. The final observation of an episode is known if the file has
    ``next_observations``, never otherwise. ``states`` is qpos and qvel, if they are those of the observation in
    the same row (AntMaze stores those of the row after). Rewards are r(s, a). ``metadata`` and other ``infos`` have
    no place in `Episodes`; one `DataWarning` names them, and what rounding to float32 changes.

    Args:
        path: The file.
        terminals: What ``terminals`` means; needed where there are no ``timeouts``, and where terminal rows do
            not look like ends. ``ends``: the task ended, and the episode with it. ``masks``: the goal was
            reached and the trajectory goes on (AntMaze); rows are terminated, episodes end by ``timeouts``
            only and succeed if they have such a row. ``cuts``: the recording stopped (Kitchen); nothing is
            terminated.
        steps: Time limit of the environment, 0 for none; needed where there are no ``timeouts``, except with
            ``terminals=cuts``.
        breaks: ``cut`` ends an episode where the next observation is not that of the next row; without it such
            a file is refused.
        env: Id of the environment, which the file does not say.

    Returns:
        The episodes; ``success`` is False where nothing tells.

    Raises:
        DataError: If the file is damaged, incomplete, ambiguous, or points to data outside itself.
    """
    import h5py

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if terminals not in (None, *TERMINALS) or breaks not in (None, "cut"):
        raise DataError(f"{path}: terminals is one of {', '.join(TERMINALS)}, breaks is cut; got {terminals}, {breaks}")
    losses = Losses()
    with one_error(path), h5py.File(path, "r") as opened:
        file = Hdf5(opened, path.stat().st_size)
        names = [name for name in _READ[:6] if name in file or name not in ("timeouts", "next_observations")]
        columns = {name: file.array(name, np.float32, losses) for name in names}
        obs, action = columns.pop("observations"), columns.pop("actions")
        following = columns.pop("next_observations", None)
        losses.leave_others(file.group(""), _READ)
        check_rows(columns | {"actions": action}, len(obs))
        if obs.ndim != 2 or not len(obs) or (following is not None and following.shape != obs.shape):
            raise DataError(
                f"observations have shape {obs.shape}; they must be (N, d) with rows, and next_observations alike"
            )

        terminal = flags("terminals", columns["terminals"])
        timeout = flags("timeouts", columns["timeouts"]) if "timeouts" in columns else None
        meaning = terminals or _usual(terminal, timeout, obs, following, goals="infos/goal" in file)
        timeout = _timeouts(timeout, terminal, meaning, steps)
        ends = timeout if meaning == "masks" else timeout | terminal
        if following is not None:
            ends = _unbroken(ends, obs, following, breaks)
        ends = ends.copy()
        ends[-1] = True
        bounds = np.flatnonzero(ends)
        terminated = terminal & (meaning != "cuts")
        truncated = timeout | (ends & ~terminal) if meaning == "ends" else ends
        reached = np.add.reduceat(terminated, np.r_[0, bounds[:-1] + 1]) > 0
        episodes = episodes_of(
            np.diff(bounds, prepend=-1),
            Outcomes(terminated, truncated, reached & (meaning == "masks")),
            EpisodesMeta(env_id=env or ""),
            obs={"state": obs},
            action=action,
            reward=columns["rewards"].reshape(-1),
            losses=losses,
            final_obs=None if following is None else {"state": following[bounds]},
            states=_states(file, obs, losses),
        )
    losses.warn(path)
    return episodes


def _usual(
    terminal: np.ndarray, timeout: np.ndarray | None, obs: np.ndarray, following: np.ndarray | None, goals: bool
) -> str:
    """Return what terminals mean in most files, unless there is a doubt."""
    doubt = None
    if timeout is None:
        doubt = "there are no 'timeouts'"
    else:
        alone = terminal & ~timeout
        if goals and alone.any():
            doubt = f"row {alone.argmax()} is terminal and not a timeout, in a file with goals"
        elif (alone[:-1] & terminal[1:]).any():
            doubt = f"row {(alone[:-1] & terminal[1:]).argmax()} and the row after it are terminal"
        elif following is not None:
            on = alone[:-1] & np.isclose(following[:-1], obs[1:], _CLOSE, _CLOSE).all(1)
            doubt = f"after the terminal row {on.argmax()} the trajectory goes on" if on.any() else None
    if doubt is not None:
        raise DataError(
            f"what 'terminals' means is ambiguous here: {doubt}. Say terminals= one of {', '.join(TERMINALS)} (ends: "
            "the task and the episode ended; masks: the goal was reached and the trajectory goes on, as in AntMaze; "
            "cuts: the recording stopped, as in Kitchen)"
        )
    return "ends"


def _timeouts(stored: np.ndarray | None, terminal: np.ndarray, meaning: str, steps: str | None) -> np.ndarray:
    """Return the timeouts of the file, or those that a time limit sets: every so many rows of an episode."""
    if stored is not None:
        if steps is not None:
            raise DataError("the file has 'timeouts'; leave out the option 'steps'")
        return stored
    if meaning == "cuts" and steps is None:
        return np.zeros_like(terminal)
    if steps is None or not steps.isdecimal():
        raise DataError(
            f"there are no 'timeouts'; say steps= the time limit of the environment (MuJoCo 1000), or 0 if there is "
            f"none; got {steps!r}"
        )
    limit = int(steps) or len(terminal)
    rows = np.arange(len(terminal))
    begins = np.zeros(len(rows), bool) if meaning == "masks" else np.r_[False, terminal[:-1]]
    since = rows - np.maximum.accumulate(np.where(begins, rows, 0))
    full: np.ndarray = (since + 1) % limit == 0
    return full & (int(steps) != 0) & (~terminal | (meaning == "masks"))


def _unbroken(ends: np.ndarray, obs: np.ndarray, following: np.ndarray, breaks: str | None) -> np.ndarray:
    """Check that within episodes the next observation is that of the next row, or end them where it is not."""
    same = np.isclose(following[:-1], obs[1:], _CLOSE, _CLOSE).all(1) | ~np.isfinite(obs[1:]).all(1)
    broken = ~ends[:-1] & ~same
    if broken.any() and breaks is None:
        raise DataError(
            f"next_observations of row {broken.argmax()} (and {broken.sum() - 1} others) is not the observation of the "
            "next row, though no flag ends the episode there; say breaks=cut to end it there"
        )
    return ends | np.r_[broken, False]


def _states(file: Hdf5, obs: np.ndarray, losses: Losses) -> np.ndarray | None:
    """Return simulator states (N, nq + nv), or None if there are none of the same rows; note other infos."""
    infos = list(file.group("infos")) if "infos" in file else []
    known = ("qpos", "qvel") if "qpos" in infos and "qvel" in infos else ()
    losses.leave_others(infos, known, "infos/")
    if not known:
        return None
    qpos, qvel = (file.array(f"infos/{name}", np.float64, losses) for name in known)
    check_rows({"infos/qpos": qpos, "infos/qvel": qvel}, len(obs))
    if qpos.ndim != 2 or qvel.ndim != 2:
        raise DataError(f"infos/qpos {qpos.shape} and infos/qvel {qvel.shape} must be (N, nq) and (N, nv)")
    # Positions that move are part of the observation, so some column of both agrees if the rows do.
    some = slice(0, 1000)
    moving = qpos[some][:, np.ptp(qpos[some], axis=0) > 0]
    if not (np.abs(moving[:, :, None] - obs[some][:, None, :]) < 1e-4).all(0).any():
        losses.leave("infos/qpos and infos/qvel, which are not those of the observation in the same row")
        return None
    return np.concatenate([qpos, qvel], axis=1)
