"""Networks said in operations that inference engines know; with the same result up to rounding."""

from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from robopol.networks.ensemble import EnsembleMLP
from robopol.networks.temporal_conv import TemporalConv

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def lower(module: ModuleT) -> ModuleT:
    """Say a module of one's own in plainer operations.

    Args:
        module: Changed in place: its parts compute otherwise from now on.

    Returns:
        The same module.
    """
    for part in module.modules():
        if isinstance(part, TemporalConv):
            part.forward = partial(convolve, part)  # type: ignore[method-assign]
        elif isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size in (1, (1, 1)):
            part.forward = partial(torch.mean, dim=(-2, -1), keepdim=True)  # type: ignore[method-assign]
        elif isinstance(part, EnsembleMLP):
            part.fused = False
    return module


def convolve(conv: TemporalConv, x: Tensor) -> Tensor:
    """Convolve as one matrix product: gather the steps that each output step sees, side by side.

    A product a tap writes into slices of the result, which no engine has an operation for; and on a single row, where
    reading the weights is all that counts, one product reads them at full speed.

    Args:
        conv: A convolution or a transposed one.
        x: Input (T, B, in).

    Returns:
        Output (T', B, out).
    """
    plan = conv.plan(x.shape[0])
    seen = torch.full((plan.steps_out, conv.kernel), plan.steps_in)  # the last row is the padding
    for tap, source, target in plan.taps:
        seen[target, tap] = torch.arange(plan.steps_in)[source]
    rows = torch.cat([x, torch.zeros_like(x[:1])]).index_select(0, seen.flatten())
    patches = rows.unflatten(0, tuple(seen.shape)).transpose(1, 2).flatten(2)
    return (patches.flatten(0, 1) @ conv.weight.flatten(0, 1) + conv.bias).unflatten(0, patches.shape[:2])
