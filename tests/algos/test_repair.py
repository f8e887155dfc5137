"""Repairs: what satisfies is not touched, what violates learns to satisfy, and plans stay as different as they were."""

import pytest
import torch
from algos.test_dsrl import RUNTIME, base, rng

from robopol.algos.repair import expected_number
from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.registry import lookup
from robopol.steering.learned_repair import LearnedRepair

ROWS, STEPS = 24, 4
MOTION = {"actions": [0], "means": "absolute"}
ABOVE = {"kind": "stl", "formula": "x >= 0.3", "motion": MOTION}
"""Of two modes near 0.5 and -0.5, about half of the plans violate it."""


def frozen(means=((0.5,), (-0.5,)), **changes):
    return base(means, horizon=STEPS, taken=2, **changes)


def build(policy=None, **changes):
    torch.manual_seed(0)
    told = {"kind": "repair", "objective": ABOVE, "editor": {"kind": "deterministic", "hidden": [32]}, "proposals": 4}
    told |= {"lr": 3e-3, "warmup": 0, "ema_max": 0.9}
    algo = parse(lookup("algo", "repair"), told | changes).build(
        policy=frozen() if policy is None else policy, total_updates=200, runtime=RUNTIME
    )
    return algo


def batch(seed: int = 0) -> dict:
    state = torch.randn(ROWS, 1, 1, generator=rng(seed))
    return {"obs": {"state": state}, "action": torch.zeros(ROWS, STEPS, 1), "weight": torch.ones(ROWS)}


def train(algo, updates: int = 120):
    for step in range(updates):
        algo.update(batch(step), step, rng(step))
    return algo


def robustness(policy, plans, told=ABOVE):
    return parse(lookup("objective", told["kind"]), told).build(policy).score({}, plans)


def test_only_what_violates_is_changed():
    algo = build()
    obs = {"state": torch.randn(50, 1, 1, generator=rng())}
    plain = algo.base.plan(obs, 6, rng(1))
    repaired = algo.deployed().plan(obs, 6, rng(1))
    violated = robustness(algo.base, plain) < 0
    assert 0.3 < violated.float().mean() < 0.7
    assert torch.equal((repaired != plain).flatten(2).any(-1), violated)
    log = algo.deployed().log.means()
    assert log["learned_repair/violated"] == pytest.approx(violated.float().mean().item())


def test_a_plan_does_not_depend_on_how_many_others_are_drawn():
    algo = train(build(), 5)
    obs = {"state": torch.randn(3, 1, 1, generator=rng())}
    noise = algo.base.plan(obs, 5, rng(1))
    repair = algo.deployed().steerings[0]
    torch.testing.assert_close(repair.changed(obs, noise)[:, :1], repair.changed(obs, noise[:, :1]))


def test_it_learns_to_satisfy_and_what_is_not_judged_stays():
    algo = train(build())
    obs = {"state": torch.randn(100, 1, 1, generator=rng(900))}
    before, after = (robustness(algo.base, one.plan(obs, 4, rng(1))) >= 0 for one in (algo.base, algo.deployed()))
    assert before.float().mean() < 0.7
    assert after.float().mean() > 0.98
    assert (algo.deployed().plan(obs, 4, rng(1)).abs() <= 1).all()


def test_what_is_near_to_the_proposals_is_worth_something():
    """The objective judges the first action alone: what else an editor changes is for nothing."""
    free, held = (train(build(near=near, diversity=0.0)) for near in (0.0, 0.3))
    obs = {"state": torch.randn(100, 1, 1, generator=rng(900))}
    plain = free.base.plan(obs, 4, rng(1))
    moved = [(algo.deployed().plan(obs, 4, rng(1)) - plain)[..., 1:, 0].abs().mean() for algo in (free, held)]
    assert moved[1] < 0.5 * moved[0]


def test_the_base_policy_is_not_trained():
    policy = frozen()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    train(build(policy), 3)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_the_smooth_objective_is_climbed_and_the_exact_one_says_what_is_repaired():
    never = {"kind": "stl", "formula": "always x >= -9", "motion": MOTION}
    algo = build(objective=never, smooth=ABOVE | {"temperature": 0.05}, diversity=0.0)
    before = [value.clone() for value in algo.editor.parameters()]
    train(algo, 3)
    assert all(torch.equal(*pair) for pair in zip(before, algo.editor.parameters(), strict=True))


def points(*values):
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def test_the_expected_number_counts_different_good_plans():
    good = torch.full((1, 3), 3.0, dtype=torch.float64)
    same, apart, far = points(0, 0, 0), points(0, 0, 1), points(-50, 0, 50)
    assert expected_number(far, 0 * good) == 0
    assert expected_number(same, good) < expected_number(apart, good) < expected_number(far, good) < 3
    torch.testing.assert_close(expected_number(far, good), torch.tensor([3 * 9 / 10], dtype=torch.float64))
    # one of three counts nothing: as if there were two
    two = expected_number(apart[:, 1:], good[:, 1:])
    torch.testing.assert_close(expected_number(apart, good * torch.tensor([0.0, 1.0, 1.0])), two)


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_number_is_bounded_and_has_a_gradient_even_of_equal_plans(seed):
    actions = torch.randn(4, 6, 3, generator=rng(seed), dtype=torch.float64)
    actions[0, 1] = actions[0, 0]
    quality = 3 * torch.rand(4, 6, generator=rng(seed + 9), dtype=torch.float64)
    actions.requires_grad_()
    found = expected_number(actions, quality)
    found.sum().backward()
    assert ((found >= 0) & (found <= 6)).all()
    assert actions.grad.isfinite().all()
    apart = (1.1 * actions).detach()  # farther apart are more
    assert (expected_number(apart, quality) > found).all()


def test_what_was_learned_is_a_policy_that_is_saved_whole_and_steered_further(tmp_path):
    algo = train(build(frozen(None)), 3)
    obs = {"state": torch.randn(4, 1, 1)}
    expected = algo.deployed().act(obs, 3, rng())
    save_part(algo.deployed(), tmp_path)
    loaded = load_policy(tmp_path)
    assert torch.equal(loaded.act(obs, 3, rng()), expected)
    best = loaded.steered(parse(lookup("steering", "best_of"), {"kind": "best_of", "objective": ABOVE, "n": 8}))
    assert (robustness(algo.base, best.plan(obs, 1, rng())) >= 0).all()


def test_its_state_is_all_that_further_updates_depend_on():
    algo, other = train(build(), 2), build(frozen(seed=1))
    other.load_state({name: value.clone() for name, value in algo.state().items()})
    for step in range(2, 4):
        for one in (algo, other):
            one.update(batch(step), step, rng(step))
    state = other.state()
    assert all(torch.equal(value, state[name]) for name, value in algo.state().items())


def test_what_judges_is_saved_with_it():
    owners = build(smooth=ABOVE).beside
    assert {"base", "objective", "smooth"} <= owners.keys()
    assert "smooth" not in build().beside, "one that is both is saved once"


def test_what_cannot_be_repaired_is_refused_in_words():
    algo = build()
    with pytest.raises(ConfigError, match="repaired by a deterministic policy, not a flow one"):
        LearnedRepair(algo.base, algo.smooth, algo.base)
    with pytest.raises(ConfigError, match="changes 4 numbers of a plan, and the policy's have 1 from now on"):
        LearnedRepair(algo.editor, algo.smooth, base())
    with pytest.raises(ConfigError, match=r"set algo\.objective"):
        build(objective=None)
    with pytest.raises(ConfigError, match="steered"):
        build(frozen().steered(parse(lookup("steering", "best_of"), {"kind": "best_of", "n": 2})))
