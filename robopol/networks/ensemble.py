"""Several multi-layer perceptrons of one shape as one batched computation: the heads of a critic."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.networks.fused import Layer, perceptrons
from robopol.networks.mlp import ACTIVATIONS, Activation

Members = int | Tensor | None
"""Which members are asked: the first so many, those of some numbers, int64, or all."""


def chosen(parameter: Tensor, members: Members) -> Tensor:
    """Return what belongs to some members, of a parameter whose first axis they are."""
    if members is None or (isinstance(members, int) and members == len(parameter)):
        return parameter
    return parameter[:members] if isinstance(members, int) else parameter.index_select(0, members)


class EnsembleLinear(nn.Module):
    """E linear layers, ``y_e = x_e W_e + b_e``, each started as ``torch.nn.Linear`` is."""

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        """Draw the weights.

        Args:
            members: E.
            in_features: Size of the input.
            out_features: Size of the output.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(members, 1, out_features))
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, members: Members = None) -> Tensor:
        """Map (E, B, in) to (E, B, out)."""
        return torch.baddbmm(chosen(self.bias, members), x, chosen(self.weight, members))


class EnsembleNorm(nn.Module):
    """E layer normalisations over the last axis, each with a scale and a shift of its own (Ball et al. 2023, RLPD)."""

    def __init__(self, members: int, width: int) -> None:
        """Start as a plain normalisation.

        Args:
            members: E.
            width: Size of the last axis.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor, members: Members = None) -> Tensor:
        """Normalise (E, B, width)."""
        return F.layer_norm(x, x.shape[-1:]) * chosen(self.weight, members) + chosen(self.bias, members)


class EnsembleMLP(nn.Module):
    """E perceptrons that see the same input and know nothing of each other.

    Attributes:
        fused: Whether they may be computed as one step (`robopol.networks.fused`), where that is the same.
    """

    fused = True

    def __init__(
        self,
        members: int,
        in_features: int,
        hidden: Sequence[int],
        activation: Activation = "relu",
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Make the layers.

        Args:
            members: E.
            in_features: Size of the input.
            hidden: Sizes of the hidden layers.
            activation: Name of the activation.
            layer_norm: Whether every hidden layer is normalised before its activation.
            dropout: Share of a hidden layer that is left out at random in training mode, before it is normalised
                (Hiraoka et al. 2022, DroQ).
        """
        super().__init__()
        self.members = members
        self._rectified, self._dropout = activation == "relu", dropout
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(EnsembleLinear(members, in_features, width))
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
            layers += [EnsembleNorm(members, width)] if layer_norm else []
            layers.append(ACTIVATIONS[activation]())
            in_features = width
        self.layers = nn.Sequential(*layers, EnsembleLinear(members, in_features, 1))

    def forward(self, x: Tensor, members: Members = None) -> Tensor:
        """Return one number of each member.

        Args:
            x: (..., in).
            members: Which ones are asked, E of them.

        Returns:
            (E, ...).
        """
        flat = x.reshape(-1, x.shape[-1])
        out = perceptrons(flat, self._layers(members)) if self._fusible(x) else self._by_layers(flat, members)
        return out.view(-1, *x.shape[:-1])

    def _fusible(self, x: Tensor) -> bool:
        dropping = self.training and self._dropout > 0
        return self.fused and self._rectified and not dropping and not torch.is_autocast_enabled(x.device.type)

    def _layers(self, members: Members) -> list[Layer]:
        found: list[Layer] = []
        for layer in self.layers:
            if isinstance(layer, EnsembleLinear):
                found.append(Layer(chosen(layer.weight, members), chosen(layer.bias, members)))
            elif isinstance(layer, EnsembleNorm):
                found[-1] = Layer(*found[-1][:2], chosen(layer.weight, members), chosen(layer.bias, members))
        return found

    def _by_layers(self, x: Tensor, members: Members) -> Tensor:
        asked = self.members if members is None else members if isinstance(members, int) else len(members)
        x = x.expand(asked, -1, -1)
        for layer in self.layers:
            x = layer(x, members) if isinstance(layer, EnsembleLinear | EnsembleNorm) else layer(x)
        return x
