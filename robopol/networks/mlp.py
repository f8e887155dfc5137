"""Multi-layer perceptrons: a plain one and one with pre-activation residual blocks."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "gelu", "elu", "mish", "silu", "tanh"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
"""The activations a config can name."""


class MLP(nn.Sequential):
    """Linear layers with an activation after each but the last."""

    def __init__(
        self, in_features: int, hidden: Sequence[int], out_features: int, activation: Activation = "relu"
    ) -> None:
        """Make the layers.

        Args:
            in_features: Size of the input.
            hidden: Sizes of the hidden layers; empty gives one linear map.
            out_features: Size of the output.
            activation: Name of the activation.
        """
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(in_features, width), ACTIVATIONS[activation]()]
            in_features = width
        super().__init__(*layers, nn.Linear(in_features, out_features))


class ResidualBlock(nn.Module):
    """``h + W2 act(W1 act(h))`` with biases: a pre-activation block (He et al. 2016) on vectors."""

    def __init__(self, width: int, activation: Activation) -> None:
        """Make the two layers.

        Args:
            width: Size of input, hidden layer and output.
            activation: Name of the activation.
        """
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.act = ACTIVATIONS[activation]()

    def forward(self, h: Tensor) -> Tensor:
        """Add the block's output to its input (..., width)."""
        return h + self.second(self.act(self.first(self.act(h))))


class ResidualMLP(nn.Sequential):
    """A linear layer, residual blocks, a linear layer; no activation outside the blocks."""

    def __init__(
        self, in_features: int, width: int, blocks: int, out_features: int, activation: Activation = "relu"
    ) -> None:
        """Make the layers.

        Args:
            in_features: Size of the input.
            width: Size of every hidden layer.
            blocks: Number of residual blocks (two layers each).
            out_features: Size of the output.
            activation: Name of the activation.
        """
        super().__init__(
            nn.Linear(in_features, width),
            *(ResidualBlock(width, activation) for _ in range(blocks)),
            nn.Linear(width, out_features),
        )
