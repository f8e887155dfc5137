"""Values: what some actions, and what a state, will earn from here on."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Generator, Tensor

from robopol.models.critic import Critic, ReturnsConfig
from robopol.policies import PolicySpec


class ValueConfig(ReturnsConfig):
    """Q of chunks of h actions and V of states.

    Attributes:
        ensemble: Heads of Q, at least 2: the least of them is what is trusted.
    """

    kind: Literal["value"] = "value"
    ensemble: int = Field(2, ge=2)

    def build(self, spec: PolicySpec) -> "ValueModel":
        """See `ModelConfig.build`."""
        return ValueModel(self, spec)


class ValueModel(Critic):
    """See `ValueConfig`.

    Q(s, a_1..h) = E[sum_{k<h} gamma^k r_k + gamma^h V(s_h)], of actions that are executed without planning again.
    """

    config: ValueConfig

    def q(self, obs: Mapping[str, Tensor], actions: Tensor, generator: Generator | None = None) -> Tensor:
        """Return every head's Q, (E, B) or (E, B, n), in the unit of the return; see `Heads.judge`."""
        return self.judge(obs, actions, generator)
