"""Begin the walk in the middle, from what the user drew (biased initialisation of ITPS; Wang et al. 2025)."""

from typing import Literal, cast

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy
from robopol.steering.objectives.motion import Motion, Track, motion_of
from robopol.steering.objectives.path_objective import check_axes
from robopol.steering.objectives.sketch import Line, resampled
from robopol.steering.steering import Planning, Steering, SteeringConfig, last_steps


class BiasedStartConfig(SteeringConfig):
    """Begin from a sketch.

    Attributes:
        points: The line that the plan is to be, (L, D) m; see ``pace=given`` of the objective sketch. Action entries
            that do not move begin in the middle of their range.
        steps: How many of the last steps of the sampler's walk are walked; 0 executes the sketch, None is the base
            policy.
        noise: Standard deviation of the noise that is added to the sketch, normalised units; as released it is 0.5.
            None is as a walk has it that came to the level: alpha times the sketch, and noise of sigma.
        motion: How actions become positions; None for the arm's tool and the point of MultiGoal.
    """

    kind: Literal["biased_start"] = "biased_start"
    points: Line
    steps: int | None = Bound(6, ge=0)
    noise: float | None = Bound(None, ge=0, allow_inf_nan=False)
    motion: Motion | None = None

    def build(self, policy: Policy) -> "BiasedStart":
        """See `SteeringConfig.build`."""
        last_steps(policy, self.steps, "biased_start")
        axes = len(self.points[0])
        track = (self.motion or motion_of(policy.spec, axes)).build(policy.spec)
        check_axes(track, "each point of the sketch", axes)
        return BiasedStart(self, track)


class BiasedStart(Steering):
    """See `BiasedStartConfig`."""

    config: BiasedStartConfig

    def __init__(self, config: BiasedStartConfig, track: Track) -> None:
        """Take over the path; see `BiasedStartConfig.build`."""
        super().__init__(config.model_copy(update={"motion": track.motion}))
        self.track = track
        self.obs_shapes = dict(track.obs_shapes)

    def starts(self, planning: Planning) -> Tensor | None:
        """See `Steering.starts`."""
        if self.config.steps is None:
            return None
        return torch.ones(planning.rows, dtype=torch.bool, device=planning.device)

    def start(self, planning: Planning) -> tuple[Tensor, int]:
        """See `Steering.start`."""
        assert self.config.steps is not None
        policy = cast(GenerativePolicy, planning.policy)
        last_steps(policy, self.config.steps, "biased_start")  # it may be walked in fewer steps than it was built for
        times = policy.sampler.times(policy.field.path)
        first = len(times) - self.config.steps
        x = self._drawn(planning).repeat_interleave(planning.proposals, 0)
        if first == len(times):
            return x, first
        if self.config.noise is not None:
            return torch.add(x, planning.draw(), alpha=self.config.noise), first
        level = policy.field.path.level(times[first])
        return torch.add(level.alpha.item() * x, planning.draw(), alpha=level.sigma.item()), first

    def _drawn(self, planning: Planning) -> Tensor:
        """Return the sketch as normalised actions, (B, Tp, A)."""
        spec, normalizer = planning.policy.spec, planning.policy.action_normalizer
        middle = normalizer.unnormalize(
            torch.zeros(planning.rows, 1, spec.horizon, spec.action_dim, device=planning.device)
        )
        line = resampled(middle.new_tensor(self.config.points), self.track.steps)
        path = line.expand(planning.rows, 1, -1, -1)
        return normalizer.normalize(self.track.windows(planning.obs, path, middle)[:, 0])
