"""IQL: its losses by hand, its limits, and that policy and critics leave each other alone."""

import copy

import pytest
import torch

from robopol.algos.critics import expectile_loss, exponential_weights, usable
from robopol.checkpoint import load_policy, save_part
from robopol.errors import ConfigError
from robopol.networks.ema import polyak
from tests.algos.bandit import Learner, bandit, build

CRITIC = {"hidden": [32, 32]}
POLICIES = {
    "gaussian": {"kind": "gaussian", "hidden": [16]},
    "diffusion": {"kind": "diffusion", "net": {"kind": "mlp", "width": 16, "blocks": 1}},
}


def learner(policy: str | None = None, episodes=None, updates: int = 400, critic: dict = CRITIC, **changes) -> Learner:
    episodes = bandit() if episodes is None else episodes
    parts = {"model": build("model", "value", episodes, **critic)}
    if policy is not None:
        parts["policy"] = build("policy", episodes=episodes, **POLICIES[policy])
    return Learner({"kind": "iql"} | changes, episodes, updates, **parts)


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.9])
def test_the_minimiser_of_the_loss_is_the_expectile(expectile):
    q = torch.tensor([-1.0, 0.3, 0.5, 2.0, 2.5], dtype=torch.float64)
    grid = torch.linspace(-1, 2.5, 35001, dtype=torch.float64)
    best = grid[expectile_loss(q[:, None] - grid, expectile).mean(0).argmin()]
    above, below = (q - best).clamp(min=0).sum(), (best - q).clamp(min=0).sum()
    assert (expectile * above).item() == pytest.approx(((1 - expectile) * below).item(), abs=1e-3)
    if expectile == 0.5:
        assert torch.equal(expectile_loss(q, 0.5), 0.5 * q**2)
        assert best.item() == pytest.approx(q.mean().item(), abs=1e-3)


def test_weights_are_capped_through_the_exponent():
    advantage = torch.tensor([1e30, 5.0, 0.0, -1.0, -1e30])
    weights = exponential_weights(advantage, 10.0, 100.0)
    assert weights.max() <= 100
    torch.testing.assert_close(weights, torch.tensor([100.0, 100.0, 1.0, torch.tensor(-10.0).exp(), 0.0]))
    assert exponential_weights(advantage[1:2].half(), 10.0, 100.0).isfinite().all()
    assert torch.equal(exponential_weights(advantage, 0.0, 100.0), torch.ones(5))


@pytest.mark.slow
@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_v_is_the_expectile_of_what_the_data_earned(expectile):
    # two equally likely rewards, 0 and 1: the tau-expectile is tau; with 0.5 it is what the data earn on average
    model = learner(expectile=expectile, lr=3e-3, polyak=0.05).learn().parts()["model"]
    obs = {"state": torch.linspace(-0.9, 0.9, 9)[:, None, None]}
    assert model.v(obs).mean().item() == pytest.approx(expectile, abs=0.05)
    for action in (-1.0, 1.0):
        q = model.q(obs, torch.full((9, 1, 1), action))
        assert q.mean().item() == pytest.approx((action + 1) / 2, abs=0.05)


@pytest.mark.slow
def test_the_policy_prefers_what_earned_more():
    learned = learner("gaussian", lr=3e-3, polyak=0.05, beta=10.0, cloning={"lr": 3e-3, "warmup": 10}).learn()
    cloned = learner("gaussian", beta=0.0, cloning={"lr": 3e-3, "warmup": 10}).learn()
    obs = {"state": torch.zeros(1, 1, 1)}
    assert learned.deployed().act(obs).item() > 0.8
    assert abs(cloned.deployed().act(obs).item()) < 0.2


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_temperature_it_is_behaviour_cloning_to_the_bit(policy):
    episodes = bandit()
    iql = learner(policy, beta=0.0, cloning={"lr": 1e-2})
    bc = Learner(
        {"kind": "bc", "lr": 1e-2}, episodes, 400, policy=build("policy", episodes=episodes, **POLICIES[policy])
    )
    for step in range(4):
        iql.update(step)
        bc.update(step)
    for name, value in bc.algo.state().items():
        assert torch.equal(value, iql.algo.state()[f"cloning.{name}"]), name


def test_the_policys_loss_leaves_the_critics_alone_and_they_never_ask_the_policy(monkeypatch):
    made = learner("gaussian", beta=3.0)
    algo, batch, rng = made.algo, made.batch(0), torch.Generator()
    before = copy.deepcopy(algo.model.state_dict())
    monkeypatch.setattr(algo, "learn", lambda *_: {"nothing": torch.zeros(())})
    algo.update(batch, 0, rng)
    assert all(p.grad is None for p in (*algo.model.parameters(), *algo.target.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in algo.model.state_dict().items())
    monkeypatch.undo()

    def refuse(*_, **__):
        raise AssertionError("the policy was asked")

    for policy in (algo.cloning.policy, algo.deployed()):
        for way in ("loss", "act", "plan", "forward"):
            monkeypatch.setattr(policy, way, refuse)
    algo.learn(batch, batch, rng)


def test_q_goes_towards_reward_and_the_new_value_of_the_next_state():
    made = learner(episodes=bandit(32, 4), critic=CRITIC | {"n_action_steps": 2, "discount": 0.9})
    algo, batch = made.algo, made.batch(0)
    old, actions = copy.deepcopy(algo.model), algo.model.actions(batch)
    assert actions.shape == (64, 2, 1)
    losses = algo.learn(batch, batch, torch.Generator())
    with torch.no_grad():
        goal = batch["reward"] + batch["discount"] * algo.model.v(batch["next_obs"])  # V was moved before Q
        q_loss = ((old.q(batch["obs"], actions) - goal) ** 2).mean()
        ahead = old.q(batch["obs"], actions).amin(0) - old.v(batch["obs"])  # the target is still what it began as
        v_loss = expectile_loss(ahead, 0.7).mean()
    torch.testing.assert_close(losses["train/q_loss"], q_loss)
    torch.testing.assert_close(losses["train/v_loss"], v_loss)
    assert sorted(set(batch["discount"].tolist())) == pytest.approx([0.0, 0.81])


def test_rows_without_a_next_observation_teach_q_nothing():
    batch = {"weight": torch.tensor([1.0, 2.0, 3.0]), "next_mask": torch.tensor([True, False, False])}
    batch["discount"] = torch.tensor([0.9, 0.9, 0.0])
    assert usable(batch).tolist() == [1.0, 0.0, 3.0]
    states = []
    for anything in (0.0, 7.0):
        made = learner()
        batch = made.batch(0)
        batch["next_mask"][:32], batch["discount"][:32] = False, 0.9
        batch["next_obs"]["state"][:32] = anything
        made.algo.update(batch, 0, torch.Generator())
        states.append(made.algo.state())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(("rate", "moved"), [(0.0, 0.0), (0.005, 0.005), (1.0, 1.0)])
def test_the_target_follows(rate, moved):
    episodes = bandit()
    live, target = (build("model", "value", episodes, **CRITIC) for _ in range(2))
    with torch.no_grad():
        for parameter in live.parameters():
            parameter += 1.0
    before = copy.deepcopy(target)
    polyak(target, live, rate)
    for old, new in zip(before.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(new, old + moved)


def test_what_is_saved_is_the_target():
    made = learner("gaussian")
    before = copy.deepcopy(made.algo.target)
    made.update(0)
    parts, live = made.algo.parts(), made.algo.model
    assert parts.keys() == {"policy", "model"}
    assert parts["model"] is made.algo.target
    for old, new, learned in zip(before.parameters(), parts["model"].parameters(), live.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.005 * (learned - old))
    assert not any(p.requires_grad for p in parts["model"].parameters())
    assert learner().algo.parts().keys() == {"model"}
    assert learner().algo.deployed() is None


def test_the_state_is_all_there_is():
    whole, half = learner("diffusion"), learner("diffusion")
    for step in range(3):
        whole.update(step)
    half.algo.load_state({name: value.clone() for name, value in whole.algo.state().items()})
    for made in (whole, half):
        made.update(3)
    for name, value in whole.algo.state().items():
        assert torch.equal(value, half.algo.state()[name]), name


def test_acting_draws_samples_of_what_is_deployed_by_its_mean():
    made = learner("gaussian").algo
    obs = {"state": torch.zeros(64, 2, 1)}
    tried, again = (made.explore(obs, torch.Generator().manual_seed(3)).action for _ in range(2))
    assert tried.shape == (64, 1, 1)
    assert torch.equal(tried, again)
    assert tried.std() > 0.1
    assert made.deployed().act({"state": obs["state"][:, -1:]}).std() < 1e-6
    with torch.no_grad():  # it moves with what is learned
        for weight in made.cloning.deployed().parameters():
            weight.add_(0.1)
    assert not torch.equal(made.warm_up(obs, torch.Generator().manual_seed(3)).action, tried)


def test_of_several_proposals_the_one_that_the_target_likes_best_is_tried_and_deployed(tmp_path):
    made = learner("gaussian", proposals=5, episodes=bandit()).algo
    obs = {"state": torch.linspace(-1, 1, 16)[:, None, None]}
    tried = made.explore(obs, torch.Generator().manual_seed(3)).action
    proposed = made.deployed().base.act(obs, 5, torch.Generator().manual_seed(3))
    best = made.target.q(obs, proposed).amin(0).argmax(-1)
    assert best.unique().numel() > 1
    assert torch.equal(tried, proposed[torch.arange(16), best])
    save_part(made.deployed(), tmp_path)
    saved = load_policy(tmp_path)
    assert torch.equal(saved.act(obs, generator=torch.Generator().manual_seed(3))[:, 0], tried)


def test_proposals_need_somebody_who_makes_them():
    with pytest.raises(ConfigError, match="none was named"):
        learner(proposals=2)
