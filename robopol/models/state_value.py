"""The value of a state: what a policy will earn from there on, the baseline of policy-gradient methods."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from robopol.config import OneOf
from robopol.data.normalizer import ActionNormalizerMode, NormalizerMode
from robopol.models.model import Model, ModelConfig
from robopol.networks.mlp import MLP, Activation, orthogonal
from robopol.policies import PolicySpec
from robopol.policies.observation import LowDimConfig


class StateValueConfig(ModelConfig):
    """V of states; by default nothing of it has to be fitted to data.

    Attributes:
        discount: gamma, of each step.
        hidden: Widths of the hidden layers.
        activation: After each of them.
    """

    kind: Literal["state_value"] = "state_value"
    encoder: Annotated[Any, OneOf("encoder")] = LowDimConfig(limit=None)
    obs_normalization: NormalizerMode = "identity"
    action_normalization: ActionNormalizerMode = "identity"
    discount: float = Field(0.99, ge=0, le=1)
    hidden: tuple[PositiveInt, ...] = (64, 64)
    activation: Activation = "tanh"

    def build(self, spec: PolicySpec) -> "StateValueModel":
        """See `ModelConfig.build`."""
        return StateValueModel(self, spec)


class StateValueModel(Model):
    """See `StateValueConfig`."""

    config: StateValueConfig

    def __init__(self, config: StateValueConfig, spec: PolicySpec) -> None:
        """Make the network, its weights orthogonal; see `ModelConfig.build`."""
        super().__init__(config, spec)
        self.net = MLP(spec.n_obs_steps * self.observation.dim, config.hidden, 1, config.activation)
        orthogonal(self.net, 1.0)

    def v(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the value of states, (B,), in the unit of the reward.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first, environment units.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
        """
        return self.judge(self.encode(obs))

    def judge(self, seen: Tensor) -> Tensor:
        """Return the value of states, (B,), from their features (B, To * D); see `Model.encode`."""
        value: Tensor = self.net(seen)
        return value.squeeze(-1)
