"""The energy networks: scalars with right first and second derivatives, in which every input and every row counts."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.networks.energy_mlp import EnergyMLPConfig
from robopol.networks.energy_transformer import Attention, EnergyTransformerConfig
from robopol.registry import KINDS, lookup

SMALL = {
    "mlp": EnergyMLPConfig(hidden=(32, 32)),
    "transformer": EnergyTransformerConfig(width=16, layers=2, heads=2, dropout=0.0),
}


def build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return SMALL[kind].build(action_dim=3, horizon=4, cond_dim=5, n_obs_steps=2)


def inputs(rows: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(rows, 4, 3, generator=g, dtype=dtype), torch.randn(rows, 2, 5, generator=g, dtype=dtype)


def test_every_registered_energy_is_tested_here():
    assert set(SMALL) == set(KINDS["energy"])
    assert all(isinstance(config, lookup("energy", kind)) for kind, config in SMALL.items())
    assert all(parse(type(config), config.tree()) == config for config in SMALL.values())


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_are_finite_differences_up_to_the_second_order(kind):
    net = build(kind).double()
    x, cond = inputs(2, torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, cond), x, rtol=1e-3)
    assert torch.autograd.gradgradcheck(lambda x: net(x, cond), x, rtol=1e-3)


@pytest.mark.parametrize("kind", SMALL)
def test_the_gradient_of_the_gradient_reaches_every_weight(kind):
    net = build(kind)
    x, cond = inputs()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, cond).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("kind", SMALL)
def test_one_number_a_row_that_depends_on_the_whole_row_and_on_no_other(kind):
    net = build(kind).eval()
    x, cond = inputs()
    energy = net(x, cond)
    assert energy.shape == (4,)
    for step in range(4):
        assert ((net(x + torch.eye(4)[step][:, None], cond) - energy).abs() > 1e-7).all()
    for step in range(2):
        assert ((net(x, cond + torch.eye(2)[step][:, None]) - energy).abs() > 1e-7).all()
    torch.testing.assert_close(net(x[2:3], cond[2:3]), energy[2:3], rtol=1e-4, atol=1e-6)


def test_order_matters_to_the_transformer():
    net = build("transformer")
    x, cond = inputs()
    assert ((net(x.flip(1), cond) - net(x, cond)).abs() > 1e-7).all()


def test_attention_is_torchs_attention():
    torch.manual_seed(0)
    attention = Attention(16, 2, 0.0)
    tokens, memory = torch.randn(3, 4, 16), torch.randn(3, 2, 16)
    seen = torch.tensor([[True, False], [True, True], [True, True], [True, True]])

    def heads(x: Tensor) -> Tensor:
        return x.view(3, -1, 2, 8).transpose(1, 2)

    key, value = attention.key_value(memory).split(16, -1)
    query = F.rms_norm(heads(attention.query(tokens)), (8,), eps=1e-6)
    expected = F.scaled_dot_product_attention(query, F.rms_norm(heads(key), (8,), eps=1e-6), heads(value), seen)
    torch.testing.assert_close(attention(tokens, memory, seen), attention.out(expected.transpose(1, 2).flatten(2)))


def test_the_first_actions_do_not_see_later_observations():
    net = EnergyTransformerConfig(width=16, layers=1, heads=2, dropout=0.0).build(3, 4, 5, 2)
    _, cond = inputs()
    memory = net.embed_obs(cond) + net.obs_positions
    later = memory + torch.tensor([0.0, 1.0])[:, None]
    tokens = torch.randn(4, 4, 16)
    cross = net.layers[0].cross
    before, after = cross(tokens, memory, net.observed), cross(tokens, later, net.observed)
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert ((after[:, 1:] - before[:, 1:]).abs().amax(-1) > 1e-7).all()


def test_dropout_is_for_training():
    net = EnergyTransformerConfig(width=16, layers=2, heads=2, dropout=0.5).build(3, 4, 5, 2)
    x, cond = inputs()
    assert not torch.equal(net(x, cond), net(x, cond))
    assert torch.equal(net.eval()(x, cond), net(x, cond))


@pytest.mark.parametrize(
    ("kind", "tree", "words"),
    [("mlp", {"activation": "relu"}, "activation"), ("mlp", {"hidden": []}, "hidden")],
)
def test_what_cannot_be_differentiated_twice_cannot_be_asked_for(kind, tree, words):
    with pytest.raises(ConfigError, match=words):
        parse(lookup("energy", kind), {"kind": kind, **tree})


def test_a_width_that_the_heads_do_not_share_is_refused():
    with pytest.raises(ConfigError, match="multiple of its heads"):
        EnergyTransformerConfig(width=16, heads=3).build(3, 4, 5, 2)
