"""Which windows a training step sees: a function of (seed, step) alone, so that a killed run resumes.

How windows are drawn is a registered kind (group ``sampling``), chosen for each source of data.
"""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from robopol.config import Config
from robopol.errors import DataError

if TYPE_CHECKING:
    from robopol.data.episodes import Episodes
    from robopol.data.windows import Batch, Windows


class Sampling(ABC):
    """A distribution over the windows of one source.

    Attributes:
        windows: What is drawn from.
    """

    def __init__(self, windows: "Windows") -> None:
        """Draw from some windows."""
        self.windows = windows

    @abstractmethod
    def batch(self, step: int, batch_size: int, seed: int) -> "Batch":
        """Return the batch of one training step, a function of the arguments alone.

        Args:
            step: Training step, from 0.
            batch_size: B.
            seed: Of the source's draws.

        Returns:
            See `robopol.data.Windows.gather`.
        """


class SamplingConfig(Config):
    """What all samplings are told."""

    def observed(self, episodes: "Episodes") -> "Episodes":
        """Return the episodes with every observation that batches will hold; normalisers are fitted to these."""
        return episodes

    @abstractmethod
    def build(self, windows: "Windows") -> Sampling:
        """Return the sampling of some windows, cut from episodes that `observed` returned."""


class UniformConfig(SamplingConfig):
    """Every window exactly once an epoch, in an order that is drawn anew for each."""

    kind: Literal["uniform"] = "uniform"

    def build(self, windows: "Windows") -> "Uniform":
        """See `SamplingConfig.build`."""
        return Uniform(windows)


class Uniform(Sampling):
    """See `UniformConfig`."""

    def batch(self, step: int, batch_size: int, seed: int) -> "Batch":
        """See `Sampling.batch`."""
        return self.windows.gather(self.windows.batch_indices(step, batch_size, seed))


def batch_indices(size: int, step: int, batch_size: int, seed: int) -> Tensor:
    """Return the samples of one training step, without any state.

    The samples form an endless stream: one permutation of all of them after the other, each derived from
    (seed, epoch). Step k takes entries k * batch_size to (k+1) * batch_size - 1, so a batch may hold the end
    of one epoch and the beginning of the next, is always full, and every sample comes exactly once an epoch.

    Args:
        size: Number of samples, at least 1.
        step: Training step, from 0.
        batch_size: Samples per step, at least 1; may exceed ``size``.
        seed: Of the run, at least 0.

    Returns:
        (batch_size,) int64 in [0, size).

    Raises:
        DataError: If an argument is out of range.
    """
    if size < 1 or step < 0 or batch_size < 1 or seed < 0:
        raise DataError(
            f"cannot draw a batch of {batch_size} from {size} samples at step {step} with seed {seed}: "
            "batch_size and size must be at least 1, step and seed at least 0"
        )
    parts: list[Tensor] = []
    begin, end = step * batch_size, (step + 1) * batch_size
    while begin < end:
        epoch, offset = divmod(begin, size)
        parts.append(_permutation(size, seed, epoch)[offset : offset + end - begin])
        begin += size - offset
    return parts[0].clone() if len(parts) == 1 else torch.cat(parts)


def uniform_numbers(shape: tuple[int, ...], step: int, seed: int, purpose: int) -> Tensor:
    """Return independent uniform numbers, a function of the arguments alone.

    Args:
        shape: Of the result.
        step: Training step, from 0.
        seed: Of the run, at least 0.
        purpose: Tells draws of the same step apart.

    Returns:
        float64 in [0, 1), on the CPU.
    """
    return torch.from_numpy(np.random.default_rng((seed, step, purpose)).random(shape))


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(size))
