"""Surrogates: their values, where they have a gradient and where none, and that each begins as the policy gradient."""

import pytest
import torch

from robopol.algos.surrogates import AsymmetricConfig, ClipConfig, DiscoveredConfig, SimpleConfig, UnclippedConfig

ALL = {
    "clip": ClipConfig(),
    "dual": ClipConfig(dual=3.0),
    "simple": SimpleConfig(),
    "asymmetric": AsymmetricConfig(),
    "discovered": DiscoveredConfig(),
    "unclipped": UnclippedConfig(),
}


def objective(surrogate, ratio, advantage, share=None):
    """Return J and dJ/dr."""
    ratio = torch.as_tensor(ratio, dtype=torch.float64).clone().requires_grad_(True)
    found = surrogate.objective(ratio.log(), torch.as_tensor(advantage, dtype=torch.float64), share)
    (slope,) = torch.autograd.grad(found.sum(), ratio)
    return found.detach(), slope


@pytest.mark.parametrize("name", ALL)
def test_at_ratio_one_it_is_the_policy_gradient(name):
    advantage = torch.tensor([-3.0, -0.2, 0.0, 0.5, 4.0])
    found, slope = objective(ALL[name], torch.ones(5), advantage)
    torch.testing.assert_close(found, advantage.double())
    torch.testing.assert_close(slope, advantage.double())


def test_the_clip_has_no_gradient_exactly_where_it_has_done_enough():
    ratio = torch.tensor([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0])
    for advantage in (2.0, -2.0):
        _, slope = objective(ALL["clip"], ratio, torch.full((7,), advantage))
        done = ratio > 1.2 if advantage > 0 else ratio < 0.8
        assert torch.equal(slope == 0, done)
        assert (slope[~done] == advantage).all()
    found, slope = objective(ALL["dual"], [5.0], [-2.0])
    assert found.item() == pytest.approx(-6)  # c A
    assert slope.item() == 0


def test_the_asymmetric_one_lets_the_good_go_and_pulls_the_bad_back():
    ratio, shares = torch.tensor([[0.5, 0.75], [1.0, 1.1], [1.3, 2.0]]), torch.tensor([1.0, 0.5])
    for sign, other in ((1.5, "clip"), (-1.5, "simple")):
        advantage = torch.full((3, 2), sign)
        for mine, theirs in zip(
            objective(ALL["asymmetric"], ratio, advantage, shares),
            objective(ALL[other], ratio, advantage, shares),
            strict=True,
        ):
            assert torch.equal(mine, theirs)
    _, slope = objective(ALL["asymmetric"], [0.5, 1.5], [-1.0, 1.0])
    assert slope[0] > 0
    assert slope[1] == 0


@pytest.mark.parametrize("clip", [0.1, 0.2, 0.5])
def test_the_simple_surrogate_is_concave_with_its_top_at_the_range(clip):
    surrogate, ratio = SimpleConfig(clip=clip), torch.linspace(0.1, 3, 200, dtype=torch.float64)
    for advantage in (1.7, -0.4):
        top = 1 + clip * (1 if advantage > 0 else -1)
        _, slope = objective(surrogate, [top], [advantage])
        assert abs(slope.item()) < 1e-12
        found, slope = objective(surrogate, ratio, torch.full((200,), advantage))
        assert (found.diff(n=2) < 0).all()
        # outside the range it pulls back, where the clip does nothing
        assert (slope[ratio > top + 1e-9] < 0).all()
        assert (slope[ratio < top - 1e-9] > 0).all()
    wide, _ = objective(SimpleConfig(clip=1e9), ratio, torch.ones(200))
    torch.testing.assert_close(wide, ratio)


def test_one_weight_that_is_stepped_for_long_ends_at_the_top():
    """The clip lets a ratio run on that other samples push; the simple surrogate holds it (here: Adam's momentum)."""
    ends = {}
    for name in ("clip", "simple"):
        weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([weight], 0.05)
        for _ in range(150):
            adam.zero_grad()
            (-ALL[name].objective(weight, torch.ones(1, dtype=torch.float64), None)).sum().backward()
            adam.step()
        ends[name] = weight.exp().item()
    assert ends["simple"] == pytest.approx(1.2, abs=5e-3)
    assert ends["clip"] > 1.25


def test_the_drift_that_was_discovered():
    drift = DiscoveredConfig().drift
    ratio, advantage = torch.tensor([1.1, 1.3, 1.6, 0.9, 0.8]), torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    found = drift(ratio.log(), advantage)
    torch.testing.assert_close(found, torch.tensor([1e-4, 0.0022, 0.0174, 0.0011, 0.0097]), atol=6e-5, rtol=0)
    grid = torch.linspace(-2, 2, 101)
    assert (drift(grid, torch.randn(101, generator=torch.Generator().manual_seed(0))) >= 0).all()
    loose = DiscoveredConfig(positive=1e9, negative=1e9)
    torch.testing.assert_close(loose.drift(grid.double(), torch.ones(101).double()), torch.zeros(101).double())
    tight = DiscoveredConfig(positive=1e-9)
    found = tight.objective(grid.double(), torch.ones(101).double(), None)
    torch.testing.assert_close(found, grid.double().exp().clamp(max=1))  # A > 0 gains nothing above ratio 1


@pytest.mark.parametrize("name", ["clip", "simple"])
def test_each_row_has_its_own_range(name):
    share = torch.tensor([1.0, 0.1, 0.5])
    ratio, advantage = torch.tensor([[1.15, 1.015, 1.09]]).expand(2, 3), torch.tensor([[1.0], [-1.0]]).expand(2, 3)
    found, _ = objective(ALL[name], ratio, advantage, share)
    for row, factor in enumerate(share.tolist()):
        alone = ALL[name].model_copy(update={"clip": 0.2 * factor})
        expected, _ = objective(alone, ratio[:, row], advantage[:, row])
        torch.testing.assert_close(found[:, row], expected)
    outside = ALL[name].outside(torch.tensor([[1.1, 1.1, 1.05]]), share)
    assert outside.tolist() == [[False, True, False]]


@pytest.mark.parametrize("name", ALL)
def test_its_derivative_is_autograds(name):
    log_ratio = torch.linspace(-12.3, 2, 57, dtype=torch.float64).repeat(2).requires_grad_(True)
    advantage = torch.tensor([1.5, -0.7], dtype=torch.float64).repeat_interleave(57)
    found = ALL[name].objective(log_ratio[:, None], advantage[:, None], None)[:, 0]
    (slope,) = torch.autograd.grad(found.sum(), log_ratio)
    mine, its = ALL[name].sloped(log_ratio.detach(), advantage)
    torch.testing.assert_close(mine, found.detach())
    torch.testing.assert_close(its, slope)
