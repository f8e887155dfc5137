"""What every launcher does: it gets runs done, and says which of them came to their end."""

from collections.abc import Callable, Sequence
from typing import Protocol

from robopol.sweeps.grid import Point

LOG = "log.txt"
"""What a run printed, in its folder's neighbour FOLDER.log.txt."""

Ended = Callable[[Point, bool], None]
"""Is told of every run that came to its end, and whether it came well."""


class Launcher(Protocol):
    """Gets runs done; each is one `robopol train`, which goes on where an earlier attempt was stopped."""

    def launch(self, points: Sequence[Point], ended: Ended) -> None:
        """Do all of some runs; a run that fails does not stop the others.

        Args:
            points: None of them finished.
            ended: Told of each as it ends, from the thread that called.

        Raises:
            MissingExtraError: If a package that it needs is not installed.
            ConfigError: If it cannot be used here.
        """


def log_of(point: Point) -> str:
    """Return the file that a run's output goes to; beside its folder, which training makes."""
    return f"{point.folder}.{LOG}"
