"""The denoisers: shapes, faults, conditioning, and the published equations in torch's layers."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.networks.denoising_mlp import DenoisingMLPConfig
from robopol.networks.embeddings import SinusoidalEmbedding
from robopol.networks.film_mlp import FiLMMLPConfig
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv
from robopol.networks.temporal_norm import TemporalGroupNorm
from robopol.networks.transformer import TransformerConfig
from robopol.networks.unet import UNet, UNetConfig
from robopol.registry import KINDS, lookup

SMALL = {
    "film_mlp": FiLMMLPConfig(width=32, features=16),
    "mlp": DenoisingMLPConfig(width=32),
    "unet": UNetConfig(widths=(16, 32), step_dim=8),
    "transformer": TransformerConfig(width=16, layers=2, heads=2, dropout=0.0),
}
MADE = {"fine_tuned"}
"""Networks that training makes of others; tested where they are made."""


def build(kind: str, **sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return SMALL[kind].build(**({"action_dim": 3, "horizon": 8, "cond_dim": 5, "n_obs_steps": 2} | sizes))


def inputs(batch: int = 4, horizon: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batch, horizon, 3, generator=g)
    return x, 100 * torch.rand(batch, generator=g), torch.randn(batch, 2, 5, generator=g)


def test_every_registered_network_is_tested_here():
    assert set(SMALL) | MADE == set(KINDS["net"])
    assert all(isinstance(config, lookup("net", kind)) for kind, config in SMALL.items())


def test_film_scales_and_shifts_what_the_published_equation_says():
    """h + W2 act((1 + scale) * W1 act(h) + shift), with scale and shift set by observation and time."""
    net = build("film_mlp")
    x, t, cond = inputs()
    block = net.blocks[0]
    h, features = torch.randn(4, 32), torch.randn(4, 16)
    scale, shift = block.film(features)[:, :32], block.film(features)[:, 32:]
    inner = (1 + scale) * block.first(F.relu(h)) + shift
    torch.testing.assert_close(block(h, features), h + block.second(F.relu(inner)))
    with torch.no_grad():  # with neutral scales and no other way in, the observation is without effect
        for part in net.blocks:
            part.film.weight.zero_()
            part.film.bias.zero_()
        net.enter.weight[:, x[0].numel() :] = 0
    torch.testing.assert_close(net(x, t, cond), net(x, t + 5, -cond))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("batch", [1, 4])
def test_output_has_the_shape_of_the_chunk(kind, batch):
    x, t, cond = inputs(batch)
    assert build(kind)(x, t, cond).shape == x.shape


@pytest.mark.parametrize("kind", SMALL)
def test_each_input_matters_and_rows_do_not_mix(kind):
    net = build(kind).eval()
    x, t, cond = inputs()
    base = net(x, t, cond)
    for changed in (
        net(x + 1, t, cond),
        net(x, t + 1, cond),
        net(x, t, cond + torch.tensor([[0.0], [1.0]])),
    ):
        assert ((changed - base).abs().amax((1, 2)) > 1e-7).all()
    torch.testing.assert_close(net(x[2:3], t[2:3], cond[2:3]), base[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_training_lowers_the_loss(kind):
    net = build(kind)
    x, t, cond = inputs(16)
    target = torch.sin(x) + cond[:, :1, :3]
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(net(x, t, cond), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", SMALL)
def test_every_parameter_gets_a_gradient_and_configs_survive_json(kind):
    net = build(kind)
    net(*inputs()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    config = SMALL[kind]
    assert parse(type(config), config.tree()) == config


@pytest.mark.parametrize("kind", SMALL)
def test_autocast_stays_close_and_returns_float32(kind):
    net = build(kind)
    x, t, cond = inputs()
    exact = net(x, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(x, t, cond)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()
    rounded.square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize(
    ("config", "horizon", "message"),
    [
        (UNetConfig(), 10, "multiple of 4, got 10; use 12"),
        (UNetConfig(kernel=4), 16, "odd"),
        (UNetConfig(widths=()), 16, "at least one level"),
        (UNetConfig(widths=(20,)), 16, "20 channels"),
        (UNetConfig(step_dim=7), 16, "even size"),
        (TransformerConfig(width=10, heads=4), 16, "multiple of its heads"),
        (DenoisingMLPConfig(step_dim=2), 16, "at least 4"),
    ],
)
def test_faulty_sizes_are_named_at_build(config, horizon, message):
    with pytest.raises(ConfigError, match=message):
        config.build(action_dim=2, horizon=horizon, cond_dim=5, n_obs_steps=2)


def test_default_unet_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net = UNetConfig().build(action_dim=2, horizon=16, cond_dim=5, n_obs_steps=2)
    assert sum(p.numel() for p in net.parameters()) == 65_353_218


def test_time_embedding_follows_its_formula():
    t = torch.tensor([0.0, 3.0, 12.5])
    embedded = SinusoidalEmbedding(8)(t)
    for i in range(4):
        frequency = 10000 ** (-i / 3)
        torch.testing.assert_close(embedded[:, i], (t * frequency).sin())
        torch.testing.assert_close(embedded[:, 4 + i], (t * frequency).cos())
    assert math.isclose(SinusoidalEmbedding(8).frequencies[-1].item(), 1e-4, rel_tol=1e-5)


class PublishedUNet(nn.Module):
    """The published equations in torch's own (B, C, T) layers, sharing the parameters of a `UNet`."""

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net

    def conv(self, conv: TemporalConv, h: Tensor) -> Tensor:
        if isinstance(conv, TransposedTemporalConv):
            weight = conv.weight.permute(1, 2, 0)
            return F.conv_transpose1d(h, weight, conv.bias, conv.stride, conv.padding)
        return F.conv1d(h, conv.weight.permute(2, 1, 0), conv.bias, conv.stride, conv.padding)

    def conv_block(self, block: nn.Module, h: Tensor) -> Tensor:
        norm: TemporalGroupNorm = block.norm
        return F.mish(F.group_norm(self.conv(block.conv, h), norm.groups, norm.weight, norm.bias, norm.eps))

    def residual(self, block: nn.Module, h: Tensor, features: Tensor) -> Tensor:
        scale, bias = F.linear(F.mish(features), block.film.weight, block.film.bias)[:, :, None].chunk(2, 1)
        out = self.conv_block(block.second, scale * self.conv_block(block.first, h) + bias)
        if isinstance(block.shortcut, nn.Linear):
            h = F.conv1d(h, block.shortcut.weight[:, :, None], block.shortcut.bias)
        return out + h

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        net = self.net
        features = torch.cat([net.embed_time(t), cond.flatten(1)], 1)

        def level(blocks: nn.Module, h: Tensor) -> Tensor:
            return self.residual(blocks.second, self.residual(blocks.first, h, features), features)

        h, skips = x.transpose(1, 2), []
        for i, blocks in enumerate(net.down_levels):
            skips.append(level(blocks, h))
            h = self.conv(net.downs[i], skips[-1]) if i < len(net.downs) else skips[-1]
        h = level(net.middle, h)
        for blocks, up in zip(net.up_levels, net.ups, strict=True):
            h = self.conv(up, level(blocks, torch.cat([h, skips.pop()], 1)))
        h = F.conv1d(self.conv_block(net.last, h), net.head.weight[:, :, None], net.head.bias)
        return h.transpose(1, 2)


def test_unet_equals_the_published_equations():
    torch.manual_seed(0)
    net = UNetConfig(widths=(16, 24, 32), step_dim=8).build(3, 16, 5, 2)
    x, t, cond = inputs(horizon=16)
    result = []
    for model in (net, PublishedUNet(net)):
        out = model(x, t, cond)
        result.append((out, torch.autograd.grad(out.square().sum(), list(net.parameters()))))
    (out, grads), (out_ref, grads_ref) = result
    torch.testing.assert_close(out, out_ref, rtol=1e-5, atol=1e-5)
    for grad, grad_ref in zip(grads, grads_ref, strict=True):
        torch.testing.assert_close(grad, grad_ref, rtol=1e-5, atol=1e-5 * float(grad_ref.abs().max() + 1))


def test_mlp_equals_dppos_equations():
    net = build("mlp")
    x, t, cond = inputs()
    first, block, last = net.trunk
    hidden = first(torch.cat([x.flatten(1), net.embed_time(t), cond.flatten(1)], 1))
    hidden = hidden + block.second(F.relu(block.first(F.relu(hidden))))
    torch.testing.assert_close(net(x, t, cond), last(hidden).view_as(x))
    assert [m.out_features for m in net.embed_time if isinstance(m, nn.Linear)] == [32, 16]


def test_transformer_is_causal_in_actions_and_observations():
    net = build("transformer").eval()
    x, t, cond = inputs()
    base = net(x, t, cond)
    later = x.clone()
    later[:, 5] += 1.0
    moved = (net(later, t, cond) - base).abs().amax((0, 2))
    assert (moved[:5] == 0).all()
    assert (moved[5:] > 0).all()
    newest = cond.clone()
    newest[:, 1] += 1.0
    moved = (net(x, t, newest) - base).abs().amax((0, 2))
    assert moved[0] == 0
    assert (moved[1:] > 0).all()


def test_transformer_equals_the_published_attention():
    """One layer written out: pre-norm causal self-attention, masked cross-attention, GELU feed-forward."""
    torch.manual_seed(0)
    net = TransformerConfig(width=16, layers=1, heads=2, dropout=0.0).build(3, 6, 5, 2).eval()
    x, t, cond = inputs(horizon=6)
    layer = net.decoder.layers[0]

    def attend(attention: nn.MultiheadAttention, query: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        wq, wk, wv = attention.in_proj_weight.chunk(3)
        q, k, v = ((h @ w.T).unflatten(2, (2, 8)).transpose(1, 2) for h, w in ((query, wq), (memory, wk), (memory, wv)))
        scores = (q @ k.transpose(2, 3) / math.sqrt(8)).masked_fill(~seen, -math.inf)
        return attention.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    step, source = torch.arange(6)[:, None], torch.arange(3)[None, :]
    tokens = torch.cat([net.embed_time(t)[:, None], net.embed_obs(cond)], 1) + net.memory_positions
    memory = net.encode_memory(tokens)
    h = net.embed_action(x) + net.action_positions
    normal = layer.norm1(h)
    h = h + attend(layer.self_attn, normal, normal, torch.arange(6)[None, :] <= step)
    h = h + attend(layer.multihead_attn, layer.norm2(h), memory, step >= source - 1)
    h = h + layer.linear2(F.gelu(layer.linear1(layer.norm3(h))))
    expected = net.head(net.decoder.norm(h))
    torch.testing.assert_close(net(x, t, cond), expected, rtol=1e-5, atol=1e-5)
