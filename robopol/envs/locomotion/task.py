"""What a standard task says about simulated worlds: observation, reward and termination of a whole batch.

The functions are written with what numpy arrays and torch tensors have in common, so the same definition
serves worlds that are simulated on the CPU and on the GPU. On float64 numpy arrays the results, as float32, equal
those of gymnasium's own environment to the bit: the operations are the same and follow in the same order.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array

Fields = Mapping[str, Array]
"""Name of a field of ``mujoco.MjData`` -> its value in n worlds, (n, *its shape in one world)."""


def flat(x: Array) -> Array:
    """Return each world's entries in one row, (n, ...) to (n, D)."""
    return x if x.ndim == 2 else x.reshape(len(x), math.prod(x.shape[1:]))


def never(now: Fields) -> Array:
    """Return for each world that its episode does not end, (n,) bool."""
    return now["qpos"][:, 0] < -np.inf


def squares(x: Array) -> Array:
    """Return the sum of the squares of each world's entries, (n,)."""
    return flat(x * x).sum(-1)


class Locomotion(ABC):
    """One of gymnasium's tasks, with the settings of one of its environments.

    ``before`` and ``now`` are what the simulation shows before and after a step, in the meaning of
    gymnasium: positions and velocities are those at the end of the step; what MuJoCo derives from them
    (``xpos``, ``cinert``, ...) is what the last ``mj_step`` left, one physics step behind. After a reset it
    is what ``mj_forward`` left. If ``cfrc_ext`` is among `fields`, ``mj_rnePostConstraint`` must be run after
    the physics steps.

    Attributes:
        entry_point: Of gymnasium's environment.
        fields: The fields of ``mujoco.MjData`` that are read.
        normal_velocity: Whether the velocities of the start are drawn from a normal distribution.
        model: The ``mujoco.MjModel``.
        frame_skip: Physics steps an action.
        dt: Time between two actions, s.
        settings: The arguments of gymnasium's constructor, defaults included.
        convert: Turns an array of constants into the simulator's kind of array.
    """

    entry_point: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    normal_velocity: ClassVar[bool] = False

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        options: Mapping[str, Any],
        convert: Callable[[NDArray[np.float64]], Array] = np.asarray,
    ) -> None:
        """Read the settings of an environment.

        Args:
            env: The environment, in any wrapper.
            options: What it was made with.
            convert: See above.
        """
        world: Any = env.unwrapped
        self.model = world.model
        self.frame_skip: int = world.frame_skip
        self.dt = float(world.dt)
        self._start = world.init_qpos.copy(), world.init_qvel.copy()
        parameters = inspect.signature(type(world).__init__).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.settings = SimpleNamespace(**{name: options.get(name, value) for name, value in defaults.items()})
        self.convert = convert
        self.mass = convert(self.model.body_mass)

    def start(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw where an episode starts.

        Args:
            rng: The episode's generator, a PCG64 of its seed, as gymnasium's.

        Returns:
            Positions (nq,) and velocities (nv,).
        """
        qpos, qvel = self._start
        scale = self.settings.reset_noise_scale
        qpos = qpos + rng.uniform(-scale, scale, len(qpos))
        if self.normal_velocity:
            return qpos, qvel + scale * rng.standard_normal(len(qvel))
        return qpos, qvel + rng.uniform(-scale, scale, len(qvel))

    @abstractmethod
    def observation(self, now: Fields) -> Array:
        """Return what is observed, (n, O)."""

    @abstractmethod
    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Judge a step.

        Args:
            before: The worlds before the step.
            now: The worlds after it.
            action: (n, A), within the action box.

        Returns:
            The rewards, (n,), and whether the episodes end here for good, (n,) bool.
        """
