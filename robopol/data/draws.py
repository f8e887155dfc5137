"""Random draws without any state: each is a function of (seed, step), so that a killed run resumes."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from robopol.errors import DataError


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
