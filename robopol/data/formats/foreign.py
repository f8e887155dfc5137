"""What readers of other people's formats share: from plain arrays to `Episodes`, and one clear error."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robopol.data.episodes import Episodes, EpisodesMeta, is_image
from robopol.data.formats.losses import Losses
from robopol.data.image_columns import image_column
from robopol.errors import DataError, MissingExtraError
from robopol.registry import nearest

ENDS = ("truncated", "terminated", "success")
"""What the end of an episode may mean where a file does not say."""


@dataclass(frozen=True)
class Outcomes:
    """How episodes ended.

    Attributes:
        terminated: (N,) bool.
        truncated: (N,) bool.
        success: (E,) bool.
    """

    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray


@contextmanager
def one_error(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into one `DataError` that names the file."""
    try:
        yield
    except MissingExtraError:
        raise
    except Exception as error:
        raise DataError(f"{path}: {str(error) or type(error).__name__}") from error


def episodes_of(
    lengths: np.ndarray,
    outcomes: Outcomes,
    meta: EpisodesMeta,
    *,
    obs: Mapping[str, np.ndarray],
    action: np.ndarray,
    reward: np.ndarray,
    losses: Losses,
    final_obs: Mapping[str, np.ndarray] | None = None,
    states: np.ndarray | None = None,
) -> Episodes:
    """Make episodes of what foreign files hold; who acted, ways and seeds are unknown.

    Args:
        lengths: (E,) rows of each episode.
        outcomes: How they ended.
        meta: What is true of all.
        obs: Key -> (N, ...); a single number a row gets an axis, images are columns made by `image_column`.
        action: (N, A).
        reward: (N,).
        losses: Where it is noted if float32 cannot hold them.
        final_obs: Key -> (E, ...), the observation after the last step; None if the file has none.
        states: (N, D), or None.

    Returns:
        The episodes, checked.
    """
    columns = {key: _tensor(key, value, losses) for key, value in obs.items()}
    known = final_obs is not None
    final_obs = final_obs or {key: _nothing(key, (len(lengths), *col.shape[1:])) for key, col in columns.items()}
    sizes = torch.as_tensor(lengths, dtype=torch.int64)
    unknown = torch.full((len(sizes),), -1)
    return Episodes(
        obs=columns,
        final_obs={key: _tensor(key, value, losses) for key, value in final_obs.items()},
        action=torch.from_numpy(losses.floats("action", action)),
        reward=torch.from_numpy(losses.floats("reward", reward)),
        terminated=torch.from_numpy(outcomes.terminated),
        truncated=torch.from_numpy(outcomes.truncated),
        source=torch.zeros(len(action), dtype=torch.int64),
        intervention=torch.zeros(len(action), dtype=torch.bool),
        starts=sizes.cumsum(0) - sizes,
        lengths=sizes,
        has_final=torch.full((len(sizes),), known),
        success=torch.from_numpy(outcomes.success),
        way=unknown,
        seed=unknown.clone(),
        meta=meta,
        states=None if states is None else torch.from_numpy(np.ascontiguousarray(states, np.float64)),
    )


def endings(ends: str | None, lengths: np.ndarray) -> Outcomes:
    """Return how episodes ended in a file that only says where.

    Args:
        ends: ``truncated``: every episode was cut off. ``terminated``: every episode ended in its last state.
            ``success``: it did so because the task was solved.
        lengths: (E,) rows of each episode.

    Raises:
        DataError: If ``ends`` is not one of them.
    """
    if ends not in ENDS:
        raise DataError(
            f"the file says where episodes end, not why; say ends= one of {', '.join(ENDS)} (truncated: they were "
            "cut off; terminated: they ended in the last state; success: the task was solved there); "
            f"got {ends!r}"
        )
    last = np.zeros(lengths.sum(), bool)
    last[np.cumsum(lengths) - 1] = True
    cut = ends == "truncated"
    return Outcomes(last & (not cut), last & cut, np.full(len(lengths), ends == "success"))


def join_state(episodes: Episodes, keys: Sequence[str]) -> Episodes:
    """Join low-dim observations, flattened, to the one observation ``"state"``; images stay.

    Args:
        episodes: With the keys.
        keys: Low-dim keys in the order of the joined vector; other low-dim keys are left out.

    Raises:
        DataError: If there is no such key.
    """
    low_dim = [key for key in episodes.obs if not is_image(key)]
    for key in keys:
        if key not in low_dim:
            raise DataError(f"there is no low-dim observation '{key}'{nearest(key, low_dim)}; there are {low_dim}")

    def joined(obs: dict[str, Tensor]) -> dict[str, Tensor]:
        images = {key: value for key, value in obs.items() if key not in low_dim}
        return {"state": torch.cat([obs[key].flatten(1) for key in keys], dim=1)} | images

    return replace(episodes, obs=joined(episodes.obs), final_obs=joined(episodes.final_obs))


def check_rows(arrays: Mapping[str, np.ndarray], rows: int) -> None:
    """Check that all arrays have one entry a row.

    Raises:
        DataError: If one has not; it is named.
    """
    for name, array in arrays.items():
        if array.ndim < 1 or len(array) != rows:
            raise DataError(f"{name} has shape {array.shape}; it needs {rows} rows as the others have")


def flags(name: str, array: np.ndarray) -> np.ndarray:
    """Return a column of 0 and 1, (N,) or (N, 1), as bool (N,).

    Raises:
        DataError: If it holds anything else.
    """
    column = array.reshape(-1)
    if column.shape != array.shape[:1] or not np.isin(column, (0, 1)).all():
        raise DataError(f"{name} must be one 0 or 1 a row; it has shape {array.shape} and type {array.dtype}")
    return column == 1


def _tensor(key: str, array: np.ndarray, losses: Losses) -> Tensor:
    """Images stay as they are, everything else becomes float32 with at least one axis beside the rows."""
    if is_image(key):
        return torch.from_numpy(array)
    column = losses.floats(f"obs.{key}", array)
    return torch.from_numpy(column if column.ndim > 1 else column[:, None])


def _nothing(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the final observations of episodes that have none."""
    return image_column(shape).zero_().numpy() if is_image(key) else np.zeros(shape, np.float32)
