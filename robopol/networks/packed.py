"""Packed weights: a copy of a denoiser for acting on a CPU, with weights in the order in which oneDNN reads them.

The products of a single plan have so few rows that they take as long as their weights take to come from memory. From
packed weights they come at nearly the memory's speed, and half as many bytes take half as long. A convolution in
(time, batch, channel) layout is to oneDNN that of one image, time high and batch wide, its channels last: taps, bias
and padding are one call.
"""

import copy
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.errors import ConfigError, RobopolError
from robopol.networks.denoiser import Denoiser, Walk
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv

Weights = Literal["fp32", "bf16"]

SMALL = 2**18
"""Linear layers with fewer weights (1 MiB) stay ordinary in float32: they lie in the cache and are called sooner."""


def pack(net: Denoiser, weights: Weights = "fp32") -> "PackedDenoiser":
    """Return a copy of a denoiser for acting on this CPU.

    Args:
        net: The denoiser, on the CPU.
        weights: ``"fp32"`` gives what ``net`` gives, up to rounding; ``"bf16"`` multiplies in bfloat16, as autocast
            does.

    Returns:
        The copy, in evaluation mode. Where torch has no oneDNN, its layers are ordinary ones.

    Raises:
        ConfigError: If the denoiser is not on the CPU, or there are no bfloat16 products.
    """
    device = next(net.parameters()).device
    if device.type != "cpu":
        raise ConfigError(f"weights are packed for a CPU, and the network is on {device}: leave them as they are there")
    if weights == "bf16" and not (_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        raise ConfigError("there are no bfloat16 products on this CPU or in this build of torch: use weights='fp32'")
    copied = copy.deepcopy(net).eval().requires_grad_(False)
    if _available():
        _pack_layers(copied, torch.bfloat16 if weights == "bf16" else torch.float32)
    return PackedDenoiser(copied)


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


class PackedDenoiser(Denoiser):
    """A denoiser that only acts: it gives no gradients, and cannot be trained, saved, moved or copied."""

    def __init__(self, net: Denoiser) -> None:
        """Wrap the copy whose layers are packed."""
        super().__init__()
        self.net = net
        super().train(False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        _refuse_gradient(x)
        _refuse_gradient(cond)
        prediction: Tensor = self.net(x, t, cond)
        return prediction

    def prepare(self, t: Tensor, cond: Tensor) -> Walk:
        """See `Denoiser.prepare`."""
        _refuse_gradient(cond)
        walk = self.net.prepare(t, cond)

        def refusing(x: Tensor, i: int) -> Tensor:
            _refuse_gradient(x)
            return walk(x, i)

        return refusing

    def train(self, mode: bool = True) -> "PackedDenoiser":
        """Stay in evaluation mode; raise a RobopolError if asked to train."""
        if mode:
            _refuse("trained")
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise a RobopolError."""
        _refuse("saved")

    def _apply(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("moved or converted")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Raise a RobopolError: neither ``pickle`` nor ``copy`` can read packed weights."""
        _refuse("copied or pickled")


def _refuse(verb: str) -> NoReturn:
    raise RobopolError(f"packed weights only act, they cannot be {verb}: use the policy that they were packed from")


def _refuse_gradient(value: Tensor) -> None:
    """Raise a RobopolError if a gradient would be wanted, which oneDNN's products would leave out in silence."""
    if value.requires_grad and torch.is_grad_enabled():
        _refuse("differentiated")


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
