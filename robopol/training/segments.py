"""A replay as a run saves it: long stretches of it once and for all, and what came after them anew each time."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from robopol.data.replay import ReplayBuffer
from robopol.errors import CheckpointError

PREFIX = "replay-"
"""Of the names of segments; the number of the segment follows."""


class Segments:
    """The transitions that a replay holds, cut where their number since the first one ever is a multiple of a size.

    A stretch between two cuts is a segment. What it holds never changes, however often the ring is overwritten, so it
    is written when it is complete and then shared by all checkpoints that need it. What lies behind the last cut is
    part of every checkpoint.
    """

    def __init__(self, replay: ReplayBuffer, size: int) -> None:
        """Cut a replay.

        Args:
            replay: What is saved and restored.
            size: Transitions of a segment, at least 1.
        """
        self.replay, self.size = replay, size

    def complete(self) -> dict[str, Callable[[], Tensor]]:
        """Return the segments of which the replay still holds some: name -> what gives its rows, (n, width).

        Of one whose beginning is overwritten these are the last rows.
        """
        oldest, added = self.replay.added - len(self.replay), self.replay.added
        found: dict[str, Callable[[], Tensor]] = {}
        for number in range(oldest // self.size, added // self.size):
            first, last = number * self.size, (number + 1) * self.size
            found[_name(number)] = partial(self._rows, max(first, oldest), last)
        return found

    def rest(self) -> dict[str, Tensor]:
        """Return how many transitions were ever added, and the rows since the last cut."""
        oldest, added = self.replay.added - len(self.replay), self.replay.added
        last_cut = added // self.size * self.size
        return {"added": torch.tensor(added), "newest": self._rows(max(last_cut, oldest), added)}

    def load(self, rest: Mapping[str, Tensor], complete: Mapping[str, Callable[[], Tensor]]) -> None:
        """Take up what `rest` and `complete` returned, in a replay of the same capacity and shapes.

        Raises:
            CheckpointError: If a segment is missing or too short, or the checkpoint is of an earlier robopol.
            ShapeError: If the replay was another.
        """
        if "newest" not in rest:
            raise CheckpointError(
                "the run was saved by an earlier robopol, which kept its replay in another way: resume it with the "
                "version that its environment.json names"
            )
        added = int(rest["added"])
        oldest = max(0, added - self.replay.capacity)
        ring = torch.zeros(added - oldest, rest["newest"].shape[1])
        parts = {number: complete.get(_name(number)) for number in range(oldest // self.size, added // self.size)}
        for number, read in parts.items():
            last = (number + 1) * self.size
            first = max(number * self.size, oldest)
            rows = None if read is None else read()[first - last :]
            if rows is None or len(rows) != last - first:
                raise CheckpointError(f"the checkpoint lacks transitions {first} to {last} of the replay")
            self._put(ring, rows, first)
        self._put(ring, rest["newest"], max(added // self.size * self.size, oldest))
        self.replay.load_state({"added": rest["added"], "rows": ring})

    def _put(self, ring: Tensor, rows: Tensor, first: int) -> None:
        """Write rows, of which the first is that of transition ``first``, to where the ring has them."""
        ring[torch.arange(first, first + len(rows)) % self.replay.capacity] = rows

    def _rows(self, first: int, last: int) -> Tensor:
        """Return the rows of transitions in their order, on the CPU."""
        rows = self.replay.state()["rows"]
        chosen = torch.arange(first, last, device=rows.device) % self.replay.capacity
        return rows.index_select(0, chosen).cpu()


def _name(number: int) -> str:
    return f"{PREFIX}{number:08d}"
