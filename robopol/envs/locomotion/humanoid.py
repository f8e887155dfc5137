"""The humanoid, walking or standing up."""

from typing import ClassVar

from robopol.envs.arrays import Array, arrays, clip
from robopol.envs.locomotion.task import Fields, Locomotion, flat, never, squares


class HumanoidStandup(Locomotion):
    """Stand up."""

    entry_point = "gymnasium.envs.mujoco.humanoidstandup_v5:HumanoidStandupEnv"
    fields: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "ctrl", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")

    def observation(self, now: Fields) -> Array:
        """Positions but x and y, velocities; inertias, velocities and forces of the bodies; forces of the joints."""
        settings = self.settings
        parts = [
            now["qpos"][:, 2 if settings.exclude_current_positions_from_observation else 0 :],
            now["qvel"],
        ]
        if settings.include_cinert_in_observation is True:
            parts.append(flat(now["cinert"][:, 1:]))
        if settings.include_cvel_in_observation is True:
            parts.append(flat(now["cvel"][:, 1:]))
        if settings.include_qfrc_actuator_in_observation is True:
            parts.append(now["qfrc_actuator"][:, 6:])
        if settings.include_cfrc_ext_in_observation is True:
            parts.append(flat(now["cfrc_ext"][:, 1:]))
        return arrays(now["qpos"]).concatenate(parts, axis=-1)

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Height, less the costs of control and of impacts; it goes on for ever."""
        settings = self.settings
        upward = now["qpos"][:, 2] / self.model.opt.timestep
        control = settings.ctrl_cost_weight * squares(now["ctrl"])
        impact = clip(settings.impact_cost_weight * squares(now["cfrc_ext"]), *settings.impact_cost_range)
        return upward - control - impact + 1, never(now)


class Humanoid(HumanoidStandup):
    """Walk forward and stay upright."""

    entry_point = "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv"
    fields = (*HumanoidStandup.fields, "xipos")

    def judge(self, before: Fields, now: Fields, action: Array) -> tuple[Array, Array]:
        """Forward velocity of the centre of mass and a bonus for health, less the costs of control and contact.

        It ends when the torso is too low or too high.
        """
        settings, height = self.settings, now["qpos"][:, 2]
        low, high = settings.healthy_z_range
        healthy = (low < height) & (height < high)
        velocity = (self._centre(now) - self._centre(before)) / self.dt
        rewards = settings.forward_reward_weight * velocity + healthy * settings.healthy_reward
        contact = clip(settings.contact_cost_weight * squares(now["cfrc_ext"]), *settings.contact_cost_range)
        reward = rewards - (settings.ctrl_cost_weight * squares(now["ctrl"]) + contact)
        return reward, ~healthy & settings.terminate_when_unhealthy

    def _centre(self, now: Fields) -> Array:
        """Return the x of the centre of mass, (n,)."""
        return arrays(now["xipos"]).einsum("b,nbj->nj", self.mass, now["xipos"])[:, 0] / self.mass.sum()
