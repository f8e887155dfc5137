"""Layers with packed weights: in the order in which oneDNN reads them, or in half precision, FBGEMM's."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.errors import ConfigError
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv, tap_windows

SMALL = 2**18
"""Layers with fewer weights (1 MiB) stay ordinary in float32: they lie in the cache and are called sooner."""


class PackedConv:
    """A convolution along the height of an image whose channels are last, with packed weights."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, padding: int, dtype: torch.dtype) -> None:
        """Pack the weights for the convolution of one row, the case that is bound by memory.

        Args:
            weight: (k, in, out).
            bias: (out,).
            stride: Steps between outputs.
            padding: Zeros on each side.
            dtype: That of weights and products.
        """
        self.bias, self.stride, self.padding, self.dtype = bias.detach(), [stride, 1], [padding, 0], dtype
        self.packed = self.pack(weight.detach().to(dtype))
        self.convolve = torch.ops.mkldnn._convolution_pointwise.default

    def pack(self, weight: Tensor) -> Tensor:
        """Pack weights (k, in, out)."""
        image = [1, weight.shape[1], weight.shape[0], 1]
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight.permute(2, 1, 0)[..., None].contiguous(), self.padding, self.stride, [1, 1], 1, image
        )
        return packed

    def __call__(self, image: Tensor) -> Tensor:
        """Map (1, in, T, B) to (1, out, T', B), in the dtype of the weights."""
        out: Tensor = self.convolve(
            image.to(self.dtype), self.packed, self.bias, self.padding, self.stride, [1, 1], 1, "none", [], ""
        )
        return out


class PackedTransposedConv(PackedConv):
    """The transposed convolution, with packed weights."""

    def pack(self, weight: Tensor) -> Tensor:
        """Pack weights (k, in, out)."""
        image = [1, weight.shape[1], weight.shape[0], 1]
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight.permute(1, 2, 0)[..., None].contiguous(), self.padding, [0, 0], self.stride, [1, 1], 1, image
        )
        return packed

    def __call__(self, image: Tensor) -> Tensor:
        """Map (1, in, T, B) to (1, out, T', B), in the dtype of the weights."""
        out: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            image.to(self.dtype), self.packed, self.bias, self.padding, [0, 0], self.stride, [1, 1], 1, "none", [], ""
        )
        return out


class PackedLinear(nn.Module):
    """A linear layer with packed weights beside the ordinary ones, which are the faster ones for a single row."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        """Pack the weights."""
        super().__init__()
        self.weight, self.bias, self.dtype = linear.weight, linear.bias, dtype
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out), in the dtype of the input."""
        if x.numel() == self.in_features:
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.packed, self.bias, "none", [], "")
        return out.to(x.dtype)


def packed_linear(linear: nn.Linear, dtype: torch.dtype) -> nn.Linear | PackedLinear:
    """Return a linear layer with packed weights, or the layer itself where that is the faster one."""
    small = linear.weight.numel() < SMALL and dtype == linear.weight.dtype
    return linear if small else PackedLinear(linear, dtype)


class HalfLinear(nn.Module):
    """A linear layer with half weights beside the ordinary ones."""

    def __init__(self, linear: nn.Linear) -> None:
        """Round and pack the weights."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = _halve(linear.weight, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return _product(x, self.packed)


class HalfConv(nn.Module):
    """`TemporalConv` with half weights: all taps are one product, zero padding included."""

    def __init__(self, conv: TemporalConv) -> None:
        """Round and pack the weights."""
        super().__init__()
        self.kernel, self.stride, self.padding = conv.kernel, conv.stride, conv.padding
        self.packed = _halve(conv.weight.flatten(0, 1).t(), conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, in) to (T', B, out)."""
        return _product(tap_windows(x, self.kernel, self.stride, self.padding), self.packed)


class HalfTransposedConv(nn.Module):
    """`TransposedTemporalConv` with half weights: the products of all taps at once, then added where they belong."""

    def __init__(self, conv: TransposedTemporalConv) -> None:
        """Round and pack the weights."""
        super().__init__()
        self.kernel, self.plan, self.bias = conv.kernel, conv.plan, conv.bias
        self.packed = _halve(conv.weight.permute(0, 2, 1).flatten(0, 1), None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, in) to (T', B, out)."""
        products = _product(x, self.packed).unflatten(-1, (self.kernel, -1))
        plan = self.plan(x.shape[0])
        out = self.bias.repeat(plan.steps_out, x.shape[1], 1)
        for j, source, target in plan.taps:
            out[target] += products[source, :, j]
        return out


def half_layer(layer: TemporalConv | nn.Linear) -> nn.Module:
    """Return a layer with half weights, or a small one itself.

    Raises:
        ConfigError: If a weight is larger than half precision can say.
    """
    if layer.weight.numel() < SMALL:
        return layer
    if layer.weight.abs().max() > torch.finfo(torch.float16).max:
        raise ConfigError("a weight is larger than half precision can say: use weights='fp32'")
    if isinstance(layer, TransposedTemporalConv):
        return HalfTransposedConv(layer)
    return HalfConv(layer) if isinstance(layer, TemporalConv) else HalfLinear(layer)


def _halve(weight: Tensor, bias: Tensor | None) -> Any:
    """Pack weights (out, in)."""
    return torch.ops.quantized.linear_prepack_fp16(weight.detach().contiguous(), bias)


def _product(x: Tensor, packed: Any) -> Tensor:
    """Map (..., in) to (..., out) by weights of `_halve`."""
    out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x.contiguous(), packed)
    return out
