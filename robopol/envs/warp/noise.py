"""Random numbers on a device that depend on a key and a counter alone, not on which row they are for."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from robopol.envs.warp.physics import import_warp


def normal(keys: Tensor, steps: Tensor, count: int, stream: Callable[[], AbstractContextManager[Any]]) -> Tensor:
    """Draw from the standard normal distribution.

    Args:
        keys: One per row, (n,), integers of at least 0.
        steps: How often a row was drawn before, (n,), integers of at least 0.
        count: How many numbers a row.
        stream: Gives the scope in which warp works in torch's order.

    Returns:
        (n, count) float32.
    """
    warp, _ = import_warp()
    from robopol.envs.warp import kernels

    drawn = torch.empty(len(keys), count, device=keys.device)
    given = [warp.from_torch(tensor.int().contiguous()) for tensor in (keys, steps)]
    found = warp.from_torch(drawn)
    with stream():
        warp.launch(kernels.normal, dim=drawn.shape, inputs=given, outputs=[found], device=found.device)
    return drawn
