"""A transformer that gives a scalar energy to an action chunk and an observation history."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.networks.embeddings import SinusoidalEmbedding


class EnergyTransformerConfig(Config):
    """The transformer of EBT-Policy (Davies et al. 2025), whose defaults are the published ones.

    Attributes:
        width: Size of a token; even, a multiple of ``heads``. The feed-forward layers are as wide.
        layers: Layers.
        heads: Attention heads.
        dropout: Dropout of the attention weights, in [0, 1). It stays active between the steps of a descent, so in
            training each step sees another landscape.
    """

    kind: Literal["transformer"] = "transformer"
    width: PositiveInt = 256
    layers: PositiveInt = 8
    heads: PositiveInt = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3

    def build(self, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int) -> "EnergyTransformer":
        """Make the network.

        Args:
            action_dim: A, size of one action.
            horizon: Tp, actions in a chunk.
            cond_dim: D, size of one encoded observation.
            n_obs_steps: To, observations in the history.

        Returns:
            The network.

        Raises:
            ConfigError: If ``width`` is odd, below 4, or not a multiple of ``heads``.
        """
        if self.width % self.heads:
            raise ConfigError(f"a transformer's width is a multiple of its heads, got {self.width} and {self.heads}")
        return EnergyTransformer(self, action_dim, horizon, cond_dim, n_obs_steps)


class EnergyTransformer(nn.Module):
    """See `EnergyTransformerConfig`.

    Actions attend to all actions of the chunk, and action step i to observation steps up to i (both sequences start at
    the same step). The energy is the mean of one number for each entry of the chunk.
    """

    observed: Tensor
    action_positions: Tensor
    obs_positions: Tensor

    def __init__(
        self, config: EnergyTransformerConfig, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int
    ) -> None:
        """Make the layers.

        Args:
            config: The sizes.
            action_dim: A.
            horizon: Tp.
            cond_dim: D.
            n_obs_steps: To.
        """
        super().__init__()
        width = config.width
        self.embed_action = nn.Sequential(nn.Linear(action_dim, width), nn.GELU(), nn.Linear(width, width))
        self.embed_obs = nn.Sequential(nn.Linear(cond_dim, width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(Layer(width, config.heads, config.dropout) for _ in range(config.layers))
        self.head = nn.Sequential(
            RMSNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, action_dim, bias=False),  # a constant has no gradient
        )

        # all follow from the sizes, so they do not belong in a checkpoint
        embed = SinusoidalEmbedding(width)
        actions, observations = torch.arange(horizon), torch.arange(n_obs_steps)
        self.register_buffer("action_positions", embed(actions.float()), persistent=False)
        self.register_buffer("obs_positions", embed(observations.float()), persistent=False)
        self.register_buffer("observed", observations[None, :] <= actions[:, None], persistent=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Return the energy of each chunk.

        Args:
            x: Action chunks (B, Tp, A).
            cond: Encoded observation histories (B, To, D).

        Returns:
            Energies (B,), twice differentiable in both.
        """
        tokens = self.embed_action(x) + self.action_positions
        memory = self.embed_obs(cond) + self.obs_positions
        for layer in self.layers:
            tokens = layer(tokens, memory, self.observed)
        energy: Tensor = self.head(tokens).mean((-1, -2))
        return energy


class RMSNorm(nn.Module):
    """``weight * x / rms(x)`` over the last axis (Zhang & Sennrich 2019), in operations that differentiate twice."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        """Make weight 1.

        Args:
            width: Size of the last axis.
            eps: Added to the mean square.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., width)."""
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys.

    Written out, because the fused kernels for it have no second derivative.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """Make the maps.

        Args:
            width: Size of a token.
            heads: Attention heads.
            dropout: Dropout of the attention weights.
        """
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.query_norm, self.key_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, memory: Tensor, seen: Tensor | None) -> Tensor:
        """Attend.

        Args:
            tokens: What asks, (B, T, width).
            memory: What is asked, (B, S, width).
            seen: True where attention is allowed, (T, S); None allows all of it.

        Returns:
            (B, T, width).
        """
        query = self.query_norm(self._split(self.query(tokens)))  # (B, heads, T, width / heads)
        key, value = (self._split(part) for part in self.key_value(memory).chunk(2, dim=-1))
        scores = query @ self.key_norm(key).transpose(-1, -2) * query.shape[-1] ** -0.5
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        attended: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return attended

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Pre-normalised self-attention, attention to the observations and a feed-forward layer with GELU."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """Make the parts; see `Attention`."""
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.feed_forward = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        """Update the action tokens (B, Tp, width) from themselves and from the memory (B, To, width)."""
        first, second, third = self.norms
        h = first(tokens)
        tokens = tokens + self.own(h, h, None)
        tokens = tokens + self.cross(second(tokens), memory, seen)
        updated: Tensor = tokens + self.feed_forward(third(tokens))
        return updated
