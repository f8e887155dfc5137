"""The base of every task: a gymnasium environment with the arm at a table.

A task is one short file: it says what lies on the table (`Task.objects`), where things start (`Task.place`),
what the state shows of them (`Task.observe`), and what counts as progress, success and way (`Task.judge`).
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from robopol.config import Config, parse
from robopol.envs.arrays import Array, arrays
from robopol.envs.control import CONTROLS
from robopol.envs.domain import MAX_LATENCY, DomainDraw
from robopol.envs.engine import mujoco
from robopol.envs.gripper import STROKE
from robopol.envs.kinematics import HOME, ToolKinematics
from robopol.envs.rendering import Renderer
from robopol.envs.scene import PHYSICS_HZ, scene_mjcf
from robopol.envs.spec import EnvSpec, TaskOptions
from robopol.envs.ur5e import JOINT_NAMES
from robopol.envs.view import View
from robopol.errors import EnvError

Vector = NDArray[np.float64]
Observation = dict[str, NDArray[Any]]

ARM_STATE_NAMES = (
    *(f"{name} [rad]" for name in JOINT_NAMES),
    "tool x [m]",
    "tool y [m]",
    "tool z [m]",
    "tool yaw [rad]",
    "gripper opening [0..1]",
)
"""The entries of the state that every task has, measured, in the world frame."""

_SUBSTEPS = 10  # pieces into which the motion of a reference within one control step is cut
LEAST_MUJOCO = Version("3.3.7")
"""Earlier ones refuse bodies without mass, also such that never move."""
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class Verdict(NamedTuple):
    """What a task says after a control step; arrays with the leading axes of the view that was judged."""

    reward: Array
    """Reward of the step, without the bonus of 1 that the base adds on success, (...)."""
    success: Array
    """Whether the task is done now, (...) bool."""
    memory: Array
    """What the task keeps for the next step, (..., memory_size)."""
    way: Array = -1
    """Index into ``way_names`` of the way taken, (...); -1 while undecided, and always if there is one way."""


class Outcome(NamedTuple):
    """What a control step means for the episode; arrays with the leading axes of the view that was judged."""

    reward: Array
    """The task's reward plus 1 on the first success, (...)."""
    success: Array
    """The episode has succeeded so far, (...) bool; it ends there."""
    truncated: Array
    """The episode ends without success, (...) bool."""
    episode: Array
    """[control steps so far, succeeded, way], (..., 3)."""


class Task(gymnasium.Env[Any, NDArray[Any]]):
    """The arm, its control and its episodes; a task derives from it.

    Observations are a dict: "state" float32 (S,) as `state_names` says, and "images.<camera>" uint8 (H, W, 3)
    for each camera asked for. ``info`` has "success" (bool, latched) and "way" (int). ``terminated`` is True
    on success, ``truncated`` at the step limit without success.

    An episode is a function of the seed of its reset and of its actions, to the bit; what the object did
    before leaves no trace.

    Attributes:
        id: Gymnasium id.
        default_control_hz: Actions a second unless the option says otherwise.
        default_max_episode_steps: Control steps until truncation unless the option says otherwise.
        way_names: Names of the ways to succeed, empty if there is one.
        object_state_names: Names with units of what `observe` appends to the state, unless the option ``state`` leaves
            it out.
        memory_size: How many numbers of its own the task keeps during an episode, in `memory`.
        memory: (memory_size,) float64, what `begin` and `judge` keep; saved and restored with the state.
        view: What `state` and `judge` see of this world.
        model: The ``mujoco.MjModel``.
        data: The ``mujoco.MjData``.
        mjcf: The model as MJCF.
        control: The action space in use and its commanded reference.
        physics_steps: How many physics steps each piece of a control step has.
        fractions: (pieces, 1): how far the servos' targets are on their way at each piece.
        np_random: The episode's random generator.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's

    id: ClassVar[str]
    default_control_hz: ClassVar[int] = 10
    default_max_episode_steps: ClassVar[int]
    way_names: ClassVar[tuple[str, ...]] = ()
    object_state_names: ClassVar[tuple[str, ...]]
    memory_size: ClassVar[int] = 0

    def __init__(self, render_mode: str | None = "rgb_array", **options: Any) -> None:
        """Build the model.

        Args:
            render_mode: "rgb_array" or None; rendering starts only when asked for.
            **options: The fields of `TaskOptions`; plain values or config objects.

        Raises:
            ConfigError: If an option does not exist or has a wrong value.
        """
        tree = {key: value.tree() if isinstance(value, Config) else value for key, value in options.items()}
        given = parse(TaskOptions, tree)
        self.options = given.model_copy(
            update={
                "control_hz": given.control_hz or self.default_control_hz,
                "max_episode_steps": given.max_episode_steps or self.default_max_episode_steps,
            }
        )
        self.render_mode = render_mode
        self._limit: int = self.options.max_episode_steps  # type: ignore[assignment]
        control_hz: int = self.options.control_hz  # type: ignore[assignment]
        self.metadata = {**self.metadata, "render_fps": control_hz}

        self.mjcf = scene_mjcf(type(self).__name__.lower(), self.objects())
        if Version(mujoco.__version__) < LEAST_MUJOCO:
            raise EnvError(f"{self.id} needs mujoco >= {LEAST_MUJOCO}, {mujoco.__version__} is installed")
        self.model = mujoco.MjModel.from_xml_string(self.mjcf)
        self.data = mujoco.MjData(self.model)
        self.control = CONTROLS[self.options.action_space](ToolKinematics(), 1.0 / control_hz)
        self.memory = np.zeros(self.memory_size)
        self.view = View(self.model, lambda field: getattr(self.data, field).copy())
        self._renderers: dict[tuple[int, int], Renderer] = {}
        self.physics_steps = np.diff(np.linspace(0, PHYSICS_HZ // control_hz, _SUBSTEPS + 1).astype(int)).tolist()
        self.fractions = np.cumsum(self.physics_steps)[:, None] / sum(self.physics_steps)
        self._servo = np.zeros(7)

        movable = self.model.body_dofnum[self.model.geom_bodyid] == 6
        self._objects = np.flatnonzero(self.model.body_dofnum == 6)
        self._frictional = np.flatnonzero(movable | (np.arange(self.model.ngeom) == self.model.geom("table").id))
        self._base_mass = self.model.body_mass.copy()
        self._base_inertia = self.model.body_inertia.copy()
        self._base_friction = self.model.geom_friction.copy()

        self.state_names = ARM_STATE_NAMES + (self.object_state_names if self.options.state == "all" else ())
        self.action_space = gymnasium.spaces.Box(self.control.low, self.control.high, dtype=np.float32)
        spaces: dict[str, gymnasium.spaces.Space[Any]] = {
            "state": gymnasium.spaces.Box(-np.inf, np.inf, (len(self.state_names),), np.float32)
        }
        for camera in self.options.cameras:
            spaces[f"images.{camera}"] = gymnasium.spaces.Box(0, 255, (*self.options.image_size, 3), np.uint8)
        self.observation_space: gymnasium.spaces.Dict = gymnasium.spaces.Dict(spaces)
        self._actions = np.zeros((MAX_LATENCY + 1, len(self.control.low)))
        self._domain = DomainDraw(1.0, 1.0, 0, 0.0)
        self._scales = (1.0, 1.0)
        # [control steps so far (-1: never reset), succeeded, way]
        self._episode = np.array([-1.0, 0.0, -1.0])

    @abstractmethod
    def objects(self) -> str:
        """Write the MJCF elements that the task adds to the table; see `scene.scene_mjcf`."""

    @abstractmethod
    def place(self, rng: np.random.Generator) -> tuple[Vector, float]:
        """Put the objects where the episode starts, by ``data.qpos`` and ``data.mocap_pos``.

        Args:
            rng: The episode's generator; all that is random is drawn from it.

        Returns:
            Tool pose (x, y, z, yaw), (4,), and gripper opening at which the arm starts.
        """

    @abstractmethod
    def observe(self, view: View) -> Array:
        """Return the task's part of the state, (..., len(object_state_names)), as `object_state_names` says."""

    @abstractmethod
    def begin(self, view: View) -> Array:
        """Return the memory at the start of an episode, (..., memory_size)."""

    @abstractmethod
    def judge(self, view: View, memory: Array) -> Verdict:
        """Judge what is seen after a control step.

        Args:
            view: One world or many, on the CPU or elsewhere.
            memory: What was kept at the step before, (..., memory_size); it is not changed.
        """

    def state(self, view: View) -> Array:
        """Return the state without noise, (..., S), as `state_names` says."""
        parts = [view.joints(), view.tool_pose(), view.opening()[..., None]]
        if self.options.state == "all":
            parts.append(self.observe(view))
        return arrays(parts[0]).concatenate(parts, axis=-1)

    def outcome(self, verdict: Verdict, episode: Array) -> Outcome:
        """Return what a verdict means after the episode so far, (..., 3)."""
        xp = arrays(episode)
        steps = episode[..., 0] + 1
        before = episode[..., 1] > 0
        success = before | verdict.success
        way = 0.0 * steps + verdict.way
        return Outcome(
            reward=verdict.reward + (success & ~before),
            success=success,
            truncated=~success & (steps >= self._limit),
            episode=xp.stack([steps, 0.0 * steps + success, way], axis=-1),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: What the episode is drawn from; None draws on from the generator that is there.
            options: Unused.

        Returns:
            Observation and info.
        """
        super().reset(seed=seed)
        self._set_domain(self.options.domain.draw(self.np_random))
        mujoco.mj_resetData(self.model, self.data)
        self.memory[:] = 0.0
        pose, opening = self.place(self.np_random)
        q, _ = self.control.kinematics.inverse(pose, HOME)
        self.data.qpos[:6] = q
        self.data.qpos[6:8] = opening * STROKE / 2
        self.control.reset(q, opening)
        self._servo[:6], self._servo[6] = q, opening * STROKE
        self.data.ctrl[:] = self._servo
        mujoco.mj_forward(self.model, self.data)
        self._actions[:] = self.control.hold()
        self._episode[:] = 0.0, 0.0, -1.0
        self.memory[:] = self.begin(self.view)
        return self._observation(), {"success": False, "way": -1}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action for one control step.

        Args:
            action: (A,), clipped to the action box.

        Returns:
            Observation, reward (the task's own plus 1 on success), terminated, truncated, info.

        Raises:
            EnvError: If the episode was never started, or the action has a wrong shape or a number that is
                not finite.
        """
        for target, steps in zip(self.aim(action), self.physics_steps, strict=True):
            self.data.ctrl[:] = target
            mujoco.mj_step(self.model, self.data, steps)
        mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves the poses one physics step behind
        return self.conclude()

    def share(self, memory: Vector, episode: Vector) -> None:
        """Keep what is remembered of the episode in arrays of somebody who judges many tasks at once.

        Args:
            memory: (memory_size,).
            episode: (3,), see `Outcome.episode`.
        """
        memory[:], episode[:] = self.memory, self._episode
        self.memory, self._episode = memory, episode

    def aim(self, action: NDArray[Any]) -> Vector:
        """Take an action and say where the servos go during the control step: the first part of `step`.

        Args:
            action: See `step`.

        Returns:
            Targets of the actuators in each piece of the control step, (pieces, 7); the attribute
            ``physics_steps`` says how long each lasts.

        Raises:
            EnvError: See `step`.
        """
        if self._episode[0] < 0:
            raise EnvError(f"{self.id}: step before reset; call reset(seed=...) first")
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.control.low.shape:
            names = ", ".join(self.control.names)
            raise EnvError(
                f"{self.id}: the action has shape {action.shape}, needed {self.control.low.shape} for "
                f"action_space='{self.options.action_space}': {names}"
            )
        if not np.isfinite(action).all():
            raise EnvError(f"{self.id}: the action has an entry that is not finite: {action.tolist()}")
        self.control.command(self._delayed(action))
        start = self._servo.copy()
        self._servo[:6], self._servo[6] = self.control.q, self.control.opening[0] * STROKE
        return start + self.fractions * (self._servo - start)

    def conclude(self) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Judge and observe after the physics of a control step: the last part of `step`; returns what that does."""
        verdict = self.judge(self.view, self.memory)
        outcome = self.outcome(verdict, self._episode)
        self.memory[:], self._episode[:] = verdict.memory, outcome.episode
        success, info = bool(outcome.success), {"success": bool(outcome.success), "way": int(outcome.episode[2])}
        return self._observation(), float(outcome.reward), success, bool(outcome.truncated), info

    def render(self) -> NDArray[np.uint8]:
        """Return the picture of the front camera, (H, W, 3) uint8 of the option ``render_size``.

        Raises:
            EnvError: If no OpenGL backend works on this machine.
        """
        mujoco.mj_camlight(self.model, self.data)
        return self._picture("front", self.options.render_size)

    def close(self) -> None:
        """Free what rendering holds."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def save_state(self) -> Vector:
        """Return all that decides how the episode goes on, except its random generator, as one vector.

        Its head is MuJoCo's integration state (time, qpos, qvel, act, warm start, ctrl, ..., poses of goals
        and obstacles); then the commanded reference, delayed actions, domain, episode counters and the task's
        memory.
        """
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        rest = (
            self.control.reference,
            self._servo,
            self._actions.ravel(),
            self._domain,
            self._episode,
            self.memory,
        )
        return np.concatenate([physics, *rest])

    def restore_state(self, state: Vector) -> Observation:
        """Continue from a saved state, to the bit.

        Args:
            state: What `save_state` of an environment of the same id and options returned.

        Returns:
            The observation there (with fresh noise, if there is observation noise).

        Raises:
            EnvError: If the vector is not of this environment's length.
        """
        needed = len(self.save_state())
        if np.shape(state) != (needed,):
            raise EnvError(f"{self.id}: the state has shape {np.shape(state)}, needed ({needed},) with these options")
        parts = (self.control.reference, self._servo, self._actions, np.zeros(4), self._episode, self.memory)
        start = needed - sum(part.size for part in parts)
        physics, rest = state[:start], state[start:]
        for part in parts:
            part.flat[:], rest = rest[: part.size], rest[part.size :]
        mass, friction, latency, noise = parts[3]
        self._set_domain(DomainDraw(float(mass), float(friction), int(latency), float(noise)))
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        mujoco.mj_kinematics(self.model, self.data)
        return self._observation()

    @property
    def env_spec(self) -> EnvSpec:
        """The contract of this environment."""
        return EnvSpec(
            id=self.id,
            obs_shapes={key: tuple(space.shape or ()) for key, space in self.observation_space.items()},
            obs_dtypes={key: str(space.dtype) for key, space in self.observation_space.items()},
            state_names=self.state_names,
            action_low=self.control.low.tolist(),
            action_high=self.control.high.tolist(),
            action_names=self.control.names,
            action_space=self.options.action_space,
            control_hz=float(self.metadata["render_fps"]),
            max_episode_steps=self._limit,
            options=self.options.tree(),
            way_names=self.way_names,
        )

    def put(self, body: str, position: Vector, yaw: float) -> None:
        """Put a free body somewhere, level.

        Args:
            body: Its name.
            position: Where its origin goes, (3,) m; (2,) leaves the height as it is.
            yaw: Its yaw, rad.
        """
        start = self.model.joint(body).qposadr[0]
        self.data.qpos[start : start + len(position)] = position
        self.data.qpos[start + 3 : start + 7] = quaternion(yaw)

    def tool_pose(self) -> Vector:
        """Return the measured tool pose (x, y, z, yaw), (4,) m and rad."""
        pose: Vector = self.view.tool_pose()
        return pose

    def commanded_pose(self) -> Vector:
        """Return the commanded tool pose (x, y, z, yaw), (4,) m and rad; the arm lags it a little."""
        return self.control.commanded_pose()

    def opening(self) -> float:
        """Return the measured opening of the gripper, 0 closed to 1 open."""
        return float(self.view.opening())

    def _delayed(self, action: Vector) -> Vector:
        """Queue an action and return the one whose turn it is."""
        self._actions[1:] = self._actions[:-1]
        self._actions[0] = action
        return self._actions[self._domain.latency]

    def observed(self, state: Vector) -> Observation:
        """Return the observation where the state (S,), without noise, is that of the simulation."""
        if self._domain.observation_noise > 0:
            state = state + self.np_random.normal(0.0, self._domain.observation_noise, state.shape)
        observation: Observation = {"state": state.astype(np.float32)}
        if self.options.cameras:
            mujoco.mj_camlight(self.model, self.data)
            for camera in self.options.cameras:
                observation[f"images.{camera}"] = self._picture(camera, self.options.image_size)
        return observation

    def _observation(self) -> Observation:
        return self.observed(self.state(self.view))

    def _picture(self, camera: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        if size not in self._renderers:
            self._renderers[size] = Renderer(self.model, *size)
        return self._renderers[size].render(self.data, camera)

    def _set_domain(self, domain: DomainDraw) -> None:
        """Scale masses and friction; the rest of the draw is read when it is needed."""
        self._domain = domain
        if (domain.mass, domain.friction) == self._scales:
            return
        self._scales = (domain.mass, domain.friction)
        self.model.body_mass[self._objects] = self._base_mass[self._objects] * domain.mass
        self.model.body_inertia[self._objects] = self._base_inertia[self._objects] * domain.mass
        self.model.geom_friction[self._frictional] = self._base_friction[self._frictional] * domain.friction
        mujoco.mj_setConst(self.model, self.data)  # the solver's scaling depends on the masses


def quaternion(yaw: float) -> Vector:
    """Return the quaternion, (4,) w first, of a turn about the vertical, rad."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
