"""What is said of a curve of scores: constants, monotone curves, order, falls and recoveries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopol.errors import DataError
from robopol.evaluation.course import course, steps_to

STEPS = [0, 5, 10, 20, 50, 100]


@given(st.floats(0, 1))
def test_a_constant_is_its_own_area_and_regrets_the_rest(score):
    found = course(STEPS, [score] * len(STEPS))
    assert (found.start, found.drop, found.dip, found.recovery) == (score, 0, 0, 0)
    assert found.area == pytest.approx(score)
    assert found.end == pytest.approx(score)
    assert found.regret == pytest.approx(1 - score)
    assert found.gain == pytest.approx(0)


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6).map(sorted))
def test_what_only_rises_does_not_drop(scores):
    found = course(STEPS, scores)
    assert found.drop == found.dip == found.recovery == 0
    assert found.gain >= 0


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.permutations(range(8)))
def test_order_and_repetitions_do_not_matter(scores, order):
    steps, repeated = [*STEPS, STEPS[2], STEPS[4]], [*scores, scores[2], scores[4]]
    again = course([steps[i] for i in order], [repeated[i] for i in order])
    assert again == pytest.approx(course(STEPS, scores), abs=1e-9)
    crossed = steps_to(0.5, [steps[i] for i in order], [repeated[i] for i in order])
    assert crossed == steps_to(0.5, STEPS, scores)


def test_a_fall_by_hand():
    found = course(STEPS, [0.6, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert found.drop == pytest.approx(0.4)
    assert found.recovery == 20
    assert found.end == pytest.approx(0.8)
    assert found.gain == pytest.approx(0.2)
    assert found.dip == pytest.approx((0.5 * 5 * 0.4 + 5 * 0.3 + 0.5 * 10 * 0.2) / 100)
    assert found.area == pytest.approx((5 * 0.4 + 5 * 0.3 + 10 * 0.5 + 30 * 0.7 + 50 * 0.9) / 100)
    assert found.regret == pytest.approx(1 - 0.6)
    assert course(STEPS, [0.6, 0.2, 0.4, 0.5, 0.5, 0.5]).recovery is None
    assert course(STEPS, [0.6, 0.6, 0.6, 0.1, 0.8, 1.0]).drop == 0, "later falls are not those of the switch"
    assert course([0, 50, 100], [1.0, 0.2, 1.0]).drop == pytest.approx(0.8), "nothing was seen before"


def test_a_threshold_is_crossed_by_three_in_a_row():
    scores = [0.0, 0.9, 0.0, 0.6, 0.9, 1.0]
    assert steps_to(0.5, STEPS, scores) == 20
    assert steps_to(0.8, STEPS, scores) == 100
    assert steps_to(0.95, STEPS, scores) is None
    assert steps_to(0.1, [0, 5], [1.0, 1.0]) is None, "there are no three"


@pytest.mark.parametrize(
    ("steps", "scores", "words"),
    [([0, 5], [1.0], "2 steps and 1 scores"), ([], [], "0 steps"), ([5, 9], [1, 1], "begins with"), ([0], [1], "more")],
)
def test_what_is_no_curve_is_refused(steps, scores, words):
    with pytest.raises(DataError, match=words):
        course(steps, scores)
