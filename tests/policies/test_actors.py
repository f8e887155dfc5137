"""Actors of actor-critic methods: densities, bounds, gradients, and that they are policies like any other."""

import math

import pytest
import torch

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.policies.squashed_gaussian import _Squash
from robopol.registry import lookup

LOW, HIGH = (-2.0, 0.0), (6.0, 1.0)


def actor(kind: str, low=LOW, high=HIGH, **changes):
    config = parse(lookup("policy", kind), {"kind": kind, "hidden": [16]} | changes)
    spec = {
        "obs_shapes": {"state": [3]},
        "action_names": [f"a{i}" for i in range(len(low))],
        "action_low": list(low),
        "action_high": list(high),
        "action_space": "box",
        "control_hz": 10.0,
        "n_obs_steps": 1,
        "horizon": 1,
        "n_action_steps": 1,
    }
    torch.manual_seed(0)
    return config.build(parse(PolicySpec, spec))


def obs(rows: int = 4):
    return {"state": torch.randn(rows, 1, 3, generator=torch.Generator().manual_seed(1))}


def test_the_density_is_that_of_a_squashed_gaussian():
    policy = actor("squashed_gaussian", low=(-2.0,), high=(6.0,))
    (row,) = obs(1)["state"]
    edges = torch.linspace(-0.99, 0.99, 4001, dtype=torch.float64)
    middle = ((edges[1:] + edges[:-1]) / 2)[:, None, None]
    states = {"state": row.expand(len(middle), 1, 3)}
    density = policy.log_prob(states, (2 + 4 * middle).float()).exp().double()
    with torch.no_grad():
        mean, log_std = policy.gaussian(policy.observation(states, 1))
    below = torch.special.ndtr((edges.atanh() - mean[0, 0, 0]) / log_std[0, 0, 0].exp())
    torch.testing.assert_close(density, below.diff() / edges.diff(), rtol=2e-3, atol=1e-4)
    assert (density * edges.diff()).sum().item() == pytest.approx((below[-1] - below[0]).item(), abs=1e-4)


def test_samples_come_with_the_density_that_they_are_drawn_from():
    policy = actor("squashed_gaussian")
    drawn = policy.sample(obs(64), torch.Generator().manual_seed(0))
    acted = policy.draw(obs(64), torch.Generator().manual_seed(0))
    torch.testing.assert_close(acted, drawn.action.detach())
    assert not acted.requires_grad
    assert drawn.action.shape == (64, 1, 2)
    torch.testing.assert_close(drawn.log_prob, policy.log_prob(obs(64), drawn.action), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        -policy.loss({"obs": obs(64), "action": drawn.action, "mask": torch.ones(64, 1)}) * 2,
        drawn.log_prob,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("kind", ["squashed_gaussian", "deterministic"])
def test_actions_keep_their_bounds_however_large_the_output(kind):
    policy = actor(kind)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1e3)
    rng = torch.Generator().manual_seed(0)
    actions = policy.act(obs(), n=3, generator=rng)
    assert actions.shape == (4, 3, 1, 2)
    for chunk in (actions, policy.sample(obs(), rng).action) if kind == "squashed_gaussian" else (actions,):
        assert (chunk >= torch.tensor(LOW) - 1e-5).all()
        assert (chunk <= torch.tensor(HIGH) + 1e-5).all()
    if kind == "squashed_gaussian":
        assert policy.sample(obs(), rng).log_prob.isfinite().all()
        assert policy.log_prob(obs(), torch.tensor([LOW, HIGH, LOW, HIGH])[:, None]).isfinite().all()


def test_it_acts_with_the_squashed_mean_or_by_samples():
    calm, lively = (actor("squashed_gaussian", deterministic=flag) for flag in (True, False))
    mean, _ = calm.gaussian(calm.observation(obs(), 1))
    expected = calm.action_normalizer.unnormalize(mean.tanh())
    torch.testing.assert_close(calm.act(obs())[:, 0], expected.detach())
    one, two = lively.act(obs(), n=2, generator=torch.Generator().manual_seed(0)).unbind(1)
    assert not torch.equal(one, two)
    many = lively.act(obs(1), n=20000, generator=torch.Generator().manual_seed(0))[0, :, 0]
    drawn = calm.sample({"state": obs(1)["state"].expand(20000, 1, 3)}, torch.Generator().manual_seed(1)).action[:, 0]
    torch.testing.assert_close(many.mean(0), drawn.mean(0), rtol=0, atol=0.05)


def test_the_standard_deviation_is_kept_between_its_ends():
    policy = actor("squashed_gaussian", log_std=[-1.0, -0.5])
    with torch.no_grad():
        policy.net[-1].bias[2:] = torch.tensor([50.0, -50.0])
    _, log_std = policy.gaussian(policy.observation(obs(), 1))
    assert torch.equal(log_std[:, 0], torch.tensor([-0.5, -1.0]).expand(4, 2))
    with pytest.raises(ConfigError, match="least, greatest"):
        actor("squashed_gaussian", log_std=[1.0, 0.0])


@pytest.mark.parametrize("kind", ["squashed_gaussian", "deterministic"])
def test_what_it_says_can_be_differentiated_and_cloned(kind):
    policy = actor(kind)
    action = policy.sample(obs()).action if kind == "squashed_gaussian" else policy(obs())
    action.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.parameters())
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    wanted = torch.tensor([[1.0, 0.8]]).expand(4, 1, 2)
    for _ in range(300):
        optimizer.zero_grad()
        policy.loss({"obs": obs(), "action": wanted, "mask": torch.ones(4, 1)}).mean().backward()
        optimizer.step()
    torch.testing.assert_close(policy.act(obs())[:, 0], wanted, rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", ["squashed_gaussian", "deterministic"])
def test_saved_and_loaded_it_acts_the_same(kind, tmp_path):
    policy = actor(kind)
    save_part(policy, tmp_path)
    assert torch.equal(load_policy(tmp_path).act(obs()), policy.act(obs()))


def test_large_observations_are_not_clipped():
    far = {"state": torch.full((1, 1, 3), 50.0)}
    farther = {"state": torch.full((1, 1, 3), 60.0)}
    policy = actor("deterministic")
    with torch.no_grad():
        policy.net[-1].weight.mul_(1e-2)
    assert not torch.equal(policy.act(far), policy.act(farther))


def test_bounds_must_exist():
    with pytest.raises(ConfigError, match="some action has none"):
        actor("deterministic", high=(math.inf, 1.0))


def test_the_gradient_of_a_sample_and_its_density_is_right():
    torch.manual_seed(0)
    said = 2 * torch.randn(5, 2, 3, 2, dtype=torch.float64)
    said[0, 1] = 4.0  # beyond the ends of log_std, where the gradient stops
    noise = torch.randn(5, 3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: _Squash.apply(x, noise, -3.0, 1.0), (said.requires_grad_(),))
