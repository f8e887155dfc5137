"""Algorithms of Stable-Baselines3 and sb3-contrib, as they come, for comparison."""

from typing import Any, ClassVar, Literal, NoReturn

from pydantic import Field

from robopol.algos.algorithm import AlgorithmConfig
from robopol.errors import ConfigError

Name = Literal["A2C", "CrossQ", "DDPG", "PPO", "SAC", "TD3", "TQC", "TRPO"]


class SB3Config(AlgorithmConfig):
    """A baseline: Stable-Baselines3 trains its own agent in its own loop, and robopol judges it as everything else.

    What a run says of its one phase, `batch_size`, `seed` and `collection` it is told too, where it asks: environments
    (``collection.num_envs``), the size of the replay (``collection.capacity``), random steps before it learns
    (``warmup``), gradient steps (``updates_per_step``), steps of a rollout (``rollout``, of all environments together).
    All else is its own default.

    Attributes:
        algorithm: The class.
        options: More keyword arguments of it, e.g. ``{learning_rate: 1e-3, policy_kwargs: {net_arch: [256, 256]}}``.
        action_noise: Standard deviation of normal noise on the actions tried, for TD3 and DDPG, in parts of the
            actions' range from its middle; 0 is none.
    """

    kind: Literal["sb3"] = "sb3"
    algorithm: Name
    options: dict[str, Any] = Field(default_factory=dict)
    action_noise: float = Field(0.0, ge=0)

    trains: ClassVar[tuple[str, ...]] = ()

    def build(self, **_: Any) -> NoReturn:
        """Refuse; see `robopol.training.sb3`.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"algo=sb3_{self.algorithm.lower()} is trained by Stable-Baselines3 alone, in robopol train")
