"""Convolution along time as one matrix product a kernel tap, in (time, batch, channel) layout.

A convolution is a sum over the taps of its kernel: ``out[t] = bias + sum_j x[stride * t + j - pad] @ W[j]``.
With time as the leading axis, the steps that one tap connects are one contiguous slice of rows, so every tap
is one plain matrix product without copying the input and without multiplying the zero padding. A short
sequence gains most: with k = 5 and 4 time steps, 30 % of the products of a padded convolution are with zeros.
Forward and backward read the weights as they are stored; nothing is re-packed per call.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robopol.networks.autograd import run


class Tap(NamedTuple):
    """One kernel tap: which input steps it carries to which output steps (slices of equal length)."""

    tap: int
    source: slice
    target: slice


class Plan(NamedTuple):
    """All taps of one convolution at one sequence length."""

    steps_in: int
    steps_out: int
    taps: tuple[Tap, ...]


def _rows(first: int, count: int, stride: int) -> slice:
    """Return the slice of ``count`` steps from ``first`` on."""
    return slice(first, first + (count - 1) * stride + 1, stride)


def convolution_plan(steps: int, kernel: int, stride: int, padding: int) -> Plan:
    """List the taps of a zero-padded convolution, without those that see only padding.

    Args:
        steps: Input steps T.
        kernel: Kernel size k.
        stride: Steps between outputs.
        padding: Zeros on each side.

    Returns:
        The plan; it has ``(T + 2 * padding - kernel) // stride + 1`` output steps.
    """
    steps_out = (steps + 2 * padding - kernel) // stride + 1
    taps = []
    for j in range(kernel):
        # output step t reads input step stride * t + j - padding
        first = max(0, -(-(padding - j) // stride))
        last = min(steps_out - 1, (steps - 1 + padding - j) // stride)
        if last >= first:
            source = _rows(stride * first + j - padding, last - first + 1, stride)
            taps.append(Tap(j, source, _rows(first, last - first + 1, 1)))
    return Plan(steps, steps_out, tuple(taps))


def transposed_plan(steps: int, kernel: int, stride: int, padding: int) -> Plan:
    """List the taps of a transposed convolution: those of the convolution from output to input, reversed.

    Args:
        steps: Input steps T.
        kernel: Kernel size k.
        stride: Output steps per input step.
        padding: Steps cut from each end of the output.

    Returns:
        The plan; it has ``stride * (T - 1) + kernel - 2 * padding`` output steps.
    """
    steps_out = stride * (steps - 1) + kernel - 2 * padding
    forward = convolution_plan(steps_out, kernel, stride, padding)
    return Plan(steps, steps_out, tuple(Tap(j, target, source) for j, source, target in forward.taps))


def _add_product(total: Tensor, rows: slice, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to some time steps of ``total``, in place."""
    target = total[rows]
    if target.is_contiguous():
        target.flatten(0, 1).addmm_(left, right)
    else:
        target += (left @ right).view(target.shape)


class _TapProducts(torch.autograd.Function):
    """The convolution and its gradient, each one matrix product a tap."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, plan: Plan) -> Tensor:
        out = bias.repeat(plan.steps_out, x.shape[1], 1)
        for j, source, target in plan.taps:
            _add_product(out, target, x[source].flatten(0, 1), weight[j])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Plan], output: Tensor) -> None:
        x, weight, _, plan = inputs
        ctx.save_for_backward(x, weight)
        ctx.plan = plan

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for j, source, target in ctx.plan.taps:
            rows = grad[target].flatten(0, 1)
            if grad_x is not None:
                _add_product(grad_x, source, rows, weight[j].t())
            if grad_weight is not None:
                torch.mm(x[source].flatten(0, 1).t(), rows, out=grad_weight[j])
        grad_bias = grad.flatten(0, 1).sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None


def tap_products(x: Tensor, weight: Tensor, bias: Tensor, plan: Plan) -> Tensor:
    """Return the sum of a plan's products and the bias, (T', B, out); it can be differentiated once."""
    product: Tensor = run(_TapProducts, x, weight, bias, plan)
    return product


def tap_windows(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Return what a zero-padded convolution of x (T, B, in) sees at each step, (T', B, kernel * in)."""
    x = F.pad(x, (0, 0, 0, 0, padding, padding))
    span = x.shape[0] - kernel + 1
    return torch.cat([x[j : j + span : stride] for j in range(kernel)], -1)


def joined_taps(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Return a zero-padded convolution of x (T, B, in) as one product, zeros included, (T', B, out)."""
    windows = tap_windows(x, weight.shape[0], stride, padding)
    return torch.addmm(bias, windows.flatten(0, 1), weight.flatten(0, 1)).view(-1, windows.shape[1], weight.shape[2])


class TemporalConv(nn.Module):
    """1-D convolution over time, in (time, batch, channel) layout.

    Equal to ``nn.Conv1d``, initialisation included, up to the layout: ``weight[j]`` (in, out) is the
    transpose of torch's ``weight[:, :, j]``. Under autocast it computes in the lower precision.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        """Make weights (kernel, in, out) and bias (out,), uniform within 1 / sqrt(inputs of one output).

        Args:
            in_channels: Input channels.
            out_channels: Output channels.
            kernel: Kernel size.
            stride: Steps between outputs.
            padding: Zeros on each side.
        """
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = nn.Parameter(torch.empty(kernel, in_channels, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = 1 / math.sqrt(kernel * self.fan_in())
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def fan_in(self) -> int:
        """Return the number of channels that torch counts as inputs in its default initialisation."""
        return self.weight.shape[1]

    def plan(self, steps: int) -> Plan:
        """Return the taps for ``steps`` input steps."""
        return convolution_plan(steps, self.kernel, self.stride, self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Input (T, B, in).

        Returns:
            Output (T', B, out), T' as in `plan`.
        """
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return self.convolve(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve, all in one dtype."""
        if torch.compiler.is_compiling():  # few operations, as a compiler takes its time over each
            return joined_taps(x, weight, bias, self.stride, self.padding)
        return tap_products(x, weight, bias, self.plan(x.shape[0]))


class TransposedTemporalConv(TemporalConv):
    """1-D transposed convolution over time: ``nn.ConvTranspose1d`` up to the layout.

    ``weight[j]`` (in, out) is torch's ``weight[:, :, j]``. A ``stride`` of 2 doubles the number of steps.
    """

    def fan_in(self) -> int:
        """Return the output channels, which torch counts as inputs of a transposed convolution."""
        return self.weight.shape[2]

    def plan(self, steps: int) -> Plan:
        """Return the taps for ``steps`` input steps."""
        return transposed_plan(steps, self.kernel, self.stride, self.padding)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `TemporalConv.convolve`."""
        return tap_products(x, weight, bias, self.plan(x.shape[0]))
