"""Arms that reach or push."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array, arrays, length
from robopol.envs.locomotion.task import Fields, Locomotion, never, squares


class _Arm(Locomotion):
    fields = ("qpos", "qvel", "xpos")

    def _place(self, now: Fields, body: str) -> Array:
        return now["xpos"][:, self.model.body(body).id]

    def _vector(self, now: Fields, tip: str, target: str) -> Array:
        return self._place(now, tip) - self._place(now, target)


class Reacher(_Arm):
    """Reach a target in a plane with two joints."""

    entry_point = "gymnasium.envs.mujoco.reacher_v5:ReacherEnv"

    def start(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw the joints, and a target within reach."""
        qpos, qvel = self._start
        qpos = qpos + rng.uniform(-0.1, 0.1, len(qpos))
        goal: Any = np.full(2, np.inf)
        while not np.linalg.norm(goal) < 0.2:
            goal = rng.uniform(-0.2, 0.2, 2)
        qpos[-2:] = goal
        qvel = qvel + rng.uniform(-0.005, 0.005, len(qvel))
        qvel[-2:] = 0
        return qpos, qvel

    def observation(self, now: Fields) -> Array:
        """Cosines and sines of the joints, the target, the joints' velocities, and from target to fingertip."""
        xp, angles = arrays(now["qpos"]), now["qpos"][:, :2]
        vector = self._vector(now, "fingertip", "target")[:, :2]
        return xp.concatenate((xp.cos(angles), xp.sin(angles), now["qpos"][:, 2:], now["qvel"][:, :2], vector), axis=-1)

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Less the distance and the cost of control; it goes on for ever."""
        distance = -length(self._vector(now, "fingertip", "target")) * self.settings.reward_dist_weight
        return distance - squares(action) * self.settings.reward_control_weight, never(now)


class Pusher(_Arm):
    """Push a cylinder to a goal."""

    entry_point = "gymnasium.envs.mujoco.pusher_v5:PusherEnv"

    def start(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw where the cylinder stands, away from the goal."""
        qpos, qvel = self._start
        qpos, cylinder = qpos.copy(), np.zeros(2)
        while not np.linalg.norm(cylinder) > 0.17:
            cylinder = np.concatenate((rng.uniform(-0.3, 0, 1), rng.uniform(-0.2, 0.2, 1)))
        qpos[-4:-2] = cylinder
        qpos[-2:] = 0
        qvel = qvel + rng.uniform(-0.005, 0.005, len(qvel))
        qvel[-4:] = 0
        return qpos, qvel

    def observation(self, now: Fields) -> Array:
        """Positions and velocities of the arm; places of tip, cylinder and goal."""
        places = (self._place(now, body) for body in ("tips_arm", "object", "goal"))
        return arrays(now["qpos"]).concatenate((now["qpos"][:, :7], now["qvel"][:, :7], *places), axis=-1)

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Less the distances of cylinder and goal and of tip and cylinder, and the cost of control; it never ends."""
        near = -length(self._vector(now, "object", "tips_arm")) * self.settings.reward_near_weight
        distance = -length(self._vector(now, "object", "goal")) * self.settings.reward_dist_weight
        return distance - squares(action) * self.settings.reward_control_weight + near, never(now)
