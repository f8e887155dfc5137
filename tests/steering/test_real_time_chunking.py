"""Plans that go on from the last one: real-time chunking as published and for every path, and hard inpainting."""

import math
from itertools import pairwise

import pytest
import torch
from policies.test_policies import POLICIES, make, obs
from steering import gaussians
from steering.known import NearConfig, gaussian, observe

from robopol.config import parse
from robopol.errors import ConfigError, RobopolError
from robopol.execution import InpaintingConfig as InpaintingExecutor
from robopol.execution import RealTimeChunkingConfig as RealTimeExecutor
from robopol.policies import Previous
from robopol.policies.generative import GenerativePolicy
from robopol.policies.prediction import reading
from robopol.registry import lookup
from robopol.steering import GuideConfig, InpaintingConfig, Planning, RealTimeChunkingConfig, SteeredPolicy
from robopol.steering.guide import BentField
from robopol.steering.log import Log
from robopol.steering.real_time_chunking import PulledField, soft_mask

WALKED = [name for name in POLICIES if name.partition("-")[0] in ("diffusion", "edm", "flow")]


def seeded(rows):
    return [torch.Generator().manual_seed(row) for row in range(rows)]


def later(policy, rows, passed=2):
    """Return other plans of a policy, as the last ones of some rows."""
    windows = policy.plan(obs(rows, seed=9), 1, [torch.Generator().manual_seed(90 + row) for row in range(rows)])
    return [Previous(window[0], passed) for window in windows]


def test_the_mask_is_the_published_one():
    linear = soft_mask(2, 4, 10, "linear")
    torch.testing.assert_close(linear, torch.tensor([5, 5, 4, 3, 2, 1, 0, 0, 0, 0]) / 5)
    expected = [w * math.expm1(w) / math.expm1(1) for w in linear.tolist()]
    torch.testing.assert_close(soft_mask(2, 4, 10, "exp"), torch.tensor(expected))
    assert soft_mask(2, 4, 10, "hard").tolist() == [1, 1] + [0] * 8
    assert soft_mask(10, 0, 10, "exp").tolist() == [1] * 10
    for mask in ("exp", "linear", "hard"):
        assert soft_mask(9, 7, 10, mask).tolist() == [1] * 3 + [0] * 7, "no more is known than is left"
        assert soft_mask(2, 10, 10, mask).tolist() == soft_mask(2, 12, 10, mask).tolist() == [0] * 10


def published(policy, noise, cond, y, weights, beta, jacobian):
    """Walk as Black et al. (2025), algorithm 1, from noise at time 0 to data at time 1, by Euler steps."""
    x, steps = noise, policy.sampler.config.steps
    for i in range(steps):
        t = i / steps
        x = x.detach().requires_grad_()
        level = t if policy.field.path.ends[0] == 0 else 1 - t
        with torch.enable_grad():
            found = policy.field(x, torch.full((len(x),), level), cond)
            v = found.x0 - found.eps
            x1 = x + (1 - t) * v
            error = (weights * (y - x1)).detach()
            pull = torch.autograd.grad(x1, x, error)[0] if jacobian else error
        r2 = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
        g = min(beta, (1 - t) / (t * r2)) if t else beta
        x = (x + (v + g * pull) / steps).detach()
    return x.clamp(-1, 1)


@pytest.mark.parametrize("noise_at", [0, 1])
@pytest.mark.parametrize("jacobian", [True, False])
def test_on_a_straight_path_it_is_the_published_algorithm(noise_at, jacobian):
    policy = make({**POLICIES["flow-mlp"], "path": {"kind": "rectified_flow", "noise_at": noise_at}})
    previous = later(policy, 3)
    steered = policy.steered(RealTimeChunkingConfig(delay=2, beta=3.0, jacobian=jacobian))
    found = steered.plan(obs(3), 1, seeded(3), previous)[:, 0]
    noise = torch.stack([torch.randn(1, 8, 3, generator=generator)[0] for generator in seeded(3)])
    y = policy.action_normalizer.normalize(torch.stack([old.shifted() for old in previous]))
    weights = torch.zeros(8, 1)
    weights[1:, 0] = soft_mask(2, 2, 7, "exp")
    with torch.no_grad():
        walked = published(policy, noise, policy.observation(obs(3), 2), y, weights, 3.0, jacobian)
    torch.testing.assert_close(found, policy.action_normalizer.unnormalize(walked), atol=1e-5, rtol=1e-5)
    assert (found - policy.plan(obs(3), 1, seeded(3))[:, 0]).abs().max() > 0.01


PATHS = {
    "diffusion": ("discrete_vp", "cosine_vp", "linear_vp"),
    "flow": ("rectified_flow",),
    "edm": ("variance_exploding",),
}
ALL = [(kind, path) for kind, paths in PATHS.items() for path in paths]


def look(policy, kappa, bend):
    """Return the moved x0-estimates of the same noised plans, asked at sigma / alpha = kappa on a policy's path."""
    path = policy.field.path
    time = path.time_of(torch.tensor([kappa], dtype=torch.float64))
    level = path.level(time)
    rng = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 2, 2, 2, generator=rng)
    x = (level.alpha * x0 + level.sigma * eps).float()
    planning = Planning(policy, {"state": torch.zeros(2, 1, 1)}, 1, None, [None] * 2, Log())
    field = bend(policy.field, planning)
    with torch.no_grad():
        output = field.prepare(field.schedule(time), torch.zeros(2, 1, 1))(x, 0)
    return reading(field.prediction, level, field.path).estimate(x, output).x0, level


STEPS = {"kind": "ddim", "steps": 5, "clip": "never", "spacing": "karras"}
MEANS = [[0.5, -0.2], [-0.6, 0.3]]


@pytest.mark.parametrize("kappa", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("jacobian", [True, False])
def test_it_says_the_same_on_every_path(kappa, jacobian):
    y = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(3))
    config = RealTimeChunkingConfig(beta=2.0, jacobian=jacobian)

    def pull(field, planning):
        return PulledField(field, config, planning, y, torch.tensor([[[1.0], [0.4]]]))

    flow = gaussians.policy("flow", MEANS)
    expected, _ = look(flow, kappa, pull)
    assert (expected - look(flow, kappa, lambda field, planning: field)[0]).abs().max() > 0.1
    for kind, path in ALL:
        if path != "discrete_vp":  # which has levels of its own
            found, _ = look(gaussians.policy(kind, MEANS, path={"kind": path}, sampler=STEPS), kappa, pull)
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("kind", "path"), ALL)
def test_without_a_cap_it_is_guidance_by_the_likelihood_of_what_is_left(kind, path):
    policy = gaussians.policy(kind, MEANS, path={"kind": path}, sampler=STEPS)

    def pull(field, planning):
        config = RealTimeChunkingConfig(beta=1e6)
        return PulledField(field, config, planning, torch.full((2, 2, 2), 0.7), torch.ones(1, 2, 1))

    found, level = look(policy, 0.8, pull)
    r2 = (level.sigma**2 / (level.alpha**2 + level.sigma**2)).item()
    near = GuideConfig(objective=NearConfig(target=0.7, variance=1.0), scale=1 / r2, at="backprop").build(policy)
    guided, _ = look(policy, 0.8, lambda field, planning: BentField(field, near, planning))
    torch.testing.assert_close(found, guided, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
@pytest.mark.parametrize("jacobian", [True, False])
def test_the_prefix_is_met_the_better_the_stronger_the_pull(kind, jacobian):
    policy = gaussian(kind, std=0.3)
    previous = [Previous(torch.full((8, 2), 0.8), 0)] * 64
    errors = []
    for beta in (0.0, 0.5, 1.0, 2.0, 5.0):
        steered = policy.steered(RealTimeChunkingConfig(delay=8, beta=beta, jacobian=jacobian))
        found = steered.plan(observe(64), 1, seeded(64), previous)
        errors.append((found - 0.8).abs().mean().item())
    assert all(after < before for before, after in pairwise(errors))
    assert errors[0] > 0.7
    assert errors[-1] < 0.25


@pytest.mark.parametrize("name", WALKED)
@pytest.mark.parametrize("config", [RealTimeChunkingConfig(delay=3), InpaintingConfig(delay=3)], ids=["rtc", "hard"])
def test_a_row_looks_at_its_own_last_plan_and_one_that_has_none_is_left_alone(name, config):
    policy = make(POLICIES[name])
    steered, previous = policy.steered(config), later(policy, 5)
    base = policy.plan(obs(5), 2, seeded(5))
    over = [Previous(old.window, 7) for old in previous]
    assert torch.equal(steered.plan(obs(5), 2, seeded(5), over), base), "nothing is left of a plan that is over"
    mixed = [old if row in (1, 4) else None for row, old in enumerate(previous)]
    found, all_of_them = (steered.plan(obs(5), 2, seeded(5), one) for one in (mixed, previous))
    for row in range(5):
        assert torch.equal(found[row], (all_of_them if row in (1, 4) else base)[row])
        assert not torch.allclose(all_of_them[row], base[row], atol=1e-3)


@pytest.mark.parametrize("name", WALKED)
def test_inpainting_reproduces_what_is_executed_meanwhile(name):
    policy = make(POLICIES[name])
    previous = later(policy, 5)
    found = policy.steered(InpaintingConfig(delay=3)).plan(obs(5), 2, seeded(5), previous)
    for row, old in enumerate(previous):
        torch.testing.assert_close(found[row, :, 1:4], old.shifted()[1:4].expand(2, 3, 3), atol=1e-4, rtol=0)
        assert (found[row, :, 4] - old.shifted()[4]).abs().max() > 1e-3


def test_inpainted_entries_are_shown_to_the_network_as_noised_to_each_level():
    policy = gaussian("diffusion", std=0.3)
    seen, net = [], policy.field.net

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(()))

        def prepare(self, told, cond):
            walk = net.prepare(told, cond)
            return lambda x, i: (seen.append(x), walk(x, i))[1]

    policy.field.net = Spy()
    previous = [Previous(torch.full((8, 2), 0.8), 2)]
    policy.steered(InpaintingConfig(delay=3)).plan(observe(1), 1, seeded(1), previous)
    levels = [policy.field.path.level(t) for t in policy.sampler.times(policy.field.path)]
    noises = [(x[0, :3] - level.alpha * 0.8) / level.sigma for x, level in zip(seen, levels, strict=True)]
    assert len(noises) == 10
    for noise in noises:
        torch.testing.assert_close(noise, noises[0], atol=1e-4, rtol=1e-4)


EXECUTORS = {
    "inpainting": InpaintingExecutor,
    "real_time_chunking": RealTimeExecutor,
}


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("latency", [0, 1, 3])
def test_executors_tell_how_much_is_executed_meanwhile(kind, latency):
    policy = gaussian("flow", std=0.3)
    executor = parse(lookup("executor", kind), {"kind": kind, "latency": latency, "n_action_steps": 2}).build(policy)
    assert executor.policy.steerings[0].config.delay == latency
    seen, plan = [], executor.policy.plan

    def spy(seen_obs, n, generator, previous):
        found = plan(seen_obs, n, generator, previous)
        seen.append((previous[0], found[0, 0], policy.plan(seen_obs, n, seeded(16))[0, 0]))
        return found

    executor.policy.plan = spy
    executor.reset([0], [3])
    for _ in range(24):
        executor.act([0], {"state": torch.zeros(1, 1)})
    assert seen[0][0] is None
    assert len(seen) == 1 + len(range(2, 24, max(2, latency)))
    kept = [(found[:latency] - old.shifted()[:latency]).abs().mean().item() for old, found, _ in seen[1:]]
    free = [(found[:latency] - old.shifted()[:latency]).abs().mean().item() for old, _, found in seen[1:]]
    if latency:
        assert sum(kept) < 0.6 * sum(free)
        assert kind != "inpainting" or max(kept) < 1e-5


def test_packed_weights_have_no_jacobian():
    policy = make(POLICIES["flow-mlp"])
    previous = later(policy, 2)
    through, past = (policy.steered(RealTimeChunkingConfig(delay=2, jacobian=jacobian)) for jacobian in (True, False))
    expected = past.plan(obs(2), 1, seeded(2), previous)
    policy.for_acting("packed")
    torch.testing.assert_close(past.plan(obs(2), 1, seeded(2), previous), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(RobopolError, match="cannot be differentiated"):
        through.plan(obs(2), 1, seeded(2), previous)


@pytest.mark.parametrize("config", [RealTimeChunkingConfig(), InpaintingConfig()])
def test_what_walks_no_field_is_refused_in_words(config):
    with pytest.raises(ConfigError, match="a gmm policy has none"):
        make(POLICIES["gmm"]).steered(config)
    assert isinstance(SteeredPolicy(make(DIFFUSION), [config.build(make(DIFFUSION))]).base, GenerativePolicy)


DIFFUSION = POLICIES["diffusion-mlp"]
