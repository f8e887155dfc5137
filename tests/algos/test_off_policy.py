"""SAC, TD3 and DDPG: targets by hand, the sign of the temperature, delays, what stays frozen, noise in its bounds."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from robopol.algos.algorithm import Explores
from robopol.config import parse
from robopol.configs import load_config
from robopol.data.windows import Transition
from robopol.errors import ConfigError
from robopol.networks.precision import RuntimeConfig
from robopol.policies import PolicySpec
from robopol.registry import lookup
from robopol.training.config import TrainConfig

RUNTIME = RuntimeConfig(threads=1, matmul="highest").build()
LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([6.0, 1.0])
HALF = (HIGH - LOW) / 2
ACTORS = {kind: "deterministic" for kind in ("td3", "ddpg", "td3_bc")} | {"sac": "squashed_gaussian"}
GAMMA, ROWS = 0.9, 6


def part(group: str, kind: str, bounded: bool = True, **changes):
    config = parse(lookup(group, kind), {"kind": kind, "hidden": [16]} | changes)
    spec = {
        "obs_shapes": {"state": [3]},
        "action_names": ["x", "y"],
        "action_low": LOW.tolist(),
        "action_high": HIGH.tolist() if bounded else [6.0, math.inf],
        "action_space": "box",
        "control_hz": 10.0,
        "n_obs_steps": config.n_obs_steps,
        "horizon": config.horizon,
        "n_action_steps": config.n_action_steps,
    }
    return config.build(parse(PolicySpec, spec))


def build(kind: str, critic: dict | None = None, **changes):
    torch.manual_seed(0)
    model = part("model", "q", discount=GAMMA, **({"ensemble": 1} if kind == "ddpg" else {}), **(critic or {}))
    policy = part("policy", ACTORS[kind])
    return parse(lookup("algo", kind), {"kind": kind} | changes).build(
        policy=policy, model=model, total_updates=100, runtime=RUNTIME
    )


def batch(seed: int = 0) -> dict:
    """Row 0 terminated, row 1 was truncated, the others went on."""
    rng = torch.Generator().manual_seed(seed)
    discount = torch.full((ROWS,), GAMMA)
    discount[0] = 0
    known = torch.ones(ROWS, 1, dtype=torch.bool)
    return {
        "obs": {"state": torch.randn(ROWS, 1, 3, generator=rng)},
        "action": LOW + (HIGH - LOW) * torch.rand(ROWS, 1, 2, generator=rng),
        "reward": torch.randn(ROWS, generator=rng),
        "discount": discount,
        "next_obs": {"state": torch.randn(ROWS, 1, 3, generator=rng)},
        "mask": known,
        "next_mask": known[:, 0],
        "weight": torch.ones(ROWS),
    }


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(part) -> list[torch.Tensor]:
    return [value.clone() for value in part.state_dict().values()]


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_target_of_sac_by_hand():
    algo, data = build("sac", alpha=0.3), batch()
    with torch.no_grad():
        goal = algo.goals(data, rng())
        drawn = algo.policy.sample(data["next_obs"], rng())
        one, two = algo.target.q(data["next_obs"], drawn.action)
    for row in range(ROWS):
        soft = min(one[row].item(), two[row].item()) - 0.3 * drawn.log_prob[row].item()
        alive = 0.0 if row == 0 else 1.0
        expected = data["reward"][row].item() + GAMMA * alive * soft
        assert goal[row].item() == pytest.approx(expected, abs=1e-5)
    assert goal[0] == data["reward"][0]


@pytest.mark.parametrize("kind", ["sac", "td3", "ddpg"])
def test_only_what_terminated_does_not_bootstrap(kind):
    algo, data = build(kind), batch()
    with torch.no_grad():
        before = algo.goals(data, rng())
        for parameter in algo.target.parameters():
            parameter.add_(0.1)
        after = algo.goals(data, rng())
    assert before[0] == after[0] == data["reward"][0]
    assert (before[1:] != after[1:]).all()


def test_the_target_of_td3_takes_the_least_of_both_under_clipped_noise():
    algo, data = build("td3", target_noise=5.0, noise_clip=0.3), batch()
    asked = []
    judge = algo.target.q

    def q(obs, action, generator):
        asked.append(action)
        return judge(obs, action)

    algo.target.q = q
    with torch.no_grad():
        goal = algo.goals(data, rng())
        aim = algo.target_policy(data["next_obs"])
        values = judge(data["next_obs"], asked[0])
    off = asked[0] - aim
    assert (off.abs() <= 0.3 * HALF + 1e-5).all()
    assert off.abs().max() > 0.1
    assert (asked[0] >= LOW).all()
    assert (asked[0] <= HIGH).all()
    torch.testing.assert_close(goal, data["reward"] + data["discount"] * torch.minimum(*values))


def test_the_loss_of_the_critics_by_hand():
    algo, data = build("sac"), batch()
    with torch.no_grad():
        goal, said = algo.goals(data, rng()), algo.model.q(data["obs"], data["action"])
    expected = sum(((head - goal) ** 2).mean() for head in said)
    torch.testing.assert_close(algo.update(data, 0, rng())["train/q_loss"], expected)


@pytest.mark.parametrize(("entropy", "rises"), [(1e3, True), (-1e3, False)])
def test_the_temperature_rises_where_the_entropy_is_below_its_target(entropy, rises):
    algo = build("sac", target_entropy=entropy)
    algo.update(batch(), 0, rng())
    assert (algo.log_alpha.item() > 0) == rises
    fixed = build("sac", target_entropy=entropy, learn_alpha=False)
    fixed.update(batch(), 0, rng())
    assert fixed.log_alpha.item() == 0


def test_the_target_entropy_is_minus_the_number_of_entries():
    assert build("sac").target_entropy == -2


@pytest.mark.parametrize("kind", ["sac", "td3", "td3_bc"])
def test_the_policy_moves_at_every_delayed_update_only(kind):
    algo = build(kind, delay=2, polyak=0.5)
    targets = [algo.target] if kind == "sac" else [algo.target, algo.target_policy]
    for step in range(4):
        alpha = algo.log_alpha.item() if kind == "sac" else None
        before = weights(algo.policy), weights(algo.model), [weights(target) for target in targets]
        told = algo.update(batch(step), step, rng(step))
        assert not same(before[1], weights(algo.model))
        moves = step % 2 == 1
        assert same(before[0], weights(algo.policy)) != moves
        assert ("train/policy_loss" in told) == moves
        frozen = [same(old, weights(target)) for old, target in zip(before[2], targets, strict=True)]
        assert frozen == [not moves and kind != "sac"] * len(targets)
        assert kind != "sac" or (algo.log_alpha.item() != alpha) == moves


def test_leaving_out_next_to_nothing_is_leaving_out_nothing():
    """Critics that drop out are computed layer by layer, others in one step: the same updates."""
    plain, dropping = build("sac"), build("sac", critic={"dropout": 1e-12})
    for step in range(3):
        for algo in (plain, dropping):
            torch.manual_seed(step)
            algo.update(batch(step), step, rng(step))
    for one, other in zip(plain.model.parameters(), dropping.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("rate", "equal"), [(1.0, True), (0.0, False)])
def test_a_target_copies_follows_or_stays(rate, equal):
    algo = build("sac", polyak=rate)
    before = weights(algo.target)
    algo.update(batch(), 0, rng())
    assert same(weights(algo.target), weights(algo.model)) == equal
    assert same(weights(algo.target), before) != equal


@pytest.mark.parametrize("kind", ["sac", "td3", "ddpg"])
def test_no_gradient_stays_or_reaches_a_target(kind):
    algo = build(kind)
    for step in range(2):
        algo.update(batch(), step, rng())
    assert all(p.grad is None for part in (algo.policy, algo.model, algo.target) for p in part.parameters())
    assert not any(p.requires_grad for p in algo.target.parameters())
    critics = weights(algo.model)
    algo.fit_policy(-algo.model.q(batch()["obs"], policy_action(algo, batch()))[0].mean())
    assert same(critics, weights(algo.model))
    assert all(p.grad is None for p in algo.model.parameters())


def policy_action(algo, data):
    drawn = algo.policy
    return drawn.sample(data["obs"], rng()).action if hasattr(drawn, "sample") else drawn(data["obs"])


@pytest.mark.parametrize("kind", ["sac", "td3"])
def test_critics_by_which_a_policy_learns_are_given_no_gradient_of_their_own(kind, monkeypatch):
    algo = build(kind, delay=1)
    asked, q = [], type(algo.model).judge
    weights = list(algo.model.parameters())

    def judge(model, *given, **chosen):
        if model is algo.model:
            asked.append([weight.requires_grad for weight in weights])
        return q(model, *given, **chosen)

    monkeypatch.setattr(type(algo.model), "judge", judge)
    algo.update(batch(), 0, torch.Generator())
    assert asked == [[True] * len(weights), [False] * len(weights)], "they learn, and then the policy does by them"
    assert all(weight.requires_grad for weight in weights)


def test_td3_without_what_it_added_is_ddpg_to_the_bit():
    plain = build("td3", critic={"ensemble": 1}, target_noise=0.0, delay=1)
    ddpg = build("ddpg")
    for step in range(3):
        for algo in (plain, ddpg):
            algo.update(batch(step), step, rng(step))
    state = ddpg.state()
    assert all(torch.equal(value, state[name]) for name, value in plain.state().items())


def test_ddpg_by_hand():
    """The published update, with torch's own optimiser and modules."""
    algo, lr, rate = build("ddpg", lr=1e-2, critic_lr=1e-2, polyak=0.1), 1e-2, 0.1
    actor, critic = copy.deepcopy(algo.policy), copy.deepcopy(algo.model)
    old_actor, old_critic = copy.deepcopy(actor), copy.deepcopy(critic)
    actor_steps, critic_steps = (torch.optim.Adam(part.parameters(), lr) for part in (actor, critic))
    for step in range(5):
        data = batch(step)
        with torch.no_grad():
            goal = data["reward"] + data["discount"] * old_critic.q(data["next_obs"], old_actor(data["next_obs"]))[0]
        critic_steps.zero_grad()
        F.mse_loss(critic.q(data["obs"], data["action"])[0], goal).backward()
        critic_steps.step()
        actor_steps.zero_grad()
        (-critic.q(data["obs"], actor(data["obs"]))[0].mean()).backward()
        actor_steps.step()
        with torch.no_grad():
            for old, new in ((old_actor, actor), (old_critic, critic)):
                for one, other in zip(old.parameters(), new.parameters(), strict=True):
                    one.copy_((1 - rate) * one + rate * other)
        algo.update(data, step, rng(step))
    pairs = ((algo.policy, actor), (algo.model, critic), (algo.target, old_critic), (algo.target_policy, old_actor))
    for mine, theirs in pairs:
        for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_more_heads_than_there_are_cannot_be_asked():
    with pytest.raises(ConfigError, match=r"algo\.target_heads=3 of 2 heads .* set model\.ensemble=3"):
        build("sac", target_heads=3)


@pytest.mark.parametrize("kind", ["sac", "td3", "ddpg"])
def test_what_is_tried_keeps_its_bounds_and_differs(kind):
    algo = build(kind, **({} if kind == "sac" else {"exploration": 1.0}))
    assert isinstance(algo, Explores)
    obs = {"state": torch.randn(1, 3, generator=rng()).expand(200, 1, 3)}
    tried = algo.explore(obs, rng()).action
    assert tried.shape == (200, 1, 2)
    assert not tried.requires_grad
    assert (tried >= LOW - 1e-5).all()
    assert (tried <= HIGH + 1e-5).all()
    assert len(tried.unique(dim=0)) > 150
    assert torch.equal(tried, algo.explore(obs, rng()).action)


@pytest.mark.parametrize("kind", ["sac", "td3"])
def test_its_state_is_all_that_further_updates_depend_on(kind):
    algo = build(kind)
    for step in range(3):
        algo.update(batch(step), step, rng(step))
    other = build(kind, alpha=0.5) if kind == "sac" else build(kind)
    other.load_state({name: value.clone() for name, value in algo.state().items()})
    for step in range(3, 6):
        for one in (algo, other):
            one.update(batch(step), step, rng(step))
    state = other.state()
    assert all(torch.equal(value, state[name]) for name, value in algo.state().items())
    assert set(algo.parts()) == {"policy", "model"}
    assert algo.parts()["model"] is algo.target


def test_a_share_of_the_heads_is_drawn_for_every_target():
    algo, data = build("sac", critic={"ensemble": 5}, target_heads=2), batch()
    with torch.no_grad():
        drawn = algo.policy.sample(data["next_obs"], rng())
        said = algo.target.q(data["next_obs"], drawn.action)
        pairs = torch.stack([torch.minimum(said[i], said[j]) for i in range(5) for j in range(i)])
        found = torch.stack([algo.least(data["next_obs"], drawn.action, rng(seed)) for seed in range(60)])
    for least in found:  # one pair for the whole batch
        assert (pairs - least).abs().amax(-1).min() < 1e-5
    assert len(found[:, 1].unique()) == 4  # each of the heads but the most hopeful one
    everyone = build("sac", critic={"ensemble": 5}, target_heads=5)
    torch.testing.assert_close(everyone.least(data["next_obs"], drawn.action, rng()), said.amin(0))


def test_the_defaults_that_are_spelt_out_are_sac_to_the_bit():
    plain = build("sac")
    spelt = build("sac", target_heads=2, expectile=0.5, paid=True, trusts="least", delay=1, entropy_per_entry=-1.0)
    for step in range(3):
        for algo in (plain, spelt):
            algo.update(batch(step), step, rng(step))
    state = spelt.state()
    assert all(torch.equal(value, state[name]) for name, value in plain.state().items())


def test_the_recipe_of_rlpd_with_its_switches_undone_is_that_of_sac():
    undone = ["algo.delay=1", "algo.target_heads=null", "algo.trusts=least", "algo.entropy_per_entry=-1.0"]
    undone += ["algo.paid=true", "model.ensemble=2", "model.layer_norm=false"]
    rlpd, changed, sac = (
        parse(TrainConfig, load_config("train", ["env=push", "run=none", "data.demos.uri=x", f"algo={name}", *words]))
        for name, words in (("rlpd", []), ("rlpd", undone), ("sac", []))
    )
    assert changed.algo.tree() == sac.algo.tree() != rlpd.algo.tree()
    assert changed.model.tree() == sac.model.tree() != rlpd.model.tree()


def test_one_head_that_is_asked_is_any_of_them_equally_often():
    algo, data = build("sac", critic={"ensemble": 4}, target_heads=1), batch()
    drawn = algo.policy.sample(data["next_obs"], rng())
    said = algo.target.q(data["next_obs"], drawn.action)
    source = rng(1)
    asked = torch.stack([algo.least(data["next_obs"], drawn.action, source) for _ in range(2000)])
    whose = (asked[:, None] - said).abs().sum(-1).argmin(1)
    counts = torch.bincount(whose, minlength=4)
    assert (counts - 500).abs().max() < 4 * math.sqrt(2000 * 3 / 16)
    torch.testing.assert_close(asked[whose == 2].mean(0), said[2])


def test_a_normalised_critic_cannot_say_more_than_its_last_layer_allows():
    """However far an action is from what was seen (Ball et al. 2023): |Q| <= |w| sqrt(width) + |b|."""
    algo, data = build("sac", critic={"layer_norm": True, "hidden": [16, 16]}), batch()
    last = algo.model.heads.layers[-1]
    bound = last.weight.norm(dim=1)[:, 0] * 4 + last.bias.abs()[:, 0, 0]
    near, far = (algo.model.q(data["obs"], factor * data["action"]) for factor in (1, 1e6))
    for said in (near, far):
        assert (said.abs() <= bound[:, None] + 1e-5).all()
    plain = build("sac", critic={"hidden": [16, 16]})
    assert plain.model.q(data["obs"], 1e6 * data["action"]).abs().max() > 100 * bound.max()


@pytest.mark.parametrize("tau", [0.6, 0.9])
def test_what_is_better_counts_as_much_more_as_the_expectile_says(tau, monkeypatch):
    """Of two errors that are as large, tau to 1 - tau."""
    losses = []
    for sign in (1, -1):
        algo, data = build("sac", critic={"ensemble": 1}, expectile=tau), batch()
        goal = algo.model.q(data["obs"], data["action"])[0].detach() + sign * 0.7
        monkeypatch.setattr(algo, "goals", lambda batch, generator, goal=goal: goal)
        losses.append(algo.fit_critics(data, 0, rng()).item())
    assert losses[0] / losses[1] == pytest.approx(tau / (1 - tau), rel=1e-4)


def test_entropy_that_is_not_paid_is_left_out_of_the_target():
    algo, data = build("sac", paid=False, alpha=0.3), batch()
    with torch.no_grad():
        drawn = algo.policy.sample(data["next_obs"], rng())
        worth = algo.target.q(data["next_obs"], drawn.action).amin(0)
        torch.testing.assert_close(algo.goals(data, rng()), data["reward"] + data["discount"] * worth)


def test_a_policy_may_trust_the_mean_of_the_heads():
    losses = {}
    for trusts in ("least", "mean"):
        algo, data = build("sac", trusts=trusts, alpha=0.3, critic_lr=1e-12), batch()
        losses[trusts] = algo.update(data, 0, rng(1))["train/policy_loss"]
    algo, source = build("sac", alpha=0.3), rng(1)
    with torch.no_grad():
        algo.goals(data, source)  # draws what comes before
        drawn = algo.policy.sample(data["obs"], source)
        said = algo.model.q(data["obs"], drawn.action)
        for trusts, worth in (("least", said.amin(0)), ("mean", said.mean(0))):
            torch.testing.assert_close(losses[trusts], (0.3 * drawn.log_prob - worth).mean())


def test_the_expectile_comes_down_to_the_plain_square():
    algo = build("td3", expectile=0.9)
    assert [algo.expectile(step) for step in (0, 50, 100, 1000)] == pytest.approx([0.9, 0.7, 0.5, 0.5])


def test_the_expectile_weighs_what_is_better_than_expected():
    """By hand; and at its end the loss is that of the host, to the bit."""
    for step, tau in ((0, 0.9), (75, 0.6)):
        algo, data = build("sac", expectile=0.9), batch()
        with torch.no_grad():
            u = algo.goals(data, rng()) - algo.model.q(data["obs"], data["action"])
        expected = (2 * torch.where(u > 0, tau, 1 - tau) * u**2).sum(0).mean()
        torch.testing.assert_close(algo.update(data, step, rng())["train/q_loss"], expected)
    plain, annealed = build("td3"), build("td3", expectile=0.9)
    for algo in (plain, annealed):
        algo.update(batch(), 100, rng())
    assert same(weights(plain.model), weights(annealed.model))


def test_a_constant_fitted_with_an_expectile_is_that_expectile():
    algo = build("ddpg", expectile=0.8, critic_lr=0.02)
    data = batch() | {"discount": torch.zeros(ROWS), "reward": (torch.arange(ROWS) % 2).float()}
    for name in ("obs", "next_obs"):
        data[name] = {"state": torch.zeros(ROWS, 1, 3)}
    data["action"] = torch.zeros(ROWS, 1, 2)
    for _ in range(300):
        algo.fit_critics(data, 0, rng())
    torch.testing.assert_close(algo.model.q(data["obs"], data["action"]), torch.full((1, ROWS), 0.8), atol=0.01, rtol=0)


def gradients_of_the_policy(algo, data) -> list[torch.Tensor]:
    loss, _ = algo.policy_loss(data, algo.policy(data["obs"]))
    return list(torch.autograd.grad(loss, list(algo.policy.parameters())))


def test_td3_bc_without_q_is_cloning():
    algo, data = build("td3_bc", alpha=0.0), batch()
    error = ((algo.policy(data["obs"]) - data["action"]) / HALF) ** 2
    cloning = torch.autograd.grad(error.mean(), list(algo.policy.parameters()))
    for one, other in zip(gradients_of_the_policy(algo, data), cloning, strict=True):
        torch.testing.assert_close(one, other)


def test_td3_bc_does_not_depend_on_the_scale_of_rewards():
    algo, data = build("td3_bc", alpha=2.5), batch()
    before = gradients_of_the_policy(algo, data)
    with torch.no_grad():
        for parameter in algo.model.heads.layers[-1].parameters():
            parameter.mul_(10)  # what Q is if all rewards are ten times as large
    for one, other in zip(before, gradients_of_the_policy(algo, data), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_td3_bc_moves_its_policy_as_td3_does():
    algo = build("td3_bc")
    for step in range(2):
        told = algo.update(batch(step), step, rng(step))
    assert {"train/cloning_loss", "train/q_weight"} <= told.keys()
    only_q, td3 = build("td3_bc", alpha=1e9), build("td3")
    mine, theirs = (torch.cat([g.flatten() for g in gradients_of_the_policy(a, batch())]) for a in (only_q, td3))
    assert torch.cosine_similarity(mine, theirs, 0) > 0.9999


def test_rows_whose_successor_is_unknown_teach_the_critics_nothing():
    lost, data = build("sac"), batch()
    data["next_mask"] = torch.arange(ROWS) < 4
    with torch.no_grad():
        goal, said = lost.goals(data, rng()), lost.model.q(data["obs"], data["action"])
    errors = ((said - goal) ** 2).sum(0)
    torch.testing.assert_close(lost.update(data, 0, rng())["train/q_loss"], errors[:4].sum() / ROWS)


@pytest.mark.parametrize(
    ("kind", "policy", "model", "words"),
    [
        ("sac", {"kind": "deterministic"}, {"kind": "q"}, "trains a squashed_gaussian policy, .* set policy=squashed"),
        ("td3", {"kind": "gaussian", "horizon": 2, "n_action_steps": 1}, {"kind": "q"}, "set policy=deterministic"),
        ("sac", {"kind": "squashed_gaussian"}, {"kind": "value"}, "set model=q"),
        ("sac", {"kind": "squashed_gaussian", "horizon": 2}, {"kind": "q"}, "single transitions"),
        ("td3", {"kind": "deterministic"}, {"kind": "q", "n_obs_steps": 2}, "single transitions"),
        ("ddpg", {"kind": "deterministic"}, {"kind": "q"}, "set model.ensemble=1"),
        ("td3_bc", {"kind": "squashed_gaussian"}, {"kind": "q"}, "algo=td3_bc trains a deterministic policy"),
        (
            "td3",
            {"kind": "deterministic", "action_normalization": "identity", "bounded": False},
            {"kind": "q", "action_normalization": "identity", "bounded": False},
            "some action has none: use algo=sac",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(kind, policy, model, words):
    parts = {"policy": part("policy", **policy), "model": part("model", **model)}
    with pytest.raises(ConfigError, match=words):
        parse(lookup("algo", kind), {"kind": kind}).build(**parts, total_updates=1, runtime=RUNTIME)


def test_sac_draws_and_judges_whole_chunks():
    size = {"n_action_steps": 3}
    parts = {
        "policy": part("policy", kind="squashed_gaussian", horizon=3, **size),
        "model": part("model", kind="q", **size),
    }
    algo = parse(lookup("algo", "sac"), {"kind": "sac"}).build(**parts, total_updates=1, runtime=RUNTIME)
    entries = parts["policy"].spec.action_dim
    assert algo.target_entropy == -3 * entries
    obs = {key: torch.zeros(5, 1, *shape) for key, shape in parts["policy"].spec.obs_shapes.items()}
    assert algo.explore(obs, rng()).action.shape == (5, 3, entries)
    assert algo.needs.transition.steps == 3


def test_a_return_of_several_steps_is_asked_for_and_at_least_that_of_the_chunk():
    assert part("model", kind="q", return_steps=4).needs.transition == Transition(1, 0.99, 4)
    assert part("model", kind="q", return_steps=1).needs.transition == Transition(1, 0.99)
    with pytest.raises(ConfigError, match=r"set model.return_steps=3 or more"):
        part("model", kind="q", n_action_steps=3, return_steps=2)
