"""Perceptrons in one step of autograd are those layer by layer: values, gradients, and whose gradients there are."""

import pytest
import torch
from torch import nn

from robopol.networks.ensemble import EnsembleMLP

ROWS, INPUTS = 9, 5


def ensemble(hidden=(16, 8), layer_norm=False, **more) -> EnsembleMLP:
    torch.manual_seed(0)
    made = EnsembleMLP(3, INPUTS, hidden, layer_norm=layer_norm, **more)
    for parameter in made.parameters():  # scales and shifts too
        nn.init.normal_(parameter)
    return made


def gradients(made: EnsembleMLP, x: torch.Tensor, fused: bool, members=None) -> list:
    made.fused = fused
    made.zero_grad()
    x = x.clone().requires_grad_()
    said = made(x, members)
    (said * torch.arange(1.0, said.numel() + 1).view_as(said).cos()).sum().backward()
    return [said.detach(), x.grad, *(p.grad for p in made.parameters())]


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
@pytest.mark.parametrize("members", [None, 2, torch.tensor([2, 0])])
def test_it_is_the_same_layer_by_layer(hidden, layer_norm, members):
    made, x = ensemble(hidden, layer_norm), torch.randn(ROWS, INPUTS)
    one, other = (gradients(made, x, fused, members) for fused in (True, False))
    for mine, plain in zip(one, other, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_right():
    made = ensemble(layer_norm=True).double()
    x = torch.randn(4, INPUTS, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: made(x), (x, *made.parameters()))


def test_only_what_is_asked_for_gets_a_gradient():
    made, x = ensemble(layer_norm=True), torch.randn(ROWS, INPUTS, requires_grad=True)
    (found,) = torch.autograd.grad(made(x).sum(), x)
    assert found.shape == x.shape
    assert all(p.grad is None for p in made.parameters())
    made.requires_grad_(False)
    made(x).sum().backward()
    torch.testing.assert_close(x.grad, found)
    with torch.no_grad():
        assert not made.requires_grad_(True)(x).requires_grad


def test_what_was_given_stays_as_it_was():
    made, x = ensemble(), torch.randn(ROWS, INPUTS, requires_grad=True)
    before, said = x.detach().clone(), made(x)
    weight = torch.ones_like(said)
    said.backward(weight)
    assert torch.equal(x.detach(), before)
    assert torch.equal(weight, torch.ones_like(weight))


def test_dropout_leaves_out_a_share_in_training_only():
    made, x = ensemble((400,), dropout=0.25), torch.randn(ROWS, INPUTS)
    kept = []
    made.layers[-1].register_forward_hook(lambda layer, given, said: kept.append(given[0]))
    assert not torch.equal(made(x), made(x))
    dropped = (kept[0] == 0).float().mean() - (made.layers[2](made.layers[0](x.expand(3, -1, -1))) == 0).float().mean()
    assert dropped.item() == pytest.approx(0.25 * 0.5, abs=0.02)  # of the half that is not rectified away
    made.eval()
    assert torch.equal(made(x), made(x))
    torch.testing.assert_close(made(x), ensemble((400,)).eval()(x))
