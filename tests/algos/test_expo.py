"""EXPO: what is proposed, edited and chosen, and who learns from what."""

import pytest
import torch
from algos.test_dsrl import ROWS, RUNTIME, base, batch, rng
from algos.test_off_policy import part
from steering.gaussians import policy as gaussians
from steering.gaussians import spec

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.registry import lookup
from robopol.steering.editing import beside
from robopol.steering.learned_edit import LearnedEdit


def frozen():
    return base(None, horizon=3, past=1, taken=2)


def build(policy=None, model="q", heads=2, **changes):
    torch.manual_seed(0)
    editor = {"kind": "squashed_gaussian", "hidden": [32], "deterministic": False}
    told = {"kind": "expo", "proposals": 4, "edit": 0.3, "editor": editor, "cloning": {"kind": "bc", "warmup": 0}}
    return parse(lookup("algo", "expo"), told | changes).build(
        policy=frozen() if policy is None else policy,
        model=part("model", model, hidden=[32], discount=0.9, ensemble=heads),
        total_updates=100,
        runtime=RUNTIME,
    )


def weights(module):
    return [value.clone() for value in module.state_dict().values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_candidates_are_proposals_and_edits_within_their_reach():
    algo = build()
    obs = {"state": torch.randn(50, 2, 1, generator=rng())}
    found = algo.candidates(algo.base, obs, rng(1))
    assert found.shape == (50, 8, 2, 1)
    plain, edits = found.split(4, 1)
    assert torch.equal(plain, algo.base.act(obs, 4, rng(1))[:, :, :2].clamp(-1, 1))
    assert 0.1 < (edits - plain).abs().max() <= 0.3 + 1e-5
    assert torch.equal(build(edit=0.0).candidates(algo.base, obs, rng(1)), plain)


def test_a_base_that_is_deployed_with_its_mean_proposes_samples():
    torch.manual_seed(0)
    told = {"kind": "gmm", "modes": 1, "hidden": [8], "obs_normalization": "identity", "action_normalization": "bounds"}
    contract = spec(["x"], horizon=3, n_obs_steps=2, n_action_steps=2, action_low=(-1.0,), action_high=(1.0,))
    sizes = {"n_obs_steps": 2, "horizon": 3, "n_action_steps": 2}
    policy = parse(lookup("policy", "gmm"), told | sizes).build(contract).eval()
    assert policy.config.deterministic
    algo, obs = build(policy, edit=0.0), {"state": torch.randn(20, 2, 1, generator=rng())}
    assert algo.candidates(algo.base, obs, rng(1)).std(1).min() > 1e-3
    assert algo.deployed().plan(obs, 4, rng(1)).std(1).min() > 1e-3
    assert all(one is other for one, other in zip(algo.base.parameters(), policy.parameters(), strict=True))
    assert policy.config.deterministic, "the policy itself is left as it was"


def farther(**tree):
    """Proposes beyond the bounds too, of which each action entry has its own."""
    size = {"horizon": 3, "n_obs_steps": 2, "n_action_steps": 2}
    contract = spec(["x", "y"], **size, action_low=(-2.0, 0.0), action_high=(6.0, 1.0))
    sampler = {"kind": "euler", "steps": 4, "clip": "never"}
    return gaussians("flow", None, 0.05, contract=contract, sampler=sampler, n_action_steps=2, **tree)


def loud(algo, factor: float):
    """Let the editor say far more than at the beginning."""
    with torch.no_grad():
        for weight in algo.policy.parameters():
            weight.mul_(factor)
    return algo


def test_edits_end_at_their_reach_in_the_units_of_each_entry_whatever_the_weights():
    algo = loud(build(farther(), edit=0.3), 1e3)
    found = algo.candidates(algo.base, {"state": torch.randn(200, 2, 1, generator=rng())}, rng(1))
    plain, edits = found.split(4, 1)
    farthest = ((edits - plain).abs() / torch.tensor([4.0, 0.5])).amax((0, 1, 2))
    assert farthest.tolist() == pytest.approx([0.3, 0.3], abs=1e-4)
    assert ((found >= algo.low) & (found <= algo.high)).all()


def test_who_is_deployed_does_what_is_tried():
    """Also where proposals lie beyond the bounds: those are clipped, then edited, then judged."""
    algo = loud(build(farther(), edit=0.3, proposals=1), 3.0)
    obs = {"state": torch.randn(400, 2, 1, generator=rng())}
    plans = algo.cloning.deployed().act(obs, 1, rng(3))[:, 0, :2]
    assert (algo.within(plans) != plans).any(-1).any(-1).sum() > 100
    tried = algo.explore(obs, rng(3)).action
    assert torch.equal(algo.within(algo.deployed().act(obs, 1, rng(3))[:, 0, :2]), tried)


def test_densities_are_over_the_box_of_the_edits():
    """One entry of reach b: the density of d / b over (-1, 1) sums to one."""
    for reach in (0.3, 0.03):
        algo = build(frozen_of_one(), edit=reach)
        grid = torch.linspace(-0.999, 0.999, 2001)
        obs = {"state": torch.zeros(2001, 1, 1)}
        actions = torch.zeros(2001, 1, 1)
        log_prob = algo.policy.log_prob(beside(obs, actions[:, None]), (reach * grid)[:, None, None])
        assert torch.trapezoid(log_prob.exp(), grid).item() == pytest.approx(1, abs=0.01)


def frozen_of_one():
    return base(None, horizon=1)


def test_one_pair_of_heads_says_what_is_next_for_all_candidates():
    algo = build(heads=5)  # target_heads=2
    data = batch(algo)
    with torch.no_grad():
        goal = algo.goals(data, rng(2))
        said = algo.target.q(data["next_obs"], algo.candidates(algo.base, data["next_obs"], rng(2)))
    pairs = [torch.minimum(said[i], said[j]).amax(1) for i in range(5) for j in range(i)]
    goals = data["reward"] + data["discount"] * torch.stack(pairs)
    assert (goals - goal).abs().amax(1).min() < 1e-5


def test_without_edits_nobody_learns_to_edit():
    algo = build(edit=0.0, delay=1)
    before, alpha = weights(algo.policy), algo.log_alpha.item()
    told = algo.update(batch(algo), 0, rng())
    assert same(before, weights(algo.policy))
    assert algo.log_alpha.item() == alpha
    assert "train/policy_loss" not in told


def test_what_comes_next_is_worth_the_best_candidate():
    algo, data = build(), batch(build())
    with torch.no_grad():
        goal = algo.goals(data, rng(2))
        found = algo.candidates(algo.base, data["next_obs"], rng(2))
        each = torch.stack([algo.target.q(data["next_obs"], found[:, i]).amin(0) for i in range(8)], 1)
    torch.testing.assert_close(goal, data["reward"] + data["discount"] * each.amax(1))
    assert goal[0] == data["reward"][0]
    alone = build(edit=0.0, proposals=1)
    with torch.no_grad():
        goal = alone.goals(data, rng(2))
        action = alone.base.act(data["next_obs"], 1, rng(2))[:, 0, :2].clamp(-1, 1)
        worth = alone.target.q(data["next_obs"], action).amin(0)
    torch.testing.assert_close(goal, data["reward"] + data["discount"] * worth)


def test_without_edits_it_acts_by_the_best_of_n():
    algo = build(edit=0.0)
    obs = {"state": torch.randn(20, 2, 1, generator=rng())}
    tried = algo.explore(obs, rng(3)).action
    averaged = algo.cloning.deployed()
    chunks = averaged.act(obs, 4, rng(3))[:, :, :2].clamp(-1, 1)
    best = algo.target.q(obs, chunks).amin(0).argmax(1)
    assert torch.equal(tried, chunks[torch.arange(20), best])
    plan = algo.deployed().plan(obs, 1, rng(3))[:, 0]
    assert torch.equal(plan[:, 1:3].clamp(-1, 1), tried)
    base_alone = build(edit=0.0, proposals=1)
    expected = base_alone.cloning.deployed().plan(obs, 2, rng(3))
    assert torch.equal(base_alone.deployed().plan(obs, 2, rng(3)), expected)


def test_everyone_learns_from_their_own_loss():
    algo, data = build(), batch(build())
    own = data | {"action": algo.model.actions(data)}
    parts = {"base": algo.base, "editor": algo.policy, "critics": algo.model}
    for moves, act in (
        ({"critics"}, lambda: algo.fit_critics(own, 0, rng())),
        ({"editor"}, lambda: algo.improve(own, rng())),
        ({"base"}, lambda: algo.cloning.update(data, 0, rng())),
    ):
        before = {name: weights(module) for name, module in parts.items()}
        act()
        assert {name for name, module in parts.items() if not same(before[name], weights(module))} == moves
        assert all(p.grad is None for module in parts.values() for p in module.parameters())


def test_base_and_editor_move_once_in_so_many_updates():
    algo = build(delay=3)
    for step in range(6):
        before = weights(algo.base), weights(algo.policy), weights(algo.model)
        algo.update(batch(algo, step), step, rng(step))
        after = weights(algo.base), weights(algo.policy), weights(algo.model)
        assert [same(*pair) for pair in zip(before, after, strict=True)] == [step % 3 != 2, step % 3 != 2, False]


@pytest.mark.slow
def test_edits_reach_what_is_never_proposed():
    """The base policy proposes 0.2 or so; 0.5 is best, and within reach of an edit."""
    algo = build(base(((0.2,),), horizon=1), edit=0.4, alpha=0.02, lr=3e-3, critic_lr=3e-3)
    for step in range(250):
        source = rng(step)
        action = 2 * torch.rand(64, 1, 1, generator=source) - 1
        data = {"obs": {"state": torch.zeros(64, 1, 1)}, "next_obs": {"state": torch.zeros(64, 1, 1)}, "action": action}
        data |= {"reward": -3 * (action[:, 0, 0] - 0.5).abs(), "discount": torch.zeros(64), "weight": torch.ones(64)}
        data |= {"next_mask": torch.ones(64, dtype=torch.bool)}
        algo.fit_critics(data, step, source)
        proposed = algo.base.act(data["obs"], 1, source)[:, 0]
        algo.improve(data | {"action": proposed}, source)
        algo.follow()
    obs = {"state": torch.zeros(100, 1, 1)}
    assert algo.base.act(obs, 1, rng())[:, 0].mean().item() == pytest.approx(0.2, abs=0.03)
    assert algo.deployed().act(obs, 1, rng())[:, 0, 0].mean().item() == pytest.approx(0.5, abs=0.06)
    assert algo.explore(obs, rng()).action.mean().item() == pytest.approx(0.5, abs=0.06)


def test_what_was_learned_is_a_policy_that_is_saved_whole(tmp_path):
    algo = build()
    for step in range(2):
        algo.update(batch(algo, step), step, rng(step))
    obs = {"state": torch.randn(4, 2, 1)}
    expected = algo.deployed().act(obs, 3, rng())
    save_part(algo.deployed(), tmp_path)
    assert torch.equal(load_policy(tmp_path).act(obs, 3, rng()), expected)


def test_its_state_is_all_that_further_updates_depend_on():
    algo, other = build(), build(alpha=0.5)
    for step in range(2):
        algo.update(batch(algo, step), step, rng(step))
    other.load_state({name: value.clone() for name, value in algo.state().items()})
    for step in range(2, 4):
        for one in (algo, other):
            one.update(batch(one, step), step, rng(step))
    state = other.state()
    assert all(torch.equal(value, state[name]) for name, value in algo.state().items())


@pytest.mark.parametrize(
    ("kind", "part"), [("expo", "editor"), ("dsrl", "actor"), ("expo", "cloning"), ("fql", "cloning")]
)
def test_one_key_of_a_part_leaves_its_others_as_they_are(kind, part):
    plain = getattr(parse(lookup("algo", kind), {"kind": kind}), part)
    name, value = ("lr", 1e-3) if part == "cloning" else ("hidden", [8])
    changed = getattr(parse(lookup("algo", kind), {"kind": kind, part: {name: value}}), part)
    assert changed == plain.model_copy(update={name: getattr(changed, name)})
    assert changed != plain


def test_a_key_of_others_that_would_do_nothing_is_refused():
    with pytest.raises(ConfigError, match="paid"):
        build(paid=True)


def test_parts_that_do_not_fit_are_refused_in_words():
    with pytest.raises(ConfigError, match="set model=q"):
        build(model="value")
    algo, other = build(), build(base(None, horizon=3, past=0, taken=1))
    with pytest.raises(ConfigError, match="changes 2 numbers of a proposal, and the critic judges 1"):
        LearnedEdit(algo.policy, other.target, algo.base, 2)
    with pytest.raises(ConfigError, match="judged by a q model"):
        LearnedEdit(algo.base, other.target, algo.base, 2)
    assert len(batch(algo)["reward"]) == ROWS
