"""An MLP that gives a scalar energy to an action chunk and an observation history."""

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from robopol.config import Config
from robopol.networks.mlp import ACTIVATIONS, MLP


class EnergyMLPConfig(Config):
    """An MLP on the flattened chunk and the flattened observations.

    Training takes the gradient of a gradient, so only activations with a second derivative are offered: a ReLU network
    is linear between its kinks and would learn nothing from its curvature.

    Attributes:
        hidden: Sizes of the hidden layers.
        activation: Activation of the hidden layers.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field((512, 512, 512), min_length=1)
    activation: Literal["gelu", "silu", "mish", "tanh"] = "gelu"

    def build(self, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int) -> "EnergyMLP":
        """Make the network.

        Args:
            action_dim: A, size of one action.
            horizon: Tp, actions in a chunk.
            cond_dim: D, size of one encoded observation.
            n_obs_steps: To, observations in the history.

        Returns:
            The network.
        """
        return EnergyMLP(self, action_dim * horizon, cond_dim * n_obs_steps)


class EnergyMLP(nn.Module):
    """See `EnergyMLPConfig`."""

    def __init__(self, config: EnergyMLPConfig, chunk_size: int, cond_size: int) -> None:
        """Make the layers.

        Args:
            config: The sizes.
            chunk_size: Tp * A.
            cond_size: To * D.
        """
        super().__init__()
        *hidden, last = config.hidden
        self.trunk = nn.Sequential(
            MLP(chunk_size + cond_size, hidden, last, config.activation),
            ACTIVATIONS[config.activation](),
            nn.Linear(last, 1, bias=False),  # a constant has no gradient
        )

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Return the energy of each chunk.

        Args:
            x: Action chunks (B, Tp, A).
            cond: Encoded observation histories (B, To, D).

        Returns:
            Energies (B,), twice differentiable in both.
        """
        energy: Tensor = self.trunk(torch.cat([x.flatten(1), cond.flatten(1)], dim=-1)).squeeze(-1)
        return energy
