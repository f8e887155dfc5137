"""Classifier-free guidance (Ho & Salimans 2022): what a network was told some of the time, it can be pulled towards.

A goal is left out by showing zeros in its place and 1 in a feature of its own. The column of the network's first layer
that reads this feature is the learned token of "no goal"; zeros alone would be a goal, in the middle of the data.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.config import Config
from robopol.data.episodes import is_image
from robopol.data.normalizer import NormalizerMode
from robopol.errors import ConfigError
from robopol.networks.denoiser import Walk
from robopol.policies.field import Field, Schedule
from robopol.policies.observation import Encoder, LowDimConfig, Shapes
from robopol.policies.paths import Level


class GuidanceConfig(Config):
    """How a policy is guided to its goal.

    Attributes:
        keys: Observations that say the goal; those that the policy does not look at are passed over.
        drop: Share of the training samples from which the goal is left out, as a whole.
        weight: How far the goal pulls: 0 as if there were none, 1 as it was learned, above 1 farther.
    """

    keys: tuple[str, ...] = Bound(("goal",), min_length=1)
    drop: float = Bound(0.1, ge=0, lt=1)
    weight: float = Bound(1.0, ge=0)

    @model_validator(mode="after")
    def _learned_both(self) -> "GuidanceConfig":
        if self.weight != 1 and self.drop == 0:
            raise ValueError(f"weight={self.weight} needs a network that also learned to act without: set drop above 0")
        return self

    def build(self, encoder: Any, shapes: Shapes, normalization: NormalizerMode) -> "GoalEncoder | None":
        """Return an encoder that can leave the goal out, not yet fitted; None where there is no goal.

        Args:
            encoder: A `robopol.policies.observation.EncoderConfig`, for the rest of the observations and, where it can
                read it, for the goal.
            shapes: Key -> shape of all that the policy looks at.
            normalization: How each entry is scaled.

        Raises:
            ConfigError: If there is a weight but no goal, or a part of the observations cannot be encoded.
        """
        goal = {key: shape for key, shape in shapes.items() if key in self.keys}
        if not goal and self.weight != 1:
            raise ConfigError(
                f"guidance.weight={self.weight} finds no goal: the policy looks at {', '.join(shapes)}, and "
                f"guidance.keys names {', '.join(self.keys)}; goals are drawn by data.NAME.sampling.kind=hindsight"
            )
        if not goal:
            return None
        rest = {key: shape for key, shape in shapes.items() if key not in goal}
        chosen = encoder if isinstance(encoder, LowDimConfig) or any(map(is_image, goal)) else LowDimConfig()
        return GoalEncoder(encoder.build(rest, normalization), chosen.build(goal, normalization), self.drop)


class GoalEncoder(Encoder):
    """Encodes a goal beside the rest, and can leave it out: features are [rest, goal or 0, whether it is left out]."""

    def __init__(self, rest: Encoder, goal: Encoder, drop: float) -> None:
        """Join two encoders; see `GuidanceConfig.build`."""
        super().__init__()
        self.rest, self.goal, self.drop = rest, goal, drop

    @property
    def dim(self) -> int:
        """D, the number of features of one observation."""
        return self.rest.dim + self.goal.dim + 1

    def fit(self, obs: Mapping[str, Tensor]) -> None:
        """See `Encoder.fit`."""
        self.rest.fit(obs)
        self.goal.fit(obs)

    def forward(
        self,
        obs: Mapping[str, Tensor],
        steps: int,
        *,
        augment: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Encoder.forward`; to augment is also to leave the goal out of some samples, one draw for each."""
        rest, goal = (part(obs, steps, augment=augment, generator=generator) for part in (self.rest, self.goal))
        cond = torch.cat([rest, goal, torch.zeros_like(rest[..., :1])], -1)
        if not augment or self.drop == 0:
            return cond
        dropped = torch.rand(len(cond), generator=generator, device=cond.device) < self.drop
        return torch.where(dropped[:, None, None], self.without(cond), cond)

    def without(self, cond: Tensor) -> Tensor:
        """Return features (..., D) from which the goal is left out."""
        rest = cond[..., : self.rest.dim]
        goal = torch.zeros_like(cond[..., self.rest.dim : -1])
        return torch.cat([rest, goal, torch.ones_like(cond[..., -1:])], -1)


class SummedField(Field):
    """A field D_u + weight sum_i (D_i - D_u): i is told one of several conditions alone, u none of them.

    Conditions that are independent of each other, given what is planned, are met together so (Liu et al. 2022, eq. 11;
    Ajay et al. 2023, section 3.3). All are asked in one batch.
    """

    def __init__(self, field: Field, without: Callable[[Tensor], Tensor], weight: float) -> None:
        """Guide a field.

        Args:
            field: What was trained, with every condition alone and without any.
            without: One encoded condition (B, 1, D) -> none.
            weight: See above; of one condition it is that of `GuidedField`.
        """
        super().__init__(field.net, field.path, field.prediction)
        self.field, self.without, self.weight = field, without, weight

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`; ``cond`` holds the conditions along its second axis, (B, K, D)."""
        walk = self.field.prepare(schedule, self._told(cond))
        return lambda x, i: self._mix(walk(x.repeat(cond.shape[1] + 1, 1, 1), i), cond.shape[1] + 1)

    def _output(self, x: Tensor, t: Tensor, level: Level, cond: Tensor) -> Tensor:
        count = cond.shape[1] + 1
        levels = Level(*(value.repeat(count) for value in level))
        return self._mix(self.field._output(x.repeat(count, 1, 1), t.repeat(count), levels, self._told(cond)), count)

    def _told(self, cond: Tensor) -> Tensor:
        return torch.cat([self.without(cond[:, :1]), *cond.split(1, 1)])

    def _mix(self, outputs: Tensor, count: int) -> Tensor:
        without, *told = outputs.chunk(count)
        return torch.add(without, sum(one - without for one in told), alpha=self.weight)


class GuidedField(Field):
    """A field D_u + weight (D_c - D_u): c is told the condition, u is not. Both are asked in one batch.

    Every prediction is linear in the network's output, so that outputs are mixed.
    """

    def __init__(self, field: Field, without: Callable[[Tensor], Tensor], weight: float) -> None:
        """Guide a field.

        Args:
            field: What was trained, also without the condition.
            without: Encoded condition (B, To, D) -> the same with the condition left out.
            weight: 1 is ``field`` itself, 0 the field without the condition, each bit for bit.
        """
        super().__init__(field.net, field.path, field.prediction)
        self.field, self.without, self.weight = field, without, weight

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`."""
        if self.weight in (0, 1):
            return self.field.prepare(schedule, cond if self.weight == 1 else self.without(cond))
        walk = self.field.prepare(schedule, torch.cat([self.without(cond), cond]))
        return lambda x, i: self._mix(walk(torch.cat([x, x]), i))

    def _output(self, x: Tensor, t: Tensor, level: Level, cond: Tensor) -> Tensor:
        if self.weight in (0, 1):
            return self.field._output(x, t, level, cond if self.weight == 1 else self.without(cond))
        both = Level(*(torch.cat([value, value]) for value in level))
        told = torch.cat([self.without(cond), cond])
        return self._mix(self.field._output(torch.cat([x, x]), torch.cat([t, t]), both, told))

    def _mix(self, outputs: Tensor) -> Tensor:
        without, told = outputs.chunk(2)
        return torch.lerp(without, told, self.weight)
