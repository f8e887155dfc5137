"""Networks prepared for a walk, and packed for acting, say what the networks themselves say."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from robopol.errors import ConfigError, RobopolError
from robopol.networks import packed as packed_module
from robopol.networks import packed_layers
from robopol.networks.acting import ActingDenoiser
from robopol.networks.denoiser import Denoiser
from robopol.networks.denoising_mlp import DenoisingMLPConfig
from robopol.networks.film_mlp import FiLMMLPConfig
from robopol.networks.fine_tuned import FineTunedDenoiser
from robopol.networks.packed import pack
from robopol.networks.packed_layers import (
    HalfConv,
    HalfTransposedConv,
    PackedConv,
    PackedLinear,
    PackedTransposedConv,
)
from robopol.networks.packed_unet import PackedUNet
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv
from robopol.networks.temporal_norm import TemporalGroupNorm
from robopol.networks.transformer import TransformerConfig
from robopol.networks.unet import UNetConfig

NETS = {
    "film_mlp": FiLMMLPConfig(width=32, features=16, activation="gelu"),
    "mlp": DenoisingMLPConfig(width=32, blocks=2, activation="mish"),
    "unet": UNetConfig(widths=(16, 32, 64), step_dim=8),
    "transformer": TransformerConfig(width=16, layers=2, heads=2),
}
FBGEMM = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="torch was built without FBGEMM"
)
ONEDNN = pytest.mark.skipif(not packed_module._available(), reason="this build of torch has no oneDNN")


def build(kind: str) -> Denoiser:
    torch.manual_seed(0)
    return NETS[kind].build(action_dim=3, horizon=8, cond_dim=5, n_obs_steps=2).eval()


def inputs(batch: int, times: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(batch, 8, 3, generator=g), 100 * torch.rand(times, generator=g)
    return x, t, torch.randn(batch, 2, 5, generator=g)


def assert_walks_as(walk, net: Denoiser, batch: int, error: float) -> None:
    x, t, cond = inputs(batch)
    for i in (3, 0, 4, 1, 2, 3):  # in any order, and again
        expected = net(x + i, t[i].expand(batch), cond)
        assert (walk(x + i, i) - expected).abs().max() <= error * expected.abs().max()


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("kind", NETS)
def test_a_prepared_network_equals_its_forward(kind, batch, grad):
    net, (_, t, cond) = build(kind), inputs(batch)
    with torch.set_grad_enabled(grad):
        assert_walks_as(net.prepare(t, cond), net, batch, 1e-6)


@pytest.mark.parametrize("kind", NETS)
def test_gradients_flow_through_a_prepared_network(kind):
    net, (x, t, cond) = build(kind), inputs(4)
    wanted = [x.requires_grad_(), cond.requires_grad_(), *net.parameters()]
    prepared = torch.autograd.grad(net.prepare(t, cond)(x, 2).square().sum(), wanted)
    forward = torch.autograd.grad(net(x, t[2].expand(4), cond).square().sum(), wanted)
    for one, other in zip(prepared, forward, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("kind", NETS)
def test_autocast_reaches_a_prepared_network(kind):
    net, (x, t, cond) = build(kind), inputs(4)
    exact = net(x, t[1].expand(4), cond)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net.prepare(t, cond)(x, 1)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_without_gradients_the_layers_compute_the_same():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 8)
    for layer in (TemporalConv(8, 8, 3, padding=1), TransposedTemporalConv(8, 8, 4, stride=2), TemporalGroupNorm(4, 8)):
        with torch.no_grad():
            plain = layer(x)
        assert torch.equal(plain, layer(x))
        torch.testing.assert_close(layer(x[:, :1]), layer(x)[:, :1], rtol=1e-5, atol=1e-6)


def test_the_norm_of_a_single_row_has_the_gradients_of_torchs():
    torch.manual_seed(0)
    ours, theirs = TemporalGroupNorm(4, 8), nn.GroupNorm(4, 8)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(6, 1, 8, requires_grad=True)
    out, expected = ours(x), theirs(x.permute(1, 2, 0)).permute(2, 0, 1)
    assert out.is_contiguous()
    torch.testing.assert_close(out, expected)
    wanted = [x, *ours.parameters()], [x, *theirs.parameters()]
    for one, other in zip(
        torch.autograd.grad(out.sin().sum(), wanted[0]),
        torch.autograd.grad(expected.sin().sum(), wanted[1]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_transformer_computes_what_torchs_decoder_does_and_trains_alike():
    net, (x, t, cond) = build("transformer"), inputs(4)
    tokens = torch.cat([net.embed_time(t[:4])[:, None], net.embed_obs(cond)], 1) + net.memory_positions
    decoded = net.decoder(
        net.embed_action(x) + net.action_positions,
        net.encode_memory(tokens),
        tgt_mask=~net.action_mask,
        memory_mask=~net.memory_mask,
    )
    out, expected = net(x, t[:4], cond), net.head(decoded)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    weights = list(net.parameters())
    for one, other in zip(
        torch.autograd.grad(out.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_dropout_acts_in_training_alone():
    net, (x, t, cond) = build("transformer"), inputs(4)
    assert torch.equal(net(x, t[:4], cond), net(x, t[:4], cond))
    net.train()
    assert not torch.equal(net(x, t[:4], cond), net(x, t[:4], cond))


@pytest.fixture
def packs_small_layers(monkeypatch):
    monkeypatch.setattr(packed_layers, "SMALL", 0)


@ONEDNN
@pytest.mark.usefixtures("packs_small_layers")
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("kind", NETS)
def test_a_packed_network_equals_the_network(kind, batch):
    net, (x, t, cond) = build(kind), inputs(batch)
    copied = pack(net)
    with torch.no_grad():
        assert_walks_as(copied.prepare(t, cond), net, batch, 1e-5)
        torch.testing.assert_close(copied(x, t[:1].expand(batch), cond), net(x, t[:1].expand(batch), cond))
    assert all(p.requires_grad for p in net.parameters())


@ONEDNN
def test_small_linear_layers_stay_ordinary():
    small, large = pack(build("transformer")), TransformerConfig(width=512, layers=1)
    wide = pack(large.build(action_dim=3, horizon=8, cond_dim=5, n_obs_steps=2))
    assert not any(isinstance(module, PackedLinear) for module in small.modules())
    assert any(isinstance(module, PackedLinear) for module in wide.modules())


PERCEPTRONS = {"mlp": lambda net: net.trunk[0], "film_mlp": lambda net: net.enter}
"""Kind -> the first layer, which a walk takes apart."""


@FBGEMM
@pytest.mark.usefixtures("packs_small_layers")
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kind", PERCEPTRONS)
def test_the_walk_of_a_perceptron_multiplies_with_its_half_weights(kind, batch):
    net, (x, t, cond) = build(kind), inputs(batch)
    rounded = copy.deepcopy(net)
    for layer in rounded.modules():
        if isinstance(layer, nn.Linear) and layer is not PERCEPTRONS[kind](rounded):
            layer.weight.data = layer.weight.data.half().float()
    with torch.no_grad():
        halved = pack(net, "fp16").prepare(t, cond)(x, 1)
        torch.testing.assert_close(halved, rounded.prepare(t, cond)(x, 1), rtol=1e-5, atol=1e-5)
        assert (halved - net.prepare(t, cond)(x, 1)).abs().max() > 1e-5


@pytest.mark.usefixtures("packs_small_layers")
@pytest.mark.parametrize("kind", PERCEPTRONS)
def test_a_perceptron_in_float32_stays_as_it_is(kind):
    net, (x, t, cond) = build(kind), inputs(5)
    copied = pack(net)
    assert not any(isinstance(module, PackedLinear) for module in copied.modules())
    with torch.no_grad():
        assert torch.equal(copied.prepare(t, cond)(x, 1), net.prepare(t, cond)(x, 1))


@ONEDNN
@pytest.mark.parametrize(
    ("kind", "small"), [("unet", 0), ("unet", packed_layers.SMALL), ("transformer", 0), ("mlp", 0), ("film_mlp", 0)]
)
def test_bfloat16_weights_stay_close(kind, small, monkeypatch):
    monkeypatch.setattr(packed_layers, "SMALL", small)
    net, (x, t, cond) = build(kind), inputs(4)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(ConfigError, match="weights='fp32'"):
            pack(net, "bf16")
        return
    with torch.no_grad():
        exact, rounded = net.prepare(t, cond)(x, 1), pack(net, "bf16").prepare(t, cond)(x, 1)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()


@FBGEMM
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kind", ["unet", "transformer", "mlp"])
def test_half_weights_are_those_of_the_network_rounded(kind, batch, monkeypatch):
    monkeypatch.setattr(packed_layers, "SMALL", 0)
    net, (x, t, cond) = build(kind), inputs(batch)
    rounded = copy.deepcopy(net)
    for layer in rounded.modules():
        if isinstance(layer, TemporalConv | nn.Linear):
            layer.weight.data = layer.weight.data.half().float()
    with torch.no_grad():
        halved = pack(net, "fp16")(x, t[:1].expand(batch), cond)
        torch.testing.assert_close(halved, rounded(x, t[:1].expand(batch), cond), rtol=1e-5, atol=1e-5)
        assert (halved - net(x, t[:1].expand(batch), cond)).abs().max() > 1e-5


@FBGEMM
def test_weights_that_half_precision_cannot_say_are_refused(monkeypatch):
    monkeypatch.setattr(packed_layers, "SMALL", 0)
    net = build("mlp")
    net.trunk[0].weight.data[0, 0] = 1e5
    with pytest.raises(ConfigError, match="larger than half precision"):
        pack(net, "fp16")


@FBGEMM
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 3])
def test_half_convolutions_equal_the_layers_with_rounded_weights(steps, batch):
    torch.manual_seed(0)
    for conv, kind in (
        (TemporalConv(3, 16, 5, padding=2), HalfConv),
        (TemporalConv(16, 16, 3, stride=2, padding=1), HalfConv),
        (TransposedTemporalConv(16, 16, 4, stride=2, padding=1), HalfTransposedConv),
    ):
        conv.weight.data = conv.weight.data.half().float()
        x = torch.randn(steps, batch, conv.weight.shape[1])
        with torch.no_grad():
            torch.testing.assert_close(kind(conv)(x), conv(x), rtol=1e-5, atol=1e-5)


@ONEDNN
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 3])
def test_packed_convolutions_equal_the_layers_at_every_length(steps, batch):
    torch.manual_seed(0)
    for conv, kind in (
        (TemporalConv(3, 16, 5, padding=2), PackedConv),
        (TemporalConv(16, 16, 3, stride=2, padding=1), PackedConv),
        (TransposedTemporalConv(16, 16, 4, stride=2, padding=1), PackedTransposedConv),
    ):
        x = torch.randn(steps, batch, conv.weight.shape[1])
        with torch.no_grad():
            image = kind(conv.weight, conv.bias, conv.stride, conv.padding, torch.float32)(x.permute(2, 0, 1)[None])
            out = image[0].permute(1, 2, 0)
            torch.testing.assert_close(out, conv(x), rtol=1e-5, atol=1e-5)
        assert out.is_contiguous()


@pytest.mark.parametrize("kind", NETS)
def test_what_a_packed_network_says_of_times_is_computed_once(kind, monkeypatch):
    net, (x, t, cond) = build(kind), inputs(2)
    copied = pack(net)
    asked = []
    once = copied.net.of_times
    monkeypatch.setattr(copied.net, "of_times", lambda times: asked.append(times) or once(times))
    with torch.inference_mode():
        first = copied.prepare(t, cond)(x, 1)
    with torch.no_grad():
        assert torch.equal(copied.prepare(t, cond)(x, 1), first)  # as another walk along the same times
        assert len(asked) == 1
        others = t + 1
        assert not torch.equal(copied.prepare(others, cond)(x, 1), first)
    assert len(asked) == 2


@pytest.mark.parametrize("kind", [*NETS, "plain"])
def test_what_was_said_of_times_is_forgotten_with_them(kind):
    class Plain(Denoiser):
        def forward(self, x, t, cond):
            return x * t[:, None, None]

    copied = ActingDenoiser(Plain() if kind == "plain" else build(kind), "these")
    _, _, cond = inputs(2)
    for _ in range(3):
        t = torch.rand(5)
        copied.net.told(copied.of_times(t), cond)
        assert len(copied._of_times) == (kind != "plain")
    del t
    assert not len(copied._of_times)


@ONEDNN
def test_both_networks_of_a_fine_tuned_one_are_packed():
    base, (_, t, cond) = build("unet"), inputs(2)
    tuned = copy.deepcopy(base)
    tuned.last.conv.weight.data += 0.1
    net = FineTunedDenoiser(base, tuned, (0.0, 50.0))
    with torch.no_grad():
        assert_walks_as(pack(net).prepare(t, cond), net, 2, 1e-5)
    assert {type(part.net) for part in (pack(net).base, pack(net).tuned)} == {PackedUNet}


def test_without_onednn_the_layers_are_ordinary_ones(monkeypatch):
    monkeypatch.setattr(packed_module, "_available", lambda: False)
    net, (x, t, cond) = build("unet"), inputs(2)
    copied = pack(net)
    with torch.no_grad():
        assert torch.equal(copied.prepare(t, cond)(x, 1), net.prepare(t, cond)(x, 1))
    with pytest.raises(ConfigError, match="bfloat16"):
        pack(net, "bf16")


def test_a_packed_network_does_nothing_but_act():
    copied, (x, t, cond) = pack(build("unet")), inputs(2)
    policy = nn.Sequential(copied)  # whatever holds it
    for act in (
        policy.train,
        policy.state_dict,
        lambda: policy.to(torch.float64),
        lambda: copy.deepcopy(policy),
        lambda: pickle.dumps(policy),
        lambda: copied(x.clone().requires_grad_(), t[:2], cond),
        lambda: copied.prepare(t, cond.clone().requires_grad_()),
        lambda: copied.prepare(t, cond)(x.clone().requires_grad_(), 0),
    ):
        with pytest.raises(RobopolError, match="packed weights only act"):
            act()
    assert not policy.eval()[0].training
    assert not any(p.requires_grad for p in policy.parameters())


def test_packing_is_for_the_cpu():
    with pytest.raises(ConfigError, match="packed for a CPU, and the network is on meta"):
        pack(build("mlp").to("meta"))


def test_the_packed_copy_keeps_its_weights():
    net, (x, t, cond) = build("unet"), inputs(1)
    copied = pack(net)
    before = copied(x, t[:1], cond)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert torch.equal(copied(x, t[:1], cond), before)
