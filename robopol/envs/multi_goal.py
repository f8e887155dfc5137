"""MultiGoal: move a point to any one of several goals; a world of two numbers, for what should be seen in seconds."""

from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from robopol.config import Config, parse
from robopol.envs.detours import Detours, entered, grown, inside, outside
from robopol.envs.drawing import Drawing
from robopol.envs.rectangles import Rectangle
from robopol.envs.spec import EnvSpec
from robopol.errors import EnvError

Array = NDArray[np.float64]
Observation = dict[str, NDArray[np.float32]]

STEP = 0.05
"""The farthest that the point moves in a control step, m."""
RADIUS = 0.02
"""Of the point: its centre stays so far from walls, m."""
RING = 0.8
"""Distance of the goals from the centre, m."""
GOAL_RADIUS = 0.1
"""Success: the point's centre is this close to a goal, m."""
CLEARANCE = 0.08
"""Distance that the shortest ways keep from walls and disc, m."""
WALLS: tuple[Rectangle, ...] = (
    (0.40, -0.20, 0.50, 0.20),
    (-0.20, 0.40, 0.20, 0.50),
    (-0.50, -0.20, -0.40, 0.20),
    (-0.20, -0.50, 0.20, -0.40),
)
"""The walls of the maze: one across each straight way of four goals, with gaps towards the corners."""
DISC = (0.4, 0.0, 0.15)
"""The unsafe disc, across the way east: x, y and radius, m."""
PENALTY = 0.1
"""What a step of cost 1 takes from the reward "safe"."""
PICTURE = 192
"""Height and width of a picture, pixels."""
STATE_NAMES = ("point x [m]", "point y [m]")
"""The entries of the state."""

_START = 0.1  # m from the centre, along x and along y, within which an episode starts
_GAP = 1e-5  # m between the point and a wall that stopped it


class MultiGoalOptions(Config):
    """The options of MultiGoal."""

    goals: int = Field(4, ge=2, le=16)
    """How many goals there are on the ring, the first in the east, the others counterclockwise."""
    obstacles: Literal["none", "maze", "disc"] = "none"
    """What is in the way: "maze" are walls, which the point slides along; "disc" is a region better not entered."""
    actions: Literal["delta", "absolute"] = "delta"
    """What the numbers of an action mean: how far to move, or where to, m. Either moves by at most `STEP`."""
    reward: Literal["sparse", "dense", "safe"] = "dense"
    """What is rewarded: "sparse" success; "dense" progress too, as in the tasks of the arm; "safe" takes costs off."""
    target: Literal["any", "shown"] = "any"
    """Which goal counts: "any", or the one that is drawn at every reset and "shown" in the observation "target"."""
    max_episode_steps: int = Field(60, ge=1)
    """Control steps until truncation."""


class MultiGoal(gymnasium.Env[Any, NDArray[Any]]):
    """A point in the square [-1, 1] x [-1, 1] that starts near its centre; every goal on the ring is a way to succeed.

    All goals are equally good, so that demonstrations lead everywhere and their mean leads nowhere; after the
    multi-goal environment of Haarnoja et al., "Reinforcement learning with deep energy-based policies", ICML 2017.

    Observation: "state" float32 (2,), the position. With ``target="shown"`` one goal is wanted: "target" float32 (2,)
    is where it is, and what decides between the goals is in the observation; a policy that does not look there takes
    the right one by chance. ``info`` has "success" (bool, latched), "way" (int: the goal that was reached, else -1) and
    "cost" (see `cost`). ``terminated`` is True at a goal, ``truncated`` at the step limit without one. An episode is a
    function of the seed of its reset and of its actions, to the bit.

    Reward of a step: the decrease of the length of the shortest way to the nearest goal that counts, around what is in
    the way, in parts of that length at the reset; success adds 1. See the option ``reward`` for others.

    Attributes:
        id: Gymnasium id.
        options: What was chosen.
        way_names: Names of the goals.
        goals: Where they are, (K, 2) m.
        walls: What stops the point.
        detours: The shortest ways to the goals.
        position: Where the point is, (2,) m.
        extent: What a picture shows, from straight above: x and y of its lower left and of its upper right corner, m.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's
    id = "robopol/MultiGoal-v0"
    extent: ClassVar[tuple[float, float, float, float]] = (-1.0, -1.0, 1.0, 1.0)

    def __init__(self, render_mode: str | None = "rgb_array", **options: Any) -> None:
        """Build the world.

        Args:
            render_mode: "rgb_array" or None.
            **options: The fields of `MultiGoalOptions`.

        Raises:
            ConfigError: If an option does not exist or has a wrong value.
        """
        self.options = parse(MultiGoalOptions, options)
        self.render_mode = render_mode
        count = self.options.goals
        compass = ("east", "north", "west", "south")
        self.way_names = compass if count == 4 else tuple(f"goal_{goal}" for goal in range(count))
        angles = 2 * np.pi * np.arange(count) / count
        self.goals = RING * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        self.walls = WALLS if self.options.obstacles == "maze" else ()
        x, y, radius = DISC
        around = (x - radius, y - radius, x + radius, y + radius)
        self.detours = Detours(self.goals, (around,) if self.options.obstacles == "disc" else self.walls, CLEARANCE)
        self._solid, self._kept, self._touched = (grown(self.walls, RADIUS + gaps * _GAP) for gaps in range(3))

        bound = STEP if self.options.actions == "delta" else 1.0
        self.action_space: gymnasium.spaces.Box = gymnasium.spaces.Box(-bound, bound, (2,), np.float32)
        state = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._keys = ("state", "target") if self.options.target == "shown" else ("state",)
        self.observation_space: gymnasium.spaces.Dict = gymnasium.spaces.Dict(dict.fromkeys(self._keys, state))
        self.position = np.zeros(2)
        # [control steps so far (-1: never reset), succeeded, way, length of the way left, that at the reset,
        # the goal that counts (-1: any)]
        self._episode = np.array([-1.0, 0.0, -1.0, 1.0, 1.0, -1.0])
        self._trail: list[Array] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: What the start is drawn from; None draws on from the generator that is there.
            options: Unused.

        Returns:
            Observation and info.
        """
        super().reset(seed=seed)
        self.position[:] = self.np_random.uniform(-_START, _START, 2)
        self._episode[5] = self.np_random.integers(len(self.goals)) if self.options.target == "shown" else -1.0
        left = self._way_left()
        self._episode[:5] = 0.0, 0.0, -1.0, left, left
        self._trail = [self.position.copy()]
        return self._observation(), self._info()

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action for one control step.

        Args:
            action: (2,), clipped to the action box.

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            EnvError: If the episode was never started, or the action has a wrong shape or a number that is
                not finite.
        """
        if self._episode[0] < 0:
            raise EnvError(f"{self.id}: step before reset; call reset(seed=...) first")
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (2,):
            raise EnvError(f"{self.id}: the action has shape {action.shape}, needed (2,): {', '.join(self._names)}")
        if not np.isfinite(action).all():
            raise EnvError(f"{self.id}: the action has an entry that is not finite: {action.tolist()}")
        self._move(np.clip(action, self.action_space.low, self.action_space.high))
        steps, before, way, last, first, wanted = self._episode
        distances = np.linalg.norm(self.goals - self.position, axis=-1)
        if way < 0 and distances.min() < GOAL_RADIUS:
            way = distances.argmin()
        success = bool(way >= 0 and wanted in (-1, way))
        reward = float(success - before)
        left = self._way_left()
        if self.options.reward != "sparse":
            reward += (last - left) / first
        if self.options.reward == "safe":
            reward -= PENALTY * float(self.cost(self.position))
        self._episode[:5] = steps + 1, success, way, left, first
        terminated = bool(way >= 0)
        truncated = not terminated and bool(steps + 1 >= self.options.max_episode_steps)
        return self._observation(), reward, terminated, truncated, self._info()

    def cost(self, positions: ArrayLike) -> Array:
        """Return 1 where the point touches a wall or is in the unsafe disc, else 0.

        It needs positions only, so that recorded states tell it too.

        Args:
            positions: (..., 2) m.

        Returns:
            (...).
        """
        places = np.asarray(positions, dtype=np.float64)
        bad = inside(places, self._touched)
        if self.options.obstacles == "disc":
            bad = np.linalg.norm(places - DISC[:2], axis=-1) < DISC[2]
        return bad.astype(np.float64)

    def action_to(self, target: Array) -> NDArray[np.float32]:
        """Return the action that moves to a place, (2,) m, or as far towards it as one action may, (2,) float32."""
        action = target - self.position if self.options.actions == "delta" else target
        clipped: NDArray[np.float32] = np.clip(action, self.action_space.low, self.action_space.high).astype(np.float32)
        return clipped

    def render(self) -> NDArray[np.uint8]:
        """Return a picture of walls, disc, goals, point and where it was, (`PICTURE`, `PICTURE`, 3) uint8."""
        drawing = Drawing(PICTURE)
        if self.options.obstacles == "disc":
            drawing.disc(np.array(DISC[:2]), DISC[2], (244, 199, 195))
        for wall in self.walls:
            drawing.rectangle(wall, (84, 96, 110))
        for number, goal in enumerate(self.goals):
            counts = self._episode[5] in (-1, number)
            drawing.disc(goal, GOAL_RADIUS, (110, 185, 130) if counts else (190, 196, 204))
            drawing.disc(goal, 0.85 * GOAL_RADIUS, (226, 243, 230))
        drawing.line(self._trail, 0.015, (120, 150, 215))
        drawing.disc(self.position, 1.5 * RADIUS, (200, 60, 45))
        return drawing.picture()

    def save_state(self) -> Array:
        """Return all that decides how the episode goes on, (8,)."""
        return np.concatenate([self.position, self._episode])

    def restore_state(self, state: Array) -> Observation:
        """Continue from a saved state, to the bit; what was drawn of the way so far is forgotten.

        Args:
            state: What `save_state` of an environment of the same options returned.

        Returns:
            The observation there.

        Raises:
            EnvError: If the vector has another length.
        """
        if np.shape(state) != (8,):
            raise EnvError(f"{self.id}: the state has shape {np.shape(state)}, needed (8,)")
        self.position[:], self._episode[:] = state[:2], state[2:]
        self._trail = [self.position.copy()]
        return self._observation()

    @property
    def env_spec(self) -> EnvSpec:
        """The contract of this environment."""
        return EnvSpec(
            id=self.id,
            obs_shapes=dict.fromkeys(self._keys, (2,)),
            obs_dtypes=dict.fromkeys(self._keys, "float32"),
            state_names=STATE_NAMES,
            action_low=self.action_space.low.tolist(),
            action_high=self.action_space.high.tolist(),
            action_names=self._names,
            action_space=self.options.actions,
            control_hz=float(self.metadata["render_fps"]),
            max_episode_steps=self.options.max_episode_steps,
            options=self.options.tree(),
            way_names=self.way_names,
        )

    @property
    def wanted(self) -> int | None:
        """The goal that counts in this episode; None if any does."""
        return None if self._episode[5] < 0 else int(self._episode[5])

    @property
    def _names(self) -> tuple[str, str]:
        """A name with its unit for each entry of an action."""
        return ("point dx [m]", "point dy [m]") if self.options.actions == "delta" else STATE_NAMES

    def _move(self, action: Array) -> None:
        """Move straight as far as a step allows, and where a wall is in the way slide along it."""
        move = action if self.options.actions == "delta" else action - self.position
        move = move * min(1.0, STEP / max(float(np.linalg.norm(move)), 1e-9))
        part = self._advance(move)
        if part < 1.0:
            for along in np.diag((1.0 - part) * move):
                self._advance(along)
        self._trail.append(self.position.copy())

    def _advance(self, move: Array) -> float:
        """Move straight, (2,) m, until a wall is met; return the part of the motion that was made."""
        part = float(entered(self.position, move, self._solid))
        self.position[:] = outside(np.clip(self.position + part * move, -1.0, 1.0), self._kept)
        return part

    def _way_left(self) -> float:
        """Return the length of the shortest way to the nearest goal that counts, m."""
        left, wanted = self.detours.left(self.position), self.wanted
        return float(left.min() if wanted is None else left[wanted])

    def _observation(self) -> Observation:
        observation = {"state": self.position.astype(np.float32)}
        if self.wanted is not None:
            observation["target"] = self.goals[self.wanted].astype(np.float32)
        return observation

    def _info(self) -> dict[str, Any]:
        return {
            "success": bool(self._episode[1]),
            "way": int(self._episode[2]),
            "cost": float(self.cost(self.position)),
        }
