"""What is learned, on data small enough to train in seconds: two ways from one state, one of them at random."""

import math

import pytest
import torch

from robopol.algos.bc import BCConfig
from robopol.config import parse
from robopol.data import Episodes, EpisodesMeta
from robopol.networks.precision import RuntimeConfig
from robopol.policies import Policy, PolicySpec
from robopol.registry import lookup
from robopol.training.sources import Sources

UPDATES = 600
NET = {"kind": "mlp", "width": 128, "blocks": 2}
POLICIES = {
    "ddpm": {"kind": "diffusion", "net": NET, "sampler": {"kind": "ddpm"}},
    "ddim-x0": {"kind": "diffusion", "net": NET, "prediction": "x0", "sampler": {"kind": "ddim", "steps": 16}},
    "ddim-v": {"kind": "diffusion", "net": NET, "prediction": "v", "sampler": {"kind": "ddim", "steps": 16}},
    "flow": {"kind": "flow", "net": NET, "sampler": {"kind": "euler", "steps": 10}},
    "gmm": {"kind": "gmm", "hidden": [64, 64], "modes": 5},
    "gaussian": {"kind": "gaussian", "hidden": [64, 64]},
}


def fork(count: int = 64, length: int = 8) -> Episodes:
    """Episodes that go left (-1) or right (+1) from the same observation; the third entry is constant."""
    rng = torch.Generator().manual_seed(0)
    way = torch.arange(count) % 2
    side = (2 * way - 1).repeat_interleave(length).float()
    noise = 0.05 * torch.randn(count * length, 2, generator=rng)
    action = torch.stack([side + noise[:, 0], 0.5 + noise[:, 1], torch.full_like(side, 0.85)], 1)
    rows = count * length
    last = torch.arange(rows) % length == length - 1
    return Episodes(
        obs={"state": 0.01 * torch.randn(rows, 2, generator=rng)},
        action=action,
        reward=torch.zeros(rows),
        terminated=last,
        truncated=torch.zeros(rows, dtype=torch.bool),
        source=torch.zeros(rows, dtype=torch.int64),
        intervention=torch.zeros(rows, dtype=torch.bool),
        starts=torch.arange(count) * length,
        lengths=torch.full((count,), length),
        final_obs={"state": torch.zeros(count, 2)},
        has_final=torch.ones(count, dtype=torch.bool),
        success=torch.ones(count, dtype=torch.bool),
        way=way,
        seed=torch.arange(count),
        meta=EpisodesMeta(way_names=("left", "right"), source_names=("toy",)),
    )


def learn(tree: dict) -> Policy:
    size = {"n_obs_steps": 1, "horizon": 4, "n_action_steps": 4}
    config = parse(lookup("policy", tree["kind"]), tree | size)
    spec = {
        "obs_shapes": {"state": [2]},
        "action_names": ["x", "y", "grip"],
        "action_low": [-2, -2, 0],
        "action_high": [2, 2, 1],
        "action_space": "box",
        "control_hz": 10.0,
    }
    torch.manual_seed(0)
    policy = config.build(parse(PolicySpec, spec | size))
    episodes = fork()
    policy.fit_normalizers(episodes)
    runtime = RuntimeConfig(threads=1, matmul="highest").build()
    algo = BCConfig(lr=3e-3, warmup=20).build(policy, UPDATES, runtime)
    sources = Sources({"toy": episodes}, policy.spec, 0, torch.device("cpu"))
    for step in range(UPDATES):
        algo.update(sources.batch({"toy": 1.0}, 128, step), step, torch.Generator().manual_seed(step))
    return algo.deployed()


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_generative_policies_keep_both_ways_and_the_gaussian_averages_them(name):
    policy = learn(POLICIES[name])
    chunks = policy.act({"state": torch.zeros(1, 1, 2)}, n=400, generator=torch.Generator().manual_seed(0))[0]
    assert (chunks[..., 2] == torch.tensor(0.85)).all(), "what was never varied is never varied"
    side = chunks[..., 0]
    if name == "gaussian":
        assert side.abs().max() < 0.5
        return
    decided = ((side.abs() - 1).abs() < 0.3).all(-1)
    assert decided.float().mean() > 0.9, "samples lie on one of the ways, for the whole chunk"
    right = (side[decided].mean(-1) > 0).float().mean().item()
    assert math.isclose(right, 0.5, abs_tol=0.15)
    assert (side[decided].sign() == side[decided][:, :1].sign()).all(), "a chunk never changes its way"
    assert chunks[..., 1].mean().item() == pytest.approx(0.5, abs=0.05)
