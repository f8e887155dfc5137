"""Which world: an id and its options."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from robopol.config import Config

if TYPE_CHECKING:
    from robopol.envs.vector import VectorEnv


class EnvConfig(Config):
    """The world.

    Attributes:
        id: A robopol or gymnasium id; ``robopol list envs`` names them.
        options: Passed to the environment.
    """

    id: str
    options: dict[str, Any] = Field(default_factory=dict)

    def make(self, num_envs: int = 1) -> "VectorEnv":
        """Make a batch of these worlds; see `robopol.envs.make_env`."""
        from robopol.envs.make import make_env

        return make_env(self.id, num_envs, **self.options)
