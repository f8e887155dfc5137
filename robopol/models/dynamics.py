"""Dynamics: what will be observed after some actions (the low-dim side of DynaGuide; Du & Song 2025)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt
from torch import Generator, Tensor

from robopol.data.windows import Transition, newest
from robopol.errors import ConfigError
from robopol.models.model import Model, ModelConfig
from robopol.networks.mlp import MLP, Activation
from robopol.policies import Needs, PolicySpec
from robopol.policies.observation import LowDimConfig

if TYPE_CHECKING:
    from robopol.data import Episodes


class DynamicsConfig(ModelConfig):
    """A network that predicts how the observation differs after h actions.

    An outcome is the newest low-dim observation, each entry scaled as ``obs_normalization`` says, so that distances
    between outcomes do not depend on units.

    Attributes:
        predicts: Observations that an outcome is made of, e.g. only where an object lies; None takes all low-dim ones
            that the encoder looks at.
        hidden: Widths of the hidden layers.
        activation: Of the hidden layers; smooth, as what is predicted is differentiated to guide a policy.
    """

    kind: Literal["dynamics"] = "dynamics"
    predicts: tuple[str, ...] | None = None
    hidden: tuple[PositiveInt, ...] = Field((256, 256), min_length=1)
    activation: Activation = "silu"

    def build(self, spec: PolicySpec) -> "DynamicsModel":
        """See `ModelConfig.build`.

        Raises:
            ConfigError: If there is nothing to predict.
        """
        return DynamicsModel(self, spec)


class DynamicsModel(Model):
    """See `DynamicsConfig`."""

    config: DynamicsConfig

    def __init__(self, config: DynamicsConfig, spec: PolicySpec) -> None:
        """Make the network; see `DynamicsConfig.build`."""
        super().__init__(config, spec)
        outcome = LowDimConfig(keys=config.predicts)
        shapes = outcome.select(spec.obs_shapes)
        if not shapes:
            raise ConfigError(
                "a dynamics model predicts low-dim observations, and looks at none: name some by model.encoder.keys"
            )
        self.outcome = outcome.build(shapes, config.obs_normalization)
        inputs = spec.n_obs_steps * self.observation.dim + spec.chunk * spec.action_dim
        self.net = MLP(inputs, config.hidden, self.outcome.dim, config.activation)

    @property
    def needs(self) -> Needs:
        """See `Model.needs`."""
        return Needs(transition=Transition(self.spec.chunk, 1.0))

    def fit_normalizers(self, episodes: "Episodes") -> None:
        """See `Model.fit_normalizers`."""
        super().fit_normalizers(episodes)
        self.outcome.fit(episodes.obs)

    def embed(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the outcome that is observed now.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first, environment units; the newest entry counts.

        Returns:
            (B, Z).

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
        """
        seen: Tensor = self.outcome(newest(obs, 1), 1)
        return seen[:, 0]

    def predict(self, obs: Mapping[str, Tensor], actions: Tensor, generator: Generator | None = None) -> Tensor:
        """Return the outcome after some actions.

        Args:
            obs: As for `embed`.
            actions: The next h actions, (B, h, A), or several proposals for each row, (B, n, h, A), environment units;
                the outcome can be differentiated in them.
            generator: Source of the encoder's augmentation, which there is in training mode only.

        Returns:
            (B, Z) or (B, n, Z), to be compared with what `embed` gives.

        Raises:
            ShapeError: If an observation or the actions are shaped wrongly.
        """
        change: Tensor = self.net(self.beside(self.encode(obs, generator), actions))
        now = self.embed(obs)
        return change + (now if change.dim() == 2 else now[:, None])
