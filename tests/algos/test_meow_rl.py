"""MEow as an algorithm: targets and loss by hand, identities that learning keeps, what is tried, edges, a bandit."""

import copy
import math

import pytest
import torch
from algos.test_off_policy import GAMMA, HIGH, LOW, ROWS, RUNTIME, batch, part, rng, same, weights

from robopol.algos.algorithm import Explores
from robopol.algos.optimizer import AdamW
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.registry import lookup

SINGLE = {"n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
PLAIN = {"obs_normalization": "identity", "action_normalization": "bounds", "box": 1.0, "shift_hidden": [8]}
RELEASED = {"modes": 1, "coupling": "additive", "layer_norm": True, "dropout": 0.1, "log_std": [-5.0, -0.3]}
WIDE = {"log_std": [-2.0, -0.3], "hidden": [16]}
FLOWS = {"released": RELEASED | WIDE, "affine": {"modes": 1} | WIDE, "mixture": {"modes": 3} | WIDE}
HALF = (HIGH - LOW) / 2


def build(flow: dict | None = None, **changes):
    torch.manual_seed(0)
    policy = part("policy", "meow", **(SINGLE | PLAIN | (flow or {"modes": 1, "coupling": "additive"})))
    source = rng(1)
    with torch.no_grad():  # away from where all couplings are the identity
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=source)
    return parse(lookup("algo", "meow"), {"kind": "meow", "discount": GAMMA} | changes).build(
        policy=policy, total_updates=100, runtime=RUNTIME
    )


def learn(algo, updates: int):
    for step in range(updates):
        torch.manual_seed(step)
        told = algo.update(batch(step), step, rng(step))
    return told


def test_the_target_by_hand():
    """Row 0 terminated, row 1 was cut off, the others went on: the lesser of the target's two soft values."""
    algo, data = build(), batch()
    learn(algo, 3)
    with torch.no_grad():
        goal = algo.goals(data)
        one, two = algo.target.v(data["next_obs"])
    assert (one - two).abs().min() > 1e-4
    for row in range(ROWS):
        alive = 0.0 if row == 0 else 1.0
        expected = data["reward"][row].item() + GAMMA * alive * min(one[row].item(), two[row].item())
        assert goal[row].item() == pytest.approx(expected, abs=1e-5)
    assert goal[0] == data["reward"][0]


def test_both_heads_and_the_policy_learn_by_one_loss():
    """The published update: mean over rows and heads, the whole gradient clipped, then the target follows."""
    algo = build(lr=1e-2, clip_norm=0.5, polyak=0.1, edge=1e-5)
    policy, old = copy.deepcopy(algo.policy), copy.deepcopy(algo.target)
    optimizer = AdamW(list(policy.parameters()), (0.9, 0.999), 0.0)
    for step in range(4):
        data = batch(step)
        with torch.no_grad():
            goal = data["reward"] + data["discount"] * torch.minimum(*old.v(data["next_obs"]))
        one, two = policy.q(data["obs"], data["action"])
        loss = (((one - goal) ** 2).mean() + ((two - goal) ** 2).mean()) / 2
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        assert norm > 0.5
        optimizer.step(1e-2)
        with torch.no_grad():
            for mine, theirs in zip(old.parameters(), policy.parameters(), strict=True):
                mine.copy_(0.9 * mine + 0.1 * theirs)
        told = algo.update(data, step, rng(step))
        torch.testing.assert_close(told["train/loss"], loss.detach())
        torch.testing.assert_close(told["train/grad_norm"], norm)
    for mine, theirs in ((algo.policy, policy), (algo.target, old)):
        for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flow", FLOWS)
def test_learning_keeps_q_v_and_the_density_one(flow):
    """V = alpha log int exp(Q / alpha), Q - V = alpha log pi in normalised units, V of no action at all."""
    algo = build(FLOWS[flow])
    learn(algo, 5)
    assert not algo.policy.training
    policy, alpha = copy.deepcopy(algo.policy).double(), algo.policy.flow.alpha
    obs = {"state": batch()["obs"]["state"].double()}
    u = torch.linspace(-6, 6, 160, dtype=torch.float64)
    mesh = torch.cartesian_prod(u, u)
    cell = (1 - mesh.tanh() ** 2).log().sum(-1) + 2 * math.log(u[1] - u[0])
    windows = ((LOW + HIGH) / 2 + HALF * mesh.tanh())[None, :, None].expand(ROWS, -1, 1, 2)
    with torch.no_grad():
        q, v, log_prob = policy.q(obs, windows), policy.v(obs), policy.log_prob(obs, windows)
    torch.testing.assert_close(alpha * torch.logsumexp(q / alpha + cell, -1), v, atol=1e-5, rtol=0)
    advantage = alpha * (log_prob + HALF.log().sum())
    torch.testing.assert_close(q - v[..., None], advantage.expand(2, -1, -1), atol=1e-5, rtol=1e-6)


def test_samples_come_with_their_density():
    policy, obs = build(FLOWS["mixture"]).policy, batch()["obs"]
    assert policy.config.deterministic
    windows, log_prob = policy.sample(obs, 20, rng())
    assert windows.shape == (ROWS, 20, 1, 2)
    inside = (((windows - (LOW + HIGH) / 2) / HALF).abs() < 0.999).all(-1).all(-1)
    assert inside.float().mean() > 0.8
    torch.testing.assert_close(policy.log_prob(obs, windows)[inside], log_prob[inside], atol=1e-3, rtol=0)


def test_rows_and_their_order_change_nothing():
    """Both heads come of one pass: a batch need not be doubled, and doubling it changes no loss."""
    algo, data = build(), batch()
    order = torch.tensor([3, 1, 5, 0, 2, 4])

    def rows(tree, index):
        return {k: rows(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}

    losses = []
    for index in (torch.arange(ROWS), order, torch.cat([order, order])):
        made = copy.deepcopy(algo)
        losses.append(made.update(rows(data, index), 0, rng())["train/loss"])
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(3))


@pytest.mark.parametrize(("rate", "equal"), [(1.0, True), (0.0, False)])
def test_a_target_copies_or_stays(rate, equal):
    algo = build(RELEASED, polyak=rate)
    before = weights(algo.target)
    algo.update(batch(), 0, rng())
    assert torch.equal(algo.target.v(batch()["obs"]), algo.policy.v(batch()["obs"])) == equal
    assert same(weights(algo.target), before) != equal
    assert all(p.grad is None for p in algo.target.parameters())


def test_dropout_is_for_the_loss_alone():
    algo, data = build(RELEASED), batch()
    goals, tried, losses = [], [], []
    for seed in range(2):
        torch.manual_seed(seed)
        goals.append(algo.goals(data))
        tried.append(algo.explore(data["obs"], rng()).action)
        losses.append(copy.deepcopy(algo).update(data, 0, rng())["train/loss"])
    assert torch.equal(*goals)
    assert torch.equal(*tried)
    assert losses[0] != losses[1]
    algo.update(data, 0, rng())
    assert torch.equal(algo.explore(data["obs"], rng()).action, algo.explore(data["obs"], rng()).action)


def test_what_is_tried_keeps_its_bounds_and_is_drawn_though_evaluations_are_not():
    algo = build()
    assert isinstance(algo, Explores)
    assert algo.policy.config.deterministic
    obs = {"state": torch.randn(1, 3, generator=rng()).expand(200, 1, 3)}
    tried = algo.explore(obs, rng()).action
    assert tried.shape == (200, 1, 2)
    assert not tried.requires_grad
    assert (tried >= LOW - 1e-5).all()
    assert (tried <= HIGH + 1e-5).all()
    assert len(tried.unique(dim=0)) > 150
    assert torch.equal(tried, algo.explore(obs, rng()).action)
    drawn = algo.policy.sample(obs, 1, rng())[0][:, 0]
    torch.testing.assert_close(tried, drawn)
    assert len(algo.policy.act(obs, generator=rng()).unique(dim=0)) == 1
    before = algo.policy.v(obs)
    with torch.no_grad():
        for shift in algo.policy.flow.shifts:
            shift[-1].bias += 3.0
    assert torch.equal(tried, algo.explore(obs, rng()).action), "b cancels in the policy"
    torch.testing.assert_close(algo.policy.v(obs), before + 3.0 * algo.policy.flow.alpha)


def test_actions_at_the_ends_of_their_bounds_count_as_a_little_inside():
    """At the bounds themselves Q has no end: a bang-bang demonstration would outweigh everything else."""
    data = batch()
    data["action"] = torch.where(torch.rand(ROWS, 1, 2, generator=rng()) < 0.5, LOW, HIGH)
    inside = (LOW + HIGH) / 2 + 0.99 * (data["action"] - (LOW + HIGH) / 2)
    told = {edge: build(edge=edge).update(data, 0, rng())["train/loss"] for edge in (1e-2, 1e-5)}
    torch.testing.assert_close(
        told[1e-2], build(edge=1e-5).update(data | {"action": inside}, 0, rng())["train/loss"], rtol=1e-3, atol=0
    )
    assert told[1e-5] > 2 * told[1e-2]


def test_what_is_not_a_number_is_told():
    """The released code takes such a loss for 0; here the run ends, see `Trainer.run`."""
    algo, data = build(), batch()
    data["reward"][2] = math.nan
    assert algo.update(data, 0, rng())["train/loss"].isnan()
    assert algo.update(batch(), 1, rng())["train/loss"].isnan()


def test_rows_whose_successor_is_unknown_teach_nothing():
    algo, data = build(), batch()
    data["next_mask"] = torch.arange(ROWS) < 4
    with torch.no_grad():
        errors = ((algo.policy.q(data["obs"], data["action"]) - algo.goals(data)) ** 2).mean(0)
    torch.testing.assert_close(algo.update(data, 0, rng())["train/loss"], errors[:4].sum() / ROWS)


def test_its_state_is_all_that_further_updates_depend_on():
    algo, other = build(RELEASED), build(RELEASED, lr=2e-3)
    other.config = algo.config
    learn(algo, 3)
    other.load_state({name: value.clone() for name, value in algo.state().items()})
    for step in range(3, 6):
        for one in (algo, other):
            torch.manual_seed(step)
            one.update(batch(step), step, rng(step))
    state = other.state()
    assert all(torch.equal(value, state[name]) for name, value in algo.state().items())
    assert algo.parts() == {"policy": algo.policy}


def test_a_bandit_whose_q_is_such_a_flow_is_learned():
    """r = -|artanh(a) - m|^2 / 2v - alpha sum log(1 - a^2): pi is tanh of a Gaussian of mean m, variance alpha v."""
    alpha, v, mean = 0.25, 0.4, torch.tensor([0.3, -0.5])
    flow = {"modes": 1, "coupling": "additive", "alpha": alpha, "hidden": [16], "pairs": 1}
    algo = build(flow, lr=3e-2)
    source = rng()
    for step in range(150):
        a = 1.9 * torch.rand(64, 2, generator=source) - 0.95
        reward = -(a.atanh() - mean).square().sum(-1) / (2 * v) - alpha * torch.log1p(-(a**2)).sum(-1)
        state = torch.zeros(64, 1, 3)
        algo.update(
            {
                "obs": {"state": state},
                "action": ((LOW + HIGH) / 2 + HALF * a)[:, None],
                "reward": reward,
                "discount": torch.zeros(64),
                "next_obs": {"state": state},
                "next_mask": torch.ones(64, dtype=torch.bool),
                "weight": torch.ones(64),
            },
            step,
            source,
        )
    obs = {"state": torch.zeros(1, 1, 3)}
    u = ((algo.policy.sample(obs, 4000, rng())[0][0, :, 0] - (LOW + HIGH) / 2) / HALF).atanh()
    torch.testing.assert_close(u.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(u.std(0), torch.full((2,), math.sqrt(alpha * v)), atol=0.02, rtol=0)
    soft = alpha * math.log(2 * math.pi * alpha * v)
    torch.testing.assert_close(algo.policy.v(obs), torch.full((2, 1), soft), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"box": 1.25}, r"policy\.box=1\.25 .* set policy\.box=1"),
        ({"action_normalization": "identity"}, r"set policy\.action_normalization=bounds"),
        ({"horizon": 2}, "single transitions"),
        ({"n_obs_steps": 2, "horizon": 2}, "single transitions"),
    ],
)
def test_a_policy_that_it_cannot_train_is_refused_in_words(changes, words):
    with pytest.raises(ConfigError, match=words):
        build(RELEASED | changes)


def test_another_policy_is_refused_in_words():
    with pytest.raises(ConfigError, match="algo=meow trains a meow policy, not a deterministic policy"):
        parse(lookup("algo", "meow"), {"kind": "meow"}).build(
            policy=part("policy", "deterministic"), total_updates=1, runtime=RUNTIME
        )


def test_an_action_without_bounds_is_refused_in_words():
    with pytest.raises(ConfigError, match="needs a lowest and a highest value"):
        part("policy", "meow", bounded=False, **SINGLE, **PLAIN)
