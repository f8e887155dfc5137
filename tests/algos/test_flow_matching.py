"""A flow's loss as likelihood: identities of the losses, pairs that stay, and whom the gradient favours."""

import pytest
import torch
from rollouts import POLICIES, build, part, rng, rollout
from steering import known
from torch import nn

from robopol.algos.scoring.flow_matching import FlowMatchingConfig
from robopol.policies.samplers.heun import HeunConfig


def said(target: str, **changes):
    algo = build("ppo", "flow_matching", scoring={"target": target, "pairs": 5, **changes})
    lesson, _ = algo.lesson(rollout(algo))
    return algo, lesson, algo.say(lesson)


def test_the_error_of_the_noise_is_that_of_the_velocity_where_time_is_far_from_noise():
    """eps-MSE = (1 - s)^2 velocity-MSE on a straight path, s = 1 at noise."""
    _, lesson, noise = said("eps")
    _, other, velocity = said("own")
    assert torch.equal(lesson.trace["time"], other.trace["time"])
    torch.testing.assert_close(noise["loss"], (1 - lesson.trace["time"]) ** 2 * velocity["loss"], atol=1e-6, rtol=1e-4)


def test_the_loss_by_hand():
    algo, lesson, found = said("own", reduction="mean")
    window, eps, s = lesson.trace["window"], lesson.trace["noise"], lesson.trace["time"]
    for pair in range(5):
        at = s[:, pair, None, None]
        x = (1 - at) * window + at * eps[:, pair]
        velocity = algo.deployed().field.net(x, 100 * s[:, pair], lesson.seen)
        wanted = ((eps[:, pair] - window - velocity) ** 2)[:, :3].mean((-2, -1))
        torch.testing.assert_close(found["loss"][:, pair], wanted, atol=1e-5, rtol=1e-4)


def test_times_are_of_the_samplers_grid_or_of_the_path():
    _, lesson, _ = said("eps")
    assert lesson.trace["time"].unique().tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    _, other, _ = said("eps", times="path")
    assert len(other.trace["time"].unique()) > 100


def test_the_sampler_changes_what_is_tried_and_not_how_it_is_scored():
    algo, lesson, before = said("eps", times="path")
    algo.deployed().resample(HeunConfig(steps=3))
    after = algo.say(lesson)
    assert torch.equal(before["loss"], after["loss"])
    assert torch.isfinite(algo.explore({"state": torch.zeros(2, 1, 3)}, rng()).action).all()


def test_one_pair_has_one_ratio_and_several_the_same_first_gradient():
    algo, lesson, _ = said("eps", pairs=1)
    each, same, _ = said("eps", pairs=1, ratios="each")
    for one in (algo, each):
        with torch.no_grad():
            for weight in one.actor_weights:
                weight.add_(0.02 * torch.randn(weight.shape, generator=rng()))
    ratios = [o.scoring.log_ratio(o.say(of), of.old, of.trace) for o, of in ((algo, lesson), (each, same))]
    assert torch.equal(*ratios)
    assert ratios[0].abs().max() > 0
    many, lesson, _ = said("eps", ratios="each")
    joint, _, _ = said("eps")
    grads = []
    for one in (many, joint):
        loss = one.losses(lesson)[0]["train/policy_loss"]
        grads.append(torch.autograd.grad(loss, one.actor_weights))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_one_pair_and_many_have_the_same_first_gradient_on_average():
    algo, lesson, _ = said("eps")
    wanted = torch.autograd.grad(algo.losses(lesson)[0]["train/policy_loss"], algo.actor_weights)
    alone = []
    for pair in range(5):
        trace = lesson.trace | {key: lesson.trace[key][:, pair : pair + 1] for key in ("noise", "time")}
        one = lesson._replace(trace=trace, old={key: rows[:, pair : pair + 1] for key, rows in lesson.old.items()})
        alone.append(torch.autograd.grad(algo.losses(one)[0]["train/policy_loss"], algo.actor_weights))
    for whole, parts in zip(wanted, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.stack(parts).mean(0), atol=1e-6, rtol=1e-3)
    assert max(grad.abs().max() for grad in wanted) > 1e-3


@pytest.mark.parametrize("target", ["eps", "own"])
def test_of_a_known_gaussian_it_moves_the_mean_as_the_density_would(target):
    """Of N(0.2, 0.5^2): the gradient of minus the loss has the sign of (a - mean) / std^2."""
    policy = known.gaussian("flow", 0.2, 0.5, 1)
    policy.field.net.mean = nn.Parameter(torch.tensor(0.2))
    scoring = FlowMatchingConfig(target=target, times="path").build(policy)
    noise, time = torch.randn(64, 8, 1, generator=rng()), torch.linspace(0.05, 0.95, 64)
    for action in (-0.8, -0.2, 0.1, 0.3, 0.6, 1.2):
        trace = {
            "window": torch.full((1, 8, 1), action),
            "noise": torch.cat([noise, -noise])[None],
            "time": torch.cat([time, time])[None],
        }
        loss = scoring.say(scoring.see(known.observe(1)), trace)["loss"].mean()
        (slope,) = torch.autograd.grad(-loss, policy.field.net.mean)
        assert slope.sign() == (1 if action > 0.2 else -1)


def test_the_chosen_chunk_is_the_flows_own_end_before_it_was_clipped():
    algo = build("ppo", "flow_matching")
    with torch.no_grad():
        for weight in algo.actor_weights:
            weight.mul_(3)
    batch = rollout(algo, 50, 2)
    window = batch["trace"]["window"]
    assert (window.abs() > 1).any()
    executed = algo.deployed().action_normalizer.unnormalize(window.clamp(-1, 1))[:, :3]
    assert torch.equal(batch["action"], executed)


def test_what_is_paid_for_becomes_likelier():
    tree = {"horizon": 1, "n_action_steps": 1, "net": {"kind": "mlp", "width": 64, "step_dim": 4}}
    algo = build("fpo", "flow_matching", policy=tree, lr=5e-3, epochs=4, scoring={"pairs": 2})
    normal = algo.deployed().action_normalizer.normalize

    def near() -> float:
        x = normal(algo.explore({"state": torch.zeros(500, 1, 3)}, rng(99)).action)[:, 0, 0]
        return ((x - 0.6).abs() < 0.3).float().mean().item()

    assert near() < 0.4
    for step in range(12):
        batch = rollout(algo, 256, 1, seed=step, minibatch=128)
        x = normal(batch["action"])[:, :, 0]
        batch |= {"reward": -((x - 0.6) ** 2), "terminated": torch.ones(256, dtype=torch.bool)}
        algo.update(batch, step, rng(step))
    assert near() > 0.6


def test_a_diffusion_policy_is_scored_so_as_well():
    torch.manual_seed(0)
    base = part("policy", POLICIES["denoising"])
    scoring = FlowMatchingConfig(pairs=2).build(base)
    explored = scoring.explore({"state": torch.zeros(4, 1, 3)}, rng())
    said_ = scoring.say(scoring.see({"state": torch.zeros(4, 1, 3)}), explored.trace)
    assert said_["loss"].shape == (4, 2)
    assert torch.isfinite(said_["loss"]).all()
