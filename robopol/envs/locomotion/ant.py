"""The four-legged ant."""

from robopol.envs.arrays import Array, arrays, clip
from robopol.envs.locomotion.task import Fields, Locomotion, flat, squares


class Ant(Locomotion):
    """Walk forward on four legs."""

    entry_point = "gymnasium.envs.mujoco.ant_v5:AntEnv"
    fields = ("qpos", "qvel", "xpos", "cfrc_ext")
    normal_velocity = True

    def observation(self, now: Fields) -> Array:
        """Positions but x and y, velocities, and the clipped forces on every body."""
        skip = 2 if self.settings.exclude_current_positions_from_observation else 0
        parts = [now["qpos"][:, skip:], now["qvel"]]
        if self.settings.include_cfrc_ext_in_observation:
            parts.append(flat(self._forces(now)[:, 1:]))
        return arrays(now["qpos"]).concatenate(parts, axis=-1)

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Forward velocity and a bonus for health, less the costs of control and of contact; it ends when unhealthy."""
        healthy = self._healthy(now)
        body = self.model.body(self.settings.main_body).id
        velocity = (now["xpos"][:, body, 0] - before["xpos"][:, body, 0]) / self.dt
        rewards = velocity * self.settings.forward_reward_weight + healthy * self.settings.healthy_reward
        control = self.settings.ctrl_cost_weight * squares(action)
        reward = rewards - (control + self.settings.contact_cost_weight * squares(self._forces(now)))
        return reward, ~healthy & self.settings.terminate_when_unhealthy

    def _forces(self, now: Fields) -> Array:
        return clip(now["cfrc_ext"], *self.settings.contact_force_range)

    def _healthy(self, now: Fields) -> Array:
        xp, z = arrays(now["qpos"]), now["qpos"][:, 2]
        low, high = self.settings.healthy_z_range
        finite = xp.isfinite(now["qpos"]).all(-1) & xp.isfinite(now["qvel"]).all(-1)
        return finite & (low <= z) & (z <= high)
