"""Warm starts: what is refined, when it is not, and how fast a refined plan follows a change (closed form)."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.execution import RecedingHorizon, WarmStartConfig
from robopol.networks.denoiser import Denoiser
from robopol.policies import PolicySpec
from robopol.registry import lookup

STD = 0.1
A = 4


class Known(Denoiser):
    """The exact noise in actions that are all N(observation, STD^2)."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t, cond):
        level, mean = self.path.level(t), cond[:, -1:, :1]
        alpha, sigma = (value.float()[:, None, None] for value in (level.alpha, level.sigma))
        x0 = mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * mean)
        return (x - alpha * x0) / sigma


def known(sampler: str = "ddim", **options):
    tree = {"net": {"kind": "mlp", "width": 8}, "prediction": "eps", "horizon": 8, "n_action_steps": 4}
    tree |= {"obs_normalization": "identity", "action_normalization": "identity"}
    config = parse(lookup("policy", "diffusion"), {**tree, "sampler": {"kind": sampler, "clip": "never", **options}})
    spec = PolicySpec(
        obs_shapes={"state": (1,)},
        action_names=("a",) * A,
        action_low=(-9.0,) * A,
        action_high=(9.0,) * A,
        action_space="box",
        control_hz=10.0,
        n_obs_steps=2,
        horizon=8,
        n_action_steps=4,
    )
    policy = config.build(spec)
    policy.field.net = Known(policy.field.path)
    return policy


def observe(*values: float):
    return {"state": torch.tensor(values)[:, None]}


def warm(policy, steps: int = 3, renoise: bool = False, n_action_steps: int = 1, latency: int = 0):
    config = WarmStartConfig(steps=steps, renoise=renoise, n_action_steps=n_action_steps, latency=latency)
    return config.build(policy)


def spied(executor):
    """Return the plan that an episode had and the next one, as it happens; None where it had none."""
    seen, plan = [], executor.policy.plan

    def spy(obs, n, generator, previous):
        found = plan(obs, n, generator, previous)
        seen.append((previous[0], found[0, 0].clone()))
        return found

    executor.policy.plan = spy
    return seen


def closed(first: int, mean: float, stale: float) -> float:
    """Return the share of the way from a stale plan to the mean that DDPM goes from index ``first`` to 0.

    The posterior mean of DDPM (Ho et al. 2020, eq. 7) with E[x0 | x] of a Gaussian is affine in x.
    """
    edges = np.arange(101) / 100
    bar = np.cos((edges + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    bar = np.cumprod(1 - beta)
    x = stale
    for k in range(first, -1, -1):
        before = bar[k - 1] if k else 1.0
        x0 = mean + np.sqrt(bar[k]) * STD**2 / (bar[k] * STD**2 + 1 - bar[k]) * (x - np.sqrt(bar[k]) * mean)
        x = (np.sqrt(before) * beta[k] * x0 + np.sqrt(1 - beta[k]) * (1 - before) * x) / (1 - bar[k])
    return (x - stale) / (mean - stale)


@pytest.mark.parametrize(("steps", "share"), [(3, 0.25), (23, 0.93), (51, 0.99)])
def test_a_refined_plan_goes_a_known_part_of_the_way(steps, share):
    """The observation changes from -0.2 to 0.2; the shares are those of RTI-DP's lists of DDPM steps."""
    executor, slots = warm(known("ddpm"), steps), range(256)
    executor.reset(slots, slots)
    before = executor.act(slots, observe(*[-0.2] * 256)).mean().item()
    after = executor.act(slots, observe(*[0.2] * 256)).mean().item()
    assert before == pytest.approx(-0.2, abs=0.01)
    assert closed(steps - 1, 0.2, -0.2) == pytest.approx(share, abs=0.01)
    assert (after - before) / (0.2 - before) == pytest.approx(closed(steps - 1, 0.2, -0.2), abs=0.03)


def test_an_episode_begins_as_the_policy_would_and_is_told_apart_from_others():
    policy = known()
    both, plain = warm(policy), RecedingHorizon(policy, 1)
    for executor in (both, plain):
        executor.reset([0, 1], [5, 6])
    assert torch.equal(both.act([0, 1], observe(0.0, 0.3)), plain.act([0, 1], observe(0.0, 0.3)))
    alone = warm(policy)
    alone.reset([1], [6])
    alone.act([1], observe(0.3))
    both.reset([0], [9])
    plain.reset([0], [9])
    found = both.act([0, 1], observe(0.1, 0.4))
    assert torch.equal(found[0], plain.act([0], observe(0.1))[0])
    assert torch.equal(found[1], alone.act([1], observe(0.4))[0])
    assert not torch.equal(found[1], plain.act([1], observe(0.4))[0])


@pytest.mark.parametrize(("n_action_steps", "latency", "passed"), [(1, 0, 1), (3, 0, 3), (1, 2, 2), (3, 2, 3)])
def test_the_last_plan_is_shifted_by_the_steps_that_have_passed(n_action_steps, latency, passed):
    executor = warm(known(), 2, False, n_action_steps, latency)
    seen = spied(executor)
    executor.reset([0], [0])
    for _ in range(20):
        executor.act([0], observe(0.1))
    assert len(seen) >= 5
    for (_, before), (old, _) in pairwise(seen[1:]):
        assert torch.equal(old.shifted()[:-passed], before[passed:])
        assert torch.equal(old.shifted()[-passed:], before[-1:].expand(passed, -1))


def test_a_plan_that_has_run_out_is_not_refined():
    policy = known()
    executor, plain = warm(policy, n_action_steps=7), RecedingHorizon(policy, 7)
    seen = spied(executor)
    for one in (executor, plain):
        one.reset([0], [0])
    for _ in range(15):
        assert torch.equal(executor.act([0], observe(0.1)), plain.act([0], observe(0.1)))
    assert [old for old, _ in seen] == [None] * 3


def test_more_steps_than_the_sampler_has_are_refused():
    warm(known(steps=5), 5)
    with pytest.raises(ConfigError, match=r"the last 6 steps cannot be walked: .* walks 5"):
        warm(known(steps=5), 6)


def test_more_steps_follow_faster_and_none_is_noised_unless_asked_to():
    ways = []
    for steps in (1, 3, 6):
        executor = warm(known(), steps)
        executor.reset([0], [0])
        before = executor.act([0], observe(-0.2))
        ways.append((executor.act([0], observe(0.2)) - before).mean().item())
    assert 0 < ways[0] < ways[1] < ways[2]
    first, second = (warm(known(), 3, renoise) for renoise in (False, True))
    found = []
    for executor in (first, second):
        executor.reset([0], [0])
        executor.act([0], observe(0.0))
        found.append(executor.act([0], observe(0.0)))
    assert not torch.equal(*found)
