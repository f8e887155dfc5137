"""An MLP denoiser whose layers are scaled and shifted by the observation."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from robopol.config import Config
from robopol.networks.denoiser import Denoiser, Step, Told
from robopol.networks.embeddings import SinusoidalEmbedding
from robopol.networks.mlp import ACTIVATIONS, Activation, matrix, product


class FiLMMLPConfig(Config):
    """An MLP denoiser, conditioned by FiLM (Perez et al. 2018).

    Which of several ways a noisy chunk belongs to depends on the products of its entries with what the observation
    says of each way. A scale that the observation sets is such a product; an MLP that is given both side by side
    (`DenoisingMLPConfig`) has to put it together from sums.

    Attributes:
        width: Size of the hidden layers.
        blocks: Residual blocks of two layers each.
        features: Size of the embedding of observation and time that sets scales and shifts.
        activation: Activation of the trunk.
        step_dim: Size of the time embedding; even, at least 4.
    """

    kind: Literal["film_mlp"] = "film_mlp"
    width: PositiveInt = 512
    blocks: PositiveInt = 2
    features: PositiveInt = 256
    activation: Activation = "relu"
    step_dim: PositiveInt = 16

    def build(self, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int) -> "FiLMMLP":
        """Make the network.

        Args:
            action_dim: A, size of one action.
            horizon: Tp, actions in a chunk.
            cond_dim: D, size of one encoded observation.
            n_obs_steps: To, observations in the history.

        Returns:
            The network.

        Raises:
            ConfigError: If ``step_dim`` is odd or below 4.
        """
        return FiLMMLP(self, action_dim * horizon, cond_dim * n_obs_steps)


class FiLMMLP(Denoiser):
    """See `FiLMMLPConfig`."""

    def __init__(self, config: FiLMMLPConfig, chunk_size: int, cond_size: int) -> None:
        """Make the layers.

        Args:
            config: The sizes.
            chunk_size: Tp * A.
            cond_size: To * D.
        """
        super().__init__()
        act = ACTIVATIONS[config.activation]
        self.embed_time = SinusoidalEmbedding(config.step_dim)
        self.embed = nn.Sequential(
            nn.Linear(cond_size + config.step_dim, config.features),
            act(),
            nn.Linear(config.features, config.features),
            act(),
        )
        self.enter = nn.Linear(chunk_size + config.features, config.width)
        self.blocks = nn.ModuleList(FiLMBlock(config.width, config.features, act()) for _ in range(config.blocks))
        self.leave = nn.Linear(config.width, chunk_size)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        features = self.embed(torch.cat([cond.flatten(1), self.embed_time(t)], dim=-1))
        h = self.enter(torch.cat([x.flatten(1), features], dim=-1))
        for block in self.blocks:
            h = block(h, features)
        prediction: Tensor = self.leave(h)
        return prediction.float().view(x.shape)

    def of_times(self, t: Tensor) -> Tensor:
        """See `Denoiser.of_times`."""
        embedded: Tensor = self.embed_time(t)
        return embedded

    def told(self, times: Tensor, cond: Tensor) -> Sequence[Told]:
        """See `Denoiser.told`: the first layer's offset, then the scale and shift of each block."""
        rows = cond.flatten(1).expand(len(times), -1, -1)
        features = self.embed(torch.cat([rows, times[:, None].expand(-1, len(cond), -1)], dim=-1))  # (S, B, F)
        enter, bias = matrix(self.enter)
        told = [features @ enter[-features.shape[-1] :] + bias]
        for block in self.blocks:
            scale, shift = cast(FiLMBlock, block).film(features).chunk(2, dim=-1)
            told += [1 + scale, shift]
        return list(zip(*(part.unbind() for part in told), strict=True))

    def step(self) -> Step:
        """See `Denoiser.step`. It calls no modules: on a small network their calls take as long as the products."""
        blocks: list[Any] = list(self.blocks)
        parts = [(product(block.first), product(block.second), block.act.forward) for block in blocks]
        (enter, _), leave = matrix(self.enter), product(self.leave)
        to_chunk = enter[: self.leave.out_features]

        def step(x: Tensor, offset: Tensor, *films: Tensor) -> Tensor:
            h = torch.addmm(offset, x.flatten(1), to_chunk)
            for k, (first, second, act) in enumerate(parts):
                inner = torch.addcmul(films[2 * k + 1], films[2 * k], first(act(h)))
                h = h + second(act(inner))
            return leave(h).float().view(x.shape)

        return step


class FiLMBlock(nn.Module):
    """``h + W2 act((1 + scale) * W1 act(h) + shift)``, scale and shift linear in the features."""

    def __init__(self, width: int, features: int, act: nn.Module) -> None:
        """Make the layers.

        Args:
            width: Size of input, hidden layer and output.
            features: Size of what sets scale and shift.
            act: The activation.
        """
        super().__init__()
        self.first = nn.Linear(width, width)
        self.film = nn.Linear(features, 2 * width)
        self.second = nn.Linear(width, width)
        self.act = act

    def forward(self, h: Tensor, features: Tensor) -> Tensor:
        """Add the block's output to its input (B, width), given features (B, F)."""
        scale, shift = self.film(features).chunk(2, dim=-1)
        inner = (1 + scale) * self.first(self.act(h)) + shift
        out: Tensor = h + self.second(self.act(inner))
        return out
