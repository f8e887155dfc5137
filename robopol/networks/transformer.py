"""The transformer denoiser of Diffusion Policy: a causal decoder that attends to time and observations."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.networks.denoiser import Denoiser, Step, Told
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


class Transformer(Denoiser):
    """See `TransformerConfig`.

    Memory is one token for the time and one an observation, through Linear, Mish, Linear. Decoder layers are
    pre-normalised, with GELU. Action step i attends to action steps up to i, to the time, and to observation
    steps up to i (both sequences start at the same step).
    """

    action_mask: Tensor
    memory_mask: Tensor

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

        # True where a step attends; both follow from the sizes, so they do not belong in a checkpoint.
        steps = torch.arange(horizon)
        seen = torch.arange(n_obs_steps)[None, :] <= steps[:, None]
        always = torch.ones(horizon, 1, dtype=torch.bool)
        self.register_buffer("action_mask", steps[None, :] <= steps[:, None], persistent=False)
        self.register_buffer("memory_mask", torch.cat([always, seen], 1), persistent=False)

    def _initialize(self) -> None:
        """Draw matrices and positions from N(0, 0.02); zero the biases of linear maps."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        return self._decode(x, torch.cat([self._times(t)[:, :, None], self._observations(cond)], dim=2))

    def of_times(self, t: Tensor) -> Tensor:
        """See `Denoiser.of_times`: the keys and values of the time token in every layer, (S, layers, 1, 1, 2 width)."""
        return self._times(t).transpose(0, 1)[:, :, None, None]

    def told(self, times: Tensor, cond: Tensor) -> Sequence[Told]:
        """See `Denoiser.told`: what memory offers to attention does not depend on the actions."""
        observations = self._observations(cond)
        return [(time, observations) for time in times.unbind()]

    def step(self) -> Step:
        """See `Denoiser.step`."""

        def step(x: Tensor, time: Tensor, observations: Tensor) -> Tensor:
            return self._decode(x, torch.cat([time.expand(-1, len(x), -1, -1), observations], dim=2))

        return step

    def _times(self, t: Tensor) -> Tensor:
        """Return the keys and values of time tokens (B,) in every layer, (layers, B, 2 width)."""
        return self._offer(self.embed_time(t) + self.memory_positions[:, 0])

    def _observations(self, cond: Tensor) -> Tensor:
        """Return the keys and values of observation tokens (B, To, D) in every layer, (layers, B, To, 2 width)."""
        return self._offer(self.embed_obs(cond) + self.memory_positions[:, 1:])

    def _offer(self, tokens: Tensor) -> Tensor:
        """Encode tokens of the memory (..., width); return what each layer attends to, (layers, ..., 2 width)."""
        memory = self.encode_memory(self.dropout(tokens))
        offers = []
        layer: Any
        for layer in self.decoder.layers:
            attention = layer.multihead_attn
            own = memory.shape[-1]  # the first rows of the projection make queries
            offers.append(F.linear(memory, attention.in_proj_weight[own:], attention.in_proj_bias[own:]))
        return torch.stack(offers)

    def _decode(self, x: Tensor, offers: Tensor) -> Tensor:
        """Map noisy chunks (B, Tp, A), and the memory's keys and values (layers, B, 1 + To, 2 width), to (B, Tp, A).

        The layers' own ``forward`` would make keys and values anew in every step of a walk.
        """
        h = self.dropout(self.embed_action(x) + self.action_positions)
        layer: Any
        for layer, offer in zip(self.decoder.layers, offers.unbind(), strict=True):
            attention, normal = layer.self_attn, layer.norm1(h)
            query, key, value = F.linear(normal, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
            h = h + layer.dropout1(_attend(attention, query, key, value, self.action_mask))
            attention, normal = layer.multihead_attn, layer.norm2(h)
            own = normal.shape[-1]
            query = F.linear(normal, attention.in_proj_weight[:own], attention.in_proj_bias[:own])
            key, value = offer.chunk(2, dim=-1)
            h = h + layer.dropout2(_attend(attention, query, key, value, self.memory_mask))
            inner = layer.dropout(layer.activation(layer.linear1(layer.norm3(h))))
            h = h + layer.dropout3(layer.linear2(inner))
        prediction: Tensor = self.head(cast("nn.LayerNorm", self.decoder.norm)(h))
        return prediction.float()


def _attend(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Attend from (B, T, width) to (B, M, width), already projected, where ``seen`` (T, M); project the result."""
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    dropout = attention.dropout if attention.training else 0.0
    heads = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
    out: Tensor = attention.out_proj(heads.transpose(1, 2).flatten(2))
    return out
