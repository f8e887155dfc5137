"""Multi-layer perceptrons: a plain one and one with pre-activation residual blocks."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: Activation = "relu",
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Make the layers.

        Args:
            in_features: Size of the input.
            hidden: Sizes of the hidden layers; empty gives one linear map.
            out_features: Size of the output.
            activation: Name of the activation.
            layer_norm: Whether every hidden layer is normalised before its activation.
            dropout: Share of a hidden layer that is left out at random in training mode, after its activation.
        """
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(nn.Linear(in_features, width))
            layers += [nn.LayerNorm(width)] if layer_norm else []
            layers.append(ACTIVATIONS[activation]())
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
            in_features = width
        super().__init__(*layers, nn.Linear(in_features, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out); the layers' own functions are called, as a small one is done before its call."""
        for layer in self:
            x = F.linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer.forward(x)
        return x


def orthogonal(net: nn.Sequential, last: float) -> None:
    """Draw the weights of linear layers anew: orthogonal, of gain sqrt(2) and the last of gain ``last``; biases are 0.

    What policy-gradient methods begin from (Engstrom et al. 2020, arXiv 2005.12729).
    """
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, last if layer is layers[-1] else math.sqrt(2))
        nn.init.zeros_(layer.bias)


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

    def after_first(self) -> Callable[[Tensor], Tensor]:
        """Return what follows the first layer as one function of its output (B, width).

        It calls no modules: on a small network their calls take as long as the products.
        """
        layers: list[Any] = list(self)
        parts = [(product(block.first), product(block.second), block.act.forward) for block in layers[1:-1]]
        leave = product(layers[-1])

        def rest(h: Tensor) -> Tensor:
            for first, second, act in parts:
                h = h + second(act(first(act(h))))
            return leave(h)

        return rest


def product(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a layer as a function of its input (B, in), which of an ordinary linear one calls no module."""
    if not isinstance(layer, nn.Linear):  # its weights are packed
        return layer.forward
    weight, bias = matrix(layer)
    return lambda x: torch.addmm(bias, x, weight)


def matrix(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return a linear layer's weights (in, out) and bias (out,), as ``torch.addmm`` takes them."""
    return linear.weight.t(), linear.bias
