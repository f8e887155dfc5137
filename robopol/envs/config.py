"""Which world: an id and its options."""

from typing import Any

from pydantic import Field

from robopol.config import Config


class EnvConfig(Config):
    """The world.

    Attributes:
        id: A robopol or gymnasium id; ``robopol list envs`` names them.
        options: Passed to the environment.
    """

    id: str
    options: dict[str, Any] = Field(default_factory=dict)
