"""The energy-based flow: every identity it is built for, by quadrature, autograd and torch's own distributions."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from robopol.networks.energy_flow import EDGE, EnergyFlow

KINDS = [(1, "additive"), (1, "affine"), (3, "additive"), (3, "affine")]
ROWS = 4


def build(modes: int = 3, coupling: str = "affine", size: int = 2, pairs: int = 2, **changes: float) -> EnergyFlow:
    """Make a flow with random weights everywhere, in float64."""
    torch.manual_seed(0)
    settings = {"shift_hidden": (8,), "log_std": (-2.0, -1.0), "box": 1.0, "alpha": 0.25} | changes
    flow = EnergyFlow(size, 3, modes=modes, coupling=coupling, pairs=pairs, hidden=(16, 16), **settings).double()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for net in (flow.prior, *flow.shifts, *(coupling.net for coupling in flow.couplings)):
            net[-1].weight.copy_(0.2 * torch.randn(net[-1].weight.shape, generator=rng))
            net[-1].bias.copy_(0.2 * torch.randn(net[-1].bias.shape, generator=rng))
    return flow


def conditions(rows: int = ROWS) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def grid(size: int, points: int = 200, box: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return actions (N, size) that fill the box, and the logarithm of the volume that each stands for (N,)."""
    u = torch.linspace(-5, 5, points, dtype=torch.float64)
    mesh = torch.stack(torch.meshgrid(*[u] * size, indexing="ij"), -1).reshape(-1, size)
    cell = (box * (1 - mesh.tanh() ** 2)).log().sum(-1) + size * (u[1] - u[0]).log()
    return box * mesh.tanh(), cell


@pytest.mark.parametrize(("modes", "coupling"), KINDS)
@pytest.mark.parametrize("size", [1, 2])
def test_v_is_the_soft_maximum_of_q(modes, coupling, size):
    """V = alpha log int exp(Q / alpha) da, for both heads."""
    flow, cond = build(modes, coupling, size, box=1.2), conditions()
    actions, cell = grid(size, box=1.2)
    q = flow.q(cond[:, None], actions.expand(ROWS, -1, -1))
    assert q.shape == (2, ROWS, len(actions))
    soft = flow.alpha * torch.logsumexp(q / flow.alpha + cell, -1)
    torch.testing.assert_close(soft, flow.v(cond), atol=1e-6, rtol=0)
    assert (q[0] - q[1]).abs().min() > 1e-3, "the heads differ"


@pytest.mark.parametrize(("modes", "coupling"), KINDS)
def test_the_policy_is_the_exponential_of_the_advantage(modes, coupling):
    flow, cond = build(modes, coupling), conditions()
    action = 0.9 * torch.rand(ROWS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_prob = flow.log_prob(cond, action)
    torch.testing.assert_close((flow.q(cond, action) - flow.v(cond)) / flow.alpha, log_prob.expand(2, -1))


@pytest.mark.parametrize(("modes", "coupling"), KINDS)
def test_samples_come_back_with_the_density_they_were_drawn_with(modes, coupling):
    flow, cond = build(modes, coupling, size=5), conditions()
    action, log_prob = flow.sample(cond[:, None], noise(ROWS, 40, 6))
    assert action.shape == (ROWS, 40, 5)
    inside = (action.abs() < 0.999).all(-1)
    assert inside.double().mean() > 0.5
    torch.testing.assert_close(flow.log_prob(cond[:, None], action)[inside], log_prob[inside])


@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_log_det_is_that_of_autograds_jacobian(coupling):
    """With one Gaussian, log pi(a) = log N(noise) - log |det d a / d noise|, times sigma^D inside the Jacobian."""
    flow, cond = build(1, coupling, size=4), conditions(1)[0]
    start = 0.5 * noise(5)
    jacobian = torch.autograd.functional.jacobian(
        lambda rest: flow.sample(cond, torch.cat([start[:1], rest]))[0], start[1:]
    )
    expected = td.Normal(0, 1).log_prob(start[1:]).sum() - jacobian.slogdet().logabsdet
    torch.testing.assert_close(flow.sample(cond, start)[1], expected)


@pytest.mark.parametrize("coupling", ["additive", "affine"])
@pytest.mark.parametrize("size", [2, 5])
def test_couplings_undo_themselves(coupling, size):
    flow, cond = build(1, coupling, size), conditions()
    x = noise(ROWS, size)
    for part in flow.couplings:
        there, change = part(x, cond, flow.free)
        back, undone = part(there, cond, flow.free, inverse=True)
        assert (there - x).abs().max() > 0.01
        torch.testing.assert_close(back, x)
        torch.testing.assert_close(change, -undone)
        assert (coupling == "affine") == bool(change.abs().max() > 0)


@pytest.mark.parametrize("modes", [1, 3])
def test_without_couplings_it_is_torchs_squashed_mixture(modes):
    flow, cond = build(modes, pairs=0, box=1.3), conditions()
    log_weights, centres, log_std = (part.detach() for part in flow._prior(cond))
    gaussians = td.Independent(td.Normal(centres, log_std.exp()[:, None]), 1)
    mixture = td.MixtureSameFamily(td.Categorical(logits=log_weights), gaussians)
    u = noise(ROWS, 2)
    slope = td.TanhTransform().log_abs_det_jacobian(u, u.tanh()).sum(-1) + 2 * math.log(1.3)
    torch.testing.assert_close(flow.log_prob(cond, 1.3 * u.tanh()), mixture.log_prob(u) - slope)


@pytest.mark.parametrize(("modes", "coupling"), KINDS)
def test_samples_are_spread_as_the_density_says(modes, coupling):
    """Shares of samples in the squares of a coarse grid beside the density integrated over them."""
    flow, cond = build(modes, coupling), conditions(1)
    drawn = flow.sample(cond, noise(40_000, 3))[0].detach()
    middles = (torch.arange(240, dtype=torch.float64) + 0.5) / 120 - 1
    density = flow.log_prob(cond, torch.cartesian_prod(middles, middles)).exp().detach().view(8, 30, 8, 30)
    mass = density.sum((1, 3)) / 120**2
    square = ((drawn + 1) * 4).long().clamp(0, 7)
    shares = torch.bincount(square[:, 0] * 8 + square[:, 1], minlength=64).view(8, 8) / len(drawn)
    assert (shares > 0).sum() > 5
    torch.testing.assert_close(shares.double(), mass, atol=0.01, rtol=0)


def peaks(flow: EnergyFlow, cond: Tensor) -> int:
    """Count the local maxima of the density of u = artanh(a) on a grid."""
    actions, cell = grid(2, 160)
    density = (flow.log_prob(cond, actions) + cell).detach().view(1, 160, 160)
    density = density.clamp_min(density.max() - 30)[None]
    highest = torch.nn.functional.max_pool2d(density, 3, stride=1, padding=1) == density
    return int((highest & (density > density.min()))[0, 0, 1:-1, 1:-1].sum())


def test_released_flow_has_one_peak_and_a_mixture_has_several():
    released, mixture = build(1, "additive"), build(3, "additive")
    assert peaks(released, conditions(1)) == 1
    mixture.start_at(torch.tensor([[-0.9, 0.0], [0.9, 0.0], [0.0, 0.95]]), torch.ones(2, dtype=torch.bool))
    assert peaks(mixture, 0 * conditions(1)) == 3


def test_shifts_move_q_and_v_and_leave_the_policy_alone():
    flow, cond = build(), conditions()
    action, log_prob = flow.sample(cond, noise(ROWS, 3))
    q, v = flow.q(cond, action), flow.v(cond)
    with torch.no_grad():
        flow.shifts[0][-1].bias += 2.0
    moved = torch.tensor([2.0 * flow.alpha, 0.0], dtype=torch.float64)[:, None].expand(-1, ROWS)
    torch.testing.assert_close(flow.q(cond, action) - q, moved)
    torch.testing.assert_close(flow.v(cond) - v, moved)
    again, same = flow.sample(cond, noise(ROWS, 3))
    assert torch.equal(again, action)
    assert torch.equal(same, log_prob)


def test_a_row_depends_on_itself_alone():
    flow, cond, drawn = build(), conditions(), noise(ROWS, 3)
    action, log_prob = flow.sample(cond, drawn)
    order = torch.tensor([3, 0, 1, 2])
    for whole, part in (
        (action, flow.sample(cond[order], drawn[order])[0]),
        (log_prob, flow.sample(cond[order], drawn[order])[1]),
        (flow.q(cond, action).T, flow.q(cond[order], action[order]).T),
        (flow.v(cond).T, flow.v(cond[order]).T),
        (flow.mode(cond), flow.mode(cond[order])),
    ):
        torch.testing.assert_close(part, whole[order])
    doubled = flow.q(torch.cat([cond, cond]), torch.cat([action, action]))
    torch.testing.assert_close(doubled, flow.q(cond, action).repeat(1, 2))


def test_the_first_noise_chooses_a_gaussian_by_its_weight_and_the_rest_spreads_it():
    flow, cond = build(3, pairs=0), conditions(1)
    prior = flow._prior(cond)
    weights, centres = prior[0][0].exp(), prior[1][0].tanh()
    drawn = torch.cat([noise(4000, 1), torch.zeros(4000, 2, dtype=torch.float64)], -1)
    distance = torch.cdist(flow.sample(cond, drawn)[0], centres)
    assert distance.amin(-1).max() < 1e-9
    shares = torch.bincount(distance.argmin(-1), minlength=3) / 4000
    torch.testing.assert_close(shares.double(), weights, atol=0.03, rtol=0)
    torch.testing.assert_close(flow.mode(cond)[0], centres[weights.argmax()])


def test_the_last_gaussian_is_drawn_however_large_the_noise():
    flow, cond = build(3, pairs=0), conditions(1)
    extreme = torch.tensor([[40.0, 0, 0], [-40.0, 0, 0]], dtype=torch.float64)
    centres = flow._prior(cond)[1][0].tanh()
    torch.testing.assert_close(flow.sample(cond, extreme)[0], centres[[2, 0]])


def test_entries_that_do_not_vary_are_no_part_of_the_density():
    flow, cond = build(size=3), conditions()
    flow.start_at(torch.zeros(3, 3), torch.tensor([True, False, True]))
    action = flow.sample(cond, noise(ROWS, 4))[0]
    assert (action[:, 1] == 0).all()
    assert (action[:, [0, 2]] != 0).all()
    elsewhere = action + torch.tensor([0.0, 0.3, 0.0])
    torch.testing.assert_close(flow.log_prob(cond, elsewhere), flow.log_prob(cond, action))
    pairs, cell = grid(2)
    inside = torch.stack([pairs[:, 0], torch.zeros(len(pairs)), pairs[:, 1]], -1)
    mass = (flow.log_prob(cond[:, None], inside.expand(ROWS, -1, -1)) + cell).exp().sum(-1)
    torch.testing.assert_close(mass, torch.ones(ROWS, dtype=torch.float64), atol=1e-6, rtol=0)


def test_actions_on_the_edge_have_a_finite_density_and_gradient():
    flow, cond = build().float(), conditions().float()
    edge = torch.tensor([[1.0, -1.0]]).repeat(ROWS, 1)
    log_prob = flow.log_prob(cond, edge)
    torch.testing.assert_close(log_prob, flow.log_prob(cond, edge * (1 - EDGE)))
    log_prob.sum().backward()
    assert all(p.grad.isfinite().all() for p in flow.prior.parameters())
    far = torch.full((ROWS, 3), 30.0)  # far beyond where tanh is 1 in float32
    assert flow.sample(cond, far)[1].isfinite().all()


def test_everything_is_learned_from_q_and_all_but_the_shifts_from_the_density():
    flow, cond = build(), conditions()
    action = 0.5 * noise(ROWS, 2).tanh()
    flow.q(cond, action).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.parameters())
    flow.zero_grad()
    flow.log_prob(cond, action).sum().backward()
    reached = {name for name, p in flow.named_parameters() if p.grad is not None}
    assert reached == {name for name, _ in flow.named_parameters() if not name.startswith("shifts")}


def test_it_begins_as_the_mixture_it_is_started_at():
    flow = EnergyFlow(
        2,
        3,
        modes=2,
        coupling="affine",
        pairs=2,
        hidden=(8,),
        shift_hidden=(8,),
        log_std=(-5, -0.3),
        box=1.1,
        alpha=1.0,
    )
    centres = torch.tensor([[-1.0, 0.5], [1.0, -0.5]])
    flow.start_at(centres, torch.ones(2, dtype=torch.bool))
    cond = conditions().float()
    torch.testing.assert_close(flow.sample(cond[:1], torch.tensor([[-9.0, 0, 0], [9.0, 0, 0]]))[0], centres)
    assert (flow.v(cond) == flow.v(cond)[0, 0]).all()


def test_nets_in_bfloat16_leave_the_density_in_float32():
    flow, cond = build(log_std=(-1.0, 0.0)).float(), conditions().float()
    action = 0.8 * noise(ROWS, 2).float().tanh()
    whole = flow.log_prob(cond, action), flow.q(cond, action), flow.v(cond)
    with torch.autocast("cpu", torch.bfloat16):
        rough = flow.log_prob(cond, action), flow.q(cond, action), flow.v(cond)
    for fine, coarse in zip(whole, rough, strict=True):
        assert coarse.dtype == torch.float32
        torch.testing.assert_close(coarse, fine, atol=0.1, rtol=0)
    torch.testing.assert_close(rough[1] - rough[2], flow.alpha * rough[0].expand(2, -1))
