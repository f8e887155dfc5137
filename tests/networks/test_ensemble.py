"""An ensemble in one computation is its members one by one."""

import pytest
import torch
from torch import nn

from robopol.networks.ensemble import EnsembleLinear, EnsembleMLP, EnsembleNorm


def member(ensemble: EnsembleMLP, index: int) -> nn.Sequential:
    """One perceptron of plain layers with the weights of one member."""
    layers: list[nn.Module] = []
    for layer in ensemble.layers:
        if isinstance(layer, EnsembleLinear):
            plain: nn.Module = nn.Linear(layer.weight.shape[1], layer.weight.shape[2])
            plain.weight.data, plain.bias.data = layer.weight[index].detach().t(), layer.bias[index, 0].detach()
        elif isinstance(layer, EnsembleNorm):
            plain = nn.LayerNorm(layer.weight.shape[-1])
            plain.weight.data, plain.bias.data = layer.weight[index, 0].detach(), layer.bias[index, 0].detach()
        else:
            plain = layer
        layers.append(plain)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_every_member_is_a_perceptron_of_its_own(layer_norm):
    torch.manual_seed(0)
    ensemble = EnsembleMLP(3, 5, (16, 8), "silu", layer_norm=layer_norm)
    for parameter in ensemble.parameters():  # scales and shifts too
        nn.init.normal_(parameter)
    x = torch.randn(7, 2, 5)
    out = ensemble(x)
    assert out.shape == (3, 7, 2)
    for index in range(3):
        torch.testing.assert_close(out[index], member(ensemble, index)(x).squeeze(-1))
    assert ensemble(x, 1).shape == (1, 7, 2)
    torch.testing.assert_close(ensemble(x, 2), out[:2])


def test_a_member_learns_from_its_own_loss_only():
    torch.manual_seed(0)
    ensemble = EnsembleMLP(3, 5, (16,), layer_norm=True)
    ensemble(torch.randn(7, 5))[1].sum().backward()
    for parameter in ensemble.parameters():
        assert parameter.grad[1].abs().sum() > 0
        assert parameter.grad[[0, 2]].abs().sum() == 0


def test_members_start_apart_and_as_linear_layers_do():
    torch.manual_seed(0)
    layer = EnsembleLinear(4, 100, 300)
    assert not torch.equal(layer.weight[0], layer.weight[1])
    assert layer.weight.abs().max() <= 0.1
    assert layer.weight.std().item() == pytest.approx(nn.Linear(100, 300).weight.std().item(), rel=0.02)
