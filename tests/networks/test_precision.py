"""The start-up self-test chooses by its own measurements, changes nothing until told, and can be pinned."""

import dataclasses

import pytest
import torch

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.networks.precision import Runtime, RuntimeConfig, Trial, _choose


@pytest.fixture(autouse=True)
def torch_settings():
    matmul, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.set_num_threads(threads)


def trial(precision="fp32", matmul="highest", threads=1, step_ms=10.0, rms_error=1e-6) -> Trial:
    return Trial(precision, matmul, threads, step_ms, rms_error, 10 * rms_error)


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([trial(), trial(matmul="medium", step_ms=5)], 1),
        ([trial(), trial(matmul="medium", step_ms=9.9)], 0),  # not worth leaving the default
        ([trial(), trial(matmul="medium", step_ms=5, rms_error=1e-3)], 0),  # not float32
        ([trial(), trial(threads=2, step_ms=6)], 1),
        ([trial(), trial(threads=2, step_ms=8)], 0),  # little gain, and a neighbour would undo it
        ([trial(), trial("bf16", step_ms=5, rms_error=1e-2)], 1),
        ([trial(), trial("bf16", step_ms=9, rms_error=1e-2)], 0),
        ([trial("bf16", rms_error=1e-2), trial("bf16", threads=2, step_ms=4, rms_error=1e-2)], 1),
    ],
)
def test_choice_follows_the_measurements(trials, chosen):
    assert _choose(trials) == trials[chosen]


def test_measuring_reports_every_setting_and_changes_nothing():
    torch.set_num_threads(1)
    torch.manual_seed(5)
    state, before = torch.get_rng_state(), torch.get_float32_matmul_precision()
    runtime = RuntimeConfig(device="cpu", precision="auto", threads=1).build(width=64, batch=32)
    assert {(t.precision, t.matmul) for t in runtime.trials} == {
        ("fp32", "highest"),
        ("fp32", "medium"),
        ("bf16", "highest"),
    }
    default, _, rounded = runtime.trials
    assert 0 < default.rms_error < 1e-5 < 1e-3 < rounded.rms_error
    assert all(t.step_ms > 0 and t.max_error >= t.rms_error for t in runtime.trials)
    assert torch.get_float32_matmul_precision() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_pins_make_the_same_choice_without_measuring():
    chosen = RuntimeConfig(device="cpu").build(width=64, batch=32)
    pins = parse(RuntimeConfig, chosen.pins().tree())
    assert pins.build() == dataclasses.replace(chosen, trials=())


def test_apply_sets_torch():
    Runtime("cpu", "fp32", "medium", 1).apply()
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_num_threads() == 1


def test_autocast_follows_the_precision():
    a = torch.ones(2, 2)
    with Runtime("cpu", "bf16", "highest", 1).autocast():
        assert (a @ a).dtype == torch.bfloat16
    with Runtime("cpu", "fp32", "highest", 1).autocast():
        assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_missing_device_is_named(device):
    with pytest.raises(ConfigError, match=device):
        RuntimeConfig(device=device).build()
