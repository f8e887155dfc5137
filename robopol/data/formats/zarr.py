"""diffusion_policy Zarr: episodes in one line (format: real-stanford/diffusion_policy, ``replay_buffer.py``).

Layout: ``data/<key>`` (N, ...), among them ``action`` (N, A); ``meta/episode_ends`` (E,), the rows after which
episodes end, counted from the first row of the store. There are no rewards, no terminals, and nothing after the
last step.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.formats.foreign import check_rows, endings, episodes_of, join_state, one_error
from robopol.data.formats.losses import Losses
from robopol.data.formats.zarr_store import ZarrStore
from robopol.data.image_columns import image_column
from robopol.errors import DataError


def read(
    path: Path,
    *,
    ends: str | None = None,
    state: str | None = None,
    missing: str | None = None,
    env: str | None = None,
) -> Episodes:
    """Read a store, a folder or a zip archive, of Zarr format 2 or 3.

    Every array of ``data`` but ``action`` is an observation of its name. Those of four axes with 1, 3 or 4
    channels last are images, ``"images.<name>"``; float images must hold whole numbers of 0 to 255, as PushT's
    do. Rewards are 0, because the store has none. Arrays outside ``data`` have no place in `Episodes`; one
    `DataWarning` names them, and what rounding to float32 changes.

    Args:
        path: ``<name>.zarr`` or ``<name>.zarr.zip``.
        ends: Needed, why episodes ended. ``truncated``: they were cut off. ``terminated``: they ended in the last
            state. ``success``: so they did, because the task was solved.
        state: Comma-separated low-dim keys that are joined, in that order, to the one observation ``"state"``;
            other low-dim keys are left out.
        missing: ``fill``: chunks that are not there hold the fill value; otherwise they are an error.
        env: Id of the environment, which the store does not say.

    Returns:
        The episodes; ``success`` is True only by ``ends=success``.

    Raises:
        DataError: If the store is damaged, incomplete or ambiguous, or leads out of itself.
    """
    if missing not in (None, "fill"):
        raise DataError(f"{path}: missing is 'fill' or left out; got '{missing}'")
    losses = Losses()
    with one_error(path), ZarrStore(path) as store:
        lengths = _lengths(store.array("meta/episode_ends", missing))
        rows, *_ = store.shape("data/action")
        if lengths.sum() != rows:
            raise DataError(f"meta/episode_ends says there are {lengths.sum()} rows; data/action has {rows}")
        outcomes = endings(ends, lengths)
        names = [name.removeprefix("data/") for name in store.names if name.startswith("data/")]
        losses.leave_others((name for name in store.names if not name.startswith("data/")), ("meta/episode_ends",))
        nested = [name for name in names if "/" in name]
        if nested:
            raise DataError(f"data/{nested[0]} is nested; the arrays of an episode lie in data itself")
        obs = dict(_observation(store, name, missing) for name in names)
        check_rows(obs, rows)
        action = obs.pop("action", np.empty(0))
        if action.ndim != 2 or len(obs) != len(names) - 1 or not obs:
            raise DataError(f"data needs an action (N, A) and observations of different names; it has {names}")
        episodes = episodes_of(
            lengths,
            outcomes,
            EpisodesMeta(env_id=env or ""),
            obs=obs,
            action=action,
            reward=np.zeros(len(action)),
            losses=losses,
        )
        episodes = episodes if state is None else join_state(episodes, state.split(","))
    losses.warn(path)
    return episodes


def _lengths(bounds: np.ndarray) -> np.ndarray:
    """Turn cumulative ends into lengths."""
    if bounds.ndim != 1 or bounds.dtype.kind not in "iu" or not len(bounds):
        raise DataError(f"meta/episode_ends is {bounds.dtype} {bounds.shape}; it must be whole numbers, one an episode")
    # Python's integers, because those of a damaged file may overflow.
    ends = [0, *bounds.tolist()]
    if any(later <= end for end, later in pairwise(ends)):
        raise DataError("meta/episode_ends must grow from a number above 0: they are ends, not lengths")
    return np.diff(np.array(ends, np.int64))


def _observation(store: ZarrStore, name: str, missing: str | None) -> tuple[str, np.ndarray]:
    """Read an array; return its observation key and the column."""
    shape = store.shape(f"data/{name}")
    if len(shape) != 4 or shape[-1] not in (1, 3, 4):
        return name, store.array(f"data/{name}", missing)
    column = image_column(shape).numpy()
    store.fill(f"data/{name}", column, missing)
    return f"images.{name.removesuffix('_image')}", column
