"""Behaviour cloning's parts: the optimiser, the schedule, the weighting, what is saved."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from robopol.algos.optimizer import AdamW
from robopol.algos.regression import warmup_cosine


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3), nn.Linear(3, 3))


def push(model: nn.Module, step: int, skip_last: bool = False) -> None:
    rng = torch.Generator().manual_seed(step)
    out = model[:3](torch.randn(8, 5, generator=rng))
    out = out if skip_last else model[3](out)
    out.square().mean().backward()


def test_adamw_is_torchs_to_the_bit():
    ours, theirs = net(), net()
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-2, betas=(0.95, 0.999), fused=True)
    optimizer = AdamW(list(ours.parameters()), (0.95, 0.999), 0.1)
    for step in range(20):
        lr = 1e-2 / (1 + step)
        for group in reference.param_groups:
            group["lr"] = lr
        skip = step % 3 == 0  # a parameter without a gradient is left alone
        push(theirs, step, skip)
        reference.step()
        reference.zero_grad()
        push(ours, step, skip)
        optimizer.step(lr)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None


def test_the_optimisers_memory_is_all_there_is():
    whole, halved = net(), net()
    one, two = (AdamW(list(m.parameters()), (0.9, 0.99), 0.0) for m in (whole, halved))
    for step in range(6):
        push(whole, step)
        one.step(1e-2)
    for step in range(3):
        push(halved, step)
        two.step(1e-2)
    resumed = net(seed=9)
    resumed.load_state_dict(halved.state_dict())
    three = AdamW(list(resumed.parameters()), (0.9, 0.99), 0.0)
    three.load_state({name: value.clone() for name, value in two.state().items()})
    for step in range(3, 6):
        push(resumed, step)
        three.step(1e-2)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_learning_rate_rises_and_falls():
    rates = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0, abs=1e-12)
    assert all(a <= b for a, b in pairwise(rates[:11]))
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert warmup_cosine(0, 0, 5) == 1.0
