"""PPO's gradients for two small perceptrons, written out: autograd takes longer to call than they take to compute.

The numbers are those of autograd up to rounding; a test says so.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from robopol.algos.on_policy import Lesson
from robopol.algos.scoring import Scoring
from robopol.algos.scoring.density import Density
from robopol.models.state_value import StateValueModel
from robopol.networks.mlp import MLP
from robopol.policies.diagonal_gaussian import DiagonalGaussianPolicy


class Perceptron:
    """Forward and backward of an `MLP` whose activations are all tanh or all ReLU."""

    def __init__(self, net: MLP) -> None:
        """Look up the weights; they are changed in place only."""
        self.layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        self._turned = [layer.weight.t() for layer in self.layers]
        self._is_tanh = any(isinstance(layer, nn.Tanh) for layer in net)

    @staticmethod
    def possible(net: nn.Module) -> bool:
        """Say whether a network is one of these."""
        if not isinstance(net, MLP):
            return False
        kinds = {type(layer) for layer in net}
        return kinds <= {nn.Linear, nn.Tanh} or kinds <= {nn.Linear, nn.ReLU}

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the output (B, out) for (B, in), and what every layer saw."""
        seen = []
        for index, (layer, turned) in enumerate(zip(self.layers, self._turned, strict=True)):
            seen.append(x)
            x = torch.addmm(layer.bias, x, turned)
            if index + 1 < len(self.layers):
                x = x.tanh_() if self._is_tanh else x.relu_()
        return x, seen

    def backward(self, slope: Tensor, seen: list[Tensor]) -> None:
        """Set the gradients of all weights, given that of the output, (B, out), and what `forward` returned."""
        for index in range(len(self.layers) - 1, -1, -1):
            layer, x = self.layers[index], seen[index]
            layer.weight.grad, layer.bias.grad = torch.mm(slope.t(), x), slope.sum(0)
            if index:
                slope = torch.mm(slope, layer.weight)
                slope = torch.ops.aten.tanh_backward(slope, x) if self._is_tanh else slope * (x > 0)


class GaussianStep:
    """Losses and gradients of a minibatch; see `robopol.algos.ppo.PPO.losses`, of which this is a special case."""

    def __init__(
        self, density: Density, model: StateValueModel, surrogate: Any, value_weight: float, entropy_weight: float
    ) -> None:
        """Look up the networks; `gaussian_step` says whether it can be."""
        policy = cast(DiagonalGaussianPolicy, density.policy)
        self._actor, self._critic, self._log_std = Perceptron(policy.net), Perceptron(model.net), policy.log_std
        self._surrogate, self._value_weight, self._entropy_weight = surrogate, value_weight, entropy_weight
        self._share = 1.0 if density.reduction == "sum" else 1 / policy.log_std.numel()

    @torch.no_grad()
    def gradients(self, part: Lesson) -> dict[str, Tensor]:
        """Set the gradients of all weights; return the losses."""
        assert part.seen is not None
        assert part.judged is not None
        rows = part.size
        mean, seen = self._actor.forward(part.seen.flatten(1))
        value, judged = self._critic.forward(part.judged)
        log_std = self._log_std.flatten()
        shrink = (-log_std).exp()
        z = (part.trace["latent"].flatten(1) - mean).mul_(shrink)
        squared = z * z
        log_prob = squared.sum(1).mul_(-0.5).sub_(log_std.sum())
        log_ratio = (log_prob - part.old["log_prob"].flatten(1).sum(1)).mul_(self._share)

        gained, slope = self._surrogate.sloped(log_ratio, part.advantage)
        slope = slope.mul_(-self._share / rows)[:, None]
        self._actor.backward((slope * z).mul_(shrink), seen)
        spread = ((squared - 1) * slope).sum(0)
        if self._entropy_weight > 0:
            spread -= self._entropy_weight
        self._log_std.grad = spread.view_as(self._log_std)

        error = value[:, 0] - part.goal
        self._critic.backward((error * (2 * self._value_weight / rows))[:, None], judged)
        value_loss, policy_loss = (error @ error) / rows, gained.mean().neg_()
        total = policy_loss + self._value_weight * value_loss
        if self._entropy_weight > 0:
            total -= self._entropy_weight * (log_std.sum() + ENTROPY * len(log_std))
        return {"train/loss": total, "train/value_loss": value_loss, "train/policy_loss": policy_loss}


ENTROPY = 1.4189385332046727
"""Of a standard normal, ln(2 pi e) / 2."""


def gaussian_step(
    scoring: Scoring, model: StateValueModel, surrogate: Any, value_weight: float, entropy_weight: float
) -> GaussianStep | None:
    """Return the written-out step for a policy and a value network, or None if they are others.

    Args:
        scoring: Of the policy.
        model: The value network.
        surrogate: Of `robopol.algos.surrogates`.
        value_weight: As in `robopol.algos.ppo.PPOConfig`.
        entropy_weight: The same.
    """
    policy = scoring.policy
    plain = isinstance(scoring, Density) and isinstance(policy, DiagonalGaussianPolicy) and scoring.encodes_once
    if not plain or any(parameter.requires_grad for parameter in model.observation.parameters()):
        return None
    whole = policy.spec.n_obs_steps == 1 and policy.spec.horizon == policy.spec.n_action_steps
    nets = (cast(DiagonalGaussianPolicy, policy).net, model.net)
    if not whole or not all(Perceptron.possible(net) for net in nets):
        return None
    return GaussianStep(cast(Density, scoring), model, surrogate, value_weight, entropy_weight)
