"""What objectives of a path have in common: they say how plans move, and judge positions."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.steering.objectives.motion import Motion, Track, motion_of
from robopol.steering.objectives.objective import Objective, ObjectiveConfig


class PathObjectiveConfig(ObjectiveConfig):
    """What all objectives of a path are told.

    Attributes:
        motion: How actions become positions; None for the arm's tool and the point of MultiGoal.
    """

    motion: Motion | None = None

    def track(self, spec: PolicySpec, axes: int) -> Track:
        """Return the path of a policy's windows.

        Args:
            spec: The policy's contract.
            axes: How many axes it has where nothing is said of the motion.

        Raises:
            ConfigError: If nothing is known of it.
        """
        return (self.motion or motion_of(spec, axes)).build(spec)


class PathObjective(Objective):
    """An objective of the positions from now on; those of the past are not judged.

    Scores are sums over the steps, so that what pulls at a position does not depend on how many there are. A mean over
    H steps, as in ITPS, is the same with a scale of guidance H times as large.
    """

    def __init__(self, config: Any, track: Track) -> None:
        """Take over the config.

        Args:
            config: A `PathObjectiveConfig` of the objective's own kind.
            track: The path.
        """
        super().__init__(config.model_copy(update={"motion": track.motion}))
        self.track = track
        self.obs_shapes = dict(track.obs_shapes)

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        return self.judge(self.track.positions(obs, windows))

    @abstractmethod
    def judge(self, path: Tensor) -> Tensor:
        """Score paths.

        Args:
            path: (B, K, H, D) m, the positions from now on.

        Returns:
            (B, K), higher is better.
        """


def check_axes(track: Track, what: str, found: int) -> None:
    """Refuse points that have not as many numbers as a path has axes.

    Raises:
        ConfigError: Says both.
    """
    if found != track.axes:
        raise ConfigError(f"{what} has {found} numbers, and the motion has {track.axes} axes: give one for each")
