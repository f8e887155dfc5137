"""Small policies of every scoring, and rollouts of them in which nothing but numbers happens."""

import torch

from robopol.config import parse
from robopol.networks.precision import RuntimeConfig
from robopol.policies import PolicySpec
from robopol.registry import lookup

RUNTIME = RuntimeConfig(threads=1, matmul="highest").build()
ENTRIES, OBS = 2, 3
NET = {"kind": "mlp", "width": 16, "step_dim": 4}
GENERATIVE = {
    "net": NET,
    "n_obs_steps": 1,
    "horizon": 4,
    "n_action_steps": 3,
    "obs_normalization": "identity",
    "action_normalization": "bounds",
}
POLICIES = {
    "density": {"kind": "diagonal_gaussian", "hidden": [8], "log_std": -0.5},
    "chunks": {"kind": "diagonal_gaussian", "hidden": [8], "horizon": 4, "n_action_steps": 3},
    "squashed": {"kind": "squashed_gaussian", "hidden": [8]},
    "denoising": {"kind": "diffusion", "path": {"kind": "discrete_vp", "train_steps": 20}, **GENERATIVE},
    "flow_matching": {"kind": "flow", "sampler": {"kind": "euler", "steps": 5}, **GENERATIVE},
}
SCORINGS = {
    "density": {"kind": "density"},
    "chunks": {"kind": "density"},
    "squashed": {"kind": "density"},
    "denoising": {"kind": "denoising", "steps": 4, "clip_base": 0.1},
    "flow_matching": {"kind": "flow_matching", "pairs": 3},
}


def part(group: str, tree: dict):
    config = parse(lookup(group, tree["kind"]), tree)
    spec = {
        "obs_shapes": {"state": [OBS]},
        "action_names": ["x", "y"],
        "action_low": [-2.0, 0.0],
        "action_high": [6.0, 1.0],
        "action_space": "box",
        "control_hz": 10.0,
        "n_obs_steps": config.n_obs_steps,
        "horizon": config.horizon,
        "n_action_steps": config.n_action_steps,
    }
    return config.build(parse(PolicySpec, spec))


def build(algo: str = "ppo", name: str = "density", model: dict | None = None, policy: dict | None = None, **changes):
    """Build an algorithm over one of `POLICIES`; ``scoring`` in ``changes`` adds to that of `SCORINGS`."""
    torch.manual_seed(0)
    scoring = SCORINGS[name] | changes.pop("scoring", {})
    if algo in ("trpo", "fixpo"):
        scoring.pop("clip_base", None)  # they have no clip range
    tree = {"kind": algo, "scoring": scoring} | changes
    made = part("policy", POLICIES[name] | (policy or {}))
    value = part("model", {"kind": "state_value", "hidden": [8]} | (model or {}))
    config = parse(lookup("algo", algo), tree)
    return config.build(policy=made, model=value, total_updates=10, runtime=RUNTIME)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rollout(algo, steps: int = 8, count: int = 3, seed: int = 0, minibatch: int = 8) -> dict:
    """What the algorithm tries in random states, with random rewards, ends and lengths."""
    draw, rows = rng(seed), steps * count
    history = algo.deployed().spec.n_obs_steps
    obs = {"state": torch.randn(rows, history, OBS, generator=draw)}
    explored = algo.explore(obs, draw)
    chunk = explored.action.shape[1]
    ends = torch.rand(rows, generator=draw)
    terminated, truncated = ends < 0.15, (ends > 0.15) & (ends < 0.3)
    length = torch.randint(1, chunk + 1, (rows,), generator=draw)
    length = torch.where(terminated | truncated, length, chunk)
    reward = torch.randn(rows, chunk, generator=draw) * (torch.arange(chunk) < length[:, None])
    return {
        "obs": obs,
        "action": explored.action,
        "length": length,
        "trace": dict(explored.trace),
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated,
        "next_obs": {"state": torch.randn(rows, history, OBS, generator=draw)},
        "order": torch.arange(rows).view(steps, count),
        "minibatch": minibatch,
    }
