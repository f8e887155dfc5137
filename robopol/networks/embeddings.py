"""Embedding of the network time t as sines and cosines."""

import math

import torch
from torch import Tensor, nn

from robopol.errors import ConfigError


class SinusoidalEmbedding(nn.Module):
    """Sines, then cosines, of t at geometrically spaced frequencies.

    ``f_i = 10000 ** (-i / (dim / 2 - 1))`` for ``i = 0 .. dim / 2 - 1``; the output is
    ``[sin(t f), cos(t f)]``. This is the convention of Diffusion Policy (Chi et al. 2023), in which the last
    frequency is exactly 1 / 10000.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        """Make the table of frequencies.

        Args:
            dim: Size of the embedding; even and at least 4.

        Raises:
            ConfigError: If ``dim`` is odd or below 4.
        """
        super().__init__()
        if dim < 4 or dim % 2:
            raise ConfigError(f"a time embedding has an even size of at least 4, got {dim}; use e.g. 16 or 256")
        half = dim // 2
        exponents = torch.arange(half) * -(math.log(10000) / (half - 1))
        # Derived from dim, so it does not belong in a checkpoint.
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed times.

        Args:
            t: Network times (B,), float32; may be fractional.

        Returns:
            The embeddings (B, dim).
        """
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
