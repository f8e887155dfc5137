"""Poles on a cart."""

from robopol.envs.arrays import Array, arrays, clip
from robopol.envs.locomotion.task import Fields, Locomotion


class InvertedPendulum(Locomotion):
    """Balance a pole."""

    entry_point = "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv"

    def observation(self, now: Fields) -> Array:
        """Positions and velocities."""
        return arrays(now["qpos"]).concatenate((now["qpos"], now["qvel"]), axis=-1)

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """One for every step that does not end the episode; it ends when the pole has fallen."""
        observation = self.observation(now)
        fallen = ~arrays(observation).isfinite(observation).all(-1) | (abs(observation[:, 1]) > 0.2)
        return 1.0 * ~fallen, fallen


class InvertedDoublePendulum(Locomotion):
    """Balance a pole on a pole."""

    entry_point = "gymnasium.envs.mujoco.inverted_double_pendulum_v5:InvertedDoublePendulumEnv"
    fields = ("qpos", "qvel", "qfrc_constraint", "site_xpos")
    normal_velocity = True

    def observation(self, now: Fields) -> Array:
        """Place of the cart, sines and cosines of the poles, velocities, and the force that holds the cart."""
        xp, angles = arrays(now["qpos"]), now["qpos"][:, 1:]
        speeds, force = clip(now["qvel"], -10, 10), clip(now["qfrc_constraint"][:, :1], -10, 10)
        return xp.concatenate((now["qpos"][:, :1], xp.sin(angles), xp.cos(angles), speeds, force), axis=-1)

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """A bonus for every step that does not end the episode, less distance and speed; it ends with a low tip."""
        x, y = now["site_xpos"][:, 0, 0], now["site_xpos"][:, 0, 2]
        distance = 0.01 * x**2 + (y - 2) ** 2
        speed = 1e-3 * now["qvel"][:, 1] ** 2 + 5e-3 * now["qvel"][:, 2] ** 2
        low = y <= 1
        return self.settings.healthy_reward * ~low - distance - speed, low
