"""What every objective is: a number for a plan, the higher the better."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.policies import Policy, PolicySpec


class Objective(nn.Module, ABC):
    """Scores plans. It is written for environment units, and differentiable in the windows wherever it can be.

    Attributes:
        config: Its config; parts that it names are described in it, so that it can be saved.
        obs_shapes: Observations that it looks at, key -> shape.
    """

    def __init__(self, config: Any) -> None:
        """Take over the config.

        Args:
            config: An `ObjectiveConfig` of the objective's own kind.
        """
        super().__init__()
        self.config = config
        self.obs_shapes: dict[str, tuple[int, ...]] = {}

    @abstractmethod
    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """Score plans.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first, environment units.
            windows: K plans for each row, (B, K, Tp, A) in environment units, from the time of the oldest observation
                on: entry To - 1 belongs to the newest.

        Returns:
            (B, K) float32, higher is better.
        """


class ObjectiveConfig(Config):
    """What all objectives are told."""

    @abstractmethod
    def build(self, policy: Policy) -> Objective:
        """Return the objective for a policy's plans.

        Args:
            policy: The policy whose plans are scored.

        Raises:
            ConfigError: If its plans cannot be scored so.
            CheckpointError: If a part that it names cannot be loaded.
        """


def check_actions(mine: PolicySpec, theirs: PolicySpec, what: str) -> None:
    """Refuse a part that was made for other actions, or that looks further back or ahead than a policy does.

    Args:
        mine: The policy's contract.
        theirs: The part's.
        what: What the part is, for the error.

    Raises:
        ConfigError: Names every difference.
    """
    faults = [
        f"{name} is {getattr(theirs, key)} there, {getattr(mine, key)} in the policy"
        for key, name in (
            ("action_names", "the actions"),
            ("action_space", "their meaning"),
            ("control_hz", "the rate"),
        )
        if getattr(mine, key) != getattr(theirs, key)
    ]
    if theirs.n_obs_steps > mine.n_obs_steps:
        faults.append(f"it looks at {theirs.n_obs_steps} observations, the policy at {mine.n_obs_steps}")
    if theirs.chunk > mine.chunk:
        faults.append(f"it looks at {theirs.chunk} actions from now on, the policy plans {mine.chunk}")
    if faults:
        raise ConfigError(f"{what} does not fit the policy: {'; '.join(faults)}")
