"""A vehicle among three moving discs, and a rule for its plans: a world of formulas for `pstl.py`.

A scene is told in the vehicle's own frame: it is at the origin and looks along x. A plan are 20 controls of half a
second each, yaw rate and acceleration. The rule has parameters, which are part of the scene: where the target is and
how fast one may go.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from robopol.policies import Policy
from robopol.steering.objectives import Objective, ObjectiveConfig
from robopol.steering.objectives.formula import Always, And, Eventually, Formula, Linear, Window

STEPS, PERIOD, DISCS = 20, 0.5, 3
"""Controls of a plan; s; discs."""
YAW_RATE, ACCELERATION = 0.6, 1.0
"""The greatest control, rad/s and m/s^2."""
RADIUS, ARRIVED, SLOWEST = 0.5, 1.0, 0.2
"""How near a disc's centre may be, m; how near the target has to be, m; the least speed, m/s."""
SCENE = 4 + 4 * DISCS
"""Numbers of a scene: speed, the speed limit, the target's place; place and velocity of every disc; m, m/s."""


def scenes(count: int, seed: int) -> Tensor:
    """Draw scenes, (count, SCENE): every disc crosses the straight way to the target about when the vehicle would."""
    rng = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=rng)

    speed, limit = between(0.6, 1.4), between(1.2, 2.0)
    far, bearing = between(6.0, 10.0), between(-0.7, 0.7)
    target = far[:, None] * torch.stack([bearing.cos(), bearing.sin()], -1)
    share = between(0.3, 0.9, DISCS)
    heading = between(-torch.pi, torch.pi, DISCS)
    velocity = between(0.1, 0.6, DISCS)[..., None] * torch.stack([heading.cos(), heading.sin()], -1)
    when = share * STEPS * PERIOD * between(0.5, 0.8)[:, None]
    where = share[..., None] * target[:, None] + between(-2.0, 2.0, DISCS, 2)
    start = where - when[..., None] * velocity
    near = start.norm(dim=-1, keepdim=True)
    start = start * (2.0 / near).clamp(min=1)  # none begins on the vehicle
    discs = torch.cat([start, velocity], -1).flatten(1)
    return torch.cat([speed[:, None], limit[:, None], target, discs], -1)


def driven(scene: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
    """Return where controls (B, K, STEPS, 2) lead in scenes (B, SCENE), (B, K, STEPS, 2), and how fast one is then."""
    yaw, push = controls.unbind(-1)
    heading = PERIOD * yaw.cumsum(-1)
    speed = scene[:, None, None, 0] + PERIOD * push.cumsum(-1)
    course = torch.stack([heading.cos(), heading.sin()], -1)
    return PERIOD * (speed[..., None] * course).cumsum(-2), speed


def signals(scene: Tensor, controls: Tensor) -> Tensor:
    """Return what the rule speaks of, (B, K, STEPS, DISCS + 3): at least 0 is good.

    The room to each disc, the nearness of the target, the speed above the least and below the limit.
    """
    path, speed = driven(scene, controls)
    place, velocity = scene[:, 4:].unflatten(1, (DISCS, 4)).split(2, -1)  # (B, DISCS, 2)
    times = PERIOD * torch.arange(1, STEPS + 1, dtype=scene.dtype, device=scene.device)
    there = place[:, None] + times[:, None, None] * velocity[:, None]  # (B, STEPS, DISCS, 2)
    room = (path[..., None, :] - there[:, None]).norm(dim=-1) - RADIUS
    near = ARRIVED - (path - scene[:, None, None, 2:4]).norm(dim=-1)
    slack = torch.stack([near, speed - SLOWEST, scene[:, 1, None, None] - speed], -1)
    return torch.cat([room, slack], -1)


def rule() -> Formula:
    """Return the rule: always off the discs and within the band of speeds, eventually at the target."""
    one = [Linear(tuple(float(i == j) for j in range(DISCS + 3)), 0.0) for i in range(DISCS + 3)]
    always = And((*one[:DISCS], *one[DISCS + 1 :]))
    return And((Always(Window(), always), Eventually(Window(), one[DISCS])))


class DrivingConfig(ObjectiveConfig):
    """How robustly a plan satisfies the rule; of this script alone, so it is no registered kind.

    Attributes:
        temperature: See `robopol.steering.objectives.formula`.
    """

    kind: Literal["driving"] = "driving"
    temperature: float = 0.0

    def build(self, policy: Policy) -> "Driving":
        """See `ObjectiveConfig.build`."""
        return Driving(self)


class Driving(Objective):
    """See `DrivingConfig`."""

    def __init__(self, config: DrivingConfig) -> None:
        """Write the rule."""
        super().__init__(config)
        self.rule = rule()
        self.obs_shapes = {"scene": (SCENE,)}

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        told: Any = self.config
        return self.rule.robustness(signals(obs["scene"][:, -1], windows), told.temperature, 1)[..., 0]


def augmented(scene: Tensor, tries: int, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make many plans that satisfy the rule for each scene, by gradient ascent from random controls.

    Args:
        scene: (B, SCENE).
        tries: Plans begun for each.
        steps: Of Adam.
        seed: Of where they begin.

    Returns:
        The plans that satisfy it, (N, STEPS, 2), and the number of the scene of each, (N,).
    """
    rng = torch.Generator().manual_seed(seed)
    most = torch.tensor([YAW_RATE, ACCELERATION])
    level, slope = 0.4 * torch.randn(2, len(scene), tries, 1, 2, generator=rng)  # smooth: a driver's hand
    raw = level + slope * torch.linspace(-2, 2, STEPS)[:, None]
    raw.requires_grad_()
    adam, wanted = torch.optim.Adam([raw], lr=0.03), rule()
    for _ in range(steps):
        adam.zero_grad()
        robust = wanted.robustness(signals(scene, most * raw.tanh()), 0.02, 1)[..., 0]
        (0.1 - robust).relu().sum().backward()
        adam.step()
    with torch.no_grad():
        controls = most * raw.tanh()
        good = wanted.robustness(signals(scene, controls), times=1)[..., 0] > 0
    return controls[good], good.nonzero()[:, 0]
