"""The (time, batch, channel) layers equal torch's (batch, channel, time) layers, gradients included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.errors import ConfigError
from robopol.networks.mish import mish
from robopol.networks.temporal_conv import TemporalConv, TransposedTemporalConv
from robopol.networks.temporal_norm import TemporalGroupNorm


def outputs_and_gradients(module: nn.Module, x: Tensor, seed_of_loss: int = 1) -> tuple[Tensor, ...]:
    """Return output, gradient of the input and gradients of the parameters for a random linear loss."""
    x = x.detach().requires_grad_()
    y = module(x)
    weights = torch.randn(y.numel(), generator=torch.Generator().manual_seed(seed_of_loss), dtype=x.dtype)
    return y, *torch.autograd.grad((y.flatten() * weights).sum(), [x, *module.parameters()])


class ChannelsFirst(nn.Module):
    """Run a torch layer on (T, B, C) by going through its own (B, C, T)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(1, 2, 0)).permute(2, 0, 1)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 9),
    batch=st.integers(1, 3),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 3),
    data=st.data(),
)
def test_convolution_equals_torch(steps, batch, kernel, stride, data):
    padding = data.draw(st.integers(max(0, -(-(kernel - steps) // 2)), kernel))
    torch.manual_seed(0)
    ours = TemporalConv(3, 4, kernel, stride=stride, padding=padding).double()
    theirs = nn.Conv1d(3, 4, kernel, stride=stride, padding=padding).double()
    theirs.weight.data = ours.weight.detach().permute(2, 1, 0).contiguous()
    theirs.bias.data = ours.bias.detach()
    x = torch.randn(steps, batch, 3, dtype=torch.float64)
    y, dx, dw, db = outputs_and_gradients(ours, x)
    y_ref, dx_ref, dw_ref, db_ref = outputs_and_gradients(ChannelsFirst(theirs), x)
    torch.testing.assert_close((y, dx, dw, db), (y_ref, dx_ref, dw_ref.permute(2, 1, 0), db_ref))


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 6), kernel=st.integers(1, 5), stride=st.integers(1, 3), padding=st.integers(0, 2))
def test_transposed_convolution_equals_torch(steps, kernel, stride, padding):
    if stride * (steps - 1) + kernel - 2 * padding < 1:
        return
    torch.manual_seed(0)
    ours = TransposedTemporalConv(3, 4, kernel, stride=stride, padding=padding).double()
    theirs = nn.ConvTranspose1d(3, 4, kernel, stride=stride, padding=padding).double()
    theirs.weight.data = ours.weight.detach().permute(1, 2, 0).contiguous()
    theirs.bias.data = ours.bias.detach()
    x = torch.randn(steps, 2, 3, dtype=torch.float64)
    y, dx, dw, db = outputs_and_gradients(ours, x)
    y_ref, dx_ref, dw_ref, db_ref = outputs_and_gradients(ChannelsFirst(theirs), x)
    torch.testing.assert_close((y, dx, dw, db), (y_ref, dx_ref, dw_ref.permute(2, 0, 1), db_ref))


@pytest.mark.parametrize(("ours", "theirs"), [(TemporalConv, nn.Conv1d), (TransposedTemporalConv, nn.ConvTranspose1d)])
def test_initial_weights_have_torchs_bound(ours, theirs):
    torch.manual_seed(0)
    a, b = ours(64, 16, 5), theirs(64, 16, 5)
    assert a.weight.abs().max().item() == pytest.approx(b.weight.abs().max().item(), rel=0.01)
    assert a.bias.abs().max().item() == pytest.approx(b.bias.abs().max().item(), rel=0.5)


def test_taps_that_see_only_padding_are_left_out():
    taps = TemporalConv(1, 1, 5, padding=2).plan(4).taps
    assert sum(len(range(4)[tap.source]) for tap in taps) == 14  # of 5 * 4
    assert len(TemporalConv(1, 1, 5, padding=2).plan(1).taps) == 1


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_group_norm_equals_torch(offset):
    torch.manual_seed(0)
    ours = TemporalGroupNorm(4, 12)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    theirs = nn.GroupNorm(4, 12).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 12) + offset  # a large mean must not cost the variance its digits
    reference = outputs_and_gradients(ChannelsFirst(theirs), x.double())
    # the loss weights are drawn in the input's precision: draw ours from the same numbers
    x = x.requires_grad_()
    y = ours(x)
    weights = torch.randn(y.numel(), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = (y, *torch.autograd.grad((y.flatten() * weights.float()).sum(), [x, *ours.parameters()]))
    tolerance = 1e-5 if offset == 0 else 1e-3
    for a, b in zip(result, reference, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def test_group_norm_refuses_a_width_that_groups_do_not_divide():
    with pytest.raises(ConfigError, match=r"10 channels .* 4 groups"):
        TemporalGroupNorm(4, 10)


def test_mish_equals_torch_far_out_too():
    x = torch.cat([torch.linspace(-100, 100, 20001), torch.tensor([-1e4, 1e4])]).double().requires_grad_()
    (slope,) = torch.autograd.grad(mish(x).sum(), x)
    (reference,) = torch.autograd.grad(F.mish(x).sum(), x)
    torch.testing.assert_close(mish(x), F.mish(x))
    torch.testing.assert_close(slope, reference)


def test_layers_pass_gradcheck():
    torch.manual_seed(0)
    x = torch.randn(4, 2, 4, dtype=torch.float64, requires_grad=True)
    conv = TemporalConv(4, 4, 3, stride=2, padding=1).double()
    assert torch.autograd.gradcheck(lambda v: mish(conv(v)), x)
