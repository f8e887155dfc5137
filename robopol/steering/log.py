"""What steering a policy did, on average."""

import torch
from torch import Tensor


class Log:
    """Running means by name; nothing waits for the device until they are read."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Count some values in.

        Args:
            name: What they are.
            values: Any shape, not empty.
        """
        total = values.detach().double().sum()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    def means(self) -> dict[str, float]:
        """Return the mean of each, and begin anew."""
        found = {name: (total / self._counts[name]).item() for name, total in self._sums.items()}
        self.__init__()  # type: ignore[misc]
        return found


def standard_deviation(scores: Tensor) -> Tensor:
    """Return the spread (...) of scores (..., N) around their mean; 0 for one alone."""
    return scores.std(-1, correction=0) if scores.shape[-1] > 1 else torch.zeros_like(scores[..., 0])
