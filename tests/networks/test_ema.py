"""The average follows its formula, copies what is not averaged, and survives its state dict."""

import pytest
import torch
from torch import nn

from robopol.networks.ema import EMA


def decays(count: int) -> list[float]:
    module = nn.Linear(1, 1)
    ema = EMA(module)
    found = []
    for _ in range(count):
        found.append(ema.decay())
        ema.update(module)
    return found


def test_decay_warms_up_as_published():
    found = decays(10)
    assert found[:2] == [0, 0]
    assert found[2] == pytest.approx(0.405, abs=5e-4)
    assert found[9] == pytest.approx(0.808, abs=5e-4)
    ema = EMA(nn.Linear(1, 1))
    ema.updates = 10_001
    assert ema.decay() == pytest.approx(0.999, abs=1e-6)
    ema.updates = 10**9
    assert ema.decay() == 0.9999


def test_update_is_the_weighted_mean():
    module = nn.Linear(3, 2)
    ema = EMA(module)
    expected = module.weight.detach().clone()
    torch.manual_seed(0)
    for _ in range(6):
        nn.init.normal_(module.weight)
        decay = ema.decay()
        ema.update(module)
        expected = decay * expected + (1 - decay) * module.weight.detach()
        torch.testing.assert_close(ema.module.weight, expected)
    assert not ema.module.weight.requires_grad


def test_buffers_and_batch_norm_are_copied():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = EMA(module)
    ema.updates = 1000
    module(torch.randn(8, 2))
    nn.init.normal_(module[1].weight)
    nn.init.normal_(module[0].weight)
    ema.update(module)
    for name, value in module[1].state_dict().items():
        torch.testing.assert_close(ema.module[1].state_dict()[name], value)
    assert not torch.equal(ema.module[0].weight, module[0].weight)


def test_state_dict_continues_the_same_average():
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    ema = EMA(module)
    for _ in range(5):
        ema.update(module)
    assert all(isinstance(value, torch.Tensor) for value in ema.state_dict().values())
    resumed = EMA(nn.Linear(3, 2))
    resumed.load_state_dict(ema.state_dict())
    nn.init.normal_(module.weight)
    ema.update(module)
    resumed.update(module)
    assert resumed.updates == ema.updates == 6
    assert torch.equal(resumed.module.weight, ema.module.weight)
