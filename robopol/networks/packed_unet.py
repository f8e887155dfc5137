"""The U-Net with packed weights, computed as one image.

A sequence in (time, batch, channel) layout is to oneDNN an image, time high and batch wide, its channels last: taps,
bias and padding of a convolution are one call. Nothing leaves that layout on its way through the network, for on a
single plan a call that only looks at the numbers in another way takes a tenth of a convolution's time.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.networks.mish import mish
from robopol.networks.packed_layers import PackedConv, PackedTransposedConv, packed_linear
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv
from robopol.networks.unet import ConvBlock, FiLMBlock, Level, UNet


class PackedUNet(UNet):
    """A `UNet` whose convolutions have packed weights. What it is told of time and observation stays exact."""

    def __init__(self, net: UNet, dtype: torch.dtype) -> None:
        """Pack the weights of a network, which gives away its other layers.

        Args:
            net: The network.
            dtype: That of packed weights and their products.
        """
        nn.Module.__init__(self)
        self.embed_time, self.films, self.head = net.embed_time, nn.ModuleList(net._films()), net.head
        self._sizes = [film.out_features // 2 for film in self._films() for _ in range(2)]
        self._down_levels = [PackedLevel(level, dtype) for level in net.down_levels]
        self._downs = [_conv(down, dtype) for down in net.downs]
        self._middle = PackedLevel(net.middle, dtype)
        self._up_levels = [PackedLevel(level, dtype) for level in net.up_levels]
        self._ups = [_conv(up, dtype) for up in net.ups]
        self._last = PackedConvBlock(net.last, dtype)

    def _films(self) -> list[nn.Linear]:
        return cast("list[nn.Linear]", list(self.films))

    def _denoise(self, x: Tensor, films: Tensor) -> Tensor:
        film = iter(films.t()[None, :, None].split(self._sizes, dim=1))
        h = x.permute(2, 1, 0)[None].contiguous(memory_format=torch.channels_last)
        skips = []
        for level, down in zip_longest(self._down_levels, self._downs):
            h = level(h, film)
            skips.append(h)
            h = down(h) if down is not None else h
        h = self._middle(h, film)
        for level, up in zip(self._up_levels, self._ups, strict=True):
            h = up(level(torch.cat([h, skips.pop()], dim=1), film))
        prediction: Tensor = self.head(self._last(h)[0].permute(2, 1, 0))
        return prediction


class PackedConvBlock:
    """`ConvBlock` of images."""

    def __init__(self, block: ConvBlock, dtype: torch.dtype) -> None:
        """Pack the weights."""
        self.conv, self.norm = _conv(block.conv, dtype), block.norm
        self._norm = block.norm.groups, block.norm.weight, block.norm.bias, block.norm.eps

    def __call__(self, h: Tensor) -> Tensor:
        """Map (1, in, T, B) to (1, out, T, B), float32."""
        h = self.conv(h).float()
        if h.shape[3] == 1:  # a group of channels is normalised over the whole image
            return F.mish(torch.group_norm(h, *self._norm), inplace=True)
        return mish(self.norm(h[0].permute(1, 2, 0))).permute(2, 0, 1)[None]


class PackedFiLMBlock:
    """`FiLMBlock` of images."""

    def __init__(self, block: FiLMBlock, dtype: torch.dtype) -> None:
        """Pack the weights."""
        self.first, self.second = PackedConvBlock(block.first, dtype), PackedConvBlock(block.second, dtype)
        # not a convolution of one tap: oneDNN would pack its weights anew for some lengths
        shortcut = block.shortcut
        self.shortcut = packed_linear(shortcut, dtype) if isinstance(shortcut, nn.Linear) else None

    def __call__(self, h: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Map (1, in, T, B), with scales and biases (1, out, 1, B), to (1, out, T, B), float32."""
        hidden = torch.addcmul(bias, self.first(h), scale)
        if self.shortcut is not None:
            h = self.shortcut(h[0].permute(1, 2, 0)).permute(2, 0, 1)[None]
        return self.second(hidden) + h


class PackedLevel:
    """`Level` of images."""

    def __init__(self, level: nn.Module, dtype: torch.dtype) -> None:
        """Pack the weights."""
        level = cast(Level, level)
        self.first, self.second = PackedFiLMBlock(level.first, dtype), PackedFiLMBlock(level.second, dtype)

    def __call__(self, h: Tensor, film: Iterator[Tensor]) -> Tensor:
        """Map (1, in, T, B), with the next four of all blocks' scales and biases, to (1, out, T, B)."""
        return self.second(self.first(h, next(film), next(film)), next(film), next(film))


def _conv(conv: nn.Module, dtype: torch.dtype) -> PackedConv:
    """Pack the weights of a convolution."""
    conv = cast(TemporalConv, conv)
    kind = PackedTransposedConv if isinstance(conv, TransposedTemporalConv) else PackedConv
    return kind(conv.weight, conv.bias, conv.stride, conv.padding, dtype)
