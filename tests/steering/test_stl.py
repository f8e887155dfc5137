"""Signal Temporal Logic: by hand, against brute force, and smooth forms against exact ones."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steering.paths import ABSOLUTE, built, observe, planar

from robopol.errors import ConfigError
from robopol.steering.objectives.formula import (
    Always,
    And,
    Eventually,
    Formula,
    Linear,
    Near,
    Not,
    Or,
    Until,
    Window,
    least,
)
from robopol.steering.objectives.formula_text import read_formula

STEPS = 6
X, Y = Linear((1.0, 0.0), 0.0), Linear((0.0, 1.0), -0.2)


def brute(formula: Formula, signal, t: int) -> float:
    """The definitions of Donze & Maler, word for word, at a time at which the formula can be judged."""
    steps = len(signal)
    if isinstance(formula, Linear):
        return sum(w * s for w, s in zip(formula.weights, signal[t], strict=True)) + formula.constant
    if isinstance(formula, Near):
        return formula.radius - math.dist(signal[t], formula.point)
    if isinstance(formula, Not):
        return -brute(formula.part, signal, t)
    if isinstance(formula, And | Or):
        return (min if isinstance(formula, And) else max)(brute(part, signal, t) for part in formula.parts)
    window = formula.window
    last = steps - 1 if window.last is None else window.last
    if isinstance(formula, Until):
        end = min(t + last, formula.first.length(steps) - 1, formula.second.length(steps) - 1)
        return max(
            min([brute(formula.second, signal, k)] + [brute(formula.first, signal, j) for j in range(t, k)])
            for k in range(t + window.first, end + 1)
        )
    assert isinstance(formula, Always | Eventually)
    times = range(t + window.first, min(t + last, formula.part.length(steps) - 1) + 1)
    return (min if isinstance(formula, Always) else max)(brute(formula.part, signal, k) for k in times)


windows = st.one_of(
    st.just(Window()),
    st.builds(lambda a, more: Window(a, a + more), st.integers(0, 2), st.integers(0, 9)),
    st.builds(Window, st.integers(0, 2)),
)
formulas = st.recursive(
    st.one_of(
        st.just(X),
        st.just(Y),
        st.builds(Near, st.just((0.1, -0.3)), st.floats(0.1, 1.0)),
    ),
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(lambda a, b: And((a, b)), part, part),
        st.builds(lambda a, b, c: Or((a, b, c)), part, part, part),
        st.builds(Always, windows, part),
        st.builds(Eventually, windows, part),
        st.builds(Until, windows, part, part),
    ),
    max_leaves=5,
)


@given(formulas, st.integers(0, 1000))
def test_robustness_is_that_of_the_definitions(formula, seed):
    signal = torch.randn(STEPS, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    length = formula.length(STEPS)
    if length < 1:
        return
    found = formula.robustness(signal)
    assert found.shape == (length,)
    expected = [brute(formula, signal.tolist(), t) for t in range(length)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@given(formulas, st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
def test_the_first_times_are_those_of_all(formula, seed, temperature):
    signal = torch.randn(2, STEPS, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = formula.robustness(signal, temperature) if formula.length(STEPS) >= 1 else signal[:, :0, 0]
    for times in range(1, found.shape[-1] + 1):
        torch.testing.assert_close(formula.robustness(signal, temperature, times), found[:, :times])


@given(formulas, st.integers(0, 1000))
def test_smooth_robustness_becomes_exact_and_its_gradient_is_finite(formula, seed):
    signal = torch.randn(2, STEPS, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if formula.length(STEPS) < 1:
        return
    exact = formula.robustness(signal)
    errors = []
    for temperature in (0.1, 0.001):
        at = signal.clone().requires_grad_()
        smooth = formula.robustness(at, temperature)
        errors.append((smooth - exact).abs().max().item())
        assert torch.autograd.grad(smooth.sum(), at)[0].isfinite().all()
    assert errors[0] <= 0.1 * 30  # T log n for each of the nested operators
    assert errors[1] <= 0.001 * 30


def test_the_smooth_minimum_is_too_small_by_at_most_t_log_n():
    values = torch.randn(100, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for temperature in (1.0, 0.1, 0.01):
        short = values.amin(-1) - least(values, temperature)
        assert short.min() >= -1e-12
        assert short.max() <= temperature * math.log(7)
    equal = torch.zeros(7, dtype=torch.float64)
    assert least(equal, 0.1).item() == pytest.approx(-0.1 * math.log(7))  # the bound is reached


def score(formula, path, **options):
    tree = {"kind": "stl", "formula": formula, "motion": ABSOLUTE} | options
    return built(tree, planar(horizon=len(path))).score(observe(1), torch.tensor(path)[None, None])[0, 0].item()


RISE = [[0.0, 0.0], [0.1, 0.5], [0.3, 0.2], [0.6, 0.1]]


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("x >= 0.2", -0.2),
        ("x <= 0.2", 0.2),
        ("0.5 x + 2*y - 1 >= -3 x", -1.0),
        ("always x >= -0.1", 0.1),
        ("eventually x >= 0.5", 0.1),
        ("eventually[0, 2] x >= 0.5", -0.2),
        ("always[1, 2] y >= 0.1", 0.1),
        ("always[2, end] x >= 0.1", 0.2),
        ("eventually distance(0.3, 0.6) <= 0.1", -0.1 * (math.sqrt(5) - 1)),
        ("always distance(0.3, 0.2) >= 0.1", -0.1),
        ("eventually y >= 0.4 and always x <= 0.7", 0.1),
        ("x >= 1 or y >= 1", -1.0),
        ("not x >= 0.2", 0.2),
        ("not not x >= 0.2", -0.2),
        ("eventually always[0, 1] y >= 0.15", 0.05),
        ("y <= 0.1 until x >= 0.05", 0.05),
        ("x <= 0.2 until[2, 3] y <= 0.15", -0.05),
        ("eventually (x >= 0.2 and y >= 0.1)", 0.1),
    ],
)
def test_formulas_by_hand(formula, value):
    assert score(formula, RISE) == pytest.approx(value, abs=1e-6)


def test_the_sign_says_whether_it_is_satisfied():
    rng = torch.Generator().manual_seed(0)
    paths = torch.randn(1, 500, STEPS, 2, generator=rng)
    policy = planar(horizon=STEPS)
    found = built(
        {"kind": "stl", "formula": "eventually x >= 1 and always y <= 1.5", "motion": ABSOLUTE}, policy
    ).score(observe(1), paths)
    true = (paths[..., 0] >= 1).any(-1) & (paths[..., 1] <= 1.5).all(-1)
    assert 0.2 < true.float().mean() < 0.8
    assert torch.equal(found > 0, true)


@pytest.mark.parametrize("left", ["x >= 0", "(x >= 0 until[1, 3] y >= 0)", "eventually[1, 2] y <= 0.3"])
def test_laws(left):
    signal = torch.randn(5, STEPS, 2, generator=torch.Generator().manual_seed(3))
    for one, other in (
        (f"not not {left}", left),
        (f"always[0, 2] {left}", f"not eventually[0, 2] not {left}"),
        (f"not ({left} and y >= 0)", f"not {left} or not y >= 0"),
        (f"y <= 9 until {left}", f"eventually {left}"),
        (f"{left} and ({left} and {left})", left),
    ):
        a, b = (read_formula(text, ("x", "y")).robustness(signal) for text in (one, other))
        assert torch.equal(a, b), (one, other)


def test_smooth_robustness_spreads_the_gradient():
    at = torch.zeros(1, 1, 4, 2).requires_grad_()
    for temperature, moved in ((0.0, 0), (0.1, 4)):
        tree = {"kind": "stl", "formula": "always x >= 0.1", "motion": ABSOLUTE, "temperature": temperature}
        path = at + torch.tensor([0.0, 0.01, 0.02, -0.01])[:, None]
        score = built(tree, planar(horizon=4)).score(observe(1), path)
        (gradient,) = torch.autograd.grad(score.sum(), at)
        assert gradient[..., 0].sum().item() == pytest.approx(1)
        assert (gradient[..., 0] > 0).sum() == (moved or 1)


@pytest.mark.parametrize(
    ("formula", "fault"),
    [
        ("", "character 1: expected a number or one of x, y, found 'its end'"),
        ("x > 1", "character 3: expected a number, a name or a sign"),
        ("x >= 1 and", "character 11"),
        ("z >= 1", "character 1: expected a number or one of x, y, found 'z"),
        ("always[3, 1] x >= 0", "a number of steps of at least 3"),
        ("always[0.5, 1] x >= 0", "a whole number of steps"),
        ("distance(1) <= 2", "2 numbers, one for each of x, y"),
        ("distance(1, 2) <= x", "a distance compared with a number"),
        ("(x >= 1", "expected ')'"),
        ("x >= 1 y >= 1", "the end, or one of and, or, until"),
        ("x <= 2*0.3", "character 8: expected one of x, y, found '0.3'"),
        ("x <= 0.5 * 0.1 y", "character 12: expected one of x, y, found '0.1 y'"),
        ("(" * 60 + "x >= 1" + ")" * 60, "nested more than 50 deep"),
        ("not " * 60 + "x >= 1", "nested more than 50 deep"),
        ("x >= 1 " * 400, "at most 2000 characters"),
        ("eventually[3, 5] always[2, 2] x >= 0", "begin 5 steps ahead, and plans have 5 from now on"),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_stands(formula, fault):
    with pytest.raises(ConfigError, match=fault.replace("(", r"\(").replace(")", r"\)")):
        built({"kind": "stl", "formula": formula, "motion": ABSOLUTE}, planar(horizon=5))
