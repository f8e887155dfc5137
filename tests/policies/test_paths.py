"""Paths, predictions and fields against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PATHS, Ring, oracle
from torch import Tensor

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.policies.field import Field
from robopol.policies.paths.discrete_vp import DiscreteVPConfig
from robopol.policies.paths.linear_vp import LinearVPConfig
from robopol.policies.paths.rectified_flow import RectifiedFlowConfig
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.prediction import PREDICTIONS, reading, target

KAPPAS = st.floats(0.06, 0.95)  # levels that every path has


def level_at(name: str, kappa: float):
    path = PATHS[name]
    return path.level(path.time_of(torch.tensor([kappa], dtype=torch.float64)))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@given(kappa=KAPPAS, seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_every_prediction_reads_back_what_it_was_made_of(name, prediction, kappa, seed):
    path, level = PATHS[name], level_at(name, kappa)
    x0, eps = torch.randn(2, 1, 4, 2, generator=torch.Generator().manual_seed(seed))
    x = (level.alpha * x0 + level.sigma * eps).float()
    read = reading(prediction, level, path).estimate(x, target(prediction, x0, eps, level, path))
    torch.testing.assert_close(read.x0, x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read.eps, eps, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predictions_read_back_at_all_levels_that_a_path_has(name, prediction):
    path = PATHS[name]
    low, high = path.kappa_range
    kappa = torch.logspace(-1.7, 1.7, 30, dtype=torch.float64)  # 0.02 to 50
    level = path.level(path.time_of(kappa[(kappa > 1.001 * low) & (kappa < high)]))
    x0, eps = torch.randn(2, len(level.kappa), 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = level.alpha[:, None, None] * x0 + level.sigma[:, None, None] * eps
    read = reading(prediction, level, path).estimate(x, target(prediction, x0, eps, level, path))
    torch.testing.assert_close(read.x0, x0, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(read.eps, eps, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_levels_derivatives_and_times_agree(name):
    path = PATHS[name]
    # inside an interval of a table, where the interpolated level is smooth
    share = torch.tensor([0.003, 0.0744, 0.5022, 0.9863], dtype=torch.float64)
    t = path.ends[1] + (path.ends[0] - path.ends[1]) * share
    level, h = path.level(t), 1e-5
    after, before = path.level(t + h), path.level(t - h)
    torch.testing.assert_close(level.d_alpha, (after.alpha - before.alpha) / (2 * h), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(level.d_sigma, (after.sigma - before.sigma) / (2 * h), atol=1e-6, rtol=1e-4)
    toward_noise = path.ends[0] > path.ends[1]
    assert ((level.wronskian > 0) == toward_noise).all()
    torch.testing.assert_close(path.time_of(level.kappa), t, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", PATHS)
def test_training_times_lie_on_the_path(name):
    path = PATHS[name]
    t = path.draw_time(10_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    kappa, (low, high) = path.level(t).kappa, path.kappa_range
    assert t.dtype == torch.float32
    assert low * 0.999 <= kappa.min()
    assert kappa.max() <= high * 1.001
    assert kappa.std() > 0


DRAWN = PATHS | {
    "flow-beta": RectifiedFlowConfig(time_law="beta").build(),
    "flow-beta-noise-at-0": RectifiedFlowConfig(time_law="beta", noise_at=0).build(),
    "sde-from-0": LinearVPConfig(time_min=0).build(),
    "log_normal": VarianceExplodingConfig(time_law="log_normal").build(),
}
ENDS = [0.0, 2.0**-33, 2.0**-24, 1 - 2.0**-24]  # a GPU draws smaller ones than a CPU, and both draw 0


@pytest.mark.parametrize("u", ENDS)
@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_whatever_time_is_drawn_the_loss_and_its_gradient_are_finite(name, prediction, u, monkeypatch):
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return self.scale * x

    def rand(*size: int, dtype: torch.dtype = torch.float32, **_: object) -> Tensor:
        return torch.full(size, u, dtype=dtype)

    x0, field = torch.linspace(-1, 1, 24).reshape(3, 4, 2), Field(Scaled(), DRAWN[name], prediction)
    monkeypatch.setattr(torch, "rand", rand)
    loss = field.loss(x0, torch.zeros(3, 1, 1), torch.Generator().manual_seed(0))
    loss.mean().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert field.net.scale.grad.isfinite()


@pytest.mark.parametrize("name", ["cosine", "flow", "flow-noise-at-0", "sde-from-0"])
def test_times_that_are_not_at_the_very_ends_are_as_they_were_drawn(name):
    path = DRAWN[name]
    found = path.draw_time(1000, torch.Generator().manual_seed(3), torch.device("cpu"))
    u = torch.rand(1000, generator=torch.Generator().manual_seed(3))
    assert torch.equal(found, u if path.ends[0] == 1 else 1 - u)


def test_squaredcos_table():
    level = PATHS["vp"].level(torch.tensor([0.0, 10.0, 50.0, 84.0, 90.0, 99.0]))
    published = torch.tensor([0.99937, 0.9667, 0.4783, 0.0537, 0.01954, 2.43e-7]).double()
    torch.testing.assert_close(level.alpha**2, published, rtol=2e-3, atol=1e-9)
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones(6).double())


def test_a_chain_that_does_not_end_in_noise_is_refused():
    with pytest.raises(ConfigError, match="is not noise"):
        DiscreteVPConfig(schedule="linear").build()
    with pytest.raises(
        ConfigError, match=r"from 0.1 to 8 ends at sigma/alpha = 7.51, which is not noise.* raise beta_"
    ):
        LinearVPConfig(beta_max=8.0).build()
    assert LinearVPConfig(beta_max=12.0).build().kappa_range[1] > 20


def test_a_path_without_a_range_of_noise_is_refused():
    with pytest.raises(ConfigError, match=r"sigma_min=2.0 must be below sigma_max=1.0"):
        parse(VarianceExplodingConfig, {"sigma_min": 2.0})


def test_beta_times_have_the_published_mean():
    path = RectifiedFlowConfig(time_law="beta").build()
    times = path.draw_time(200_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert times.mean().item() == pytest.approx(0.6 * 0.999 + 0.001, abs=2e-3)
    assert times.min() > 0
    assert times.max() <= 1


@pytest.mark.parametrize(("law", "median"), [("log_logistic", 0.5), ("log_normal", 0.3012)])
def test_training_noise_has_the_published_median(law, median):
    path = VarianceExplodingConfig(sigma_min=1e-4, sigma_max=80.0, time_law=law).build()
    sigma = path.draw_time(200_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert sigma.median().item() == pytest.approx(median, rel=0.02)


@pytest.mark.parametrize("spacing", ["linear", "exponential", "karras"])
@pytest.mark.parametrize("name", PATHS)
def test_grids_in_kappa_end_where_the_path_does(name, spacing):
    path = PATHS[name]
    kappa = path.level(path.grid(7, spacing)).kappa
    assert (kappa[1:] < kappa[:-1]).all()
    assert kappa[0].item() == pytest.approx(min(80, path.kappa_range[1]), rel=1e-6)
    assert kappa[-1].item() == pytest.approx(max(0.02, path.kappa_range[0]), rel=1e-6)


def test_karras_grid_is_the_published_one():
    kappa = PATHS["edm"].grid(3, "karras")
    middle = ((80 ** (1 / 7) + 0.02 ** (1 / 7)) / 2) ** 7
    torch.testing.assert_close(kappa, torch.tensor([80, middle, 0.02], dtype=torch.float64))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_field_recovers_the_known_score(name, prediction):
    ring, path = Ring(), PATHS[name]
    t = path.time_of(torch.tensor([0.4], dtype=torch.float64))
    level = path.level(t)
    x = (torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).double() * level.alpha).requires_grad_()
    score = torch.autograd.grad(ring.log_density(x, level.alpha, level.sigma).sum(), x)[0]
    found = oracle(path, prediction)(x[:, None].detach(), t.expand(64), torch.zeros(64, 1, 1))
    torch.testing.assert_close(-found.eps[:, 0] / level.sigma, score, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("mine", PATHS)
@pytest.mark.parametrize("other", PATHS)
@given(kappa=KAPPAS)
@settings(max_examples=5)
def test_fields_of_any_two_paths_agree_at_a_matched_noise_level(mine, other, kappa):
    own, there = level_at(mine, kappa), level_at(other, kappa)
    y = torch.randn(8, 1, 2, generator=torch.Generator().manual_seed(1)).double()
    cond = torch.zeros(8, 1, 1)
    rows = type(there)(*(value.expand(8) for value in there))
    found = oracle(PATHS[mine], "edm").at(y * there.alpha, rows, cond)
    direct = oracle(PATHS[mine], "edm").at(y * own.alpha, type(own)(*(value.expand(8) for value in own)), cond)
    torch.testing.assert_close(found.x0, direct.x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.eps, direct.eps, atol=1e-4, rtol=1e-4)
    # the same clean sample and noise make up the state in its own frame
    torch.testing.assert_close(there.alpha * found.x0 + there.sigma * found.eps, y * there.alpha, atol=1e-5, rtol=1e-5)


def test_a_field_is_not_asked_beyond_its_noise():
    level = PATHS["vp"].level(torch.tensor([99.0]))
    with pytest.raises(ConfigError, match=r"trained for sigma/alpha in \[0.05, 1\] is asked at 2.03e\+03"):
        oracle(PATHS["beso"], "edm").at(torch.zeros(1, 1, 2), level, torch.zeros(1, 1, 1))


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ConfigError, match="unknown prediction 'noise'; known: eps"):
        Field(torch.nn.Identity(), PATHS["vp"], "noise")


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_targets_stay_exact_near_pure_noise(prediction):
    """At the last index of the cosine chain alpha is 5e-4: differences of float32 samples would be lost."""
    path = PATHS["vp"]
    level = path.level(torch.tensor([99.0]))
    x0, eps = torch.rand(1, 4, 2), torch.randn(1, 4, 2)
    exact = target(prediction, x0.double(), eps.double(), level, path)
    torch.testing.assert_close(target(prediction, x0, eps, level, path).double(), exact, atol=1e-6, rtol=1e-6)
    if prediction == "eps":
        torch.testing.assert_close(exact, eps.double())


def test_the_edm_loss_is_the_weighted_denoising_loss():
    """|F - target|^2 = (sigma^2 + sd^2) / (sigma sd)^2 |D - x0|^2 (Karras et al. 2022, table 1)."""
    path = PATHS["edm"]
    level = path.level(torch.tensor([0.3, 2.0, 20.0]))
    x0, eps, output = torch.randn(3, 3, 4, 2).double()
    sigma = level.sigma.reshape(3, 1, 1)
    denoised = reading("edm", level, path).estimate(x0 + sigma * eps, output).x0
    weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    native = (output - target("edm", x0, eps, level, path)) ** 2
    torch.testing.assert_close(native, weight * (denoised - x0) ** 2)


def test_edm_with_unit_data_is_v_up_to_sign():
    path = PATHS["cosine"]
    level = path.level(torch.tensor([0.37]))
    x0, eps = torch.randn(2, 1, 4, 2).double()
    torch.testing.assert_close(target("edm", x0, eps, level, path), -target("v", x0, eps, level, path))


def test_mirrored_time_flips_the_velocity():
    one, other = PATHS["flow"], PATHS["flow-noise-at-0"]
    x0, eps = torch.randn(2, 5, 4, 2).double()
    s = torch.rand(5)
    velocity = target("velocity", x0, eps, one.level(s), one)
    torch.testing.assert_close(velocity, eps - x0)
    torch.testing.assert_close(target("velocity", x0, eps, other.level(1 - s.double()), other), -velocity)


def test_the_variance_of_the_edm_target_is_one():
    path = PATHS["edm"]
    x0 = 0.5 * torch.randn(100_000, 1, 1, generator=torch.Generator().manual_seed(0))
    eps = torch.randn(100_000, 1, 1, generator=torch.Generator().manual_seed(1))
    for sigma in (0.05, 0.5, 20.0):
        level = path.level(torch.full((100_000,), sigma))
        assert target("edm", x0, eps, level, path).std().item() == pytest.approx(1, abs=0.01)
        assert (path.input_scale(level)[0] * (x0 + sigma * eps).std()).item() == pytest.approx(1, abs=0.01)


def test_loss_is_the_error_of_the_networks_own_output():
    class Zero(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return torch.zeros_like(x)

    path = PATHS["flow"]
    x0 = torch.randn(6, 4, 2)
    found = Field(Zero(), path, "velocity").loss(x0, torch.zeros(6, 1, 1), torch.Generator().manual_seed(3))
    rng = torch.Generator().manual_seed(3)
    path.draw_time(6, rng, torch.device("cpu"))
    eps = torch.randn(6, 4, 2, generator=rng)
    torch.testing.assert_close(found, (eps - x0) ** 2)
