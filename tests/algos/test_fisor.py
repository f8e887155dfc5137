"""FISOR: the reachability target, the weights' three cases, and what counts as a violation."""

from dataclasses import replace

import pytest
import torch

from robopol.algos.critics import expectile_loss
from robopol.algos.fisor import reach
from robopol.algos.violations import BoundConfig, CostConfig
from robopol.checkpoint import save_part
from robopol.data import Windows
from robopol.data.windows import Transition
from robopol.errors import ConfigError
from tests.algos.bandit import Learner, bandit, build

HARMLESS = {"kind": "cost", "threshold": -100.0}
LOSES = {"kind": "cost", "threshold": 0.5}  # the bandit's action of -1 earns 0


def learner(episodes=None, updates: int = 400, policy: bool = False, steps: int = 1, **changes) -> Learner:
    episodes = bandit() if episodes is None else episodes
    parts = {"model": build("model", "feasibility", episodes, hidden=[32, 32], discount=0.9, n_action_steps=steps)}
    if policy:
        parts["policy"] = build("policy", "gaussian", episodes, hidden=[16])
    return Learner({"kind": "fisor", "safe": -1.0, "unsafe": 1.0} | changes, episodes, updates, **parts)


def test_the_target_lies_between_and_only_rises_with_the_violation():
    rng = torch.Generator().manual_seed(0)
    h, after = (2 * torch.rand(2, 1000, generator=rng) - 1).unbind()
    discount = torch.rand(1000, generator=rng)
    target = reach(h, after, discount)
    assert (target >= h - 1e-6).all()
    assert (target <= torch.maximum(h, after) + 1e-6).all()
    assert (reach(h + 0.1, after, discount) >= target).all()
    torch.testing.assert_close(reach(h, after, torch.zeros(1000)), h)
    torch.testing.assert_close(target, (1 - discount) * h + discount * torch.maximum(h, after))


@pytest.mark.slow
def test_it_learns_which_actions_are_safe_and_the_policy_takes_them():
    changes = {"lr": 3e-3, "polyak": 0.05, "cloning": {"lr": 3e-3, "warmup": 10}}
    algo = learner(policy=True, violations=[LOSES], **changes).learn()
    model, obs = algo.parts()["model"], {"state": torch.linspace(-0.9, 0.9, 9)[:, None, None]}
    assert model.q(obs, torch.ones(9, 1, 1)).mean().item() == pytest.approx(-1, abs=0.05)
    assert model.q(obs, -torch.ones(9, 1, 1)).mean().item() == pytest.approx(1, abs=0.05)
    # of -1 and 1, equally often, the expectile that is near the least
    assert model.v(obs).mean().item() == pytest.approx(-0.8, abs=0.05)
    assert algo.deployed().act(obs).mean().item() > 0.8
    batch = learner(violations=[LOSES]).batch(0)
    assert set(algo.weights(batch)[batch["reward"] == 0].tolist()) == {0.0}


def test_without_violations_everything_is_feasible_and_weighs_alike():
    algo = learner(violations=[HARMLESS], lr=3e-3, polyak=0.05).learn()
    batch = learner().batch(0)
    torch.testing.assert_close(algo.parts()["model"].v(batch["obs"]), -torch.ones(64), atol=0.1, rtol=0)
    assert torch.equal(algo.weights(batch), torch.ones(64))


def test_the_cases_of_the_weights_exclude_each_other(monkeypatch):
    algo = learner(beta_unsafe=5.0, max_unsafe=150.0).algo
    v, q = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 0.0]), torch.tensor([0.5, 1.0, -9.0, -0.5, 0.5, 0.0])
    monkeypatch.setattr(algo.target, "v", lambda *_: v)
    monkeypatch.setattr(algo.target, "q", lambda *_: q)
    weights = algo.weights(learner().batch(0, 6))
    torch.testing.assert_close(weights, torch.tensor([torch.tensor(2.5).exp(), 1.0, 150.0, 1.0, 0.0, 1.0]))


def test_losses_by_hand():
    made = learner(bandit(32, 4), steps=2, violations=[LOSES])
    algo, batch = made.algo, made.batch(0)
    with torch.no_grad():
        heads = algo.model.judge(batch["obs"], algo.model.actions(batch))
        v_loss = expectile_loss(heads.amax(0) - algo.model.v(batch["obs"]), 0.1).mean()
    losses = algo.learn(batch, batch, torch.Generator())
    torch.testing.assert_close(losses["train/v_loss"], v_loss)
    rewards, mask = batch["rewards"], batch["mask"]
    h = torch.where(((rewards < 0.5) & mask).any(-1), 1.0, -1.0)
    assert torch.equal(algo.violation(batch), h)
    assert {-1.0, 1.0} == set(h.tolist())
    with torch.no_grad():
        goal = reach(h, algo.model.v(batch["next_obs"]), batch["discount"])
    torch.testing.assert_close(losses["train/q_loss"], ((heads - goal) ** 2).mean())


def test_a_bound_is_watched_before_between_and_after_the_actions():
    state, final = torch.zeros(8, 3), torch.zeros(2, 3)
    state[6, 1] = 2.0  # at time 2 of the second episode
    final[0, 1] = -2.0  # after the last step of the first
    episodes = replace(bandit(2, 4), obs={"state": state}, final_obs={"state": final}, reward=torch.arange(8.0))
    windows = Windows(episodes, 2, 3, transition=Transition(2, 0.9), plan=True, rewards=True)
    batch, first = windows.gather(torch.arange(8)), 1
    high, low = BoundConfig(key="state", entry=1, high=1.0), BoundConfig(key="state", entry=1, low=-1.0)
    assert high.violated(batch, first).int().tolist() == [0, 0, 0, 0, 1, 1, 1, 0]
    assert low.violated(batch, first).int().tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert CostConfig(threshold=2.5).violated(batch, first).int().tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert CostConfig(threshold=0.0).violated(batch, first).int().tolist() == [0] * 8  # padding costs nothing


@pytest.mark.parametrize(
    ("violation", "message"),
    [
        ({"kind": "bound", "key": "stat", "high": 1.0}, "did you mean state"),
        ({"kind": "bound", "entry": 1, "high": 1.0}, "entry 1 of 'state', which is of shape"),
        ({"kind": "bound"}, "has no bound never happens"),
    ],
)
def test_violations_of_what_there_is_not_are_refused(violation, message):
    with pytest.raises(ConfigError, match=message):
        learner(violations=[violation])


def test_the_state_is_all_there_is():
    whole, half = learner(policy=True, violations=[LOSES]), learner(policy=True, violations=[LOSES])
    whole.update(0)
    half.algo.load_state({name: value.clone() for name, value in whole.algo.state().items()})
    for made in (whole, half):
        made.update(1)
    for name, value in whole.algo.state().items():
        assert torch.equal(value, half.algo.state()[name]), name


def test_a_resumed_run_asks_the_value_that_it_had(tmp_path):
    save_part(build("model", "value", bandit(), hidden=[8]), tmp_path)
    whole, half = (learner(policy=True, violations=[LOSES], value=str(tmp_path)) for _ in range(2))
    with torch.no_grad():
        for weight in half.algo.value.parameters():
            weight.add_(0.1)  # what was named has gone on since
    half.algo.load_state({name: value.clone() for name, value in whole.algo.state().items()})
    for one, other in zip(whole.algo.value.parameters(), half.algo.value.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_model_is_refused():
    from robopol.algos.fisor import FISORConfig
    from robopol.algos.iql import IQLConfig
    from tests.algos.bandit import RUNTIME

    value, feasibility = (build("model", kind, bandit()) for kind in ("value", "feasibility"))
    with pytest.raises(ConfigError, match="trains no value model: set model=feasibility"):
        FISORConfig().build(value, 1, RUNTIME)
    with pytest.raises(ConfigError, match="trains a value, not a feasibility model: set model=value"):
        IQLConfig().build(feasibility, 1, RUNTIME)
