"""From observation histories in environment units to the features that condition a network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robopol.data.normalizer import Normalizer, NormalizerMode
from robopol.errors import ConfigError, ShapeError

LIMIT = 5.0
"""Normalised observations are clipped here, far outside the training data: a network extrapolates without bound."""


class LowDimObservation(nn.Module):
    """Joins all low-dim observations, keys in alphabetical order, and normalises them."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], normalization: NormalizerMode) -> None:
        """Join and normalise.

        Args:
            shapes: Key -> shape of one observation; each must be a vector.
            normalization: A mode of `Normalizer`.

        Raises:
            ConfigError: If an observation is not a vector.
        """
        super().__init__()
        for key, shape in shapes.items():
            if len(shape) != 1:
                raise ConfigError(
                    f"observation '{key}' has shape {shape}; these policies take vectors only: "
                    "leave cameras out of the observation"
                )
        self.keys = sorted(shapes)
        self.sizes = [shapes[key][0] for key in self.keys]
        self.normalizer = Normalizer(sum(self.sizes), normalization)

    @property
    def dim(self) -> int:
        """D, the number of features of one observation."""
        return sum(self.sizes)

    def fit(self, obs: Mapping[str, Tensor]) -> None:
        """Fit the normalisers to rows of observations, key -> (N, size)."""
        self.normalizer.fit(torch.cat([obs[key] for key in self.keys], -1))

    def forward(self, obs: Mapping[str, Tensor], steps: int) -> Tensor:
        """Return features (B, To, D).

        Args:
            obs: Key -> (B, To, size); further keys are ignored.
            steps: To.

        Raises:
            ShapeError: If a key is missing or has another shape.
        """
        parts = []
        for key, size in zip(self.keys, self.sizes, strict=True):
            if key not in obs:
                raise ShapeError(f"the observation lacks '{key}'; it has {', '.join(obs) or 'nothing'}")
            if tuple(obs[key].shape[1:]) != (steps, size):
                raise ShapeError(
                    f"observation '{key}' has shape {tuple(obs[key].shape)}, the policy needs "
                    f"(B, {steps}, {size}): rows, history oldest first, entries"
                )
            parts.append(obs[key])
        return self.normalizer.normalize(torch.cat(parts, -1)).clamp(-LIMIT, LIMIT)
