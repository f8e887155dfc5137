"""TRPO: its matrix, its solver, that it keeps its bound or stays, and where it goes."""

import pytest
import torch
from rollouts import POLICIES, build, rng, rollout

from robopol.algos.trpo import conjugate_gradients, flat


def lesson_of(algo, **changes):
    lesson, _ = algo.lesson(rollout(algo, 16, 4, **changes))
    return lesson


def test_its_matrix_is_that_of_the_expected_squared_score():
    """F = E[score score'] of a Gaussian with a small network, in expectation over its own actions; symmetric."""
    algo = build("trpo", "density", cg_damping=0.0, policy={"hidden": [2]})
    lesson = lesson_of(algo)
    said = algo.say(lesson)
    product = algo.fisher(algo.scoring.kl(said, lesson.old).mean())
    size = sum(weight.numel() for weight in algo.actor_weights)
    fisher = torch.stack([product(row) for row in torch.eye(size)])
    torch.testing.assert_close(fisher, fisher.T, atol=1e-5, rtol=1e-4)
    explicit = torch.zeros(size, size)
    for row in range(lesson.size):
        one = algo.say(lesson.rows(torch.tensor([row])))
        for entry in range(2):
            # of N(m, s^2): E[score score'] = dm dm' / s^2 + 2 dlog_s dlog_s'
            mean = flat(grads(one["mean"][0, 0, entry], algo.actor_weights))
            spread = flat(grads(one["log_std"][0, 0, entry], algo.actor_weights))
            variance = (2 * one["log_std"][0, 0, entry]).exp().detach()
            explicit += (torch.outer(mean, mean) / variance + 2 * torch.outer(spread, spread)) / lesson.size
    torch.testing.assert_close(fisher, explicit, atol=1e-4, rtol=1e-3)


def grads(value, weights):
    found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return tuple(torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True))


def test_conjugate_gradients_against_a_dense_solver():
    root = torch.randn(50, 50, dtype=torch.float64, generator=rng())
    matrix, wanted = root @ root.T / 50 + torch.eye(50), torch.randn(50, dtype=torch.float64, generator=rng(1))
    found = conjugate_gradients(lambda v: matrix @ v, wanted, 50)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, wanted), atol=1e-6, rtol=1e-5)
    few = conjugate_gradients(lambda v: matrix @ v, wanted, 3)
    assert (matrix @ few - wanted).norm() < wanted.norm()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("bound", [0.01, 1e-4])
def test_a_step_keeps_its_bound_and_earns_more_or_is_not_taken(name, bound):
    taken = 0
    for seed in range(3):
        algo = build("trpo", name, max_kl=bound)
        lesson = lesson_of(algo, seed=seed)
        with torch.no_grad():
            before, _ = algo.judged(lesson)
        old = [weight.clone() for weight in algo.actor_weights]
        told = algo.step(lesson)
        with torch.no_grad():
            after, divergence = algo.judged(lesson)
        if told["train/stepped"]:
            taken += 1
            assert after > before
            assert 0 < divergence < bound
            if told["train/backtracks"] == 0 and name == "density":
                assert divergence > 0.8 * bound, "as far as it may"
        else:
            assert all(torch.equal(one, other) for one, other in zip(old, algo.actor_weights, strict=True))
    assert taken


def test_its_quadratic_says_how_far_a_step_goes():
    algo = build("trpo", "density", cg_damping=0.0, max_kl=1e-3, kl_reduction="sum")
    lesson = lesson_of(algo)
    product = algo.fisher(algo.scoring.kl(algo.say(lesson), lesson.old).mean())
    fisher = torch.stack([product(row) for row in torch.eye(sum(weight.numel() for weight in algo.actor_weights))])
    before = flat(algo.actor_weights).clone()
    assert algo.step(lesson)["train/stepped"]
    way = flat(algo.actor_weights) - before
    with torch.no_grad():
        _, divergence = algo.judged(lesson)
    assert (0.5 * way @ fisher @ way).item() == pytest.approx(divergence.item(), rel=0.2)


def test_a_step_that_earns_less_is_not_taken_and_leaves_every_bit():
    algo = build("trpo", "density", backtracks=1, max_kl=100.0)
    lesson = lesson_of(algo)
    old = [weight.clone() for weight in algo.actor_weights]
    # whatever was chosen was good: so far away, all of it is less likely
    told = algo.step(lesson._replace(advantage=torch.ones(lesson.size)))
    assert told["train/stepped"] == 0
    assert all(torch.equal(one, other) for one, other in zip(old, algo.actor_weights, strict=True))


def test_without_an_advantage_the_policy_stays():
    algo = build("trpo", "density")
    lesson = lesson_of(algo)
    old = [weight.clone() for weight in algo.actor_weights]
    told = algo.step(lesson._replace(advantage=torch.zeros(lesson.size)))
    assert told["train/stepped"] == 0
    assert all(torch.equal(one, other) for one, other in zip(old, algo.actor_weights, strict=True))


def test_a_small_step_goes_along_the_natural_gradient():
    algo = build("trpo", "density", max_kl=1e-6, cg_damping=0.1, cg_steps=60, policy={"hidden": [2]})
    lesson = lesson_of(algo)
    objective, divergence = algo.judged(lesson)
    gradient = flat(torch.autograd.grad(objective, algo.actor_weights, retain_graph=True))
    product = algo.fisher(divergence)
    matrix = torch.stack([product(row) for row in torch.eye(len(gradient))])
    natural = torch.linalg.solve(matrix, gradient)
    old = flat(tuple(weight.detach().clone() for weight in algo.actor_weights))
    assert algo.step(lesson)["train/stepped"]
    step = flat(tuple(weight.detach() for weight in algo.actor_weights)) - old
    assert torch.cosine_similarity(step, natural, 0) > 0.99
    assert torch.cosine_similarity(step, gradient, 0) < 0.99


def test_of_each_entry_or_of_the_action():
    """As sb3-contrib has it: torch's divergence of the entries, averaged over entries, too."""
    whole, each = (build("trpo", "density", kl_reduction=how, cg_damping=0.0) for how in ("sum", "mean"))
    lesson, other = lesson_of(whole), lesson_of(each)
    with torch.no_grad():
        for algo in (whole, each):
            for weight in algo.actor_weights:
                weight += 0.05 * torch.randn(weight.shape, generator=rng(7))
        said = each.say(other)
        new, old = (torch.distributions.Normal(one["mean"], one["log_std"].exp()) for one in (said, other.old))
        entries = torch.distributions.kl_divergence(old, new)
        assert each.scoring.entries == entries[0].numel() == 2
        torch.testing.assert_close(each.judged(other)[1], entries.mean())
        torch.testing.assert_close(whole.judged(lesson)[1], entries.sum((-2, -1)).mean())
    far, twice = (
        build("trpo", "density", cg_damping=0.0, **told)
        for told in ({"kl_reduction": "sum", "max_kl": 0.02}, {"kl_reduction": "mean", "max_kl": 0.01})
    )
    for algo in (far, twice):
        algo.step(lesson_of(algo))
    for one, two in zip(far.actor_weights, twice.actor_weights, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_the_values_are_fitted_outside_the_region():
    algo = build("trpo", "density", critic_epochs=30, critic_lr=1e-2)
    batch = rollout(algo, 16, 4)
    lesson, _ = algo.lesson(batch)
    before = ((algo.judge(lesson) - lesson.goal) ** 2).mean()
    algo.update(batch, 0, rng())
    assert ((algo.judge(lesson) - lesson.goal) ** 2).mean() < 0.8 * before
