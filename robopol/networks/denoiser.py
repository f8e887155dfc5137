"""What every denoiser network is: noisy chunks, a time and an observation in, a prediction out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

Walk = Callable[[Tensor, int], Tensor]
"""A network at fixed times and for fixed observations: (x (B, Tp, A), index of the time) -> (B, Tp, A)."""

Told = tuple[Tensor, ...]
"""What a network is told of one time and of the observations, as far as it can be computed without the states."""

Step = Callable[..., Tensor]
"""The rest of a network: (x (B, Tp, A), *told) -> the prediction (B, Tp, A)."""


class Denoiser(nn.Module, ABC):
    """A network that reads a noisy action chunk at a time, given an observation history."""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predict, for each chunk, what the policy's prediction type names (noise, clean chunk, velocity).

        Args:
            x: Noisy action chunks (B, Tp, A).
            t: Network times (B,), float32.
            cond: Encoded observation histories (B, To, D).

        Returns:
            The prediction (B, Tp, A), float32.
        """

    def prepare(self, t: Tensor, cond: Tensor) -> Walk:
        """Return the network at a walk's times, with whatever depends on these and on the observation computed once.

        Args:
            t: Network times of the walk, (S,), float32.
            cond: Encoded observation histories (B, To, D).

        Returns:
            (x (B, Tp, A), i) -> what `forward` gives at the i-th time.
        """
        return self.walk(self.of_times(t), cond)

    def walk(self, times: Tensor, cond: Tensor) -> Walk:
        """Return what `prepare` returns, for what `of_times` says of the walk's times."""
        told, step = self.told(times, cond), self.step()
        return lambda x, i: step(x, *told[i])

    def of_times(self, t: Tensor) -> Tensor:
        """Return what depends on the times (S,) of a walk alone."""
        return t

    def told(self, times: Tensor, cond: Tensor) -> Sequence[Told]:
        """Return what `step` takes beside the states at each time of a walk; see `walk`."""
        return [(row, cond) for row in times[:, None].expand(-1, len(cond)).unbind()]

    def step(self) -> Step:
        """Return what is left to be computed at each time: a function of tensors alone, the same one for all times."""
        return self.forward
