"""Guidance against closed forms: plans N(0, 0.5^2), a linear and a quadratic objective."""

import pytest
import torch
from policies.test_policies import POLICIES, make
from steering.known import LinearConfig, NearConfig, gaussian, observe

from robopol.errors import ConfigError
from robopol.steering import GuideConfig

STD = 0.5
FROM_NOISE = {
    "diffusion": {"sampler": {"kind": "ddim", "steps": 50, "spacing": "trailing", "clip": "never"}},
    "flow": {"sampler": {"kind": "euler", "steps": 50, "clip": "never"}},
}
"""Walks from pure noise: from a lower level on, what guides before it would be missing from the mean."""
KINDS = [("diffusion", "eps"), ("diffusion", "x0"), ("flow", "velocity"), ("flow", "x0")]


def sample(policy, rows=2000, seed=0):
    return policy.plan(observe(rows), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at", ["x0", "backprop"])
@pytest.mark.parametrize(("kind", "prediction"), KINDS)
def test_a_linear_objective_moves_the_mean_by_the_variance_times_its_slope(kind, prediction, at):
    """exp(w sum a) N(a; 0, s^2) is N(w s^2, s^2); both approximations are exact here."""
    policy = gaussian(kind, prediction=prediction, **FROM_NOISE[kind])
    found = sample(policy.steered(GuideConfig(objective=LinearConfig(), at=at)))
    assert found.mean().item() == pytest.approx(STD**2, abs=0.01)
    assert found.std().item() == pytest.approx(sample(policy).std().item(), abs=0.01)


@pytest.mark.parametrize(("kind", "prediction"), KINDS)
def test_the_same_guide_moves_every_prediction_alike(kind, prediction):
    guide = GuideConfig(objective=NearConfig(variance=0.5), at="x0", scale=0.7)
    reference = gaussian(kind, prediction="x0").steered(guide)
    assert torch.allclose(sample(gaussian(kind, prediction=prediction).steered(guide)), sample(reference), atol=1e-4)


def test_a_stiff_objective_overshoots_as_computed_by_hand():
    """The sheet's number for f = -(x - 1)^2 / (2 0.05): 1.114 +- 0.009 in 10 steps of DDIM, where 0.833 is exact."""
    policy = gaussian(sampler={"kind": "ddim", "steps": 10, "clip": "never"})
    found = sample(policy.steered(GuideConfig(objective=NearConfig(), at="backprop")))
    assert found.mean().item() == pytest.approx(1.114, abs=0.01)
    assert found.std().item() == pytest.approx(0.009, abs=0.005)


def test_at_the_noised_plan_the_gradient_is_that_of_the_plan_itself():
    """A linear objective has the same gradient everywhere, so score-space guidance moves eps by sigma alone."""
    policy = gaussian("flow", prediction="x0", sampler={"kind": "euler", "steps": 1000, "clip": "never"})
    guide = GuideConfig(objective=LinearConfig(slope=0.1), at="noisy", interval=(0.0, 0.5))
    # dx0 = sigma^2 / alpha g, and the mean of x0 follows dx/dt = (x - x0) / t
    mean = 0.0
    for i in range(1000):
        t = 1 - i / 1000
        alpha, sigma = 1 - t, t
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x0 = gain * mean + (0.1 * sigma**2 / alpha if alpha > 0 and sigma <= 0.5 else 0.0)
        mean += -1e-3 * (mean - x0) / t
    assert sample(policy.steered(guide), 4000).mean().item() == pytest.approx(mean, abs=0.01)


def test_a_cap_bounds_the_shift_at_every_action():
    policy = gaussian()
    steered = policy.steered(GuideConfig(objective=LinearConfig(slope=50.0), cap=0.02))
    sample(steered)
    found = steered.log.means()
    assert found["guide/capped"] > 0.5
    free = policy.steered(GuideConfig(objective=LinearConfig(slope=50.0)))
    assert sample(free).mean() > 10 * sample(steered).mean() > 0


@pytest.mark.parametrize("at", ["x0", "backprop", "noisy"])
@pytest.mark.parametrize(("kind", "prediction"), KINDS)
def test_the_strongest_guide_pulls_where_it_should_also_where_estimates_are_clipped(kind, prediction, at):
    """DDIM as published keeps the eps of the unclipped estimate, which pushes a strongly guided plan the wrong way."""
    sampler = {"kind": "ddim" if kind == "diffusion" else "euler", "steps": 10, "clip": "every"}
    policy, means = gaussian(kind, prediction=prediction, sampler=sampler), []
    for slope in (0.0, 1.0, 10.0, 1000.0):
        guide = GuideConfig(objective=LinearConfig(slope=slope), at=at)
        means.append(sample(policy.steered(guide), 500).mean().item())
    assert means == sorted(means)
    assert means[-1] == pytest.approx(1.0, abs=1e-3)


def test_outside_its_interval_a_guide_does_nothing():
    policy = gaussian()
    steered = policy.steered(GuideConfig(objective=LinearConfig(), interval=(0.0, 1e-4)))
    assert torch.equal(sample(steered), sample(policy))


def test_stronger_guides_score_higher():
    policy, means = gaussian(), []
    for scale in (0.0, 0.5, 1.0, 2.0):
        means.append(sample(policy.steered(GuideConfig(objective=NearConfig(variance=1.0), scale=scale))).mean().item())
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.2


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="way from noise to an action, and a gaussian policy has none"):
        make(POLICIES["gaussian"]).steered(GuideConfig(objective=LinearConfig()))
    with pytest.raises(ValueError, match=r"interval .* is empty"):
        GuideConfig(objective=LinearConfig(), interval=(0.5, 0.5))
    with pytest.raises(ValueError, match="space=eps"):
        GuideConfig(objective=LinearConfig(), space="eps")
