"""Autograd functions without autograd, and gradients of what was computed without it."""

from typing import Any

import torch
from torch import Tensor


def run(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Apply an autograd function; where no gradient is recorded, call its forward directly.

    ``apply`` takes some 20 microseconds even then, as long as what these functions compute for a single plan.

    Args:
        function: A function whose ``forward`` takes no context (it has a ``setup_context``).
        *inputs: Its inputs.

    Returns:
        Its outputs.
    """
    return function.apply(*inputs) if torch.is_grad_enabled() else function.forward(*inputs)


def recordable(tensor: Tensor) -> Tensor:
    """Return a tensor that can take part in a graph: a copy, if it was made in inference mode; call it outside that."""
    return tensor.clone() if tensor.is_inference() else tensor
