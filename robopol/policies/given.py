"""Noise that comes from outside: what a policy draws is told, or given, in the order in which it asks for it."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from robopol.errors import ShapeError


class Source(torch.Generator):
    """A generator that says by itself which standard normal numbers come next; whoever draws otherwise changes it."""

    def __new__(cls, *args: Any) -> Self:
        """Make it on the CPU; a generator of torch takes a device, and nothing else."""
        return super().__new__(cls)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return the next float32 numbers, of this shape."""
        raise NotImplementedError


class Given(Source):
    """Numbers that were drawn elsewhere."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        """Take the draws, in their order."""
        self._draws = list(draws)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `Source.normal`.

        Raises:
            ShapeError: If something else is drawn than was given.
        """
        came = tuple(self._draws[0].shape) if self._draws else "none"
        if came != tuple(shape):
            raise ShapeError(f"the policy draws noise of the shape {tuple(shape)}, and what was given is {came}")
        return self._draws.pop(0)


class Watched(Source):
    """Draws, and remembers what.

    Attributes:
        shapes: Of all draws, in their order.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.shapes: list[tuple[int, ...]] = []
        self._inner = torch.Generator().manual_seed(0)
        self._before = self.get_state()

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `Source.normal`."""
        self.shapes.append(tuple(shape))
        return torch.randn(*shape, generator=self._inner)

    @property
    def otherwise(self) -> bool:
        """Whether something was drawn that is not standard normal."""
        return not torch.equal(self.get_state(), self._before)
