"""Several multi-layer perceptrons of one shape as one batched computation: the heads of a critic."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.networks.mlp import ACTIVATIONS, Activation


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

    def forward(self, x: Tensor) -> Tensor:
        """Map (E, B, in) to (E, B, out); with fewer than E inputs, only the first layers are asked."""
        asked = len(x)
        if asked == len(self.weight):
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias[:asked], x, self.weight[:asked])


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

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (E, B, width); with fewer than E inputs, only by the first scales and shifts."""
        return F.layer_norm(x, x.shape[-1:]) * self.weight[: len(x)] + self.bias[: len(x)]


class EnsembleMLP(nn.Module):
    """E perceptrons that see the same input and know nothing of each other."""

    def __init__(
        self,
        members: int,
        in_features: int,
        hidden: Sequence[int],
        activation: Activation = "relu",
        *,
        layer_norm: bool = False,
    ) -> None:
        """Make the layers.

        Args:
            members: E.
            in_features: Size of the input.
            hidden: Sizes of the hidden layers.
            activation: Name of the activation.
            layer_norm: Whether every hidden layer is normalised before its activation.
        """
        super().__init__()
        self.members = members
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(EnsembleLinear(members, in_features, width))
            layers += [EnsembleNorm(members, width)] if layer_norm else []
            layers.append(ACTIVATIONS[activation]())
            in_features = width
        self.layers = nn.Sequential(*layers, EnsembleLinear(members, in_features, 1))

    def forward(self, x: Tensor, members: int | None = None) -> Tensor:
        """Return one number of each member.

        Args:
            x: (..., in).
            members: E, to ask the first so many only; None asks all.

        Returns:
            (E, ...).
        """
        asked = self.members if members is None else members
        flat = x.reshape(1, -1, x.shape[-1]).expand(asked, -1, -1)
        out: Tensor = self.layers(flat)
        return out.view(asked, *x.shape[:-1])
