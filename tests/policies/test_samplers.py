"""Samplers against closed forms and against diffusers."""

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from oracle import PATHS, Ring, Wave, oracle, walk
from torch import Tensor

from robopol.errors import ConfigError
from robopol.networks.denoiser import Denoiser
from robopol.policies.field import Field
from robopol.policies.paths import Level
from robopol.policies.samplers import Sampler, SamplerConfig, Step
from robopol.policies.samplers.diffusers import DiffusersConfig
from robopol.policies.samplers.dpm_solver import DPMSolverConfig
from robopol.policies.samplers.edm import EDMConfig
from robopol.policies.samplers.first_order import (
    AncestralConfig,
    ConsistencyConfig,
    DDIMConfig,
    DDPMConfig,
    EulerConfig,
    FirstOrder,
    Row,
)
from robopol.policies.samplers.heun import HeunConfig
from robopol.policies.samplers.langevin import Langevin, LangevinConfig
from robopol.policies.samplers.sampler import Visit

FULL: dict[str, SamplerConfig] = {
    "ddpm": DDPMConfig(steps=100, spacing="karras"),
    "ddim": DDIMConfig(steps=60, spacing="karras"),
    "ddim-eta": DDIMConfig(steps=100, spacing="karras", eta=0.5),
    "euler": EulerConfig(steps=60, spacing="karras"),
    "ancestral": AncestralConfig(steps=100, spacing="karras"),
    "heun": HeunConfig(steps=30, spacing="karras"),
    "edm": EDMConfig(steps=30),
    "edm-churn": EDMConfig(steps=40, churn=10.0),
    "dpm_solver": DPMSolverConfig(steps=30, spacing="karras"),
    "dpm_solver-sde": DPMSolverConfig(steps=60, spacing="karras", sde=True),
    "langevin": LangevinConfig(steps=60, corrections=8),
}
"""Enough steps for each to be near the exact answer."""

ONE_PER_FAMILY = ["vp", "cosine", "sde", "flow-noise-at-0", "flow-sigma-min", "edm"]


def hold_marginals(sampler: Sampler, name: str, count: int = 2000) -> None:
    """Walk, and hold states at some levels and where the walk ends against what is known of them.

    Of the ring at a level: its standard deviation, and the mean of its log-density, which falls by 0.2 where the spread
    about a mode is a tenth too large. Langevin's steps have to find each level's marginal first: only their end counts.
    """
    path, ring = PATHS[name], Ring()
    seen: list[tuple[float, Tensor]] = []
    samples = walk(sampler, path, "edm", count=count, hook=lambda step: seen.append((step.t, step.x[:, 0])))
    for t, x in [] if isinstance(sampler, Langevin) else [*seen[:: len(seen) // 8], seen[-1]]:
        level = path.level(torch.tensor(t, dtype=torch.float64))
        spread = math.sqrt((level.alpha.item() * ring.axis_std()) ** 2 + level.sigma.item() ** 2)
        assert x.std().item() == pytest.approx(spread, rel=0.05)
        exact = level.alpha * _data()[:, 0] + level.sigma * _data()[:, 1]
        known = ring.log_density(exact, level.alpha, level.sigma).mean().item()
        found = ring.log_density(x.double(), level.alpha, level.sigma).mean().item()
        assert found == pytest.approx(known, abs=0.2)
    hit, rms = ring.hits(samples)
    assert hit > 0.96
    assert rms == pytest.approx(ring.std, abs=0.012)
    assert ring.imbalance(samples) < 0.05


@cache
def _data() -> Tensor:
    """Samples of the ring and as many of noise, (S, 2, 2)."""
    rng, ring, count = torch.Generator().manual_seed(5), Ring(), 4000
    noise = torch.randn(count, 2, 2, generator=rng, dtype=torch.float64)
    samples = ring.means[torch.randint(8, (count,), generator=rng)] + ring.std * noise[:, 0]
    return torch.stack([samples, noise[:, 1]], 1)


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
@pytest.mark.parametrize("kind", FULL)
def test_every_sampler_keeps_to_the_known_marginals_and_finds_the_modes_on_every_path(kind, name):
    hold_marginals(FULL[kind].build(), name)


def _noisier(rows: list[Row]) -> list[Row]:
    return [row._replace(std=1.15 * row.std) for row in rows]


def _without_noise(rows: list[Row]) -> list[Row]:
    return [row._replace(std=0.0) for row in rows]


def _turned(rows: list[Row]) -> list[Row]:
    return [row._replace(x_part=-row.x_part, out_part=-row.out_part) for row in rows]


def _shrunk(rows: list[Row]) -> list[Row]:
    return [row._replace(x0_part=0.97 * row.x0_part) for row in rows[:-1]] + rows[-1:]


def _read_ahead(rows: list[Row]) -> list[Row]:
    return [row._replace(visit=ahead.visit) for row, ahead in pairwise(rows)] + rows[-1:]


@pytest.mark.parametrize("wrong", [_noisier, _without_noise, _turned, _shrunk, _read_ahead, "one ahead", "one behind"])
def test_a_wrong_sampler_does_not_keep_to_them(wrong):
    """The check above can fail: noise of another size or sign, another scale, a level too far or too near."""

    class Wrong(FirstOrder):
        def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Row]:
            if wrong == "one ahead":
                levels = [levels[0], *levels[2:], levels[-1]]
            if wrong == "one behind":
                levels = [levels[0], *levels[:-2], levels[-1]]
            rows = super()._rows(field, visits, levels)
            return wrong(rows) if callable(wrong) else rows

    config = AncestralConfig(steps=100, spacing="karras")
    with pytest.raises(AssertionError):
        hold_marginals(Wrong(config), "edm", count=1000)


PREDICTED = ["eps", "x0", "v", "velocity", "score", "edm"]
"""Whatever says a mean; consistency functions are held in test_consistency.py."""


def way(kind: str, name: str, prediction: str, kappas: Tensor) -> Tensor:
    """Walk down given levels; where a sampler was and what it saw there, scaled by alpha: (visits, 2, 6, 2)."""
    path = PATHS[name]
    few = {"steps": len(kappas), "corrections": 2} if kind == "langevin" else {"steps": len(kappas)}
    sampler, times = FULL[kind].model_copy(update=few).build(), path.time_of(kappas)
    sampler.times = lambda path: times  # type: ignore[method-assign]
    rng, seen = torch.Generator().manual_seed(4), list[Tensor]()

    def draw() -> Tensor:
        return torch.randn(6, 1, 2, generator=rng, dtype=torch.float64)

    def look(step: Step) -> None:
        alpha = path.level(torch.tensor(step.t, dtype=torch.float64)).alpha
        seen.append(torch.stack([step.x[:, 0] / alpha, step.x0[:, 0]]))

    start = path.level(times[0]).alpha * (0.5 + kappas[0]) * draw()
    end = sampler.walk(oracle(path, prediction), start, torch.zeros(6, 1, 1), draw, hook=look)
    return torch.stack([*seen, end.transpose(0, 1).expand(2, -1, -1)])


@cache
def _way(kind: str, high: float) -> tuple[Tensor, Tensor]:
    """A ladder of levels, and the way down it on EDM's path."""
    kappas = torch.logspace(math.log10(high), math.log10(0.06), 6, dtype=torch.float64)
    return kappas, way(kind, "edm", "x0", kappas)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("kind", FULL)
def test_every_path_and_prediction_goes_the_same_way(kind, name):
    """In the frame y = x / alpha all that a sampler does hangs on the noise levels alone.

    So what is known of one path and one prediction, above, holds of every path with every prediction.
    """
    kappas, known = _way(kind, 0.65 if name == "beso" else 50.0)  # room for churn above
    for prediction in PREDICTED:
        found = way(kind, name, prediction, kappas)
        torch.testing.assert_close(found, known, atol=1e-3, rtol=1e-3, msg=lambda text, p=prediction: f"{p}: {text}")


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
        (EulerConfig(steps=10, spacing="karras", clip="never"), "edm", "edm", (0.80, 0.88), (0.07, 0.09)),
        (EulerConfig(steps=40, spacing="karras", clip="never"), "edm", "edm", (0.96, 1.0), (0.045, 0.056)),
        (EDMConfig(steps=10, clip="never"), "edm", "edm", (0.91, 0.97), (0.05, 0.07)),
        (EDMConfig(steps=18, clip="never"), "edm", "edm", (0.97, 1.0), (0.042, 0.053)),
        (DDIMConfig(steps=3, spacing="linear", clip="never"), "beso", "edm", (0.58, 0.69), (0.07, 0.15)),
        (DDIMConfig(steps=3, spacing="exponential", clip="never"), "beso", "edm", (0.80, 0.89), (0.06, 0.10)),
        (AncestralConfig(steps=5, spacing="exponential", clip="never"), "beso", "edm", (0.94, 1.0), (0.03, 0.06)),
    ],
)
def test_samplers_reproduce_the_oracle_table(config, name, prediction, hit, rms):
    # the rows of the closed-form toy: hit rate within 3 std, residual per axis, all modes used alike
    samples = walk(config.build(), PATHS[name], prediction, count=8000)
    found_hit, found_rms = Ring().hits(samples)
    assert hit[0] <= found_hit <= hit[1]
    assert rms[0] <= found_rms <= rms[1]
    if config.steps != 1:
        assert Ring().imbalance(samples) < 0.035


@pytest.mark.parametrize(
    ("config", "order"),
    [
        (EulerConfig(spacing="karras", clip="never"), 1),
        (HeunConfig(spacing="karras", clip="never"), 2),
        (EDMConfig(clip="never"), 2),
        (DPMSolverConfig(spacing="karras", clip="never"), 2),
    ],
)
def test_halving_the_steps_costs_what_the_order_says(config, order):
    """Data N(0.3, 0.2^2): the flow from sigma to 0 is (x - mean) std / sqrt(std^2 + sigma^2), worked out by hand."""
    mean, std, path = 0.3, 0.2, PATHS["beso"]

    class Gaussian(Denoiser):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            sigma = (4 * t.double() / path.time_scale).exp()[:, None, None]
            x = x.double() * (sigma**2 + path.data_std**2).sqrt()
            return mean + (x - mean) * std**2 / (std**2 + sigma**2)

    # to the last level of the grid only: the step from there to the data is the same for all
    x, last = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1, 1), 0.05
    exact = mean + (x - mean) * math.sqrt((std**2 + last**2) / (std**2 + 1))
    errors = []
    for steps in (40, 80):
        taken: list[Step] = []
        sampler = config.model_copy(update={"steps": steps}).build()
        sampler.walk(Field(Gaussian(), path, "x0"), x, torch.zeros(9, 1, 1), lambda: x, hook=taken.append)
        errors.append((taken[-1].x - exact).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)


def test_one_euler_step_lands_on_the_mean():
    samples = walk(EulerConfig(steps=1).build(), PATHS["flow"], "velocity", count=100)
    assert samples.abs().max() < 1e-5  # the ring's mean is the origin


@pytest.mark.parametrize("config", [DDIMConfig(steps=9, clip="never"), HeunConfig(steps=9), DPMSolverConfig(steps=9)])
def test_a_walk_is_the_same_on_every_path(config):
    """The same noise levels and the same canonical start y = x / alpha: the end must agree whatever the path."""
    kappa = torch.tensor([19.0, 9.0, 4.0, 2.0, 1.0, 0.6, 0.3, 0.1, 0.06], dtype=torch.float64)
    y = 19 * torch.randn(16, 1, 2, generator=torch.Generator().manual_seed(3)).double()
    ends = []
    for name in ("vp", "cosine", "sde", "flow", "flow-noise-at-0", "flow-sigma-min", "edm"):
        path, sampler = PATHS[name], config.build()
        times = path.time_of(kappa)
        sampler.times = lambda path, times=times: times  # type: ignore[method-assign]
        field = oracle(path, "edm")
        start = y * path.level(times[0]).alpha
        ends.append(sampler.walk(field, start, torch.zeros(16, 1, 1), lambda: y))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=1e-4, rtol=1e-4)


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
    ours: Sampler
    if kind == "ddpm":
        ours = DDPMConfig(steps=steps).build()
        theirs = diffusers.scheduling_ddpm.DDPMScheduler(variance_type="fixed_small", **common)
    else:
        ours = DDIMConfig(steps=steps, eta=eta, eps_from_clipped=consistent).build()
        theirs = diffusers.scheduling_ddim.DDIMScheduler(set_alpha_to_one=True, **common)
    theirs.set_timesteps(steps)

    net, taken = Wave(), []
    stream = iter(noises)
    ours.sample(
        Field(net, PATHS["vp"], prediction), start, torch.zeros(6, 1, 1), lambda: next(stream), hook=taken.append
    )
    assert [int(step.t) for step in taken] == theirs.timesteps.tolist()
    for index, (step, t) in enumerate(zip(taken, theirs.timesteps, strict=True)):
        # the same state goes into both, so that errors do not add up over the walk
        output = net(step.x, torch.full((6,), float(t)), torch.zeros(6, 1, 1))
        if kind == "ddpm":
            # diffusers draws inside; give it the same noise through its own hook
            result = theirs.step(output, t, step.x, generator=torch.Generator().manual_seed(index))
            drawn = torch.randn(step.x.shape, generator=torch.Generator().manual_seed(index))
            expected = step.mean + step.std * drawn if t > 0 else step.mean
        else:
            noise = (step.next - step.mean) / step.std if step.std else torch.zeros_like(step.x)
            result = theirs.step(output, t, step.x, eta=eta, use_clipped_model_output=consistent, variance_noise=noise)
            expected = step.next
        torch.testing.assert_close(result.prev_sample, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("sde", [False, True])
def test_dpm_solver_equals_diffusers_step_for_step(sde, prediction):
    diffusers = pytest.importorskip("diffusers.schedulers")
    theirs = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction],
        algorithm_type="sde-dpmsolver++" if sde else "dpmsolver++",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(12)
    ours, net, taken = DPMSolverConfig(steps=12, spacing="trailing", sde=sde, clip="never").build(), Wave(), []
    rng = torch.Generator().manual_seed(2)
    draw = lambda: torch.randn(6, 4, 2, generator=rng)  # noqa: E731
    ours.sample(Field(net, PATHS["vp"], prediction), draw(), torch.zeros(6, 1, 1), draw, hook=taken.append)
    assert [int(step.t) for step in taken] == theirs.timesteps.tolist()
    for step, t in zip(taken, theirs.timesteps, strict=True):
        output = net(step.x, torch.full((6,), float(t)), torch.zeros(6, 1, 1))
        noise = torch.zeros_like(step.x) if step.noise is None else step.noise
        result = theirs.step(output, t, step.x, variance_noise=noise)
        torch.testing.assert_close(result.prev_sample, step.next, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(
    ("config", "scheduler", "options"),
    [
        (EulerConfig(steps=10, spacing="trailing"), "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        (DDIMConfig(steps=10), "DDIMScheduler", {"set_alpha_to_one": True}),
        (EDMConfig(steps=10, spacing="trailing"), "HeunDiscreteScheduler", {"timestep_spacing": "trailing"}),
        (
            DPMSolverConfig(steps=10, spacing="trailing"),
            "DPMSolverMultistepScheduler",
            {"timestep_spacing": "trailing", "final_sigmas_type": "zero"},
        ),
    ],
)
def test_whole_walks_equal_those_of_plugged_in_schedulers(config, scheduler, options):
    pytest.importorskip("diffusers")
    theirs = DiffusersConfig(scheduler=scheduler, steps=10, options=options)
    field = Field(Wave(), PATHS["vp"], "v")
    noise = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0))
    ends = [c.build().sample(field, noise, torch.zeros(6, 1, 1), lambda: noise) for c in (config, theirs)]
    # those that walk in sigma / alpha begin at 2029 in float32, where the last bit is 1e-4
    torch.testing.assert_close(ends[0], ends[1], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    "name", ["UniPCMultistepScheduler", "DEISMultistepScheduler", "EulerAncestralDiscreteScheduler"]
)
def test_any_scheduler_of_diffusers_samples_the_ring(name):
    pytest.importorskip("diffusers")
    samples = walk(DiffusersConfig(scheduler=name, steps=50).build(), PATHS["vp"], "eps", count=1000)
    assert Ring().hits(samples)[0] > 0.9
    again = walk(DiffusersConfig(scheduler=name, steps=50).build(), PATHS["vp"], "eps", count=1000)
    torch.testing.assert_close(samples, again, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["DDIMSchedulr", "SchedulerMixin", "__builtins__", "torch"])
def test_nothing_but_a_scheduler_can_be_plugged_in(name):
    pytest.importorskip("diffusers")
    with pytest.raises(ConfigError, match="has no scheduler"):
        DiffusersConfig(scheduler=name).build()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EDMEulerScheduler", "cannot be told a chain"),
        ("RePaintScheduler", "wants more for a step"),
        ("CogVideoXDDIMScheduler", "walks another chain than the policy's"),
        ("IPNDMScheduler", "walks another chain than the policy's"),
        ("DDIMInverseScheduler", "walks from data to noise"),
    ],
)
def test_a_scheduler_that_does_not_walk_the_policys_chain_is_refused(name, words):
    schedulers = pytest.importorskip("diffusers.schedulers")
    if not hasattr(schedulers, name):
        pytest.skip("this version of diffusers has no such scheduler")
    with pytest.raises(ConfigError, match=f"{name} of diffusers does not .*: it {words}.* e.g. UniPC"):
        DiffusersConfig(scheduler=name).build().table(Field(Wave(), PATHS["vp"], "eps"))


STOCHASTIC = {
    "ddpm": DDPMConfig(steps=10),
    "ddim-eta": DDIMConfig(steps=10, eta=0.6),
    "ancestral": AncestralConfig(steps=10),
    "dpm_solver-sde": DPMSolverConfig(steps=10, sde=True),
    "langevin": LangevinConfig(steps=4, corrections=2),
    "consistency": ConsistencyConfig(steps=3),
    "edm-churn": EDMConfig(steps=6, churn=2.0),
}


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_log_probs_of_a_walk_are_those_of_the_gaussians_that_were_drawn(kind):
    taken: list[Step] = []
    rng = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(5, 2, 3, generator=rng)  # noqa: E731
    STOCHASTIC[kind].build().sample(
        Field(Wave(), PATHS["vp"], "eps"), draw(), torch.zeros(5, 1, 1), draw, hook=taken.append
    )
    assert [step.number for step in taken] == list(range(len(taken)))
    assert taken[-1].std == 0
    assert taken[-1].noise is None
    assert any(step.std > 0 for step in taken)
    for step, after in pairwise(taken):
        torch.testing.assert_close(step.next, after.x if step.kappa == after.kappa else step.next)
        if step.std == 0:  # between two churns
            continue
        expected = torch.distributions.Normal(step.mean, step.std).log_prob(step.next)
        torch.testing.assert_close(step.log_prob(), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(step.mean + step.std * step.noise, step.next)


def test_the_chain_of_a_gaussian_is_the_one_worked_out_by_hand():
    """x0 ~ N(0, 1) on a variance-preserving path: the posterior mean is alpha x, so DDPM is a known linear chain."""

    class Standard(Denoiser):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return PATHS["vp"].level(t).alpha.float()[:, None, None] * x

    taken: list[Step] = []
    draw = lambda: torch.randn(4, 1, 1)  # noqa: E731
    sampler = DDPMConfig(steps=5, clip="never").build()
    sampler.sample(Field(Standard(), PATHS["vp"], "x0"), draw(), torch.zeros(4, 1, 1), draw, hook=taken.append)
    bar = [PATHS["vp"].level(torch.tensor(t)).alpha.item() ** 2 for t in (80.0, 60.0, 40.0, 20.0, 0.0)]
    for step, now, then in zip(taken, bar, bar[1:], strict=False):
        ratio = now / then  # alpha of the strided chain; Ho et al. 2020, eq. 7
        gain = math.sqrt(then) * (1 - ratio) / (1 - now) * math.sqrt(now) + math.sqrt(ratio) * (1 - then) / (1 - now)
        torch.testing.assert_close(step.mean, gain * step.x, atol=1e-5, rtol=1e-4)
        assert step.std == pytest.approx(math.sqrt((1 - ratio) * (1 - then) / (1 - now)), rel=1e-4)


class Unit(Denoiser):
    """Of data from N(0, 1), noise that explodes: E[x0 | x] = x / (1 + sigma^2)."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`; the network sees x at unit scale, and ln(sigma) / 4."""
        path = PATHS["edm"]
        level = path.level((4 * t.double() / path.time_scale).exp())
        return (x / (path.input_scale(level) * (1 + level.sigma**2))[:, None, None]).to(x.dtype)


@pytest.mark.parametrize(
    "config",
    [
        AncestralConfig(steps=6, spacing="karras", clip="never"),
        LangevinConfig(steps=4, corrections=3, clip="never"),
        EDMConfig(steps=6, churn=1.2, noise_inflation=1.1, clip="never"),
    ],
)
def test_other_chains_of_a_gaussian_are_those_worked_out_by_hand(config):
    taken: list[Step] = []
    draw = lambda: torch.randn(4, 1, 1, dtype=torch.float64)  # noqa: E731
    sampler, field = config.build(), Field(Unit(), PATHS["edm"], "x0")
    sampler.sample(field, draw(), torch.zeros(4, 1, 1), draw, hook=taken.append)
    kappas = [level.kappa.item() for level in sampler.table(field).levels]
    drawn = [step for step in taken if step.std > 0]
    # a walk with churn begins at the highest level of the path, which is not raised
    assert len(drawn) == {"ancestral": 5, "langevin": 12, "edm": 5}[config.kind]
    for step in drawn:
        sigma = step.kappa
        if config.kind == "ancestral":  # down to where the new noise leads up from again (Karras et al. 2022)
            then = kappas[step.number + 1]
            up = math.sqrt(then**2 * (sigma**2 - then**2) / sigma**2)
            mean = step.x + (math.sqrt(then**2 - up**2) - sigma) * (step.x - step.x / (1 + sigma**2)) / sigma
        elif config.kind == "langevin":  # along the score, -x / (1 + sigma^2)
            up, mean = math.sqrt(0.2) * sigma, step.x * (1 - 0.1 * sigma**2 / (1 + sigma**2))
        else:
            up, mean = 1.1 * math.sqrt((1.2 * sigma) ** 2 - sigma**2), step.x
        assert step.std == pytest.approx(up, rel=1e-6)
        assert (step.mean - mean).abs().max() < 2e-6 * step.x.abs().max()  # a network's time is float32


def test_ddim_with_all_noise_is_ddpm_and_with_none_is_euler_where_noise_explodes():
    vp, edm = (Field(Wave(), PATHS[name], "eps") for name in ("vp", "edm"))
    noisy, ddpm = DDIMConfig(steps=10, eta=1, clip="never").build(), DDPMConfig(steps=10, clip="never").build()
    still = DDIMConfig(steps=10, spacing="karras", clip="never").build()
    euler = EulerConfig(steps=10, spacing="karras", clip="never").build()
    for one, other, field in ((noisy, ddpm, vp), (still, euler, edm)):
        for mine, theirs in zip(one.table(field).rows, other.table(field).rows, strict=True):
            assert mine[1:] == pytest.approx(theirs[1:])
    kappas = [level.kappa.item() for level in euler.table(edm).levels]
    for row, now, then in zip(euler.table(edm).rows, kappas, kappas[1:], strict=False):
        # x' = x + (sigma' - sigma) eps, x = x0 + sigma eps
        x_part, x0_part = row.x_part + row.visit.x0_x * row.x0_part, row.out_part + row.visit.x0_out * row.x0_part
        assert (x_part, x0_part) == pytest.approx((1.0, then - now), rel=1e-6)


@pytest.mark.parametrize("kind", FULL)
def test_without_a_hook_no_step_is_made(kind, monkeypatch):
    def made(*_: object) -> Step:
        raise AssertionError("a step was made that nobody looks at")

    monkeypatch.setattr("robopol.policies.samplers.sampler.Step", made)
    config, noise = FULL[kind].model_copy(update={"steps": 4}), torch.randn(3, 4, 2)
    config.build().sample(Field(Wave(), PATHS["sde"], "eps"), noise, torch.zeros(3, 1, 1), lambda: noise)
    with pytest.raises(AssertionError, match="nobody looks"):
        config.build().sample(
            Field(Wave(), PATHS["sde"], "eps"), noise, torch.zeros(3, 1, 1), lambda: noise, hook=lambda step: None
        )


def test_a_hook_can_replace_the_next_state():
    taken: list[Step] = []

    def halve(step: Step) -> Tensor:
        taken.append(step)
        return step.next / 2

    noise = torch.randn(3, 2, 2)
    EulerConfig(steps=4).build().sample(
        Field(Wave(), PATHS["flow"], "velocity"), noise, torch.zeros(3, 1, 1), lambda: noise, hook=halve
    )
    for before, after in pairwise(taken):
        torch.testing.assert_close(after.x, before.next / 2)


@pytest.mark.parametrize("kind", FULL)
def test_looking_on_changes_nothing(kind):
    ends = [walk(FULL[kind].build(), PATHS["sde"], "edm", count=20, hook=hook) for hook in (None, lambda step: None)]
    torch.testing.assert_close(ends[0], ends[1], atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "ddim-eta", "euler", "ancestral", "heun"])
def test_a_walk_taken_up_in_the_middle_is_the_rest_of_it(kind):
    config, field = FULL[kind].model_copy(update={"steps": 8}), Field(Wave(), PATHS["sde"], "eps")
    taken: list[Step] = []
    rng = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(3, 2, 2, generator=rng)  # noqa: E731
    sampler = config.build()
    end = sampler.sample(field, draw(), torch.zeros(3, 1, 1), draw, hook=taken.append)
    stream = iter([step.noise for step in taken[5:] if step.noise is not None])
    again = sampler.walk(field, taken[5].x, torch.zeros(3, 1, 1), lambda: next(stream), first=5)
    torch.testing.assert_close(again, end)


@pytest.mark.parametrize(
    ("config", "name", "prediction", "words"),
    [
        (DDPMConfig(), "flow", "velocity", "no training chain"),
        (EulerConfig(spacing="leading"), "flow", "velocity", "for the discrete chains of diffusion policies"),
        (DDIMConfig(steps=101), "vp", "eps", "1 to 100 steps"),
        (DDIMConfig(), "flow", "eps", "says nothing about the action at pure noise"),
        (EDMConfig(spacing="uniform"), "flow", "velocity", "the edm sampler walks in sigma/alpha, which is infinite"),
        (LangevinConfig(spacing="uniform"), "cosine", "v", "the langevin sampler compares levels"),
        (DiffusersConfig(scheduler="DDIMScheduler"), "flow", "velocity", "discrete chains of diffusion policies only"),
    ],
)
def test_walks_without_meaning_are_refused_in_words(config, name, prediction, words):
    with pytest.raises(ConfigError, match=words):
        config.build().table(Field(Wave(), PATHS[name], prediction))


def test_straight_paths_have_constant_velocity():
    """For one data point the flow is straight, so a single Euler step is exact."""
    target = torch.tensor([[[0.3, -0.5]]]).double()

    class OnePoint(Denoiser):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return (x - target) / (t[:, None, None] / 100)

    for steps in (1, 3, 10):
        sampler = EulerConfig(steps=steps).build()
        start = torch.randn(4, 1, 2).double()
        end = sampler.sample(Field(OnePoint(), PATHS["flow"], "velocity"), start, torch.zeros(4, 1, 1), start.clone)
        torch.testing.assert_close(end, target.expand(4, 1, 2), atol=1e-6, rtol=1e-6)


def test_one_consistency_step_is_the_networks_estimate_and_more_start_from_fresh_noise():
    taken: list[Step] = []
    rng = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(4, 1, 2, generator=rng)  # noqa: E731
    field = oracle(PATHS["edm"], "edm")
    config = ConsistencyConfig(steps=3, spacing="karras", clip="never")
    config.build().sample(field, draw(), torch.zeros(4, 1, 1), draw, hook=taken.append)
    for step in taken[:-1]:
        torch.testing.assert_close(step.mean, step.x0)  # nothing of the old noise is kept
    torch.testing.assert_close(taken[-1].next, taken[-1].x0)
    low = 0.02  # what is kept of the noise: that of the path's data end, where the jumps land
    expected = [math.sqrt(step.kappa**2 - low**2) for step in taken[1:]]
    assert [step.std for step in taken] == pytest.approx([*expected, 0])
