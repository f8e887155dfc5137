"""Conversions, paths and samplers against closed forms and against diffusers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robopol.errors import ConfigError
from robopol.policies.field import Field
from robopol.policies.path import DiscreteVP, Path, RectifiedFlow
from robopol.policies.prediction import PREDICTIONS
from robopol.policies.sampler import DDIMConfig, DDPMConfig, EulerConfig, Sampler, Step

PATHS: dict[str, Path] = {
    "vp": DiscreteVP(100, "squaredcos_cap_v2"),
    "flow": RectifiedFlow("uniform"),
}


class Ring:
    """Eight equal Gaussians on a ring, whose denoiser is known in closed form."""

    def __init__(self, radius: float = 0.8, std: float = 0.05) -> None:
        angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
        self.means = radius * torch.stack([angles.cos(), angles.sin()], -1)
        self.std = std

    def x0(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for x (B, 2)."""
        x = x.double()
        var = (alpha * self.std) ** 2 + sigma**2
        log_weight = -((x[:, None] - alpha * self.means) ** 2).sum(-1) / (2 * var)
        gain = alpha * self.std**2 / var
        posterior = self.means + gain * (x[:, None] - alpha * self.means)
        return (log_weight.softmax(-1)[..., None] * posterior).sum(1)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        var = (alpha * self.std) ** 2 + sigma**2
        return torch.logsumexp(-((x[:, None] - alpha * self.means) ** 2).sum(-1) / (2 * var), -1)

    def hits(self, x: Tensor) -> tuple[float, float]:
        """Share within 3 std of a mode, and rms distance per axis to the nearest mode."""
        distance = (x.double()[:, None] - self.means).norm(dim=-1).min(-1).values
        return (distance < 3 * self.std).double().mean().item(), (distance**2 / 2).mean().sqrt().item()


class Oracle(nn.Module):
    """A network that says exactly what a perfectly trained one would."""

    def __init__(self, ring: Ring, path: Path, prediction: str) -> None:
        super().__init__()
        self.ring, self.path, self.prediction = ring, path, prediction

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        level = self.path.level(t[:1])
        flat = x[:, 0]
        x0 = self.ring.x0(flat, level.alpha, level.sigma)
        eps = (flat.double() - level.alpha * x0) / level.sigma
        return PREDICTIONS[self.prediction].target(x0, eps, level).to(x.dtype)[:, None]


def walk(sampler: Sampler, path: Path, prediction: str, count: int = 8000, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    field = Field(Oracle(Ring(), path, prediction), path, prediction)

    def draw() -> Tensor:
        return torch.randn(count, 1, 2, generator=rng)

    return sampler.sample(field, draw(), torch.zeros(count, 1, 1), draw)[:, 0]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("prediction", ["eps", "x0", "velocity", "score"])
@given(share=st.floats(0.02, 0.97), seed=st.integers(0, 1000))
def test_every_prediction_reads_back_what_it_was_made_of(name, prediction, share, seed):
    path = PATHS[name]
    t = torch.tensor([share * (99 if name == "vp" else 1)])
    rng = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, 1, 4, 2, generator=rng).double()
    level = path.level(t).like(x0)
    x = level.alpha * x0 + level.sigma * eps
    read = PREDICTIONS[prediction].read(PREDICTIONS[prediction].target(x0, eps, level), x, level)
    torch.testing.assert_close(read.x0, x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read.eps, eps, atol=1e-5, rtol=1e-5)


def test_v_is_its_own_inverse_on_a_variance_preserving_path():
    level = PATHS["vp"].level(torch.tensor([40.0]))
    x0, eps = torch.randn(2, 3, 4, 2).double()
    x = level.alpha * x0 + level.sigma * eps
    read = PREDICTIONS["v"].read(PREDICTIONS["v"].target(x0, eps, level), x, level)
    torch.testing.assert_close(read.x0, x0)
    torch.testing.assert_close(read.eps, eps)


@pytest.mark.parametrize("name", PATHS)
def test_levels_derivatives_and_times_agree(name):
    path = PATHS[name]
    # inside an interval of the table, where the interpolated level is smooth
    t = torch.tensor([0.3, 7.4, 50.2, 98.6]) / (1 if name == "vp" else 100)
    level, h = path.level(t), 1e-4
    after, before = path.level(t.double() + h), path.level(t.double() - h)
    torch.testing.assert_close(level.d_alpha, (after.alpha - before.alpha) / (2 * h), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(level.d_sigma, (after.sigma - before.sigma) / (2 * h), atol=1e-6, rtol=1e-4)
    assert (level.wronskian > 0).all()
    torch.testing.assert_close(path.time_of(level.kappa), t.double(), atol=1e-5, rtol=1e-5)


def test_squaredcos_table():
    level = PATHS["vp"].level(torch.tensor([0.0, 10.0, 50.0, 84.0, 90.0, 99.0]))
    published = torch.tensor([0.99937, 0.9667, 0.4783, 0.0537, 0.01954, 2.43e-7]).double()
    torch.testing.assert_close(level.alpha**2, published, rtol=2e-3, atol=1e-9)
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones(6).double())


def test_a_chain_that_does_not_end_in_noise_is_refused():
    with pytest.raises(ConfigError, match="is not noise"):
        DiscreteVP(100, "linear")
    DiscreteVP(1000, "linear")


@pytest.mark.parametrize("name", PATHS)
def test_oracle_score_is_the_gradient_of_the_log_density(name):
    ring, path = Ring(), PATHS[name]
    level = path.level(torch.tensor([30.0 if name == "vp" else 0.4]))
    x = torch.randn(64, 2).double().requires_grad_()
    score = torch.autograd.grad(ring.log_density(x, level.alpha, level.sigma).sum(), x)[0]
    eps = (x - level.alpha * ring.x0(x, level.alpha, level.sigma)) / level.sigma
    torch.testing.assert_close(-eps / level.sigma, score, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "name", "prediction", "hit", "rms"),
    [
        (DDPMConfig(), "vp", "eps", (0.99, 1.0), (0.03, 0.05)),
        (DDPMConfig(), "vp", "x0", (0.99, 1.0), (0.03, 0.05)),
        (DDPMConfig(), "vp", "v", (0.99, 1.0), (0.03, 0.05)),
        (DDIMConfig(steps=10), "vp", "eps", (0.74, 0.84), (0.07, 0.095)),
        (DDIMConfig(steps=16, spacing="trailing"), "vp", "eps", (0.90, 0.96), (0.045, 0.06)),
        (DDIMConfig(steps=100, eta=1.0, eps_from_clipped=True), "vp", "eps", (0.99, 1.0), (0.03, 0.05)),
        (EulerConfig(steps=1), "flow", "velocity", (0.0, 0.01), (0.4, 0.7)),
        (EulerConfig(steps=5), "flow", "velocity", (0.47, 0.57), (0.11, 0.15)),
        (EulerConfig(steps=10), "flow", "velocity", (0.88, 0.94), (0.05, 0.07)),
        (EulerConfig(steps=50), "flow", "velocity", (0.98, 1.0), (0.04, 0.055)),
    ],
)
def test_samplers_reproduce_the_oracle_table(config, name, prediction, hit, rms):
    # the rows of the closed-form toy: hit rate within 3 std, residual per axis, all modes used alike
    samples = walk(config.build(), PATHS[name], prediction)
    found_hit, found_rms = Ring().hits(samples)
    assert hit[0] <= found_hit <= hit[1]
    assert rms[0] <= found_rms <= rms[1]
    if config.steps != 1:
        mode = (samples.double()[:, None] - Ring().means).norm(dim=-1).argmin(-1)
        usage = torch.bincount(mode, minlength=8) / len(mode)
        assert (usage - 1 / 8).abs().sum() / 2 < 0.025


def test_one_euler_step_lands_on_the_mean():
    samples = walk(EulerConfig(steps=1).build(), PATHS["flow"], "velocity", count=100)
    assert samples.abs().max() < 1e-5  # the ring's mean is the origin


def test_ddim_on_either_path_walks_the_same_trajectory():
    """Same kappa grid, same canonical start: y = x / alpha must agree whatever the path."""
    vp, flow = PATHS["vp"], PATHS["flow"]
    kappas = torch.tensor([20.0, 5.0, 1.0, 0.3, 0.1]).double()
    start = torch.randn(16, 1, 2, generator=torch.Generator().manual_seed(3)).double()
    ends = []
    for path in (vp, flow):
        sampler = DDIMConfig(steps=5, clip_sample=False).build()
        grid = path.time_of(kappas)
        path_grid = path.grid
        try:
            path.grid = lambda steps, spacing, grid=grid: grid  # type: ignore[method-assign]
            field = Field(Oracle(Ring(), path, "eps"), path, "eps")
            alpha = path.level(grid[0]).alpha
            ends.append(sampler.sample(field, start * kappas[0] * alpha, torch.zeros(16, 1, 1), lambda: start))
        finally:
            path.grid = path_grid  # type: ignore[method-assign]
    torch.testing.assert_close(ends[0], ends[1], atol=1e-5, rtol=1e-5)


class Linear(nn.Module):
    """Some network, in float64 so that only the formulas differ."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return 0.9 * x + 0.05 * torch.sin(5 * x + t[:, None, None])


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "ddim-consistent", "ddim-eta"])
@pytest.mark.parametrize("steps", [100, 10, 8])
def test_samplers_equal_diffusers_step_for_step(kind, prediction, steps):
    diffusers = pytest.importorskip("diffusers.schedulers")
    name = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}[prediction]
    common = {
        "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
        "clip_sample": True,
        "prediction_type": name,
    }
    rng = torch.Generator().manual_seed(1)
    start = torch.randn(6, 4, 2, generator=rng)
    noises = torch.randn(100, 6, 4, 2, generator=rng)
    eta = 0.7 if kind == "ddim-eta" else 0.0
    consistent = kind != "ddim"
    if kind == "ddpm":
        ours = DDPMConfig(steps=steps).build()
        theirs = diffusers.scheduling_ddpm.DDPMScheduler(variance_type="fixed_small", **common)
    else:
        ours = DDIMConfig(steps=steps, eta=eta, eps_from_clipped=consistent).build()
        theirs = diffusers.scheduling_ddim.DDIMScheduler(set_alpha_to_one=True, **common)
    theirs.set_timesteps(steps)

    net, taken = Linear(), []
    stream = iter(noises)
    ours.sample(
        Field(net, PATHS["vp"], prediction),
        start,
        torch.zeros(6, 1, 1),
        lambda: next(stream),
        on_step=lambda step: taken.append(step),
    )
    assert [int(step.t) for step in taken] == theirs.timesteps.tolist()
    for index, (step, t) in enumerate(zip(taken, theirs.timesteps, strict=True)):
        # the same state goes into both, so that errors do not add up over the walk
        output = net(step.x, torch.full((6,), float(t)), torch.zeros(6, 1, 1))
        if kind == "ddpm":
            # diffusers draws inside; give it the same noise through its own hook
            generator = torch.Generator().manual_seed(index)
            result = theirs.step(output, t, step.x, generator=generator)
            if t > 0:
                drawn = torch.randn(step.x.shape, generator=torch.Generator().manual_seed(index))
                expected = step.mean + step.std * drawn
            else:
                expected = step.mean
        else:
            noise = (step.next - step.mean) / step.std if step.std else torch.zeros_like(step.x)
            result = theirs.step(output, t, step.x, eta=eta, use_clipped_model_output=consistent, variance_noise=noise)
            expected = step.next
        torch.testing.assert_close(result.prev_sample, expected, atol=1e-5, rtol=1e-5)


def test_log_prob_of_a_step_is_the_gaussian_that_was_drawn():
    taken: list[Step] = []
    rng = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(5, 2, 3, generator=rng)  # noqa: E731
    DDPMConfig(steps=10).build().sample(
        Field(Linear(), PATHS["vp"], "eps"), draw(), torch.zeros(5, 1, 1), draw, on_step=taken.append
    )
    assert [step.number for step in taken] == list(range(10))
    assert taken[-1].std == 0
    for step in taken[:-1]:
        expected = torch.distributions.Normal(step.mean, step.std).log_prob(step.next)
        torch.testing.assert_close(step.log_prob(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        (DDPMConfig(), "flow", "no training chain"),
        (EulerConfig(), "vp", "ddim sampler"),
        (DDIMConfig(steps=101), "vp", "1 to 100 steps"),
    ],
)
def test_walks_without_meaning_are_refused_in_words(config, path, words):
    with pytest.raises(ConfigError, match=words):
        config.build().table(PATHS[path])


def test_straight_paths_have_constant_velocity():
    """For one data point the flow is straight, so a single Euler step is exact."""
    target = torch.tensor([[[0.3, -0.5]]]).double()

    class OnePoint(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return (x - target) / t[:, None, None]

    for steps in (1, 3, 10):
        sampler = EulerConfig(steps=steps).build()
        start = torch.randn(4, 1, 2).double()
        end = sampler.sample(Field(OnePoint(), PATHS["flow"], "velocity"), start, torch.zeros(4, 1, 1), start.clone)
        torch.testing.assert_close(end, target.expand(4, 1, 2), atol=1e-6, rtol=1e-6)


def test_flow_times_toward_data_are_the_same_flow_mirrored():
    """Stored time is 1 at noise; a network trained with data at 1 is its mirror image with the sign flipped."""
    noise_at_1 = Linear()

    class DataAt1(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return -noise_at_1(x, 1 - t, cond)

    start = torch.randn(4, 3, 2).double()
    ours = EulerConfig(steps=7, clip_final=False).build()
    end = ours.sample(Field(noise_at_1, PATHS["flow"], "velocity"), start, torch.zeros(4, 1, 1), lambda: start)
    x, other = start.clone(), DataAt1()
    for index in range(7):
        x = x + other(x, torch.full((4,), index / 7), torch.zeros(4, 1, 1)) / 7
    torch.testing.assert_close(end, x, atol=1e-6, rtol=1e-6)


def test_beta_times_have_the_published_mean():
    path = RectifiedFlow("beta")
    times = path.draw_time(200_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert times.mean().item() == pytest.approx(0.6 * 0.999 + 0.001, abs=2e-3)
    assert times.min() > 0
    assert times.max() <= 1
