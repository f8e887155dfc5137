"""What every denoiser network is: noisy chunks, a time and an observation in, a prediction out."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

Walk = Callable[[Tensor, int], Tensor]
"""A network at fixed times and for fixed observations: (x (B, Tp, A), index of the time) -> (B, Tp, A)."""


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
        rows = t[:, None].expand(-1, len(cond))
        return lambda x, i: self(x, rows[i], cond)
