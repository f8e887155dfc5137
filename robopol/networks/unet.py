"""The convolutional denoiser of Diffusion Policy: a 1-D U-Net over time, conditioned by FiLM."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.networks.denoiser import Denoiser, Step, Told
from robopol.networks.embeddings import SinusoidalEmbedding
from robopol.networks.mish import mish
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv
from robopol.networks.temporal_norm import TemporalGroupNorm


class UNetConfig(Config):
    """The U-Net of Diffusion Policy (Chi et al. 2023) with global conditioning and FiLM scale and bias.

    The defaults are the published ones for states; for images they are 512, 1024, 2048 and ``step_dim`` 128.

    Attributes:
        widths: Channels of each level, from the finest on; multiples of ``groups``. Each level but the last
            halves the number of steps, so the horizon must be a multiple of 2 ** (levels - 1).
        kernel: Kernel size of the convolutions; odd.
        groups: Groups of the group normalisation.
        step_dim: Size of the time embedding; even, at least 4.
    """

    kind: Literal["unet"] = "unet"
    widths: tuple[PositiveInt, ...] = (256, 512, 1024)
    kernel: PositiveInt = 5
    groups: PositiveInt = 8
    step_dim: PositiveInt = 256

    def build(self, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int) -> "UNet":
        """Make the network.

        Args:
            action_dim: A, size of one action.
            horizon: Tp, actions in a chunk.
            cond_dim: D, size of one encoded observation.
            n_obs_steps: To, observations in the history.

        Returns:
            The network.

        Raises:
            ConfigError: If the horizon cannot be halved often enough, the kernel is even, a width is not a
                multiple of ``groups``, or ``step_dim`` is odd or below 4.
        """
        if not self.widths:
            raise ConfigError("a U-Net has at least one level, got widths=(); use e.g. (256, 512, 1024)")
        if self.kernel % 2 == 0:
            raise ConfigError(f"the U-Net's kernel must be odd to keep the number of steps, got {self.kernel}")
        multiple = 2 ** (len(self.widths) - 1)
        if horizon % multiple:
            raise ConfigError(
                f"a U-Net with {len(self.widths)} levels needs a horizon that is a multiple of {multiple}, "
                f"got {horizon}; use {-(-horizon // multiple) * multiple} or fewer widths"
            )
        return UNet(self, action_dim, cond_dim * n_obs_steps)


class ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig) -> None:
        """Make the layers; the number of steps is kept."""
        super().__init__()
        self.conv = TemporalConv(in_channels, out_channels, config.kernel, padding=config.kernel // 2)
        self.norm = TemporalGroupNorm(config.groups, out_channels)

    def forward(self, h: Tensor) -> Tensor:
        """Map (T, B, in) to (T, B, out)."""
        return mish(self.norm(self.conv(h)))


class FiLMBlock(nn.Module):
    """Two convolution blocks with a residual path; between them each channel is scaled and shifted.

    FiLM (Perez et al. 2018) as published: ``h <- scale * h + bias``, not ``(1 + scale) * h + bias``.
    """

    def __init__(self, in_channels: int, out_channels: int, features: int, config: UNetConfig) -> None:
        """Make the layers; ``features`` is the size of the conditioning."""
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels, config)
        self.film = nn.Linear(features, 2 * out_channels)
        self.second = ConvBlock(out_channels, out_channels, config)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Linear(in_channels, out_channels)

    def forward(self, h: Tensor, film: Tensor) -> Tensor:
        """Map (T, B, in), and scales and biases (B, 2 out), to (T, B, out)."""
        scale, bias = film.chunk(2, dim=-1)
        hidden = torch.addcmul(bias, self.first(h), scale)
        return self.second(hidden) + self.shortcut(h)


class Level(nn.Module):
    """Two FiLM blocks at one resolution."""

    def __init__(self, in_channels: int, out_channels: int, features: int, config: UNetConfig) -> None:
        """Make the blocks; ``features`` is the size of the conditioning."""
        super().__init__()
        self.first = FiLMBlock(in_channels, out_channels, features, config)
        self.second = FiLMBlock(out_channels, out_channels, features, config)

    def forward(self, h: Tensor, films: Iterator[Tensor]) -> Tensor:
        """Map (T, B, in), and the next two of all blocks' scales and biases (B, 2 out), to (T, B, out)."""
        hidden: Tensor = self.second(self.first(h, next(films)), next(films))
        return hidden


class UNet(Denoiser):
    """See `UNetConfig`. Inside, tensors are (time, batch, channel).

    As published, L levels have L - 1 ups: each takes what came from below together with the way down's output
    at the same resolution, before it doubles the steps. The finest level therefore has no skip connection.
    """

    def __init__(self, config: UNetConfig, action_dim: int, cond_size: int) -> None:
        """Make the layers.

        Args:
            config: The sizes.
            action_dim: A.
            cond_size: To * D.
        """
        super().__init__()
        step = config.step_dim
        self.embed_time = nn.Sequential(
            SinusoidalEmbedding(step), nn.Linear(step, 4 * step), nn.Mish(), nn.Linear(4 * step, step)
        )

        widths = config.widths
        features = step + cond_size
        self.down_levels = nn.ModuleList(
            Level(before, width, features, config) for before, width in pairwise((action_dim, *widths))
        )
        self.downs = nn.ModuleList(TemporalConv(w, w, 3, stride=2, padding=1) for w in widths[:-1])
        self.middle = Level(widths[-1], widths[-1], features, config)
        self.up_levels = nn.ModuleList(
            Level(2 * below, width, features, config) for below, width in pairwise(reversed(widths))
        )
        self.ups = nn.ModuleList(TransposedTemporalConv(w, w, 4, stride=2, padding=1) for w in reversed(widths[:-1]))
        self.last = ConvBlock(widths[0], widths[0], config)
        self.head = nn.Linear(widths[0], action_dim)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        # every FiLM layer sees Mish of the same conditioning
        features = mish(torch.cat([self.embed_time(t).float(), cond.flatten(1)], dim=-1))
        return self._denoise(x, torch.cat([film(features).float() for film in self._films()], dim=-1))

    def of_times(self, t: Tensor) -> Tensor:
        """See `Denoiser.of_times`.

        Scales and biases are linear in Mish of time and observation: each is a part of the time plus a part of the
        observation. Those of all blocks lie side by side, so that a step adds them in one operation.
        """
        time = mish(self.embed_time(t).float())
        return torch.cat([F.linear(time, film.weight[:, : time.shape[1]]) for film in self._films()], dim=-1).float()

    def told(self, times: Tensor, cond: Tensor) -> Sequence[Told]:
        """See `Denoiser.told`: the part of the time, and that of the observation."""
        context = mish(cond.flatten(1))
        own = context.shape[1]
        parts = [F.linear(context, film.weight[:, -own:], film.bias) for film in self._films()]
        contexts = torch.cat(parts, dim=-1).float()
        return [(time, contexts) for time in times.unbind()]

    def step(self) -> Step:
        """See `Denoiser.step`."""
        return lambda x, time, contexts: self._denoise(x, time + contexts)

    def _films(self) -> list[nn.Linear]:
        """List the layers that set scales and biases, in the order in which `_denoise` uses them."""
        levels = (*self.down_levels, self.middle, *self.up_levels)
        return [block.film for level in levels for block in (level.first, level.second)]

    def _denoise(self, x: Tensor, films: Tensor) -> Tensor:
        """Map noisy chunks (B, Tp, A), and all blocks' scales and biases side by side, to the prediction (B, Tp, A)."""
        film = iter(films.split([film.out_features for film in self._films()], dim=-1))
        h = x.transpose(0, 1).contiguous()
        skips = []
        for level, down in zip_longest(self.down_levels, self.downs):
            h = level(h, film)
            skips.append(h)
            h = down(h) if down is not None else h
        h = self.middle(h, film)
        for level, up in zip(self.up_levels, self.ups, strict=True):
            h = up(level(torch.cat([h, skips.pop()], dim=-1), film))
        prediction: Tensor = self.head(self.last(h))
        return prediction.float().transpose(0, 1)
