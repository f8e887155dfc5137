"""PPO's passes for two small perceptrons on a CPU, written out: autograd takes longer to call than they to compute.

NumPy computes them, as its calls take a third of the time of torch's, and its tanh a sixth. The numbers are those of
autograd up to rounding; a test says so.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robopol.algos.on_policy import Lesson
from robopol.algos.optimizer import AdamW, Gathered
from robopol.algos.scoring import Scoring
from robopol.algos.scoring.density import Density
from robopol.models.state_value import StateValueModel
from robopol.networks.mlp import MLP
from robopol.policies.diagonal_gaussian import DiagonalGaussianPolicy

Array = NDArray[np.float32]

WIDEST = 128
"""Wider layers take longer to multiply than autograd to call, and torch multiplies them on several cores."""


class Perceptron:
    """Forward and backward of an `MLP` whose activations are all tanh or all ReLU."""

    def __init__(self, net: MLP, gathered: Gathered) -> None:
        """Look up weights and gradients; they are changed in place only."""
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        self._weights = [gathered.weights[layer.weight].numpy() for layer in layers]
        self._biases = [gathered.weights[layer.bias].numpy() for layer in layers]
        self._to_weights = [gathered.gradients[layer.weight].numpy() for layer in layers]
        self._to_biases = [gathered.gradients[layer.bias].numpy() for layer in layers]
        self._is_tanh = any(isinstance(layer, nn.Tanh) for layer in net)

    @staticmethod
    def possible(net: nn.Module) -> bool:
        """Say whether a network is one of these, and small."""
        if not isinstance(net, MLP):
            return False
        kinds = {type(layer) for layer in net}
        small = all(layer.out_features <= WIDEST for layer in net if isinstance(layer, nn.Linear))
        return small and (kinds <= {nn.Linear, nn.Tanh} or kinds <= {nn.Linear, nn.ReLU})

    def forward(self, x: Array) -> tuple[Array, list[Array]]:
        """Return the output (B, out) for (B, in), and what every layer saw."""
        seen = []
        for index, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            seen.append(x)
            x = x @ weight.T
            x += bias
            if index + 1 < len(self._weights):
                _ = np.tanh(x, out=x) if self._is_tanh else np.maximum(x, 0, out=x)
        return x, seen

    def backward(self, slope: Array, seen: list[Array]) -> None:
        """Fill the gradients of all weights, given that of the output, (B, out), and what `forward` returned."""
        for index in range(len(self._weights) - 1, -1, -1):
            x = seen[index]
            np.matmul(slope.T, x, out=self._to_weights[index])
            np.dot(_ones(len(slope)), slope, out=self._to_biases[index])
            if index:
                weight = self._weights[index]
                slope = slope * weight if len(weight) == 1 else slope @ weight
                slope *= 1 - x * x if self._is_tanh else x > 0


@functools.cache
def _ones(size: int) -> Array:
    """Return ones, by which BLAS sums up rows or columns in a third of the time that NumPy needs."""
    return np.ones(size, np.float32)


class GaussianStep:
    """Passes over a rollout; see `robopol.algos.ppo.PPO.pass_over` and `losses`, of which this is a special case.

    Attributes:
        optimizers: Of the actor and of the critic, gathered.
    """

    @staticmethod
    def possible(scoring: Scoring, model: StateValueModel) -> bool:
        """Say whether policy and value network are such perceptrons, on a CPU, whose encoders stay as they are."""
        policy = scoring.policy
        if not isinstance(scoring, Density) or not isinstance(policy, DiagonalGaussianPolicy):
            return False
        fixed = not any(parameter.requires_grad for parameter in model.observation.parameters())
        whole = policy.spec.n_obs_steps == 1 and policy.spec.horizon == policy.spec.n_action_steps
        plain = Perceptron.possible(policy.net) and Perceptron.possible(model.net)
        return scoring.encodes_once and fixed and whole and plain and policy.device.type == "cpu"

    def __init__(
        self,
        scoring: Scoring,
        model: StateValueModel,
        surrogate: Any,
        optimizers: tuple[AdamW, AdamW],
        weights: tuple[float, float],
        clip_norm: float | None,
    ) -> None:
        """Look up the networks.

        Args:
            scoring: Of the policy; `possible` says whether it can be.
            model: The value network.
            surrogate: Of `robopol.algos.surrogates`.
            optimizers: Of all weights of the policy, and of the value network.
            weights: Those of the value loss and of the entropy, as in `robopol.algos.ppo.PPOConfig`.
            clip_norm: As in `robopol.algos.ppo.PPOConfig`.
        """
        density, policy = cast(Density, scoring), cast(DiagonalGaussianPolicy, scoring.policy)
        sizes = [optimizer.size for optimizer in optimizers]
        gradients = torch.zeros(sum(sizes))
        both = zip(optimizers, gradients.split(sizes), strict=True)
        self.optimizers = [Gathered(optimizer, part) for optimizer, part in both]
        acts, judges = self.optimizers
        self._gradients = gradients.numpy()
        self._actor, self._critic = Perceptron(policy.net, acts), Perceptron(model.net, judges)
        self._log_std = acts.weights[policy.log_std].flatten().numpy()
        self._to_log_std = acts.gradients[policy.log_std].flatten().numpy()
        self._surrogate, self._clip_norm = surrogate, clip_norm
        self._value_weight, self._entropy_weight = weights
        self._share = 1.0 if density.reduction == "sum" else 1 / policy.log_std.numel()

    @torch.no_grad()
    def learn(self, parts: Iterable[Lesson], lr: float, critic_lr: float) -> dict[str, Tensor]:
        """Take a gradient step on every minibatch; return the mean losses."""
        told: list[tuple[float, float, float]] = []
        for one in self.optimizers:
            one.begin()
        for part in parts:
            told.append(self.gradients(part))
            if self._clip_norm is not None:
                norm = math.sqrt(self._gradients.dot(self._gradients))
                if norm + 1e-6 > self._clip_norm:
                    self._gradients *= self._clip_norm / (norm + 1e-6)
            for one, rate in zip(self.optimizers, (lr, critic_lr), strict=True):
                one.step(rate)
        for one in self.optimizers:
            one.end()
        means = torch.tensor(told).mean(0)
        return dict(zip(("train/loss", "train/value_loss", "train/policy_loss"), means.unbind(), strict=True))

    def gradients(self, part: Lesson) -> tuple[float, float, float]:
        """Fill the gradients of all weights; return the loss, that of the values and that of the policy."""
        assert part.seen is not None
        assert part.judged is not None
        rows, log_std, ones = part.size, self._log_std, _ones(len(self._log_std))
        said, seen = self._actor.forward(part.seen.flatten(1).numpy())
        value, judged = self._critic.forward(part.judged.numpy())
        shrink = np.exp(-log_std)
        z = (part.trace["latent"].flatten(1).numpy() - said) * shrink
        squared = z * z
        # of what was drawn, log N(z) now and then, both without the constant
        now, then = squared @ (-0.5 * ones) - log_std.sum(), part.old["log_prob"].flatten(1).numpy() @ ones
        log_ratio = torch.from_numpy((now - then) * np.float32(self._share))

        gained, slope = self._surrogate.sloped(log_ratio, part.advantage)
        down = slope.numpy()[:, None] * np.float32(-self._share / rows)
        self._actor.backward(down * z * shrink, seen)
        np.dot(down[:, 0], squared - 1, out=self._to_log_std)

        error = value[:, 0] - part.goal.numpy()
        self._critic.backward((error * np.float32(2 * self._value_weight / rows))[:, None], judged)
        value_loss, policy_loss = float(error.dot(error)) / rows, -float(gained.numpy().mean())
        loss = policy_loss + self._value_weight * value_loss
        if self._entropy_weight > 0:
            self._to_log_std -= self._entropy_weight
            loss -= self._entropy_weight * (float(log_std.sum()) + ENTROPY * len(log_std))
        return loss, value_loss, policy_loss


ENTROPY = 1.4189385332046727
"""Of a standard normal, ln(2 pi e) / 2."""
