"""The adapter from one gymnasium environment that is not robopol's to robopol's words."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from robopol.envs.spec import EnvSpec
from robopol.errors import EnvError

Observation = dict[str, NDArray[Any]]

RENAMED = {"observation": "state", "desired_goal": "goal"}
"""Upstream's observation key -> robopol's; every other key keeps its name."""


class World(gymnasium.Wrapper[Observation, NDArray[Any], Any, NDArray[Any]]):
    """A single environment of a foreign family; a family derives from it and says where upstream differs.

    Observations become a flat dict: a vector alone is "state", the parts of a goal observation are "state", "goal" and
    "achieved_goal", a picture is "images.<name>" (uint8, height x width x channels), and other entries keep their
    names. Numbers become float32; an entry with several axes, or that is itself a dict (in the order of its names),
    becomes one vector.

    ``info["success"]`` is set in every step and stays set until the next reset.

    Attributes:
        limit: Steps until truncation; 0 is no limit.
        latest: Upstream's own latest observation, for those who need its full precision (experts).
        latest_info: Upstream's own latest info.
    """

    camera: ClassVar[str] = "camera"
    """What a picture is called that upstream does not name."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that decide, besides gymnasium and MuJoCo, how an episode goes."""

    def __init__(self, env: gymnasium.Env[Any, Any], id: str, options: Mapping[str, Any], limit: int) -> None:
        """Check that the environment fits.

        Args:
            env: The environment, without a time limit of its own.
            id: What it is called.
            options: What it was made with.
            limit: Steps until truncation; 0 is none.

        Raises:
            EnvError: If its observations are not boxes or its actions not a flat, bounded-or-not box.
        """
        super().__init__(env)
        self.id, self.options, self.limit = id, dict(options), limit
        self.latest: Any = None
        self.latest_info: dict[str, Any] = {}
        # [steps of the episode so far, succeeded]
        self._episode = np.zeros(2)
        with self.scope():
            action, observation = env.action_space, self.seen(env.observation_space)
        if not isinstance(action, spaces.Box) or len(action.shape) != 1 or action.dtype.kind != "f":
            raise EnvError(f"'{id}' has actions {action}; a box of one axis (gymnasium.spaces.Box) is needed")
        self.action_space = spaces.Box(_bound(action.low), _bound(action.high))
        self._keys = tuple(sorted(observation))
        self.observation_space: spaces.Space[Any] = spaces.Dict(observation)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see ``gymnasium.Env.reset``."""
        with self.scope():
            self.latest, self.latest_info = self.begin(seed, options)
        self._episode[:] = 0.0
        return self.observe(), {**self.latest_info, "success": False}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action; see ``gymnasium.Env.step``."""
        with self.scope():
            self.latest, reward, terminated, truncated, self.latest_info = self.env.step(action)
        self._episode[0] += 1
        self._episode[1] = self._episode[1] or self.succeeded()
        late = bool(self.limit) and not terminated and bool(self._episode[0] >= self.limit)
        info = {**self.latest_info, "success": bool(self._episode[1])}
        return self.observe(), float(reward), bool(terminated), bool(truncated) or late, info

    def render(self) -> NDArray[np.uint8]:
        """Return a picture, (H, W, 3) uint8.

        Raises:
            EnvError: If upstream draws none, or no OpenGL backend works here.
        """
        from robopol.envs.rendering import offer_backend

        if self.physics is not None:
            offer_backend()
        with self.scope():
            picture = self.picture()
        if not isinstance(picture, np.ndarray):
            raise EnvError(f"{self.id} gave no picture; pass render_mode='rgb_array' if it takes that option")
        return picture

    # What a family may say otherwise

    def begin(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        """Start upstream's episode and return its observation and info."""
        return self.env.reset(seed=seed, options=options)

    def succeeded(self) -> bool:
        """Say whether the latest step shows the task solved, by ``latest_info``."""
        return bool(self.latest_info.get("success", self.latest_info.get("is_success", False)))

    def picture(self) -> Any:
        """Draw the world as upstream draws it."""
        return self.env.render()

    def scope(self) -> AbstractContextManager[None]:
        """Return what upstream's code must run in; see `GlobalStream`."""
        return nullcontext()

    def more_space(self) -> dict[str, spaces.Space[Any]]:
        """Return observation keys that upstream does not put into its observation -> their spaces."""
        return {}

    def more(self) -> dict[str, Any]:
        """Return the present values of `more_space`."""
        return {}

    @property
    def physics(self) -> tuple[Any, Any] | None:
        """The ``mujoco.MjModel`` and ``MjData`` of the world; None if it has none."""
        found = getattr(self.unwrapped, "model", None), getattr(self.unwrapped, "data", None)
        known = [type(part).__name__ for part in found] == ["MjModel", "MjData"]
        return found if known else None

    def memory(self) -> list[NDArray[Any]]:
        """Return arrays besides MuJoCo's state that decide how the episode goes on; restoring writes into them."""
        return []

    def appended(self) -> list[NDArray[Any]]:
        """Return arrays that upstream's datasets store behind qpos and qvel; restoring writes into them."""
        return []

    def look(self) -> Any:
        """Compute upstream's observation of the present state."""
        return self.unwrapped._get_obs()  # type: ignore[attr-defined]

    @property
    def control_hz(self) -> float:
        """Actions a second; 0 if unknown."""
        period = getattr(self.unwrapped, "dt", None)
        return 1.0 / float(period) if period else 0.0

    @property
    def action_names(self) -> tuple[str, ...]:
        """A name for each entry of an action: the actuators', where each entry drives one."""
        count = self.action_space.shape[0]  # type: ignore[index]
        if self.physics is None or self.physics[0].nu != count:
            return tuple(f"action {index}" for index in range(count))
        return actuator_names(self.physics[0])

    # The rest is robopol's contract

    def seen(self, space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
        """Translate an observation space.

        Raises:
            EnvError: If it holds what is neither a vector nor a picture.
        """
        found: dict[str, spaces.Space[Any]] = {}
        for key, part in _parts(space).items():
            if isinstance(part, spaces.Dict) and all(isinstance(inner, spaces.Box) for inner in part.values()):
                size = sum(int(np.prod(inner.shape or ())) for inner in part.values())
                found[RENAMED.get(key, key)] = _vector(size)
            elif isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) == 3:
                found[self.image_key(key)] = spaces.Box(0, 255, part.shape, np.uint8)
            elif isinstance(part, spaces.Box):
                found[RENAMED.get(key, key)] = _vector(int(np.prod(part.shape)))
            else:
                raise EnvError(f"'{self.id}' has observations {key} = {part}; boxes of numbers are needed")
        return found | self.more_space()

    def observe(self) -> Observation:
        """Translate the latest observation."""
        latest = self.latest if isinstance(self.latest, dict) else {"observation": self.latest}
        found: Observation = {}
        for key, value in (latest | self.more()).items():
            if self.image_key(key) in self._keys:
                found[self.image_key(key)] = np.ascontiguousarray(value)
                continue
            if isinstance(value, dict):
                value = np.concatenate([np.ravel(value[name]) for name in sorted(value)])
            # a copy: upstream may go on writing into its own arrays
            found[RENAMED.get(key, key)] = np.array(value, dtype=np.float32).reshape(-1)
        return {key: found[key] for key in self._keys}

    def image_key(self, key: str) -> str:
        """Return the key under which a picture is observed."""
        return f"images.{self.camera if key in ('observation', 'pixels') else key}"

    def save_state(self) -> NDArray[np.float64] | None:
        """Return all that decides how the episode goes on, except random generators, as one vector.

        MuJoCo's integration state, the family's `memory`, and [steps so far, succeeded]; None where there is no MuJoCo.
        """
        if self.physics is None or not self.restorable:
            return None
        import mujoco

        model, data = self.physics
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, state, kind)
        return np.concatenate([state, *(np.ravel(part) for part in self.memory()), self._episode])

    def restore_state(self, state: NDArray[np.float64]) -> Observation:
        """Continue from a saved state.

        Positions and contacts are computed afresh from it; an environment that reads those of one physics step earlier
        (as MuJoCo leaves them after a step) differs from its recording by that much.

        Args:
            state: What `save_state` returned; or qpos and qvel one after the other, alone, after the time or before
                what is `appended`, as other datasets store them: then all else stays as it is.

        Returns:
            The observation there.

        Raises:
            EnvError: If the world cannot restore a state, or the vector fits neither.
        """
        whole = self.save_state()
        if whole is None or self.physics is None:
            raise EnvError(f"{self.id} cannot continue from a saved state")
        import mujoco

        model, data = self.physics
        short, more = model.nq + model.nv, self.appended()
        long = short + sum(part.size for part in more)
        if np.shape(state) == whole.shape:
            kind = mujoco.mjtState.mjSTATE_INTEGRATION
            size = mujoco.mj_stateSize(model, kind)
            _write([*self.memory(), self._episode], state[size:])
            mujoco.mj_setState(model, data, state[:size], kind)
            self.settle()
            mujoco.mj_setState(model, data, state[:size], kind)  # the solver's warm start was overwritten
        elif np.shape(state) in ((long,), (short,), (short + 1,)):
            if more and len(state) == long:
                _write(more, state[short:])
                state = state[:short]
            data.qpos[:], data.qvel[:] = np.split(state[-short:], [model.nq])
            self.settle()
        else:
            raise EnvError(
                f"{self.id}: the state has shape {np.shape(state)}, needed ({len(whole)},), or ({short},) for qpos "
                f"and qvel, or ({short + 1},) with the time before them"
                + (f", or ({long},) with what upstream's datasets store behind them" if more else "")
            )
        with self.scope():
            self.latest = self.look()
        return self.observe()

    def settle(self) -> None:
        """Compute what follows from the state."""
        import mujoco

        if self.physics is not None:
            mujoco.mj_forward(*self.physics)
            mujoco.mj_rnePostConstraint(*self.physics)

    @property
    def restorable(self) -> bool:
        """Whether the observation of a restored state can be computed."""
        return type(self).look is not World.look or callable(getattr(self.unwrapped, "_get_obs", None))

    @property
    def env_spec(self) -> EnvSpec:
        """The contract of this environment."""
        box: Any = self.action_space
        seen: Any = self.observation_space
        return EnvSpec(
            id=self.id,
            obs_shapes={key: tuple(space.shape) for key, space in seen.items()},
            obs_dtypes={key: str(space.dtype) for key, space in seen.items()},
            action_low=box.low.astype(float).tolist(),
            action_high=box.high.astype(float).tolist(),
            action_names=self.action_names,
            action_space="box",
            control_hz=self.control_hz,
            max_episode_steps=self.limit,
            options=self.options,
            packages=self.packages,
        )


class GlobalStream:
    """What code that draws from numpy's global generator draws from instead: a stream of its own."""

    def __init__(self) -> None:
        """Start with seed 0."""
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Begin a stream.

        Args:
            seed: At least 0.
        """
        self._state: Any = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))).get_state()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the global generator be this stream for a while."""
        saved = np.random.get_state()
        np.random.set_state(self._state)
        try:
            yield
        finally:
            self._state = np.random.get_state()
            np.random.set_state(saved)


def actuator_names(model: Any) -> tuple[str, ...]:
    """Name the actuators of a ``mujoco.MjModel``: by their own names, else by the joint they drive."""
    import mujoco

    names = []
    for index in range(model.nu):
        name = model.actuator(index).name
        if not name and model.actuator_trntype[index] == mujoco.mjtTrn.mjTRN_JOINT:
            name = model.joint(model.actuator_trnid[index, 0]).name
        names.append(name or f"action {index}")
    return tuple(names) if len(set(names)) == len(names) else tuple(f"action {index}" for index in range(model.nu))


def _write(parts: list[NDArray[Any]], values: NDArray[Any]) -> None:
    """Write consecutive values into arrays."""
    for part in parts:
        part[...] = values[: part.size].reshape(part.shape)
        values = values[part.size :]


def _parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    return dict(space.items()) if isinstance(space, spaces.Dict) else {"observation": space}


def _bound(side: NDArray[Any]) -> NDArray[np.float32]:
    """Return bounds of actions as float32; those that it cannot hold, and its very last, are none: infinity."""
    inside = np.abs(side) < np.finfo(np.float32).max
    return np.where(inside, side, np.copysign(np.inf, side)).astype(np.float32)


def _vector(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)
