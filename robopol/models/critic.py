"""What the critics have in common: several heads that judge the next actions; beside them, a network for states."""

from collections.abc import Mapping

from pydantic import Field, PositiveInt
from torch import Generator, Tensor

from robopol.data.windows import Transition
from robopol.errors import ConfigError
from robopol.models.model import Model, ModelConfig
from robopol.networks.ensemble import EnsembleMLP, Members
from robopol.networks.mlp import MLP, Activation
from robopol.policies import Needs, PolicySpec


class CriticConfig(ModelConfig):
    """What all critics are told.

    Attributes:
        discount: gamma, of each step.
        ensemble: Heads of Q.
        hidden: Widths of every head, and of V's network if there is one.
        activation: Of their hidden layers.
        layer_norm: Whether the heads' hidden layers are normalised, which bounds Q where there are no data
            (Ball et al. 2023).
        dropout: Share of the heads' hidden layers that is left out at random while they learn (Hiraoka et al. 2022);
            actor-critics do it in targets and in the actor's loss, too, as there.
    """

    discount: float = Field(0.99, ge=0, le=1)
    ensemble: int = Field(2, ge=1)
    hidden: tuple[PositiveInt, ...] = Field((256, 256), min_length=1)
    activation: Activation = "relu"
    layer_norm: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)


class ReturnsConfig(CriticConfig):
    """What critics of returns are told.

    Attributes:
        return_steps: n, steps whose rewards count before a value takes over, at least h; None is h. Rewards come
            through faster, and what is learned of h actions is of those that whoever acted chose after them, too.
    """

    return_steps: int | None = Field(None, ge=1)


class Heads(Model):
    """See `CriticConfig`."""

    config: CriticConfig

    def __init__(self, config: CriticConfig, spec: PolicySpec) -> None:
        """Make the networks; see `ModelConfig.build`."""
        super().__init__(config, spec)
        self._returned = None
        if isinstance(config, ReturnsConfig) and config.return_steps is not None:
            if config.return_steps < spec.chunk:
                raise ConfigError(
                    f"a critic of {spec.chunk} actions counts the rewards of all of them, not of "
                    f"{config.return_steps}: set model.return_steps={spec.chunk} or more"
                )
            self._returned = config.return_steps if config.return_steps > spec.chunk else None
        self.heads = EnsembleMLP(
            config.ensemble,
            spec.n_obs_steps * self.observation.dim + spec.chunk * spec.action_dim,
            config.hidden,
            config.activation,
            layer_norm=config.layer_norm,
            dropout=config.dropout,
        )

    @property
    def needs(self) -> Needs:
        """See `Model.needs`."""
        return Needs(transition=Transition(self.spec.chunk, self.config.discount, self._returned))

    def judge(
        self,
        obs: Mapping[str, Tensor],
        actions: Tensor,
        generator: Generator | None = None,
        heads: Members = None,
    ) -> Tensor:
        """Return what every head says of some actions.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first, environment units.
            actions: The next h actions, (B, h, A), or several proposals for each row, (B, n, h, A), environment units;
                what the heads say can be differentiated in them.
            generator: Source of the encoder's augmentation, which there is in training mode only.
            heads: Which ones are asked, E of them.

        Returns:
            (E, B) or (E, B, n).

        Raises:
            ShapeError: If an observation or the actions are shaped wrongly.
        """
        said: Tensor = self.heads(self.beside(self.encode(obs, generator), actions), heads)
        return said


class Critic(Heads):
    """Heads, and a network V that judges a state."""

    def __init__(self, config: CriticConfig, spec: PolicySpec) -> None:
        """Make the networks; see `ModelConfig.build`."""
        super().__init__(config, spec)
        seen = spec.n_obs_steps * self.observation.dim
        self.state_value = MLP(seen, config.hidden, 1, config.activation)

    def v(self, obs: Mapping[str, Tensor], generator: Generator | None = None) -> Tensor:
        """Return the value of states, (B,), in the unit of Q.

        Args:
            obs: As for `judge`.
            generator: As for `judge`.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
        """
        value: Tensor = self.state_value(self.encode(obs, generator)).squeeze(-1)
        return value
