"""An ensemble of rectified perceptrons, forwards and backwards, as one step of autograd.

Networks of the size that critics have take as long to hand their intermediate values about as to multiply. Here the
rectifier works in place, what is passed back keeps the layout that it is read in, and nothing between the layers is
known to autograd. Same numbers as layer by layer, up to rounding where layers are normalised.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_EPS = 1e-5  # of torch.nn.functional.layer_norm
_rectify_back = torch.ops.aten.threshold_backward.grad_input


class Layer(NamedTuple):
    """Weights of one layer of E perceptrons.

    Attributes:
        weight: (E, in, out).
        bias: (E, 1, out).
        scale: Of the normalisation after it, (E, 1, out); None where there is none.
        shift: As `scale`.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


def perceptrons(x: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Return what E perceptrons say of the same input; it can be differentiated once.

    Args:
        x: (B, in).
        layers: The last one is linear, each of the others normalised, if it has a scale, and rectified.

    Returns:
        (E, B, out).
    """
    tensors = [tensor for layer in layers for tensor in layer if tensor is not None]
    out: Tensor = _Perceptrons.apply(x, len(layers), *tensors)
    return out


class _Perceptrons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int, *tensors: Tensor) -> Tensor:
        layers, normed = _layers(tensors, depth), []
        values = [x.expand(len(layers[0].weight), -1, -1)]  # (E, B, width), what each layer is given
        for layer in layers[:-1]:
            h = torch.baddbmm(layer.bias, values[-1], layer.weight)
            if layer.scale is not None and layer.shift is not None:
                h, _, spread = torch.native_layer_norm(h, h.shape[-1:], None, None, _EPS)
                normed += [h, spread]
                h = torch.addcmul(layer.shift, h, layer.scale)
            values.append(h.relu_())
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*tensors, *values, *normed)
            ctx.depth, ctx.given = depth, len(tensors)
        last = layers[-1].weight
        if last.shape[2] == 1:
            last = _row(last).transpose(1, 2)
        return torch.baddbmm(layers[-1].bias, values[-1], last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, given, depth = ctx.saved_tensors, ctx.given, ctx.depth
        layers = _layers(saved[:given], depth)
        values, normed = saved[given : given + depth], saved[given + depth :]
        wanted, x_wanted = any(ctx.needs_input_grad[2:]), ctx.needs_input_grad[0]
        found: list[Tensor] = []  # of the weights, last one first
        for number in range(depth - 1, -1, -1):
            layer, value = layers[number], values[number]
            if number < depth - 1:
                grad = _rectify_back(grad, values[number + 1], 0, grad_input=grad)
                if layer.scale is not None:
                    plain, spread = normed[2 * number : 2 * number + 2]
                    if wanted:
                        found += [grad.sum(1, keepdim=True), (grad * plain).sum(1, keepdim=True)]
                    grad = _normalize_back(grad.mul_(layer.scale), plain, spread)
            if wanted:
                found += [grad.sum(1, keepdim=True), _to_weight(value, grad)]
            if number or x_wanted:
                back = layer.weight.transpose(1, 2)
                grad = grad * back if grad.shape[2] == 1 else torch.bmm(grad, back)
        weights = found[::-1] if wanted else [None] * given
        return (grad.sum(0) if x_wanted else None, None, *weights)


def _row(column: Tensor) -> Tensor:
    """Turn columns (E, N, 1) into rows (E, 1, N), also to BLAS, which takes ten times as long for what is no row."""
    return column.reshape(len(column), 1, -1)


def _to_weight(value: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of a weight (E, in, out), whose input was (E, B, in), from that of its output (E, B, out)."""
    if grad.shape[2] == 1:
        return torch.bmm(_row(grad), value).transpose(1, 2)
    return torch.bmm(value.transpose(1, 2), grad)


def _normalize_back(grad: Tensor, plain: Tensor, spread: Tensor) -> Tensor:
    """Take a gradient (E, B, W) back through a normalisation whose output was ``plain``; it is overwritten."""
    along = (grad * plain).mean(-1, keepdim=True)
    return grad.sub_(grad.mean(-1, keepdim=True)).addcmul_(plain, along, value=-1).mul_(spread)


def _layers(tensors: Sequence[Tensor], depth: int) -> list[Layer]:
    """Put the tensors of `perceptrons` back into layers: two of the last, two or four of each other."""
    size = 2 if depth == 1 else (len(tensors) - 2) // (depth - 1)
    return [Layer(*tensors[first : first + size]) for first in range(0, len(tensors), size)]
