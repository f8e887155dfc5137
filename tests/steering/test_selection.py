"""Choosing by scores: the statistics of best-of-N, the limits of the temperature, and what must not matter."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robopol.policies.selection import choose, effective_number

GAINS = {2: 0.56, 4: 1.03, 8: 1.42, 16: 1.77, 64: 2.34}
"""N -> expected largest of N standard normal numbers."""


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("count", "gain"), GAINS.items())
def test_the_best_of_n_gaussian_scores_gains_what_order_statistics_say(count, gain):
    scores = normal(20_000, count)
    best = scores.take_along_dim(choose(scores)[:, None], 1)
    assert best.mean().item() == pytest.approx(gain, abs=0.02)


def test_a_mode_of_mass_p_is_found_with_probability_one_less_one_less_p_to_the_n():
    for count, expected in ((1, 0.25), (4, 0.68), (10, 0.94)):
        good = (torch.rand(20_000, count, generator=torch.Generator().manual_seed(1)) < 0.25).double()
        assert good.take_along_dim(choose(good)[:, None], 1).mean().item() == pytest.approx(expected, abs=0.01)


def test_a_temperature_tilts_towards_good_scores_by_its_weights():
    scores = torch.tensor([0.0, 1.0, 2.0]).expand(60_000, 3)
    shares = torch.bincount(choose(scores, 0.5, normal(60_000, 3))) / 60_000
    expected = torch.tensor([math.exp(s / 0.5) for s in (0, 1, 2)])
    torch.testing.assert_close(shares, expected / expected.sum(), atol=0.006, rtol=0)


def test_the_limits_of_the_temperature_are_the_best_and_any():
    scores, noise = normal(4000, 5), normal(4000, 5, seed=1)
    assert torch.equal(choose(scores, 1e-6, noise), choose(scores))
    shares = torch.bincount(choose(scores, math.inf, noise), minlength=5) / 4000
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.03, rtol=0)


@given(st.integers(0, 1000), st.floats(0.1, 5), st.floats(-50, 50), st.sampled_from([0.0, 0.3, 2.0]))
def test_neither_a_constant_nor_a_common_scale_of_scores_and_temperature_matters(seed, scale, constant, temperature):
    scores, noise = normal(20, 6, seed=seed), normal(20, 6, seed=seed + 1)
    chosen = choose(scores, temperature, noise)
    assert torch.equal(choose(scale * scores + constant, scale * temperature, noise), chosen)


@given(st.permutations(range(6)), st.sampled_from([0.0, 0.5]))
def test_the_choice_moves_with_the_proposals(order, temperature):
    scores, noise, order = normal(20, 6), normal(20, 6, seed=1), torch.tensor(order)
    chosen = choose(scores, temperature, noise)
    assert torch.equal(order[choose(scores[:, order], temperature, noise[:, order])], chosen)


def test_the_chosen_score_never_falls_with_more_proposals():
    scores = normal(500, 32)
    best = [scores[:, :n].take_along_dim(choose(scores[:, :n])[:, None], 1) for n in (1, 2, 8, 32)]
    assert all((after >= before).all() for before, after in pairwise(best))


def test_what_is_not_a_number_is_never_chosen_unless_nothing_else_is_there():
    scores = torch.tensor([[math.nan, -5.0, -math.inf], [math.nan, math.nan, math.nan]])
    for temperature in (0.0, 1.0, math.inf):
        chosen = choose(scores, temperature, normal(2, 3))
        assert chosen[0] == 1
        assert 0 <= chosen[1] < 3
    assert choose(torch.tensor([[1.0, math.inf]])) == 1


def test_the_first_of_equals_is_taken():
    assert choose(torch.tensor([[2.0, 3.0, 3.0]])) == 1


def test_the_effective_number_is_one_where_one_weighs_all_and_n_where_all_weigh_alike():
    assert effective_number(torch.zeros(2, 8), 1.0).tolist() == [8, 8]
    assert effective_number(torch.tensor([0.0, 100.0]), 1.0).item() == pytest.approx(1)
    assert effective_number(torch.tensor([0.0, 100.0]), 0.0).item() == 1


@pytest.mark.parametrize("worst", [-math.inf, math.nan])
@pytest.mark.parametrize(("temperature", "number"), [(0.0, 1), (1.0, 2), (math.inf, 2)])
def test_the_effective_number_counts_what_can_be_chosen(worst, temperature, number):
    scores = torch.tensor([[0.5, worst, 0.5], [worst, worst, worst]])
    assert effective_number(scores, temperature).tolist() == pytest.approx([number, 1])
