from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.data import Normalizer
from robopol.errors import ConfigError, DataError, ShapeError

MODES = ["minmax", "zscore", "quantile", "identity"]


def data(rows=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator) * torch.tensor([1.0, 0.1, 3.0, 0.5]) + 0.5


@pytest.mark.parametrize("mode", MODES)
def test_round_trip(mode):
    normalizer = Normalizer(4, mode)
    normalizer.fit(data())
    x = data(seed=1).view(5, 100, 4)
    torch.testing.assert_close(normalizer.unnormalize(normalizer.normalize(x)), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["minmax", "zscore", "quantile"])
@settings(max_examples=40, deadline=None)
@given(constant=st.floats(-1e6, 1e6, width=32), rows=st.integers(1, 300))
def test_constants_map_to_zero_and_back_exactly(mode, constant, rows):
    x = torch.full((rows, 1), constant)
    normalizer = Normalizer(1, mode)
    normalizer.fit(x)
    y = normalizer.normalize(x)
    assert (y == 0).all()
    assert torch.equal(normalizer.unnormalize(y), x)


def test_bounds_are_sent_to_the_ends_without_data():
    normalizer = Normalizer(3, "bounds", ((-2.0, 0.0, 1.0), (6.0, 1.0, 1.0)))
    assert normalizer.fitted
    assert not Normalizer(3, "minmax").fitted
    x = torch.tensor([[-2.0, 0.0, 1.0], [6.0, 1.0, 1.0], [2.0, 0.5, 1.0]])
    y = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    normalizer.fit(100 * x)
    torch.testing.assert_close(normalizer.normalize(x), y)
    torch.testing.assert_close(normalizer.unnormalize(y), x)
    for bounds in (None, ((-1.0,), (1.0,)), ((0.0, 0.0, 0.0), (1.0, 1.0, float("inf")))):
        with pytest.raises(ConfigError, match="needs a lowest and a highest value"):
            Normalizer(3, "bounds", bounds)


def test_ranges():
    x = data()
    normalizer = Normalizer(4, "minmax")
    normalizer.fit(x)
    low, high = normalizer.normalize(x).aminmax(dim=0)
    torch.testing.assert_close(low, -torch.ones(4))
    torch.testing.assert_close(high, torch.ones(4))

    normalizer = Normalizer(4, "quantile")
    normalizer.fit(x)
    y = normalizer.normalize(x)
    assert ((y < -1).sum(0) == 5).all()
    assert ((y > 1).sum(0) == 5).all()

    normalizer = Normalizer(4, "zscore")
    normalizer.fit(x)
    torch.testing.assert_close(normalizer.scale, 1 / (x.std(0, correction=0) + 1e-3))
    torch.testing.assert_close(normalizer.normalize(x).mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_nearly_constant_is_only_centred():
    normalizer = Normalizer(2, "minmax")
    normalizer.fit(torch.tensor([[0.5, 0.0], [0.50005, 2.0]]))
    assert normalizer.scale.tolist() == [1.0, 1.0]
    torch.testing.assert_close(normalizer.offset, torch.tensor([0.500025, 1.0]))


def test_unfitted_is_refused_and_state_dict_fits():
    normalizer, other = Normalizer(4, "minmax"), Normalizer(4, "minmax")
    for use in (normalizer.normalize, normalizer.unnormalize):
        with pytest.raises(DataError, match="never fitted"):
            use(data())
    other.fit(data())
    normalizer.load_state_dict(other.state_dict())
    assert torch.equal(normalizer.normalize(data(seed=1)), other.normalize(data(seed=1)))


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="minmax, zscore, quantile, identity"):
        Normalizer(4, "gauss")
    normalizer = Normalizer(4, "minmax")
    with pytest.raises(ShapeError, match=r"4 dimensions, got shape \(3, 5\)"):
        normalizer.fit(torch.zeros(3, 5))
    for bad in (torch.zeros(0, 4), torch.full((2, 4), torch.nan)):
        with pytest.raises(DataError, match="at least one row"):
            normalizer.fit(bad)


@pytest.mark.parametrize("mode", ["minmax", "zscore", "quantile"])
def test_a_constant_comes_back_whatever_the_network_says(mode: Any) -> None:
    data = torch.stack([torch.linspace(-1, 3, 50), torch.full((50,), 0.85)], 1)
    normalizer = Normalizer(2, mode)
    normalizer.fit(data)
    assert (normalizer.normalize(data)[:, 1] == 0).all()
    said = torch.tensor([[0.3, -0.7], [0.1, 12.0]])
    assert (normalizer.unnormalize(said)[:, 1] == data[0, 1]).all()
