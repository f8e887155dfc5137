"""FQL: what jumps, what flows, targets by hand, and that it goes where more is earned among what was recorded."""

import pytest
import torch
from algos.test_dsrl import ROWS, RUNTIME, base, rng
from algos.test_expo import same, weights
from algos.test_off_policy import part
from steering.gaussians import spec

from robopol.algos.algorithm import WarmsUp
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.registry import lookup

GAMMA = 0.9
NET = {"kind": "mlp", "width": 32, "blocks": 1}


def student(horizon=3, past=1, taken=2, **more):
    size = {"horizon": horizon, "n_obs_steps": past + 1, "n_action_steps": taken}
    contract = spec(["x"], **size, action_low=(-1.0,), action_high=(1.0,))
    tree = {"kind": "consistency", "net": NET, "obs_normalization": "identity", "action_normalization": "bounds"}
    torch.manual_seed(1)
    return parse(lookup("policy", "consistency"), tree | size | more).build(contract)


def build(policy=None, model="q", **changes):
    torch.manual_seed(0)
    told = {"kind": "fql", "cloning": {"kind": "bc", "warmup": 0, "lr": 3e-3}, "lr": 3e-3, "critic_lr": 3e-3}
    return parse(lookup("algo", "fql"), told | changes).build(
        policy=student() if policy is None else policy,
        model=part("model", model, hidden=[32], discount=GAMMA, ensemble=2),
        total_updates=1000,
        runtime=RUNTIME,
    )


def batch(algo, seed: int = 0) -> dict:
    """Random windows; row 0 terminated."""
    source, own = rng(seed), algo.policy.spec
    discount = torch.full((ROWS,), GAMMA**own.n_action_steps)
    discount[0] = 0
    known = torch.ones(ROWS, dtype=torch.bool)
    return {
        "obs": {"state": torch.randn(ROWS, own.n_obs_steps, 1, generator=source)},
        "action": torch.rand(ROWS, own.horizon, 1, generator=source) * 2 - 1,
        "reward": torch.randn(ROWS, generator=source),
        "discount": discount,
        "next_obs": {"state": torch.randn(ROWS, own.n_obs_steps, 1, generator=source)},
        "mask": known[:, None].expand(-1, own.horizon),
        "next_mask": known,
        "weight": torch.ones(ROWS),
    }


SIZES = [{}, {"horizon": 1, "past": 0, "taken": 1}]
"""A chunk after a history, and single transitions."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("trusts", ["mean", "least"])
def test_the_target_by_hand(trusts, size):
    algo = build(student(**size), trusts=trusts)
    data, taken = batch(algo), size.get("taken", 2)
    with torch.no_grad():
        for weight in algo.model.parameters():
            weight.add_(0.1)  # who learns does not say what comes next
        goal = algo.goals(data, rng(2))
        chunk = algo.policy.act(data["next_obs"], 1, rng(2))[:, 0, :taken].clamp(-1, 1)
        said = algo.target.q(data["next_obs"], chunk)
    worth = said.mean(0) if trusts == "mean" else said.amin(0)
    torch.testing.assert_close(goal, data["reward"] + data["discount"] * worth)
    assert goal[0] == data["reward"][0]


def test_heads_that_are_drawn_are_those_of_the_least():
    with pytest.raises(ConfigError, match=r"set algo.trusts=least too"):
        build(target_heads=1)
    algo = build(target_heads=1, trusts="least")
    data = batch(algo)
    with torch.no_grad():
        source = rng(2)
        chunk = algo.tried(data["next_obs"], source)
        worth = algo.least(data["next_obs"], chunk, source)
    torch.testing.assert_close(algo.goals(data, rng(2)), data["reward"] + data["discount"] * worth)


def test_the_loss_of_the_jump_by_hand():
    algo = build(alpha=3.0)
    data = batch(algo)
    noise = torch.randn(ROWS, 3, 1, generator=rng(4))
    with torch.no_grad():
        cond = algo.policy.observation(data["obs"], 2)
        jumped = algo.policy.jump(noise, cond)
        flown = algo.flow.plan_from(data["obs"], noise[:, None])[:, 0]
        apart = ((jumped - algo.flow.action_normalizer.normalize(flown)) ** 2).mean()
        said = algo.model.q(data["obs"], jumped[:, 1:3].clamp(-1, 1)).mean(0).mean()
    told = algo.improve(data, rng(4))
    assert told["train/policy_loss"].item() == pytest.approx((3 * apart - said).item(), abs=1e-4)


def test_everyone_learns_from_their_own_loss():
    algo = build()
    data = batch(algo)
    own = data | {"action": algo.model.actions(data)}
    parts = {"jump": algo.policy, "flow": algo.flow, "critics": algo.model}
    for moves, act in (
        ({"critics"}, lambda: algo.fit_critics(own, 0, rng())),
        ({"jump"}, lambda: algo.improve(data, rng())),
        ({"flow"}, lambda: algo.cloning.update(data, 0, rng())),
    ):
        before = {name: weights(module) for name, module in parts.items()}
        act()
        assert {name for name, module in parts.items() if not same(before[name], weights(module))} == moves
        assert all(p.grad is None for module in parts.values() for p in module.parameters())
    assert same(weights(algo.policy.observation), weights(algo.flow.observation)), "both see in one scale"


def test_it_acts_from_the_beginning_and_within_bounds():
    algo = build()
    assert isinstance(algo, WarmsUp)
    obs = {"state": 5 * torch.randn(40, 2, 1, generator=rng())}
    tried = algo.warm_up(obs, rng(1)).action
    assert torch.equal(tried, algo.policy.act(obs, 1, rng(1))[:, 0, :2].clamp(-1, 1))
    assert tried.shape == (40, 2, 1)


def test_its_state_is_all_that_further_updates_depend_on():
    algo, other = build(), build(alpha=10.0, policy=student())
    for step in range(3):
        algo.update(batch(algo, step), step, rng(step))
    other.load_state({name: value.clone() for name, value in algo.state().items()})
    for step in range(3, 6):
        for one in (algo, other):
            one.update(batch(one, step), step, rng(step))
    state = other.state()
    assert all(torch.equal(value, state[name]) for name, value in algo.state().items())


@pytest.mark.parametrize(
    ("policy", "model", "words"),
    [
        (base, "q", "set policy=consistency"),
        (student, "value", "set model=q"),
        (lambda: student(sampler={"kind": "consistency", "steps": 2}), "q", "set policy.sampler.steps=1"),
    ],
)
def test_what_cannot_be_trained_so_is_refused_in_words(policy, model, words):
    with pytest.raises(ConfigError, match=words):
        build(policy(), model)


@pytest.mark.slow
def test_it_leaves_the_flow_for_what_earns_more_as_far_as_alpha_allows():
    """Reward 1 for each unit of the action: of the same noise, the jump ends 1 / (2 alpha) farther than the flow."""
    algo = build(student(horizon=1, past=0, taken=1), alpha=5.0)
    rows = 128
    known = torch.ones(rows, dtype=torch.bool)
    for step in range(1000):  # to the end of the flow's schedule: the jump follows one that stands still
        source = rng(step)
        side = torch.where(torch.rand(rows, generator=source) < 0.5, -0.5, 0.5)
        action = (side + 0.1 * torch.randn(rows, generator=source))[:, None, None]
        data = {"obs": {"state": torch.zeros(rows, 1, 1)}, "next_obs": {"state": torch.zeros(rows, 1, 1)}}
        data |= {"action": action, "reward": action[:, 0, 0], "discount": torch.zeros(rows), "mask": known[:, None]}
        algo.update(data | {"next_mask": known, "weight": torch.ones(rows)}, step, source)
    obs, noise = {"state": torch.zeros(1, 1, 1)}, torch.randn(1, 500, 1, 1, generator=rng())
    flown, jumped = (one.plan_from(obs, noise)[0, :, 0, 0] for one in (algo.flow, algo.deployed()))
    assert 0.35 < (flown > 0).float().mean() < 0.65, "the flow imitates"
    assert (jumped - flown).mean().item() == pytest.approx(0.1, abs=0.01)
