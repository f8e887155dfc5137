"""What the limiter lets through is within the limits, and what is within the limits it lets through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.real_robot.limiter import Limiter

T = 0.01
STREAMS, TICKS = 10_000, 200


def limiter(n=1, low=-1.0, high=1.0, speed=2.0, acceleration=8.0, period=T):
    return Limiter(*(np.full(n, value) for value in (low, high, speed, acceleration)), period)


def streams(rng, n, ticks):
    """Make n references: jumps, ramps, noise and sines of all sizes, changed at random ticks, and speeds that lie."""
    kind = rng.integers(5, size=n)
    t = np.arange(ticks)[:, None] * T
    level = np.cumsum(
        rng.normal(size=(ticks, n)) * (rng.random((ticks, n)) < 0.05) * rng.choice([0.1, 1, 30], n), axis=0
    )
    sine = rng.uniform(0, 3, n) * np.sin(rng.uniform(0, 40, n) * t + rng.uniform(0, 6, n))
    ramp = rng.normal(size=n) * 3 * t
    noise = rng.normal(size=(ticks, n)) * rng.choice([0.001, 0.1, 10], n)
    q = np.choose(kind, [level, sine, ramp, noise, level + sine])
    dq = np.where(rng.random(n) < 0.7, np.gradient(q, T, axis=0), rng.normal(size=(ticks, n)) * 20)
    return q, dq


@pytest.mark.parametrize("seed", range(2))
def test_ten_thousand_random_streams_stay_within_the_limits(seed):
    rng = np.random.default_rng(seed)
    speed, acceleration = rng.uniform(0.3, 4, STREAMS), rng.uniform(1, 40, STREAMS)
    low, high = -rng.uniform(0.05, 2, STREAMS), rng.uniform(0.05, 2, STREAMS)
    made = Limiter(low, high, speed, acceleration, T)
    made.reset(rng.uniform(low, high))
    q, dq = streams(rng, STREAMS, TICKS)
    shares, brakes = rng.choice([0.1, 0.5, 1.0], TICKS), rng.random(TICKS) < 0.1
    last, moved = made.dq, np.zeros(STREAMS)
    for k in range(TICKS):
        before = made.q
        made.move(*(made.braking() if brakes[k] else made.towards(q[k], dq[k], shares[k])))
        np.testing.assert_allclose(made.q, before + made.dq * T, rtol=0, atol=1e-15)
        assert np.all(np.abs(made.dq) <= speed * (1 + 1e-9))
        assert np.all(np.abs(made.dq - last) <= acceleration * T * (1 + 1e-9))
        assert np.all((made.q >= low - 1e-12) & (made.q <= high + 1e-12))
        moved = np.maximum(moved, np.abs(made.dq) / speed)
        last = made.dq
    assert np.mean(moved > 0.999) > 0.2  # the limits were reached, so the test could fail


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.002, 0.008, 0.01, 0.02]))
@settings(max_examples=6)
def test_feasible_sines_are_met_within_a_tick(seed, period):
    # the steepest sines whose speed and acceleration are a share of the limits
    rng = np.random.default_rng(seed)
    amplitude, phase, share = rng.uniform(0.05, 0.8, 1000), rng.uniform(0, 6.28, 1000), rng.uniform(0.1, 0.95, 1000)
    omega = share * np.minimum(2.0 / amplitude, (8.0 / amplitude) ** 0.5)
    t = np.arange(300)[:, None] * period
    q, dq = amplitude * np.sin(omega * t + phase), amplitude * omega * np.cos(omega * t + phase)
    made = limiter(1000, period=period)
    made.reset(q[0])
    made.dq = dq[0]
    for k in range(1, 300):
        made.move(*made.towards(q[k], dq[k]))
        assert np.all(np.abs(made.q - q[k]) <= np.abs(dq[k]) * period + 8.0 * period**2)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=6)
def test_steps_are_reached_without_overshoot(seed):
    rng = np.random.default_rng(seed)
    start, goal = rng.uniform(-0.95, 0.95, (2, 1000))
    speed, acceleration = rng.uniform(0.5, 4, 1000), rng.uniform(3, 40, 1000)
    made = Limiter(np.full(1000, -1.0), np.full(1000, 1.0), speed, acceleration, T)
    made.reset(start)
    for _ in range(600):
        made.move(*made.towards(goal, np.zeros(1000)))
        # the braking curve in whole ticks is up to a T^2 / 8 longer than in continuous time
        assert np.all(np.sign(goal - start) * (made.q - goal) <= acceleration * T**2 / 8)
    np.testing.assert_allclose(made.q, goal, atol=1e-4)


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_braking_keeps_the_direction_and_ends_where_it_was_foretold(dq):
    made = limiter(3, low=-10.0, high=10.0)
    made.reset(np.zeros(3))
    made.dq = np.array(dq)
    start, stop, ticks = made.dq, made.stopping_point(made.q, made.dq), 0
    while np.any(made.dq) and ticks < 200:
        made.move(*made.braking())
        assert np.linalg.norm(np.cross(made.dq, start)) <= 1e-9
        ticks += 1
    assert ticks <= made.time_to_rest(start) / T + 1
    # in whole ticks it is up to half a tick's way shorter
    assert np.all(np.abs(made.q - stop) <= np.abs(start) * T * 0.5 + 1e-9)


@given(st.floats(-1, 1), st.floats(-1, 1), st.lists(st.booleans(), min_size=20, max_size=20))
@settings(max_examples=15)
def test_braking_never_passes_a_position_limit(goal, other, choices):
    made = limiter(2)
    made.reset(np.array([0.9, -0.9]))
    for brake in choices * 5:
        far = np.array([3 * goal, 30 * other])
        made.move(*(made.braking() if brake else made.towards(far, np.zeros(2))))
        assert np.all(np.abs(made.q) <= 1 + 1e-12)
        stop = made.stopping_point(made.q, made.dq)
        assert np.all(np.abs(stop) <= 1 + 1e-12)


def test_from_outside_the_limits_it_moves_inwards_only():
    made = limiter()
    made.reset(np.array([1.2]))
    made.move(*made.braking())
    assert made.q[0] == 1.2
    for k in range(200):
        made.move(*made.towards(np.array([1.5 if k < 50 else 0.5]), np.zeros(1)))
        assert made.q[0] <= 1.2
    assert made.q[0] == pytest.approx(0.5, abs=1e-3)
