"""What an environment looks like from outside, and what may be chosen about it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import model_validator

from robopol.config import Config
from robopol.envs.domain import Domain

ActionSpace = Literal["joint_pos", "joint_delta", "ee_pose", "ee_delta"]
"""The kinds of action; see `robopol.envs.control`."""

Backend = Literal["auto", "serial", "native", "warp"]
"""How a batch is stepped; see `robopol.envs.make_env`."""


class TaskOptions(Config):
    """The options of every robopol task."""

    action_space: ActionSpace = "ee_delta"
    """What the numbers of an action mean; see `robopol.envs.control`."""
    control_hz: int | None = None
    """Actions a second; it must divide 400 and be at most 40. None is the task's own rate (10)."""
    max_episode_steps: int | None = None
    """Control steps until truncation. None is the task's own limit."""
    state: Literal["all", "robot"] = "all"
    """What "state" tells: "robot" leaves out what lies on the table, for policies that are to see it by a camera."""
    cameras: tuple[Literal["front", "wrist"], ...] = ()
    """Cameras whose pictures are observed as "images.<camera>"."""
    image_size: tuple[int, int] = (96, 96)
    """Height and width of an observed picture, pixels."""
    render_size: tuple[int, int] = (480, 640)
    """Height and width of what ``render`` returns, pixels (at most 1024 x 1280)."""
    domain: Domain = Domain()
    """Masses, friction, latency and noise, fixed or drawn at every reset."""

    @model_validator(mode="after")
    def _check(self) -> "TaskOptions":
        if self.control_hz is not None and (not 1 <= self.control_hz <= 40 or 400 % self.control_hz):
            raise ValueError(f"control_hz must divide 400 and be at most 40, got {self.control_hz}")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {self.max_episode_steps}")
        for name in ("image_size", "render_size"):
            height, width = getattr(self, name)
            if not (1 <= height <= 1024 and 1 <= width <= 1280):
                raise ValueError(f"{name} must be (height, width) within (1024, 1280), got ({height}, {width})")
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"a camera is named twice: {list(self.cameras)}")
        return self


@dataclass(frozen=True)
class EnvSpec:
    """The contract of an environment.

    Attributes:
        id: Gymnasium id.
        obs_shapes: Observation key -> shape without the batch axis.
        obs_dtypes: Observation key -> "float32" or "uint8".
        action_low: Least action, (A,); -inf where there is no bound.
        action_high: Greatest action, (A,); inf where there is no bound.
        action_names: A name with its unit for each entry of an action.
        action_space: Kind of action, e.g. "ee_delta"; "box" for an environment that is not robopol's.
        control_hz: Actions a second; 0 if unknown.
        max_episode_steps: Steps until truncation; 0 if unlimited.
        options: What to pass to `robopol.envs.make_env` to get the same environment; JSON-able.
        way_names: Names of the ways to succeed; empty if there is one.
        state_names: A name with its unit for each entry of obs["state"]; empty if unknown.
        wrappers: What it is wrapped in, from the inside out; JSON-able.
        packages: Distributions that decide, besides robopol, gymnasium and MuJoCo, how an episode goes.
    """

    id: str
    obs_shapes: dict[str, tuple[int, ...]]
    obs_dtypes: dict[str, str]
    action_low: list[float]
    action_high: list[float]
    action_names: tuple[str, ...]
    action_space: str
    control_hz: float
    max_episode_steps: int
    options: dict[str, Any] = field(default_factory=dict)
    way_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    wrappers: tuple[dict[str, Any], ...] = ()
    packages: tuple[str, ...] = ()
