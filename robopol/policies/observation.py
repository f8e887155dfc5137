"""From observation histories in environment units to the features that condition a network."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robopol.config import Config
from robopol.data.episodes import is_image
from robopol.data.normalizer import Normalizer, NormalizerMode
from robopol.errors import ConfigError, ShapeError
from robopol.registry import nearest

LIMIT = 5.0
"""Normalised observations are clipped here, far outside the training data: a network extrapolates without bound."""

Shapes = dict[str, tuple[int, ...]]
"""Observation key -> shape of one observation."""


class Encoder(nn.Module, ABC):
    """Turns observation histories into features."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """D, the number of features of one observation."""

    @abstractmethod
    def fit(self, obs: Mapping[str, Tensor]) -> None:
        """Fit the normalisers to rows of observations, key -> (N, ...)."""

    @abstractmethod
    def forward(
        self,
        obs: Mapping[str, Tensor],
        steps: int,
        *,
        augment: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return features (B, To, D) float32.

        Args:
            obs: Key -> (B, To, ...); further keys are ignored.
            steps: To.
            augment: Whether to disturb the observations at random, as is done in training only.
            generator: Source of that; None is torch's global one.

        Raises:
            ShapeError: If a key is missing or has another shape or type.
        """


class EncoderConfig(Config):
    """What all encoders are told.

    Attributes:
        keys: Observations that the policy looks at; None takes all that its encoder can read.
    """

    keys: tuple[str, ...] | None = None

    def select(self, shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
        """Choose the observations that the policy looks at.

        Args:
            shapes: Key -> shape of all that there are.

        Returns:
            Those of `keys`.

        Raises:
            ConfigError: If one of `keys` does not exist; the nearest names are given.
        """
        if self.keys is None:
            return {key: tuple(shape) for key, shape in shapes.items() if self._reads(key)}
        missing = [f"'{key}'{nearest(key, shapes)}" for key in self.keys if key not in shapes]
        if missing:
            raise ConfigError(f"policy.encoder.keys names {', '.join(missing)}; there are {', '.join(shapes)}")
        return {key: tuple(shapes[key]) for key in self.keys}

    def _reads(self, key: str) -> bool:
        """Say whether the encoder can read such an observation."""
        return True


class LowDimConfig(EncoderConfig):
    """Joins the low-dim observations as they are; camera pictures are not looked at.

    Attributes:
        limit: Normalised observations are clipped to [-limit, limit]; None clips nothing, for what learns where it
            goes.
    """

    kind: Literal["low_dim"] = "low_dim"
    limit: float | None = Field(LIMIT, gt=0)

    def _reads(self, key: str) -> bool:
        return not is_image(key)

    def build(self, shapes: Shapes, normalization: NormalizerMode) -> "LowDimObservation":
        """Return the encoder, not yet fitted.

        Args:
            shapes: Key -> shape of what it looks at.
            normalization: How each entry is scaled.

        Raises:
            ConfigError: If it cannot read one of them.
        """
        return LowDimObservation(shapes, normalization, self.limit)


class LowDimObservation(Encoder):
    """Joins all low-dim observations, keys in alphabetical order, and normalises them."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], normalization: NormalizerMode, limit: float | None = LIMIT
    ) -> None:
        """Join and normalise.

        Args:
            shapes: Key -> shape of one observation; each must be a vector, and there must be one.
            normalization: A mode of `Normalizer`.
            limit: Where normalised observations are clipped; None clips nothing.

        Raises:
            ConfigError: If an observation is not a vector, or there is none.
        """
        super().__init__()
        if not shapes:
            raise ConfigError("the policy looks at no observation: there is none that policy/encoder=low_dim can read")
        for key, shape in shapes.items():
            if len(shape) != 1:
                raise ConfigError(
                    f"observation '{key}' has shape {shape}; low-dim encoders take vectors only: "
                    + ("use policy/encoder=image" if is_image(key) else "leave it out by policy.encoder.keys")
                )
        self.keys = sorted(shapes)
        self.sizes = [shapes[key][0] for key in self.keys]
        self.normalizer = Normalizer(sum(self.sizes), normalization)
        self.limit = limit

    @property
    def dim(self) -> int:
        """D, the number of features of one observation."""
        return sum(self.sizes)

    def fit(self, obs: Mapping[str, Tensor]) -> None:
        """See `Encoder.fit`."""
        self.normalizer.fit(torch.cat([obs[key] for key in self.keys], -1))

    def forward(
        self,
        obs: Mapping[str, Tensor],
        steps: int,
        *,
        augment: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Encoder.forward`; nothing is disturbed."""
        parts = [take(obs, key, (steps, size)) for key, size in zip(self.keys, self.sizes, strict=True)]
        features = self.normalizer.normalize(parts[0] if len(parts) == 1 else torch.cat(parts, -1))
        return features if self.limit is None else features.clamp(-self.limit, self.limit)


def take(obs: Mapping[str, Tensor], key: str, shape: tuple[int, ...]) -> Tensor:
    """Return one observation of a batch.

    Args:
        obs: Key -> (B, To, ...).
        key: Which one.
        shape: What follows B.

    Raises:
        ShapeError: If it is missing or has another shape.
    """
    if key not in obs:
        raise ShapeError(f"the observation lacks '{key}'; it has {', '.join(obs) or 'nothing'}")
    if tuple(obs[key].shape[1:]) != shape:
        raise ShapeError(
            f"observation '{key}' has shape {tuple(obs[key].shape)}, the policy needs (B, "
            f"{', '.join(map(str, shape))}): rows, history oldest first, "
            + ("height, width, channels" if is_image(key) else "entries")
        )
    return obs[key]
