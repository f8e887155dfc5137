"""Packed weights: a copy of a denoiser for acting on a CPU, with weights in the order in which oneDNN reads them.

The products of a single plan have so few rows that they take as long as their weights take to come from memory. From
packed weights they come at nearly the memory's speed, and half as many bytes take half as long. A convolution in
(time, batch, channel) layout is to oneDNN that of one image, time high and batch wide, its channels last: taps, bias
and padding are one call. Weights in half precision are FBGEMM's: few CPUs multiply halves or bfloat16, but all of them
have less to read, and FBGEMM widens weights to float32 on their way to the product.
"""

import copy
import hashlib
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.errors import ConfigError
from robopol.networks.acting import ActingDenoiser
from robopol.networks.denoiser import Denoiser
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv, tap_windows

Weights = Literal["fp32", "bf16", "fp16"]

SMALL = 2**18
"""Linear layers with fewer weights (1 MiB) stay ordinary in float32: they lie in the cache and are called sooner."""


def pack(net: Denoiser, weights: Weights = "fp32") -> "PackedDenoiser":
    """Return a copy of a denoiser for acting on this CPU.

    Args:
        net: The denoiser, on the CPU.
        weights: ``"fp32"`` gives what ``net`` gives, up to rounding; ``"bf16"`` multiplies in bfloat16, as autocast
            does; ``"fp16"`` rounds the weights of large layers to half precision, eight times finer than bfloat16, and
            multiplies in float32.

    Returns:
        The copy, in evaluation mode. Where torch has no oneDNN, its layers with ``"fp32"`` are ordinary ones.

    Raises:
        ConfigError: If the denoiser is not on the CPU, there are no bfloat16 products or no FBGEMM, or a weight is
            larger than half precision can say.
    """
    device = next(net.parameters()).device
    if device.type != "cpu":
        raise ConfigError(f"weights are packed for a CPU, and the network is on {device}: leave them as they are there")
    if weights == "bf16" and not (_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        raise ConfigError("there are no bfloat16 products on this CPU or in this build of torch: use weights='fp32'")
    if weights == "fp16" and "fbgemm" not in torch.backends.quantized.supported_engines:
        raise ConfigError("this build of torch has no FBGEMM, which multiplies with half weights: use weights='fp32'")
    copied = copy.deepcopy(net).eval().requires_grad_(False)
    if weights == "fp16":
        _halve_layers(copied)
    elif _available():
        _pack_layers(copied, torch.bfloat16 if weights == "bf16" else torch.float32)
    return PackedDenoiser(copied, _hash(net))


def _hash(net: Denoiser) -> bytes:
    """Return 32 bytes that tell the weights of a denoiser from others."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.digest()


def _available() -> bool:
    """Say whether oneDNN is there, with the functions by which torch's compiler packs weights."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")


def _pack_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace the linear layers and convolutions within a module."""
    for name, layer in module.named_children():
        if isinstance(layer, TransposedTemporalConv):
            setattr(module, name, PackedTransposedConv(layer, dtype))
        elif isinstance(layer, TemporalConv):
            setattr(module, name, PackedConv(layer, dtype))
        elif isinstance(layer, nn.Linear) and (layer.weight.numel() >= SMALL or dtype != layer.weight.dtype):
            setattr(module, name, PackedLinear(layer, dtype))
        else:
            _pack_layers(layer, dtype)


def _halve_layers(module: nn.Module) -> None:
    """Replace the large linear layers and convolutions within a module by those with half weights."""
    for name, layer in module.named_children():
        if not isinstance(layer, TemporalConv | nn.Linear):
            _halve_layers(layer)
        elif layer.weight.numel() >= SMALL:
            if layer.weight.abs().max() > torch.finfo(torch.float16).max:
                raise ConfigError("a weight is larger than half precision can say: use weights='fp32'")
            setattr(module, name, _halved(layer))


def _halved(layer: TemporalConv | nn.Linear) -> nn.Module:
    if isinstance(layer, TransposedTemporalConv):
        return HalfTransposedConv(layer)
    return HalfConv(layer) if isinstance(layer, TemporalConv) else HalfLinear(layer)


class PackedDenoiser(ActingDenoiser):
    """A denoiser with packed weights. It cannot be saved either.

    Attributes:
        origin: A hash of the weights that were packed, (32,) uint8.
    """

    origin: Tensor

    def __init__(self, net: Denoiser, origin: bytes) -> None:
        """Wrap the copy whose layers are packed."""
        super().__init__(net, "packed weights")
        self.register_buffer("origin", torch.frombuffer(bytearray(origin), dtype=torch.uint8), persistent=False)

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise a RobopolError."""
        self._refuse("saved")


class PackedConv(nn.Module):
    """`TemporalConv` with packed weights."""

    def __init__(self, conv: TemporalConv, dtype: torch.dtype) -> None:
        """Pack the weights for the convolution of one row, the case that is bound by memory."""
        super().__init__()
        self.padding, self.stride, self.dtype = [conv.padding, 0], [conv.stride, 1], dtype
        self.bias = conv.bias
        self.packed = self.pack(conv.weight.detach().to(dtype))

    def pack(self, weight: Tensor) -> Tensor:
        """Pack weights (k, in, out)."""
        image = [1, weight.shape[1], weight.shape[0], 1]
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight.permute(2, 1, 0)[..., None].contiguous(), self.padding, self.stride, [1, 1], 1, image
        )
        return packed

    def convolve(self, image: Tensor) -> Tensor:
        """Map (1, in, T, B) to (1, out, T', B)."""
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, self.packed, self.bias, self.padding, self.stride, [1, 1], 1, "none", [], ""
        )
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, in) to (T', B, out), in the dtype of the weights."""
        return self.convolve(x.to(self.dtype).permute(2, 0, 1)[None])[0].permute(1, 2, 0)


class PackedTransposedConv(PackedConv):
    """`TransposedTemporalConv` with packed weights."""

    def pack(self, weight: Tensor) -> Tensor:
        """Pack weights (k, in, out)."""
        image = [1, weight.shape[1], weight.shape[0], 1]
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight.permute(1, 2, 0)[..., None].contiguous(), self.padding, [0, 0], self.stride, [1, 1], 1, image
        )
        return packed

    def convolve(self, image: Tensor) -> Tensor:
        """Map (1, in, T, B) to (1, out, T', B)."""
        out: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            image, self.packed, self.bias, self.padding, [0, 0], self.stride, [1, 1], 1, "none", [], ""
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


def _halve(weight: Tensor, bias: Tensor | None) -> Any:
    """Pack weights (out, in)."""
    return torch.ops.quantized.linear_prepack_fp16(weight.detach().contiguous(), bias)


def _product(x: Tensor, packed: Any) -> Tensor:
    """Map (..., in) to (..., out) by weights of `_halve`."""
    out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x.contiguous(), packed)
    return out
