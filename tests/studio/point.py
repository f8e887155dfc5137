"""A policy that moves the point of MultiGoal, and knows its Gaussian plans in closed form."""

import torch
from steering.paths import Known

from robopol.config import parse
from robopol.envs import VectorEnv, make_env
from robopol.envs.config import EnvConfig
from robopol.policies import Policy, PolicySpec
from robopol.registry import lookup


def world(actions: str = "delta", id: str = "robopol/MultiGoal-v0", **options) -> VectorEnv:
    if id == "robopol/MultiGoal-v0":
        options["actions"] = actions
    return make_env(id, 1, backend="serial", **options)


def policy_for(env: VectorEnv, kind: str = "diffusion", std: float | None = 0.2, n_obs_steps: int = 2) -> Policy:
    """Return a policy for a world; with a ``std`` it is exact, else its network is left as it was drawn."""
    spec = PolicySpec(
        obs_shapes={"state": env.spec.obs_shapes["state"]},
        action_names=env.spec.action_names,
        action_low=tuple(env.spec.action_low),
        action_high=tuple(env.spec.action_high),
        action_space=env.spec.action_space,
        control_hz=env.spec.control_hz,
        n_obs_steps=n_obs_steps,
        horizon=8,
        n_action_steps=4,
        env=EnvConfig.of(env.spec),
    )
    tree = {
        "kind": kind,
        "horizon": 8,
        "n_action_steps": 4,
        "n_obs_steps": n_obs_steps,
        "obs_normalization": "identity",
    }
    if kind == "diffusion":
        tree |= {"net": {"kind": "mlp", "width": 8}, "sampler": {"kind": "ddim", "steps": 10}}
    else:
        tree["deterministic"] = False
    torch.manual_seed(0)
    policy = parse(lookup("policy", kind), tree).build(spec).eval()
    policy.action_normalizer.fit(torch.tensor([env.spec.action_low, env.spec.action_high]))
    if kind == "diffusion" and std is not None:
        policy.field.net = Known(policy, std)
    return policy
