"""Networks whose steps are compiled say what the networks themselves say, and are compiled a few times, not often."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from robopol.errors import ConfigError, RobopolError
from robopol.networks.compiled import compiled
from robopol.networks.denoiser import Denoiser
from robopol.networks.denoising_mlp import DenoisingMLPConfig
from robopol.networks.fine_tuned import FineTunedDenoiser
from robopol.networks.temporal_conv import TemporalConv, joined_taps
from robopol.networks.unet import UNetConfig
from tests.networks.test_prepared import assert_walks_as, build, inputs


@pytest.fixture(autouse=True)
def forgets():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small(kind: str) -> Denoiser:
    if kind != "unet":
        return build(kind)
    torch.manual_seed(0)
    config = UNetConfig(widths=(8, 8), groups=4, step_dim=4, kernel=3)
    return config.build(action_dim=3, horizon=8, cond_dim=5, n_obs_steps=2).eval()


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("transformer", "unet")]  # tracing them takes seconds


@pytest.mark.parametrize("kind", ["mlp", "film_mlp", *SLOW])
def test_a_traced_network_equals_the_network(kind):
    net, (_, t, cond) = small(kind), inputs(4)
    with torch.no_grad():
        assert_walks_as(compiled(net, "eager").prepare(t, cond), net, 4, 1e-6)


@pytest.mark.slow  # a C++ compiler takes its time
@pytest.mark.parametrize("kind", ["mlp", "film_mlp", "transformer", "unet"])
def test_a_compiled_network_equals_the_network(kind):
    net = small(kind)
    made = compiled(net)
    with torch.no_grad():
        for rows in (4, 1, 5):
            _, t, cond = inputs(rows)
            assert_walks_as(made.prepare(t, cond), net, rows, 1e-5)


def test_steps_and_numbers_of_rows_share_what_is_compiled():
    net, counter = build("mlp"), CompileCounter()
    made = compiled(net, counter)
    with torch.no_grad():
        for rows in (4, 1, 5, 7, 16, 4, 1, 100):
            _, t, cond = inputs(rows)
            assert_walks_as(made.prepare(t, cond), net, rows, 1e-6)
    assert counter.frame_count == 3  # four rows, one row, any number


@torch._dynamo.config.patch(recompile_limit=1)
def test_many_networks_are_compiled_in_one_process():
    for width in (8, 16, 24):
        net = DenoisingMLPConfig(width=width).build(action_dim=3, horizon=8, cond_dim=5, n_obs_steps=2).eval()
        _, t, cond = inputs(4)
        with torch.no_grad():
            assert_walks_as(compiled(net, "eager").prepare(t, cond), net, 4, 1e-6)


def test_which_of_two_networks_answers_still_depends_on_the_time():
    torch.manual_seed(0)
    net = FineTunedDenoiser(build("mlp"), build("mlp"), (0.0, 50.0))
    for parameter in net.tuned.parameters():
        parameter.data += 0.1
    _, t, cond = inputs(4)
    mine = net.within(t)
    assert mine.any()
    assert not mine.all()
    made = compiled(net, "eager")
    with torch.no_grad():
        for told in (t, t.flip(0)):
            x, walk, expected = inputs(4)[0], made.prepare(told, cond), net.prepare(told, cond)
            for i in range(len(told)):
                torch.testing.assert_close(walk(x, i), expected(x, i))
                torch.testing.assert_close(walk(x, i), net(x, told[i].expand(4), cond), rtol=1e-4, atol=1e-4)


def test_a_compiled_network_only_acts_and_is_saved_as_what_it_was():
    net, (x, t, cond) = build("mlp"), inputs(2)
    before = net.state_dict()
    made = torch.nn.ModuleDict({"net": compiled(net, "eager")})
    assert made.state_dict().keys() == {f"net.{name}" for name in before}
    for act in (
        made.train,
        lambda: made.to(torch.float64),
        lambda: copy.deepcopy(made),
        lambda: made["net"].prepare(t, cond)(x.clone().requires_grad_(), 0),
    ):
        with pytest.raises(RobopolError, match="compiled networks only act"):
            act()


def test_what_torch_cannot_compile_is_said_in_words():
    def fails(graph, inputs):
        raise RuntimeError("no C++ compiler")

    _, t, cond = inputs(2)
    walk = compiled(build("mlp"), fails).prepare(t, cond)
    with torch.no_grad(), pytest.raises(ConfigError, match="cannot compile the network"):
        walk(inputs(2)[0], 0)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 1, 2), (3, 2, 1), (1, 1, 0)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_convolution_as_one_product_equals_that_by_taps(kernel, stride, padding, steps):
    torch.manual_seed(0)
    conv, x = TemporalConv(3, 4, kernel, stride=stride, padding=padding), torch.randn(steps, 2, 3)
    torch.testing.assert_close(joined_taps(x, conv.weight, conv.bias, stride, padding), conv(x))
