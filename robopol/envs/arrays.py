"""One definition for numpy arrays and torch tensors: a world on the CPU and many on a GPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

Array = Any
"""A numpy array or a torch tensor. Its leading axes, written ..., are those of the batch; one world has none."""


def arrays(x: Array) -> Any:
    """Return the module of functions for an array: numpy or torch."""
    return torch if isinstance(x, torch.Tensor) else np


def length(vector: Array) -> Array:
    """Return the Euclidean length of vectors, (..., D) to (...)."""
    xp = arrays(vector)
    return xp.sqrt(xp.linalg.vecdot(vector, vector))


def clip(x: Array, low: Array | float, high: Array | float) -> Array:
    """Return an array held within low..high; numpy's own ``clip`` takes several times as long for a small one."""
    return x.clip(low, high) if isinstance(x, torch.Tensor) else np.minimum(np.maximum(x, low), high)


def constant(value: ArrayLike, like: Array) -> Array:
    """Return numbers as an array of the kind, the type and the place of another."""
    if isinstance(like, torch.Tensor):
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return np.asarray(value, dtype=like.dtype)
