"""Runners in a plane and the swimmer."""

import functools

import numpy as np

from robopol.envs.arrays import Array, arrays, clip
from robopol.envs.locomotion.task import Fields, Locomotion, never, squares


class HalfCheetah(Locomotion):
    """Run forward."""

    entry_point = "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv"
    normal_velocity = True
    unseen = 1
    """How many of the first positions are not observed by default."""

    def observation(self, now: Fields) -> Array:
        """Positions but the first, and velocities."""
        skip = self.unseen if self.settings.exclude_current_positions_from_observation else 0
        return arrays(now["qpos"]).concatenate((now["qpos"][:, skip:], now["qvel"]), axis=-1)

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Forward velocity less the cost of control; it goes on for ever."""
        return self._forward(before, now) - self.settings.ctrl_cost_weight * squares(action), never(now)

    def _forward(self, before: Fields, now: Fields) -> Array:
        return self.settings.forward_reward_weight * ((now["qpos"][:, 0] - before["qpos"][:, 0]) / self.dt)


class Swimmer(HalfCheetah):
    """Swim forward."""

    entry_point = "gymnasium.envs.mujoco.swimmer_v5:SwimmerEnv"
    normal_velocity = False
    unseen = 2


class Walker2d(HalfCheetah):
    """Walk forward and stay upright."""

    entry_point = "gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv"
    normal_velocity = False

    def observation(self, now: Fields) -> Array:
        """Positions but the first, and velocities within -10..10."""
        return super().observation({"qpos": now["qpos"], "qvel": clip(now["qvel"], -10, 10)})

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Forward velocity and a bonus for health, less the cost of control; it ends when unhealthy."""
        healthy = self.healthy(now)
        rewards = self._forward(before, now) + healthy * self.settings.healthy_reward
        reward = rewards - self.settings.ctrl_cost_weight * squares(action)
        return reward, ~healthy & self.settings.terminate_when_unhealthy

    def bounds(self) -> list[tuple[float, float]]:
        """Return between what an unhealthy one does not stay: height and angle of the torso."""
        return [self.settings.healthy_z_range, self.settings.healthy_angle_range]

    def healthy(self, now: Fields) -> Array:
        """Return whether all that has bounds is within them, (n,) bool."""
        return self._within(now["qpos"][:, 1:3])

    @functools.cached_property
    def _limits(self) -> tuple[Array, Array]:
        low, high = np.array(self.bounds()).T
        return self.convert(low), self.convert(high)

    def _within(self, state: Array) -> Array:
        low, high = self._limits
        return ((low < state) & (state < high)).all(-1)


class Hopper(Walker2d):
    """Hop forward and stay upright."""

    entry_point = "gymnasium.envs.mujoco.hopper_v5:HopperEnv"

    def bounds(self) -> list[tuple[float, float]]:
        """Return those of the torso's height, and of every other position and velocity; its angle has both."""
        height, (left, right) = super().bounds()
        low, high = self.settings.healthy_state_range
        others = self.model.nq - 3 + self.model.nv
        return [height, (max(left, low), min(right, high)), *[(low, high)] * others]

    def healthy(self, now: Fields) -> Array:
        """Return whether all that has bounds is within them, (n,) bool."""
        return self._within(arrays(now["qpos"]).concatenate((now["qpos"][:, 1:], now["qvel"]), axis=-1))
