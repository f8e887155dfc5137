"""The transformer denoiser of Diffusion Policy: a causal decoder that attends to time and observations."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.networks.embeddings import SinusoidalEmbedding


class TransformerConfig(Config):
    """The transformer of Diffusion Policy (Chi et al. 2023), observations as memory tokens.

    The defaults are the published ones for Push-T from state.

    Attributes:
        width: Size of a token; even, a multiple of ``heads``. The feed-forward layers are four times as wide.
        layers: Decoder layers.
        heads: Attention heads.
        dropout: Dropout in attention and feed-forward layers, in [0, 1).
        embedding_dropout: Dropout of the token embeddings, in [0, 1).
    """

    kind: Literal["transformer"] = "transformer"
    width: PositiveInt = 256
    layers: PositiveInt = 8
    heads: PositiveInt = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    embedding_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int) -> "Transformer":
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
        return Transformer(self, action_dim, horizon, cond_dim, n_obs_steps)


class Transformer(nn.Module):
    """See `TransformerConfig`.

    Memory is one token for the time and one an observation, through Linear, Mish, Linear. Decoder layers are
    pre-normalised, with GELU. Action step i attends to action steps up to i, to the time, and to observation
    steps up to i (both sequences start at the same step).
    """

    def __init__(
        self, config: TransformerConfig, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int
    ) -> None:
        """Make the layers; weights from N(0, 0.02), biases 0.

        Args:
            config: The sizes.
            action_dim: A.
            horizon: Tp.
            cond_dim: D.
            n_obs_steps: To.
        """
        super().__init__()
        width = config.width
        self.embed_time = SinusoidalEmbedding(width)
        self.embed_action = nn.Linear(action_dim, width)
        self.embed_obs = nn.Linear(cond_dim, width)
        self.action_positions = nn.Parameter(torch.empty(1, horizon, width))
        self.memory_positions = nn.Parameter(torch.empty(1, 1 + n_obs_steps, width))
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.encode_memory = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        layer = nn.TransformerDecoderLayer(
            width, config.heads, 4 * width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.layers, norm=nn.LayerNorm(width))
        self.head = nn.Linear(width, action_dim)
        self._initialize()

        # True where attention is barred; both follow from the sizes, so they do not belong in a checkpoint.
        steps = torch.arange(horizon)
        barred = steps[None, :] > steps[:, None]
        unseen = torch.arange(n_obs_steps)[None, :] > steps[:, None]
        self.register_buffer("action_mask", barred, persistent=False)
        self.register_buffer(
            "memory_mask", torch.cat([torch.zeros(horizon, 1, dtype=torch.bool), unseen], 1), persistent=False
        )

    def _initialize(self) -> None:
        """Draw matrices and positions from N(0, 0.02); zero the biases of linear maps."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predict, for each chunk, what the policy's prediction type names (noise, clean chunk, velocity).

        Args:
            x: Noisy action chunks (B, Tp, A).
            t: Network times (B,), float32.
            cond: Encoded observation histories (B, To, D).

        Returns:
            The prediction (B, Tp, A), float32.
        """
        tokens = torch.cat([self.embed_time(t)[:, None], self.embed_obs(cond)], dim=1)
        memory = self.encode_memory(self.dropout(tokens + self.memory_positions))
        actions = self.dropout(self.embed_action(x) + self.action_positions)
        decoded = self.decoder(actions, memory, tgt_mask=self.action_mask, memory_mask=self.memory_mask)
        prediction: Tensor = self.head(decoded)
        return prediction.float()
