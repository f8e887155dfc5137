"""An MLP that denoises a whole action chunk at once: the network DPPO uses for state observations."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from robopol.config import Config
from robopol.networks.denoiser import Denoiser, Step, Told
from robopol.networks.embeddings import SinusoidalEmbedding
from robopol.networks.mlp import Activation, ResidualMLP, matrix


class DenoisingMLPConfig(Config):
    """A residual MLP on the flattened chunk, the embedded time and the flattened observations.

    The defaults are DPPO's network for the Gym tasks (Ren et al. 2024; its ``DiffusionMLP`` in residual style
    with three hidden sizes of 512): an input layer, one block of two layers, an output layer; ReLU in the
    trunk, and a 16-d sinusoidal time embedding through Linear(32), Mish, Linear(16). Each two further hidden
    sizes of theirs are one more block here.

    Attributes:
        width: Size of the hidden layers.
        blocks: Residual blocks of two layers each.
        activation: Activation of the trunk.
        step_dim: Size of the time embedding; even, at least 4.
    """

    kind: Literal["mlp"] = "mlp"
    width: PositiveInt = 512
    blocks: PositiveInt = 1
    activation: Activation = "relu"
    step_dim: PositiveInt = 16

    def build(self, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int) -> "DenoisingMLP":
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
        return DenoisingMLP(self, action_dim * horizon, cond_dim * n_obs_steps)


class DenoisingMLP(Denoiser):
    """See `DenoisingMLPConfig`."""

    def __init__(self, config: DenoisingMLPConfig, chunk_size: int, cond_size: int) -> None:
        """Make the layers.

        Args:
            config: The sizes.
            chunk_size: Tp * A.
            cond_size: To * D.
        """
        super().__init__()
        step = config.step_dim
        self.embed_time = nn.Sequential(
            SinusoidalEmbedding(step), nn.Linear(step, 2 * step), nn.Mish(), nn.Linear(2 * step, step)
        )
        self._sizes = [chunk_size, step, cond_size]
        in_features = chunk_size + step + cond_size
        self.trunk = ResidualMLP(in_features, config.width, config.blocks, chunk_size, config.activation)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        features = torch.cat([x.flatten(1), self.embed_time(t), cond.flatten(1)], dim=-1)
        prediction: Tensor = self.trunk(features)
        return prediction.float().view(x.shape)

    def of_times(self, t: Tensor) -> Tensor:
        """See `Denoiser.of_times`: what the time adds to the first layer, (S, width)."""
        enter, _ = matrix(cast("nn.Linear", self.trunk[0]))
        added: Tensor = self.embed_time(t) @ enter.split(self._sizes)[1]
        return added

    def told(self, times: Tensor, cond: Tensor) -> Sequence[Told]:
        """See `Denoiser.told`: what time and observation add to the first layer."""
        enter, bias = matrix(cast("nn.Linear", self.trunk[0]))
        context = torch.addmm(bias, cond.flatten(1), enter.split(self._sizes)[2])
        return [(time, context) for time in times.unbind()]

    def step(self) -> Step:
        """See `Denoiser.step`."""
        enter, _ = matrix(cast("nn.Linear", self.trunk[0]))
        to_chunk, rest = enter[: self._sizes[0]], self.trunk.after_first()

        def step(x: Tensor, time: Tensor, context: Tensor) -> Tensor:
            return rest(torch.addmm(time + context, x.flatten(1), to_chunk)).float().view(x.shape)

        return step
