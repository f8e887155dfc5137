"""Samplers on continuous paths, and those that draw, against diffusers' schedulers of the same name or formula.

Step by step the same state, network and noise go into both, so that errors do not add up over a walk; where a scheduler
keeps what it saw before, whole walks are compared.
"""

import math
from itertools import pairwise

import pytest
import torch
from oracle import PATHS, Wave
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies.field import Field
from robopol.policies.paths import Path
from robopol.policies.samplers import Sampler, Step
from robopol.policies.samplers.diffusers import DiffusersConfig
from robopol.policies.samplers.dpm_solver import DPMSolverConfig
from robopol.policies.samplers.edm import EDMConfig
from robopol.policies.samplers.first_order import AncestralConfig, ConsistencyConfig, EulerConfig
from robopol.policies.samplers.heun import HeunConfig

diffusers = pytest.importorskip("diffusers.schedulers")

SHAPE = (6, 4, 2)
COND = torch.zeros(6, 1, 1)
STEPS = 8


def noise(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def output(path: Path, x: Tensor, t: float) -> Tensor:
    """Return what the network says of x at a path time."""
    time = torch.tensor([t], dtype=torch.float64)
    scale = path.input_scale(path.level(time)).float()
    return Wave()(scale * x, path.network_time(time).float().expand(len(x)), COND)


def walked(sampler: Sampler, field: Field, times: Tensor | None = None) -> list[Step]:
    """Return the steps of a walk, at given path times if there are any."""
    if times is not None:
        sampler.times = lambda path: times  # type: ignore[method-assign]
    taken: list[Step] = []
    seeds = iter(range(1, 100))
    sampler.sample(field, noise(0), COND, lambda: noise(next(seeds)), hook=taken.append)
    return taken


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_ancestral_steps_are_those_of_euler_ancestral(prediction):
    """The scheduler walks in sigma / alpha, whose state is x / alpha."""
    name = {"eps": "epsilon", "v": "v_prediction"}[prediction]
    theirs = diffusers.EulerAncestralDiscreteScheduler(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", prediction_type=name, timestep_spacing="trailing"
    )
    theirs.set_timesteps(STEPS)
    path = PATHS["vp"]
    ours = AncestralConfig(steps=STEPS, spacing="trailing", clip="never").build()
    field = Field(Wave(), path, prediction)
    taken, levels = walked(ours, field), ours.table(field).levels
    assert [step.t for step in taken] == theirs.timesteps.tolist()
    for i, (step, t) in enumerate(zip(taken, theirs.timesteps, strict=True)):
        theirs.is_scale_input_called = True
        drawn = torch.Generator().manual_seed(100 + i)
        result = theirs.step(output(path, step.x, step.t), t, step.x / levels[i].alpha.float(), generator=drawn)
        expected = (step.mean + step.std * noise(100 + i)) / levels[i + 1].alpha.float()
        error = (result.prev_sample - expected).abs().max() / expected.abs().max()
        assert error < (1e-5 if i else 1e-4)  # it begins at 2029, which diffusers computes in float32
    assert taken[0].std > 0


@pytest.mark.parametrize(("name", "sign"), [("flow", 1.0), ("flow-noise-at-0", -1.0)])
def test_euler_steps_of_a_flow_are_those_of_flow_match_euler(name, sign):
    """The scheduler's velocity leads from data to noise, and its time is the share of noise."""
    sigmas = torch.linspace(0.99, 0.07, STEPS, dtype=torch.float64)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=sigmas.tolist())
    path = PATHS[name]
    times = sigmas if sign > 0 else 1 - sigmas
    ours = EulerConfig(steps=STEPS, clip="never").build()
    for step, t in zip(walked(ours, Field(Wave(), path, "velocity"), times), theirs.timesteps, strict=True):
        result = theirs.step(sign * output(path, step.x, step.t), t, step.x).prev_sample
        torch.testing.assert_close(result, step.next, atol=1e-5, rtol=1e-5)


def test_a_walk_of_heun_along_a_flow_is_that_of_flow_match_heun():
    theirs = diffusers.FlowMatchHeunDiscreteScheduler()
    theirs.set_timesteps(STEPS)
    path, x = PATHS["flow"], noise(0)
    sigmas = torch.cat([theirs.sigmas[:1], theirs.sigmas[1:-1:2]])
    ours = HeunConfig(steps=STEPS, clip="never").build()
    field = Field(Wave(), path, "velocity")
    ours.times = lambda path: sigmas.double()  # type: ignore[method-assign]
    end = ours.walk(field, x, COND, lambda: x)
    for t in theirs.timesteps:
        x = theirs.step(output(path, x, float(t) / 1000), t, x).prev_sample
    torch.testing.assert_close(end, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["flow", "flow-noise-at-0"])
@pytest.mark.parametrize(
    ("scheduler", "config"),
    [
        ("FlowMatchEulerDiscreteScheduler", EulerConfig(clip="never")),
        ("FlowMatchHeunDiscreteScheduler", HeunConfig(clip="never")),
    ],
)
def test_schedulers_of_flows_are_plugged_in(name, scheduler, config):
    path = PATHS[name]
    theirs = DiffusersConfig(scheduler=scheduler, steps=STEPS, clip="never", options={"shift": 3.0}).build()
    ours, field = config.build(), Field(Wave(), path, "velocity")
    times = theirs.times(path).unique()
    ours.times = lambda path: times.flip(0) if path.ends[0] == 1 else times  # type: ignore[method-assign]
    ends = [sampler.sample(field, noise(0), COND, lambda: noise(1)) for sampler in (theirs, ours)]
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vp", "edm", "flow-sigma-min"])
def test_schedulers_of_flows_are_for_straight_flows(name):
    theirs = DiffusersConfig(scheduler="FlowMatchEulerDiscreteScheduler").build()
    with pytest.raises(ConfigError, match="walks straight flows only"):
        theirs.table(Field(Wave(), PATHS[name], "velocity" if name.startswith("flow") else "x0"))


def test_other_schedulers_do_not_walk_a_flow():
    with pytest.raises(ConfigError, match="for flow policies there are FlowMatchEuler"):
        DiffusersConfig().build().table(Field(Wave(), PATHS["flow"], "velocity"))


def edm_options(path: Path) -> dict[str, float]:
    return {"sigma_min": path.kappa_range[0], "sigma_max": path.kappa_range[1], "sigma_data": path.data_std}


def test_euler_steps_of_a_preconditioned_denoiser_are_those_of_edm_euler():
    path = PATHS["edm"]
    theirs = diffusers.EDMEulerScheduler(**edm_options(path), rho=7.0, final_sigmas_type="zero")
    theirs.set_timesteps(STEPS)
    ours = EulerConfig(steps=STEPS, spacing="karras", clip="never").build()
    field = Field(Wave(), path, "edm")
    taken = walked(ours, field)
    kappas = torch.tensor([level.kappa for level in ours.table(field).levels])
    torch.testing.assert_close(kappas.float(), theirs.sigmas, atol=1e-5, rtol=1e-5)
    for step, t in zip(taken, theirs.timesteps, strict=True):
        theirs.is_scale_input_called = True
        result = theirs.step(output(path, step.x, step.t), t, step.x).prev_sample
        torch.testing.assert_close(result, step.next, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sde", [False, True])
def test_a_walk_of_dpm_solver_along_noise_that_explodes_is_that_of_edm_dpm_solver(sde):
    path, x = PATHS["edm"], noise(0)
    theirs = diffusers.EDMDPMSolverMultistepScheduler(
        **edm_options(path), algorithm_type="sde-dpmsolver++" if sde else "dpmsolver++", final_sigmas_type="zero"
    )
    theirs.set_timesteps(STEPS)
    ours = DPMSolverConfig(steps=STEPS, spacing="karras", sde=sde, clip="never").build()
    seeds = iter(range(1, 100))
    start = 80.0 * x
    end = ours.walk(Field(Wave(), path, "edm"), start, COND, lambda: noise(next(seeds)))
    state = start
    for i, (t, sigma) in enumerate(zip(theirs.timesteps, theirs.sigmas[:-1], strict=True)):
        theirs.is_scale_input_called = True
        drawn = torch.Generator().manual_seed(1 + i)
        state = theirs.step(output(path, state, float(sigma)), t, state, generator=drawn).prev_sample
    torch.testing.assert_close(end, state, atol=1e-4, rtol=1e-4)


def test_jumps_are_those_of_a_consistency_model():
    """Boundary scalings, the noise that is drawn anew, and none after the last jump."""
    path = PATHS["edm"]
    theirs = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, **edm_options(path), clip_denoised=False)
    theirs.set_timesteps(4)
    ours = ConsistencyConfig(steps=4, clip="never").build()
    taken = walked(ours, Field(Wave(), path, "consistency"), theirs.sigmas[:-1].double())
    for i, (step, t) in enumerate(zip(taken, theirs.timesteps, strict=True)):
        theirs.is_scale_input_called = True
        drawn = torch.Generator().manual_seed(100 + i)
        result = theirs.step(output(path, step.x, step.t), t, step.x, generator=drawn).prev_sample
        expected = step.mean + step.std * noise(100 + i)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    assert taken[0].std > 0
    assert taken[-1].std == 0


def test_a_walk_with_churn_is_that_of_karras_ve():
    path = PATHS["edm"]
    deprecated = pytest.importorskip("diffusers.schedulers.deprecated.scheduling_karras_ve")
    theirs = deprecated.KarrasVeScheduler(s_noise=1.007, s_churn=4.0, s_min=0.05, s_max=50.0)
    theirs.set_timesteps(STEPS)
    ours = EDMConfig(
        steps=STEPS, churn=4.0, churn_min=0.05, churn_max=50.0, noise_inflation=1.007, clip="never"
    ).build()
    field = Field(Wave(), path, "edm")
    kappas = [level.kappa.item() for level in ours.table(field).levels]
    churned = [i for i, kappa in enumerate(kappas[:-1]) if 0.05 <= kappa <= 50]
    assert 0 < len(churned) < STEPS
    seeds = iter(churned)
    start = 80.0 * noise(0)
    end = ours.walk(field, start, COND, lambda: noise(1 + next(seeds)))

    def slope(x: Tensor, sigma: float) -> Tensor:
        """Return what makes x clean when it is added sigma times."""
        at = torch.full((len(x),), sigma, dtype=torch.float64)
        return -field(x, at, COND).eps

    x = start
    for i, (sigma, then) in enumerate(pairwise(kappas)):
        hat, raised = theirs.add_noise_to_input(x, sigma, generator=torch.Generator().manual_seed(1 + i))
        first = theirs.step(slope(hat, raised), raised, then, hat)
        x = first.prev_sample
        if then > 0:
            x = theirs.step_correct(slope(x, then), raised, then, hat, x, first.derivative).prev_sample
    torch.testing.assert_close(end, x, atol=1e-4, rtol=1e-4)
    assert math.isclose(kappas[0], 80.0)
