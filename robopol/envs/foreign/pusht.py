"""gym-pusht: a disc pushes a T to its place in the plane (Florence et al., "Implicit Behavioral Cloning", CoRL 2021).

Actions are where the disc is to go, in pixels of a 512 x 512 plane: absolute, so zero is a corner. An episode succeeds,
and terminates, when the T covers more than 95 % of its place.
"""

import os
from typing import Any

from robopol.envs.foreign.plain import upstream
from robopol.envs.foreign.world import World


class PushT(World):
    """``gym_pusht/PushT-v0``; the physics is Pymunk's, whose state cannot be saved."""

    camera = "top"
    packages = ("gym-pusht", "pymunk")

    @property
    def control_hz(self) -> float:
        """Actions a second; upstream's ``dt`` is the physics', not the control's."""
        return float(self.unwrapped.control_hz)  # type: ignore[attr-defined]

    @property
    def action_names(self) -> tuple[str, ...]:
        """The target position of the disc."""
        return ("x [px]", "y [px]")


def make(id: str, options: dict[str, Any]) -> World:
    """Make one environment; options are upstream's, e.g. ``obs_type="pixels_agent_pos"``."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import gym_pusht  # noqa: F401 - registers its ids

    env, limit = upstream(id, options)
    return PushT(env, id, options, limit)
