"""What ``dones`` of a foreign robomimic file mean, which nothing in it says."""

import numpy as np

from robopol.errors import DataError

DONES = ("success", "end", "both")


def check_option(own: bool, dones: str | None) -> None:
    """Raise unless the option is there exactly if it is needed.

    Args:
        own: Whether robopol wrote the file.
        dones: One of `DONES`, or None.

    Raises:
        DataError: If it is missing, or one too much.
    """
    if own and dones is not None:
        raise DataError("the file itself says how its episodes ended; leave out the option 'dones'")
    if not own and dones not in DONES:
        raise DataError(
            f"what 'dones' means in this file is ambiguous; say dones= one of {', '.join(DONES)} (success: "
            f"1 in successful states; end: 1 in the last row; both: either); got {dones!r}"
        )


def interpret(dones: str, done: np.ndarray, reward: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Tell terminated from truncated, and success.

    Args:
        dones: One of `DONES`.
        done: (N,) the column of that name.
        reward: (N,).
        lengths: (E,) rows of each episode.

    Returns:
        ``terminated`` and ``truncated``, (N,), and ``success``, (E,), all bool.

    Raises:
        DataError: If the option cannot be true of these columns.
    """
    if done.ndim != 1 or reward.ndim != 1 or not np.isin(done, (0, 1)).all():
        raise DataError("dones and rewards must have one value a step, and dones be 0 or 1")
    sparse = bool(np.isin(reward, (0, 1)).all())
    starts = np.cumsum(lengths) - lengths
    last = np.zeros(len(done), bool)
    last[starts + lengths - 1] = True
    if dones == "success":
        terminated = done == 1
    elif dones == "end":
        if not np.array_equal(done == 1, last):
            raise DataError("dones=end says that dones are 1 in the last rows only, but they are not")
        terminated = np.zeros(len(done), bool)
    else:
        if not done[last].all() or not sparse:
            raise DataError(
                "dones=both says that dones are 1 in every last row, and needs rewards of 0 and 1 to tell "
                "which of them are successes; these are not: say dones=success or dones=end"
            )
        terminated = (done == 1) & (~last | (reward == 1))
    solved = terminated | (reward == 1) if dones == "end" and sparse else terminated
    return {
        "terminated": terminated,
        "truncated": last & ~terminated,
        "success": np.logical_or.reduceat(solved, starts),
    }
