"""What verbs share that record an arm: the way from folders of episodes to a dataset."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robopol.errors import ConfigError, DataError

if TYPE_CHECKING:
    from robopol.data import Episodes


def check_new(uri: str) -> Path:
    """Return where a dataset is to be written.

    Raises:
        ConfigError: If there is something already.
        DataError: If it cannot be written whatever the episodes are; see `robopol.data.check_writable`.
    """
    from robopol.data import check_writable

    path = check_writable(uri)
    if path.exists():
        raise ConfigError(f"{path} exists; name another dataset, and put them together by `robopol data merge`")
    return path


def episodes_in(folders: Sequence[Path], say: Callable[[str], None]) -> "Episodes | None":
    """Return the recorded episodes in folders as one dataset, without those that cannot be in one; None if none can.

    Args:
        folders: Folders that a `robopol.real_robot.recorder.Recorder` wrote, of one policy on one robot.
        say: Told what is left out.
    """
    from robopol.data import Episodes
    from robopol.real_robot.dataset import episodes_of

    kept = []
    for folder in folders:
        try:
            kept.append(episodes_of([folder]))
        except DataError as error:  # too short to be one; the others are not to be lost for it
            say(f"left out: {error}")
    return Episodes.concat(kept) if kept else None
