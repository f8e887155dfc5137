"""What the actors of actor-critic methods have in common: one network, and actions squashed to their bounds."""

from typing import Annotated, Any

from pydantic import Field, PositiveInt
from torch import Tensor

from robopol.config import OneOf
from robopol.data.normalizer import ActionNormalizerMode, NormalizerMode
from robopol.networks.mlp import MLP, Activation
from robopol.policies.observation import LowDimConfig
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Policy, PolicyConfig


class ActorConfig(PolicyConfig):
    """What all actors are told; by default one acts at every step, and nothing has to be fitted to data.

    Attributes:
        hidden: Widths of the hidden layers.
        activation: After each of them.
        layer_norm: Whether they are normalised before it.
    """

    n_obs_steps: int = Field(1, ge=1)
    horizon: int = Field(1, ge=1)
    n_action_steps: int = Field(1, ge=1)
    encoder: Annotated[Any, OneOf("encoder")] = LowDimConfig(limit=None)
    obs_normalization: NormalizerMode = "identity"
    action_normalization: ActionNormalizerMode = "bounds"
    hidden: tuple[PositiveInt, ...] = (256, 256)
    activation: Activation = "relu"
    layer_norm: bool = False


class Actor(Policy):
    """A policy whose actions can be differentiated in its weights; normalised, they lie in (-1, 1)."""

    def __init__(self, config: ActorConfig, spec: PolicySpec, outputs: int) -> None:
        """Make the network.

        Args:
            config: The policy's own config.
            spec: The contract with the world.
            outputs: Numbers that it says of every action entry.
        """
        super().__init__(config, spec)
        self.outputs = outputs
        size = outputs * spec.horizon * spec.action_dim
        seen, hidden = spec.n_obs_steps * self.observation.dim, config.hidden
        self.net = MLP(seen, hidden, size, config.activation, layer_norm=config.layer_norm)

    def _say(self, cond: Tensor) -> tuple[Tensor, ...]:
        """Return what the network says of windows, ``outputs`` tensors (B, Tp, A), given ``cond`` (B, To, D)."""
        return self._said(cond).unbind(1)

    def _said(self, cond: Tensor) -> Tensor:
        """Return it as one tensor, (B, outputs, Tp, A)."""
        said: Tensor = self.net(cond.flatten(1))
        return said.unflatten(-1, (self.outputs, self.spec.horizon, self.spec.action_dim))
