"""Packed weights: a copy of a denoiser for acting on a CPU, with weights in the order in which oneDNN reads them.

The products of a single plan have so few rows that they take as long as their weights take to come from memory. From
packed weights they come at nearly the memory's speed, and half as many bytes take half as long. Weights in half
precision are FBGEMM's: few CPUs multiply halves or bfloat16, but all of them have less to read, and FBGEMM widens
weights to float32 on their way to the product.
"""

import copy
import hashlib
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from robopol.errors import ConfigError
from robopol.networks.acting import ActingDenoiser
from robopol.networks.denoiser import Denoiser, Walk
from robopol.networks.denoising_mlp import DenoisingMLP
from robopol.networks.film_mlp import FiLMMLP
from robopol.networks.fine_tuned import FineTunedDenoiser
from robopol.networks.packed_layers import half_layer, packed_linear
from robopol.networks.packed_unet import PackedUNet
from robopol.networks.temporal_conv import TemporalConv
from robopol.networks.unet import UNet

Weights = Literal["fp32", "bf16", "fp16"]


def pack(net: Denoiser, weights: Weights = "fp32") -> Denoiser:
    """Return a copy of a denoiser for acting on this CPU.

    Args:
        net: The denoiser, on the CPU.
        weights: ``"fp32"`` gives what ``net`` gives, up to rounding; ``"bf16"`` multiplies in bfloat16, as autocast
            does; ``"fp16"`` rounds the weights of large layers to half precision, eight times finer than bfloat16, and
            multiplies in float32.

    Returns:
        The copy, in evaluation mode. Where torch has no oneDNN, its layers with ``"fp32"`` are ordinary ones; those of
        a perceptron are in any case: up to a width of 512 packed products take longer, and beyond hardly less.

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
    if isinstance(net, FineTunedDenoiser):  # which of the two answers depends on the time
        return FineTunedDenoiser(pack(net.base, weights), pack(net.tuned, weights), net.times)
    copied = copy.deepcopy(net).eval().requires_grad_(False)
    if weights == "fp16":
        _halve_layers(copied)
    elif _available():
        dtype = torch.bfloat16 if weights == "bf16" else torch.float32
        if isinstance(copied, UNet):
            copied = PackedUNet(copied, dtype)
        elif weights == "bf16" or not isinstance(copied, DenoisingMLP | FiLMMLP):
            _pack_layers(copied, dtype)
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
    """Replace the linear layers within a module."""
    for name, layer in module.named_children():
        if isinstance(layer, nn.Linear):
            setattr(module, name, packed_linear(layer, dtype))
        else:
            _pack_layers(layer, dtype)


def _halve_layers(module: nn.Module) -> None:
    """Replace the large linear layers and convolutions within a module by those with half weights."""
    for name, layer in module.named_children():
        if isinstance(layer, TemporalConv | nn.Linear):
            setattr(module, name, half_layer(layer))
        else:
            _halve_layers(layer)


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

    def _walk(self, t: Tensor, cond: Tensor) -> Walk:
        return self.net.walk(self.of_times(t), cond)

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise a RobopolError."""
        self._refuse("saved")
