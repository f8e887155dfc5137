"""FixPO: the bound in every state, whatever the rate; the weight of its penalty; the way back."""

import pytest
import torch
from rollouts import POLICIES, build, rng, rollout


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("lr", [3e-4, 1e-1])
def test_after_an_update_no_state_is_farther_than_the_bound(name, lr):
    algo = build("fixpo", name, lr=lr, max_kl=0.05, epochs=3)
    moved = 0.0
    for step in range(3):
        batch = rollout(algo, 16, 4, seed=step, minibatch=16)
        lesson, _ = algo.lesson(batch)
        told = algo.update(batch, step, rng(step))
        divergence = algo.scoring.kl(algo.say(lesson), lesson.old)
        assert divergence.max() <= 0.05
        assert told["train/kl_max"] == divergence.max()
        moved = max(moved, divergence.max().item())
    assert moved > 0 or lr == 1e-1


@pytest.mark.parametrize("lr", [3e-3, 1e-1])
def test_the_bound_holds_for_all_blocks_of_a_rollout(lr, monkeypatch):
    """A step that mends one block may break another."""
    monkeypatch.setattr("robopol.algos.on_policy.BLOCK", 16)
    algo = build("fixpo", "density", lr=lr, max_kl=0.05, epochs=3)
    batch = rollout(algo, 16, 4, minibatch=16)
    lesson, _ = algo.lesson(batch)
    told = algo.update(batch, 0, rng())
    divergence = algo.scoring.kl(algo.say(lesson), lesson.old)
    assert divergence.max() <= 0.05
    assert told["train/kl_max"].item() == pytest.approx(divergence.max().item(), abs=1e-6)


def test_without_mending_the_same_update_breaks_it():
    """The check above can fail: PPO's surrogate, unclipped, goes farther at these rates."""
    algo = build("ppo", "density", lr=1e-1, epochs=3, surrogate={"kind": "unclipped"})
    batch = rollout(algo, 16, 4, minibatch=16)
    lesson, _ = algo.lesson(batch)
    algo.update(batch, 0, rng())
    assert algo.scoring.kl(algo.say(lesson), lesson.old).max() > 0.05


def test_what_cannot_be_mended_goes_back_to_the_bit():
    algo = build("fixpo", "density", lr=10.0, max_kl=1e-9, patience=2, epochs=1)
    before = [weight.clone() for weight in algo.actor_weights]
    told = algo.update(rollout(algo), 0, rng())
    assert told["train/mending_steps"] > 0
    assert all(torch.equal(one, other) for one, other in zip(before, algo.actor_weights, strict=True))


def test_its_weight_grows_exactly_where_the_narrower_bound_is_exceeded():
    for divergence, sign in ((0.2, 1), (0.1, -1)):  # C KL against 0.5, with C = 3
        algo = build("fixpo", "density")
        algo.adapt(torch.tensor([0.0, divergence]))
        assert (algo.beta - 1).sign() == sign
    algo = build("fixpo", "density", beta=0.0)
    algo.adapt(torch.tensor([0.0]))
    assert algo.beta == 0


def test_without_a_penalty_it_is_the_importance_weighted_policy_gradient():
    loose = build("fixpo", "density", beta=0.0, beta_lr=0.0, max_kl=1e9)
    plain = build(
        "ppo",
        "density",
        surrogate={"kind": "unclipped"},
        **{key: getattr(loose.config, key) for key in ("value_weight", "value_clip", "scale_rewards", "anneal")},
        normalize_advantage="no",
    )
    for step in range(2):
        for algo in (loose, plain):
            algo.update(rollout(algo, seed=step), step, rng(step))
    for one, other in zip(loose.actor_weights, plain.actor_weights, strict=True):
        assert torch.equal(one, other)
