"""Q alone: what some actions will earn from here on if a policy goes on after them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from torch import Generator, Tensor

from robopol.config import OneOf
from robopol.data.normalizer import ActionNormalizerMode, NormalizerMode
from robopol.data.windows import Transition
from robopol.errors import ConfigError
from robopol.models.critic import Heads, ReturnsConfig
from robopol.networks.ensemble import Members
from robopol.policies import Needs, PolicySpec
from robopol.policies.observation import LowDimConfig


class QConfig(ReturnsConfig):
    """Q of the next actions, for what learns while it acts; by default nothing of it has to be fitted to data.

    Attributes:
        discounted: What gamma is of: each ``step``, or a ``decision``, whose steps all count alike, however many there
            are.
    """

    kind: Literal["q"] = "q"
    discounted: Literal["step", "decision"] = "step"
    encoder: Annotated[Any, OneOf("encoder")] = LowDimConfig(limit=None)
    obs_normalization: NormalizerMode = "identity"
    action_normalization: ActionNormalizerMode = "bounds"

    def build(self, spec: PolicySpec) -> "QModel":
        """See `ModelConfig.build`."""
        return QModel(self, spec)


class QModel(Heads):
    """See `QConfig`."""

    config: QConfig

    def __init__(self, config: QConfig, spec: PolicySpec) -> None:
        """Make the networks; see `ModelConfig.build`."""
        super().__init__(config, spec)
        if config.discounted == "decision" and self._returned is not None:
            raise ConfigError("a decision is worth what its own steps earn: leave model.return_steps out")

    @property
    def needs(self) -> Needs:
        """See `Model.needs`."""
        whole = self.config.discounted == "decision"
        return Needs(transition=Transition(self.spec.chunk, self.config.discount, self._returned, whole))

    def q(
        self, obs: Mapping[str, Tensor], actions: Tensor, generator: Generator | None = None, heads: Members = None
    ) -> Tensor:
        """Return the Q of all or some heads, (E, B) or (E, B, n), in the unit of the return; see `Heads.judge`."""
        return self.judge(obs, actions, generator, heads)

    def first(self, obs: Mapping[str, Tensor], actions: Tensor) -> Tensor:
        """Return the first head's Q, (B,) or (B, n), without asking the others; see `Heads.judge`."""
        return self.judge(obs, actions, heads=1)[0]
