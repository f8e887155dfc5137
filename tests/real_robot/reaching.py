"""A policy that needs no training: it goes to the target of Reach in a straight line."""

from typing import ClassVar, Literal

import torch

from robopol.envs.config import EnvConfig
from robopol.policies import PolicySpec
from robopol.policies.policy import Policy, PolicyConfig

STEP = 0.04


class ReacherConfig(PolicyConfig):
    kind: Literal["reacher"] = "reacher"
    group: ClassVar[str] = "policy"


class Reacher(Policy):
    """Plans H steps of ee_delta, joint positions not needed: state is joints, tool pose, opening, target."""

    @property
    def device(self):
        return torch.device("cpu")

    def plan(self, obs, n=1, generator=None, previous=None):
        state = obs["state"][:, -1]
        tool, target = state[:, 6:9].clone(), state[:, 11:14]
        window = torch.zeros(len(state), n, self.spec.horizon, 5)
        window[..., 4] = 0.5
        for k in range(self.spec.n_obs_steps - 1, self.spec.horizon):
            way = target - tool
            # the arm lags its reference, so the last part is gone slowly
            move = way * (STEP / way.norm(dim=-1, keepdim=True).clamp(min=STEP)).clamp(max=0.5)
            window[:, :, k, :3] = move[:, None]
            tool += move
        return window

    def _sample(self, cond, n, generator):
        raise NotImplementedError


def reach_policy(horizon=12):
    """Return the policy and its world."""
    env = EnvConfig(id="robopol/Reach-v0")
    with env.make(1) as made:
        spec = made.spec
    contract = PolicySpec(
        obs_shapes=spec.obs_shapes,
        action_names=spec.action_names,
        action_low=tuple(spec.action_low),
        action_high=tuple(spec.action_high),
        action_space=spec.action_space,
        control_hz=spec.control_hz,
        n_obs_steps=2,
        horizon=horizon,
        n_action_steps=4,
        env=env,
    )
    return Reacher(ReacherConfig(n_obs_steps=2, horizon=horizon, n_action_steps=4), contract).eval(), env
