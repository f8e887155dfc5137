"""Autograd functions without autograd."""

from typing import Any

import torch


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
