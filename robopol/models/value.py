"""Values: what some actions, and what a state, will earn from here on."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor

from robopol.data.windows import Transition
from robopol.models.model import Model, ModelConfig
from robopol.networks.ensemble import EnsembleMLP
from robopol.networks.mlp import MLP, Activation
from robopol.policies import Needs, PolicySpec


class ValueConfig(ModelConfig):
    """Q of chunks of h actions and V of states.

    Attributes:
        discount: gamma, of each step.
        ensemble: Heads of Q, at least 2: the least of them is what is trusted.
        hidden: Widths of every head and of V's network.
        activation: Of their hidden layers.
        layer_norm: Whether the heads' hidden layers are normalised, which bounds Q where there are no data
            (Ball et al. 2023).
    """

    kind: Literal["value"] = "value"
    discount: float = Field(0.99, ge=0, le=1)
    ensemble: int = Field(2, ge=2)
    hidden: tuple[PositiveInt, ...] = Field((256, 256), min_length=1)
    activation: Activation = "relu"
    layer_norm: bool = False

    def build(self, spec: PolicySpec) -> "ValueModel":
        """See `ModelConfig.build`."""
        return ValueModel(self, spec)


class ValueModel(Model):
    """See `ValueConfig`.

    Q(s, a_1..h) = E[sum_{k<h} gamma^k r_k + gamma^h V(s_h)], of actions that are executed without planning again.
    """

    config: ValueConfig

    def __init__(self, config: ValueConfig, spec: PolicySpec) -> None:
        """Make the networks; see `ValueConfig.build`."""
        super().__init__(config, spec)
        seen = spec.n_obs_steps * self.observation.dim
        chunk = spec.chunk * spec.action_dim
        self.heads = EnsembleMLP(
            config.ensemble, seen + chunk, config.hidden, config.activation, layer_norm=config.layer_norm
        )
        self.state_value = MLP(seen, config.hidden, 1, config.activation)

    @property
    def needs(self) -> Needs:
        """See `Model.needs`."""
        return Needs(transition=Transition(self.spec.chunk, self.config.discount))

    def q(self, obs: Mapping[str, Tensor], actions: Tensor, generator: Generator | None = None) -> Tensor:
        """Return what every head says of some actions.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first, environment units.
            actions: The next h actions, (B, h, A), or several proposals for each row, (B, n, h, A), environment units;
                Q can be differentiated in them.
            generator: Source of the encoder's augmentation, which there is in training mode only.

        Returns:
            (E, B) or (E, B, n), in the unit of the return.

        Raises:
            ShapeError: If an observation or the actions are shaped wrongly.
        """
        cond = self.encode(obs, generator)
        chunk = self.flat(actions, len(cond))
        if chunk.dim() == 3:
            cond = cond[:, None].expand(-1, chunk.shape[1], -1)
        value: Tensor = self.heads(torch.cat([cond, chunk], -1))
        return value

    def v(self, obs: Mapping[str, Tensor], generator: Generator | None = None) -> Tensor:
        """Return the value of states, (B,).

        Args:
            obs: As for `q`.
            generator: As for `q`.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
        """
        value: Tensor = self.state_value(self.encode(obs, generator)).squeeze(-1)
        return value
