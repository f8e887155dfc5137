"""A conditional normalising flow that is an energy at once: density, samples, Q and soft value in closed form."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.networks.mlp import MLP

CouplingKind = Literal["additive", "affine"]

EDGE = 1e-5
"""The density of an action nearer to the box's edge than this share of its half width is that at this distance."""
LARGEST_LOG_SCALE = 3.0
"""An affine coupling stretches an entry by at most e to this power."""


class Prior(NamedTuple):
    """Where latents come from: K Gaussians with one diagonal standard deviation.

    Attributes:
        log_weights: (..., K).
        centres: (..., K, D).
        log_std: (..., D).
    """

    log_weights: Tensor
    centres: Tensor
    log_std: Tensor

    def centre(self, chosen: Tensor) -> Tensor:
        """Return the centres (..., D) of the Gaussians ``chosen`` (...)."""
        one_hot = chosen[..., None] == torch.arange(self.centres.shape[-2], device=chosen.device)
        return (one_hot.to(self.centres.dtype)[..., None] * self.centres).sum(-2)


class EnergyFlow(nn.Module):
    """The energy-based normalising flow of MEow (Chao et al. 2024, arXiv 2405.13629).

    An action is ``a = box * tanh(u)``, ``u`` comes from the latent ``z`` by couplings, and ``z`` is a mixture of K
    Gaussians with one diagonal standard deviation:

        p(z | s) = sum_k w_k(s) N(z; mu_k(s), diag sigma(s)^2)

    By the change of variables log pi(a|s) is a sum of terms. Those that depend on the action make up Q, the others V:

        Q(s, a) = alpha [log sum_k w_k exp(-|z - mu_k|^2 / (2 sigma^2)) + log |det dz/da| + b(s)]
        V(s)    = alpha [(D / 2) log 2 pi + sum_d log sigma_d + b(s)]

    so that V = alpha log int exp(Q / alpha) da and pi = exp((Q - V) / alpha) hold without approximation. The shift b
    cancels in pi; there are two of them, and so two heads of Q and V over one density (clipped double Q).

    The released network has additive couplings and K = 1. Additive couplings do not change volumes, so its density
    has a single peak in u. Affine couplings, whose volume change depends on the action, bend it further; several
    Gaussians are several peaks from the start.

    Entries that `free` leaves out are always 0 and no part of the density.
    """

    free: Tensor

    def __init__(
        self,
        action_size: int,
        cond_size: int,
        *,
        modes: int,
        coupling: CouplingKind,
        pairs: int,
        hidden: Sequence[int],
        shift_hidden: Sequence[int],
        log_std: tuple[float, float],
        box: float,
        alpha: float,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Make the networks. At first all couplings are the identity, and the shifts are 0.

        Args:
            action_size: D, entries of an action.
            cond_size: C, entries of the condition.
            modes: K, Gaussians of the prior.
            coupling: What a coupling does to half of the entries, given the others.
            pairs: Pairs of couplings; each moves every entry once.
            hidden: Hidden sizes of the prior's network and of each coupling's.
            shift_hidden: Hidden sizes of each shift's network.
            log_std: Smallest and largest log sigma.
            box: Half width of the box that actions lie in.
            alpha: The temperature.
            layer_norm: Whether the couplings' hidden layers are normalised.
            dropout: Share of them that is left out at random in training mode.
        """
        super().__init__()
        self.action_size, self.modes, self.box, self.alpha = action_size, modes, box, alpha
        self.low, self.high = log_std
        self.register_buffer("free", torch.ones(action_size))
        self.prior = neutral(cond_size, hidden, modes + (modes + 1) * action_size)
        parities = [parity for parity in (0, 1) if action_size > parity] * pairs
        self.couplings = nn.ModuleList(
            Coupling(action_size, cond_size, parity, coupling, hidden, layer_norm, dropout) for parity in parities
        )  # in the order of generation
        self.shifts = nn.ModuleList(neutral(cond_size, shift_hidden, 1) for _ in range(2))

    @torch.no_grad()
    def start_at(self, centres: Tensor, free: Tensor) -> None:
        """Put the Gaussians where the actions cluster, and say which entries vary at all.

        Args:
            centres: (K, D), inside the box.
            free: (D,) bool.
        """
        self.free.copy_(free)
        head = self.prior[-1]
        assert isinstance(head, nn.Linear)
        head.bias[self.modes : self.modes * (1 + self.action_size)] = self._unsquash(centres)[0].flatten()

    def sample(self, cond: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions with their log-densities; gradients flow through all but the choice of the Gaussian.

        Args:
            cond: (..., C).
            noise: Standard normal, (..., 1 + D): the first entry chooses the Gaussian. Zeros after it give the
                Gaussian's centre.

        Returns:
            Actions (..., D) and log pi of them (...).
        """
        prior = self._prior(cond)
        share = torch.special.ndtr(noise[..., :1])
        chosen = (share > prior.log_weights.exp().cumsum(-1)[..., :-1]).sum(-1)
        return self._generate(prior.centre(chosen) + prior.log_std.exp() * noise[..., 1:] * self.free, cond, prior)

    def mode(self, cond: Tensor) -> Tensor:
        """Return the centre of the likeliest Gaussian, carried to the actions (..., D).

        With K = 1 that is the released greedy action, z = 0 there. It is a good action, but neither the densest nor
        that of the largest Q: the change of volumes moves both.
        """
        prior = self._prior(cond)
        return self._generate(prior.centre(prior.log_weights.argmax(-1)), cond, prior)[0]

    def log_prob(self, cond: Tensor, action: Tensor) -> Tensor:
        """Return log pi(a|s) over the free entries (...), for actions (..., D) under conditions (..., C)."""
        prior = self._prior(cond)
        return self._energy(cond, action, prior) - self._log_volume(prior)

    def q(self, cond: Tensor, action: Tensor) -> Tensor:
        """Return both heads of Q (2, ...), for actions (..., D) under conditions (..., C)."""
        return self.alpha * (self._energy(cond, action, self._prior(cond)) + self._shift(cond))

    def v(self, cond: Tensor) -> Tensor:
        """Return both heads of V (2, ...) under conditions (..., C); no coupling is evaluated."""
        return self.alpha * (self._log_volume(self._prior(cond)) + self._shift(cond))

    def _prior(self, cond: Tensor) -> Prior:
        sizes = (self.modes, self.modes * self.action_size, self.action_size)
        logits, centres, raw = self.prior(cond).to(cond.dtype).split(sizes, -1)  # exact after a net in bfloat16, too
        log_std = self.low + 0.5 * (self.high - self.low) * (raw.tanh() + 1)
        return Prior(logits.log_softmax(-1), centres.unflatten(-1, (self.modes, -1)) * self.free, log_std)

    def _shift(self, cond: Tensor) -> Tensor:
        return torch.stack([shift(cond)[..., 0].to(cond.dtype) for shift in self.shifts])

    def _log_volume(self, prior: Prior) -> Tensor:
        """Return the log-integral of the prior without its normaliser (...)."""
        return ((prior.log_std + 0.5 * math.log(2 * math.pi)) * self.free).sum(-1)

    def _unnormalised(self, z: Tensor, prior: Prior) -> Tensor:
        """Return the log of the prior without its normaliser (...)."""
        deviation = (z[..., None, :] - prior.centres) / prior.log_std.exp()[..., None, :] * self.free
        return torch.logsumexp(prior.log_weights - 0.5 * (deviation**2).sum(-1), -1)

    def _energy(self, cond: Tensor, action: Tensor, prior: Prior) -> Tensor:
        """Return the terms of log pi that depend on the action (...)."""
        z, log_det = self._unsquash(action)
        for coupling in reversed(self.couplings):
            z, change = coupling(z, cond, self.free, inverse=True)
            log_det = log_det + change
        return self._unnormalised(z, prior) + log_det

    def _generate(self, z: Tensor, cond: Tensor, prior: Prior) -> tuple[Tensor, Tensor]:
        """Carry latents (..., D) to actions; return these and their log-densities."""
        log_prob = self._unnormalised(z, prior) - self._log_volume(prior)
        for coupling in self.couplings:
            z, change = coupling(z, cond, self.free)
            log_prob = log_prob - change
        # log(1 - tanh(u)^2), without cancellation
        log_slope = 2 * (math.log(2) - z - F.softplus(-2 * z)) + math.log(self.box)
        return self.box * z.tanh(), log_prob - (log_slope * self.free).sum(-1)

    def _unsquash(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return u (..., D) and log |det du/da| (...)."""
        inside = (action / self.box).clamp(EDGE - 1, 1 - EDGE) * self.free
        log_slope = -torch.log1p(-(inside**2)) - math.log(self.box)
        return inside.atanh(), (log_slope * self.free).sum(-1)


class Coupling(nn.Module):
    """Moves every other entry by what the remaining ones and the condition say (Dinh et al. 2017).

    Additive: ``x + t``. Affine: ``exp(s) x + t``.
    """

    order: Tensor

    def __init__(
        self,
        size: int,
        cond_size: int,
        parity: int,
        kind: CouplingKind,
        hidden: Sequence[int],
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Make the network.

        Args:
            size: D.
            cond_size: C.
            parity: The entries ``parity``, ``parity + 2``, ... are moved.
            kind: Whether entries are scaled, too.
            hidden: Sizes of the hidden layers.
            layer_norm: Whether they are normalised.
            dropout: Share of them that is left out at random in training mode.
        """
        super().__init__()
        self.moved, self.kept = slice(parity, None, 2), slice(1 - parity, None, 2)
        self.affine = kind == "affine"
        places = torch.arange(size)
        self.register_buffer("order", torch.cat([places[self.moved], places[self.kept]]).argsort(), persistent=False)
        moved = len(places[self.moved])
        seen, said = size - moved + cond_size, moved * (1 + self.affine)
        self.net = neutral(seen, hidden, said, layer_norm=layer_norm, dropout=dropout)

    def forward(self, x: Tensor, cond: Tensor, free: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Move entries, or move them back.

        Args:
            x: (..., D).
            cond: (..., C).
            free: (D,), 1 for the entries that may be moved, 0 for the others.
            inverse: Whether to undo.

        Returns:
            The moved (..., D), and log |det| of this direction's Jacobian (...).
        """
        seen = torch.cat([x[..., self.kept], cond.expand(*x.shape[:-1], -1)], -1)
        out = self.net(seen).to(x.dtype).unflatten(-1, (1 + self.affine, -1))
        shift, *raw = (out * free[self.moved]).unbind(-2)
        moved, kept = x[..., self.moved], x[..., self.kept]
        if not self.affine:
            moved = moved - shift if inverse else moved + shift
            change = x.new_zeros(x.shape[:-1])
        else:
            log_scale = LARGEST_LOG_SCALE * (raw[0] / LARGEST_LOG_SCALE).tanh()
            moved = (moved - shift) / log_scale.exp() if inverse else moved * log_scale.exp() + shift
            change = (-1 if inverse else 1) * log_scale.sum(-1)
        return torch.cat([moved, kept], -1).index_select(-1, self.order), change


def neutral(in_features: int, hidden: Sequence[int], out_features: int, **more: Any) -> MLP:
    """Make a network that begins as the function 0; arguments as for `MLP`."""
    net = MLP(in_features, hidden, out_features, "silu", **more)
    head = net[-1]
    assert isinstance(head, nn.Linear)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return net
