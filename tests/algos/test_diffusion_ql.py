"""Diffusion-QL and CPQL: targets and losses by hand, the gradient through a walk, and where a policy goes with it."""

import pytest
import torch
from algos.test_dsrl import RUNTIME, rng
from algos.test_expo import same, weights
from algos.test_fql import GAMMA, NET, batch
from algos.test_off_policy import part
from steering.gaussians import spec

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.registry import lookup

WALK = {"kind": "ddim", "steps": 3}


def policy(kind="diffusion", horizon=3, past=1, taken=2, **more):
    size = {"horizon": horizon, "n_obs_steps": past + 1, "n_action_steps": taken}
    contract = spec(["x"], **size, action_low=(-1.0,), action_high=(1.0,))
    tree = {"kind": kind, "net": NET, "obs_normalization": "identity", "action_normalization": "bounds"}
    torch.manual_seed(1)
    walk = {} if kind == "consistency" else {"sampler": WALK}
    return parse(lookup("policy", kind), tree | size | walk | more).build(contract)


def build(actor=None, model="q", **changes):
    torch.manual_seed(0)
    told = {"kind": "diffusion_ql", "lr": 3e-3, "critic_lr": 3e-3}
    return parse(lookup("algo", "diffusion_ql"), told | changes).build(
        policy=policy() if actor is None else actor,
        model=part("model", model, hidden=[32], discount=GAMMA, ensemble=2),
        total_updates=1000,
        runtime=RUNTIME,
    )


def test_the_target_is_the_averaged_policys_walk_by_hand():
    algo = build()
    for weight in algo.policy.parameters():  # the two differ
        torch.nn.init.normal_(weight, std=0.3, generator=rng(9))
    data = batch(algo)
    goal = algo.goals(data, rng(2))
    chunk = algo.average.act(data["next_obs"], 1, rng(2))[:, 0, :2].clamp(-1, 1)
    worth = algo.target.q(data["next_obs"], chunk).amin(0)
    torch.testing.assert_close(goal, data["reward"] + data["discount"] * worth)
    assert goal[0] == data["reward"][0]


@pytest.mark.parametrize("kind", ["diffusion", "consistency"])
def test_the_loss_by_hand(kind):
    algo = build(policy(kind), weight=3.0)
    data, source = batch(algo), rng(4)
    with torch.no_grad():
        cloning = algo.policy.loss(data, source).mean()
        chunk = algo.policy.act(data["obs"], 1, source)[:, 0, :2].clamp(-1, 1)
        said = algo.model.q(data["obs"], chunk).mean(0)
    told = algo.improve(data, rng(4))
    assert told["train/cloning_loss"].item() == pytest.approx(cloning.item(), rel=1e-5)
    assert told["train/policy_loss"].item() == pytest.approx(
        (cloning - 3 * said.mean() / said.abs().mean()).item(), abs=1e-4
    )


def test_without_weight_the_critics_are_of_no_account():
    """And the policy's step is that of imitation alone."""
    found = []
    for seed in (0, 1):
        algo = build(weight=0.0)
        for weight in algo.model.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=rng(seed))
        algo.improve(batch(algo), rng(4))
        found.append(weights(algo.policy))
    assert same(*found)
    alone = policy()
    alone.loss(batch(algo), rng(4)).mean().backward()
    algo = build(weight=0.0)
    seen = []
    algo.policy_optimizer.step = lambda rate: seen.extend(p.grad.clone() for p in algo.policy.parameters())
    algo.improve(batch(algo), rng(4))
    for mine, theirs in zip(seen, alone.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_gradient_goes_through_every_step_of_the_walk():
    """Against finite differences of the whole loss along the gradient, of which imitation is but a part."""
    algo, whole = build(weight=2.0), []
    algo.low, algo.high = 10 * algo.low, 10 * algo.high  # nothing is clipped
    data, trained = batch(algo), list(algo.policy.parameters())
    algo.policy_optimizer.step = lambda rate: whole.extend(p.grad.clone() for p in trained)
    algo.improve(data, rng(4))
    length = torch.cat([g.flatten() for g in whole]).norm().item()

    @torch.no_grad()
    def parts(step: float) -> tuple[float, float, float]:
        for weight, gradient in zip(trained, whole, strict=True):
            weight += step * gradient / length
        source = rng(4)
        cloning = algo.policy.loss(data, source).mean()
        worth = algo.model.q(data["obs"], algo.taken(walked(algo, data, source))).mean(0)
        for weight, gradient in zip(trained, whole, strict=True):
            weight -= step * gradient / length
        return cloning.item(), worth.mean().item(), worth.abs().mean().item()

    step = 2e-3
    (up, more, _), (down, less, _), size = parts(step), parts(-step), parts(0.0)[2]
    imitation, earning = (up - down) / (2 * step), -2.0 * (more - less) / size / (2 * step)
    assert abs(earning) > 0.1 * length, "there is something to tell"
    assert length == pytest.approx(imitation + earning, rel=0.02)


def walked(algo, data, source):
    """Return normalised ends of walks (B, Tp, A)."""
    chunk = algo.policy.plan(data["obs"], 1, source)[:, 0]
    return algo.policy.action_normalizer.normalize(chunk)


def test_everyone_learns_from_their_own_loss_and_the_average_follows():
    algo = build(policy_polyak=0.25)
    data = batch(algo)
    own = data | {"action": algo.model.actions(data)}
    parts = {"policy": algo.policy, "critics": algo.model, "average": algo.average, "target": algo.target}
    for moves, act in (
        ({"critics"}, lambda: algo.fit_critics(own, 0, rng())),
        ({"policy"}, lambda: algo.improve(data, rng())),
    ):
        before = {name: weights(module) for name, module in parts.items()}
        act()
        assert {name for name, module in parts.items() if not same(before[name], weights(module))} == moves
        assert all(p.grad is None for module in parts.values() for p in module.parameters())
    before = [p.clone() for p in algo.average.parameters()]
    algo.update(data, 0, rng())
    for old, now, live in zip(before, algo.average.parameters(), algo.policy.parameters(), strict=True):
        torch.testing.assert_close(now, old + 0.25 * (live - old))


@pytest.mark.parametrize(
    ("actor", "model", "words"),
    [
        (lambda: part("policy", "squashed_gaussian", hidden=[8]), "q", "set policy=diffusion, flow, edm or"),
        (policy, "value", "set model=q"),
    ],
)
def test_what_cannot_be_trained_so_is_refused_in_words(actor, model, words):
    with pytest.raises(ConfigError, match=words):
        build(actor(), model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["diffusion", "consistency"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_it_goes_where_more_is_earned_among_what_was_recorded(kind, weight):
    """Two ways from one state, of which one earns: without Q both are kept, with it that one is taken."""
    algo = build(policy(kind, horizon=1, past=0, taken=1), weight=weight, lr=1e-3)
    rows = 128
    known = torch.ones(rows, dtype=torch.bool)
    for step in range(1000):
        source = rng(step)
        side = torch.where(torch.rand(rows, generator=source) < 0.5, -0.5, 0.5)
        action = (side + 0.05 * torch.randn(rows, generator=source))[:, None, None]
        data = {"obs": {"state": torch.zeros(rows, 1, 1)}, "next_obs": {"state": torch.zeros(rows, 1, 1)}}
        data |= {"action": action, "reward": (side > 0).float(), "discount": torch.zeros(rows), "mask": known[:, None]}
        algo.update(data | {"next_mask": known, "weight": torch.ones(rows)}, step, source)
    acts = algo.deployed().act({"state": torch.zeros(1, 1, 1)}, 500, rng())[0, :, 0, 0]
    right = (acts > 0).float().mean().item()
    assert right > 0.85 if weight else 0.35 < right < 0.65
