"""Denoising steps as decisions: the base to the bit, densities by hand, what is frozen, the schedule of the ranges."""

import math

import pytest
import torch
from rollouts import POLICIES, build, part, rng, rollout
from torch.distributions import Normal

from robopol.algos.scoring.denoising import DenoisingConfig, fine_tuned
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.policies.samplers.first_order import DDIMConfig, DDPMConfig, EulerConfig
from robopol.policies.samplers.heun import HeunConfig

OBS = {"state": torch.randn(5, 1, 3, generator=rng(1))}


def policy(**changes):
    torch.manual_seed(0)
    return part("policy", POLICIES["denoising"] | changes)


def disturbed(made):
    with torch.no_grad():
        for weight in made.field.net.tuned.parameters():
            weight.add_(0.1)
    return made


@pytest.mark.parametrize("steps", [0, 1, 7, 20])
@pytest.mark.parametrize("sampler", [DDPMConfig(), DDIMConfig(steps=20, eta=0.5)])
def test_before_it_learns_it_is_the_base_to_the_bit(steps, sampler):
    base = policy()
    base.resample(sampler)
    tuned = fine_tuned(base, steps)
    assert tuned is not base
    one, other = (made.plan(OBS, 3, rng(2)) for made in (base, tuned))
    assert torch.equal(one, other)
    batch = {"obs": OBS, "action": one[:, 0], "mask": torch.ones(5, 4, dtype=torch.bool)}
    torch.testing.assert_close(base.loss(batch, rng(3)), tuned.loss(batch, rng(3)))


def test_the_tuned_network_answers_in_the_last_steps_and_nowhere_else():
    base = policy()
    nobody = disturbed(fine_tuned(base, 0))
    assert torch.equal(base.plan(OBS, 3, rng(2)), nobody.plan(OBS, 3, rng(2)))
    states = {}
    for name, made in (("base", base), ("tuned", disturbed(fine_tuned(base, 6)))):
        seen = []
        cond = made.observation(OBS, 1)
        noise = rng(4)
        made.sampler.sample(
            made.field,
            torch.randn(5, 4, 2, generator=noise),
            cond,
            lambda noise=noise: torch.randn(5, 4, 2, generator=noise),
            hook=lambda step, seen=seen: seen.append(step.next),
        )
        states[name] = seen
    same = [torch.equal(one, other) for one, other in zip(states["base"], states["tuned"], strict=True)]
    assert same == [True] * 14 + [False] * 6


def test_log_densities_are_those_of_normals_with_the_least_spread():
    algo = build("ppo", "denoising", scoring={"min_scoring_std": 0.2, "steps": 6, "reduction": "sum"})
    lesson, _ = algo.lesson(rollout(algo))
    scoring, said = algo.scoring, algo.say(lesson)
    table = scoring.policy.sampler.table(scoring.policy.field)
    stds = [max(row.std, 0.2) for row in table.rows[14:]]
    assert [row.std for row in table.rows][-1] == 0  # the last step of DDPM draws nothing; exploring, it does
    found = scoring.log_prob(said, lesson.trace)
    for k, std in enumerate(stds):
        mean, following = said["mean"][:, k], lesson.trace["chain"][:, k + 1]
        torch.testing.assert_close(found[:, k], Normal(mean, std).log_prob(following).clamp(-5, 2))
    # and the means are those of the walk
    seen = scoring.see({"state": torch.randn(3, 1, 3, generator=rng())})
    means = []
    x = torch.randn(3, 4, 2, generator=rng())
    scoring.policy.sampler.walk(
        scoring.policy.field,
        x,
        seen,
        lambda: torch.zeros(3, 4, 2),
        first=14,
        hook=lambda step: means.append((step.x, step.mean)),
    )
    chain = torch.stack([state for state, _ in means] + [means[-1][1]], 1)
    torch.testing.assert_close(scoring.say(seen, {"chain": chain})["mean"], torch.stack([mean for _, mean in means], 1))


def test_what_it_tries_is_drawn_as_it_says():
    algo = build("ppo", "denoising", scoring={"min_sampling_std": 0.3, "steps": 3, "noise_limit": 1.5})
    batch = rollout(algo, 400, 1)
    lesson, _ = algo.lesson(batch)
    chain, mean = lesson.trace["chain"], lesson.old["mean"]
    z = (chain[:, 1:] - mean) / algo.scoring.sampling_std[:, None, None]
    assert z.abs().max() <= 1.5 + 1e-5
    assert (z.abs() > 1.499).any()
    assert algo.scoring.sampling_std.tolist() == pytest.approx([0.3, 0.3, 0.3])
    cut = math.sqrt(torch.randn(100000, generator=rng()).clamp(-1.5, 1.5).var().item())
    torch.testing.assert_close(z.std(), torch.tensor(cut), rtol=0.03, atol=0)
    window = chain[:, -1, :3]
    assert torch.equal(batch["action"], algo.deployed().action_normalizer.unnormalize(window))


def test_only_the_tuned_steps_have_gradients():
    algo = build("ppo", "denoising", policy={"encoder": {"kind": "low_dim"}})
    lesson, _ = algo.lesson(rollout(algo))
    losses, _ = algo.losses(lesson)
    losses["train/loss"].backward()
    own = dict(algo.deployed().named_parameters())
    assert {name for name, weight in own.items() if weight.grad is not None} == {
        name for name in own if name.startswith("field.net.tuned.")
    }
    assert all(weight.grad.abs().sum() > 0 for name, weight in own.items() if name.endswith("tuned.trunk.0.weight"))


def test_the_published_schedule_of_the_ranges_and_weights():
    algo = build("ppo", "denoising", scoring={"steps": 10, "clip_base": 0.1, "discount": 0.9})
    clips = (0.01 * algo.scoring.row_clips).tolist()
    assert clips == pytest.approx([0.001, 0.0012, 0.0014, 0.0018, 0.0023, 0.003, 0.004, 0.0054, 0.0073, 0.01], abs=6e-5)
    assert algo.scoring.row_weights.tolist() == pytest.approx([0.9**k for k in range(9, -1, -1)])
    one = build("ppo", "denoising", scoring={"steps": 1, "clip_base": 0.1})
    assert one.scoring.row_clips.tolist() == [1.0]
    assert one.scoring.row_weights.tolist() == [1.0]


def test_one_step_is_gaussian_ppo():
    """K' = 1 and gamma_d = 1: the ratio of one Gaussian whose mean the last step says."""
    algo = build("ppo", "denoising", scoring={"steps": 1, "discount": 1.0, "reduction": "sum"})
    lesson, _ = algo.lesson(rollout(algo))
    with torch.no_grad():
        for weight in algo.actor_weights:
            weight.add_(0.01 * torch.randn(weight.shape, generator=rng()))
    new, old = (Normal(said["mean"][:, 0, :3], 0.1) for said in (algo.say(lesson), lesson.old))
    chosen = lesson.trace["chain"][:, 1, :3]
    wanted = (new.log_prob(chosen) - old.log_prob(chosen)).sum((-2, -1))
    found = algo.scoring.log_ratio(algo.say(lesson), lesson.old, lesson.trace)
    torch.testing.assert_close(found[:, 0], wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(algo.row_advantages(lesson)[:, 0], lesson.advantage)


def test_the_divergence_of_two_walks_in_closed_form():
    algo = build("ppo", "denoising", scoring={"steps": 3})
    old = {"mean": torch.zeros(2, 3, 4, 2)}
    new = {"mean": torch.full((2, 3, 4, 2), 0.05)}
    stds = algo.scoring.scoring_std.tolist()
    wanted = sum(8 * 0.05**2 / (2 * std**2) for std in stds)
    torch.testing.assert_close(algo.scoring.kl(new, old), torch.full((2,), wanted))


@pytest.mark.parametrize("sampler", [EulerConfig(steps=5), DDIMConfig(steps=5)])
def test_a_flow_is_tuned_in_the_same_way_under_the_least_spread(sampler):
    tree = POLICIES["flow_matching"] | {"sampler": sampler.tree()}
    torch.manual_seed(0)
    base = part("policy", tree)
    scoring = DenoisingConfig(steps=2).build(base)
    assert torch.equal(base.plan(OBS, 1, rng(2)), scoring.policy.plan(OBS, 1, rng(2)))
    assert scoring.scoring_std.tolist() == pytest.approx([0.1, 0.1])
    explored = scoring.explore(OBS, rng())
    assert explored.trace["chain"].shape == (5, 3, 4, 2)


def test_what_was_tuned_can_be_tuned_on_in_the_same_steps_only():
    first = DenoisingConfig(steps=4).build(policy())
    again = DenoisingConfig(steps=4).build(first.policy)
    assert again.policy is first.policy
    with pytest.raises(ConfigError, match="tune the same steps, or begin from the base"):
        DenoisingConfig(steps=5).build(first.policy)
    saved = parse(type(first.policy.config), first.policy.config.tree())
    assert saved == first.policy.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 21}, "21 last steps cannot be tuned: the sampler takes 20"),
        ({"sampler": HeunConfig(steps=5)}, "set algo.scoring.sampler to ddpm, ddim, ancestral or euler"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_words(changes, message):
    with pytest.raises(ConfigError, match=message):
        DenoisingConfig(**changes).build(policy())
