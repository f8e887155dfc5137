"""Plans are smooth, do not swing beyond their waypoints, end at rest; chunks are merged as said."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from execution.clock import Clock, play
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.execution import RecedingHorizonConfig, TemporalEnsemble
from robopol.real_robot.chunk import Chunk, Usable
from robopol.real_robot.merging import BlendConfig, ContinueConfig, EnsembleConfig, ReplaceConfig, merging_of
from robopol.real_robot.plan import Plan, monotone_tangents

MS = 1_000_000
DT = 100 * MS
BRAKING = np.array([4.0, 9.0])
NONE = Plan(0, np.zeros(0), np.zeros(0), np.zeros(0))


def chunk(data, t_first=DT, **fields):
    return Chunk(bytes(16), 1, 0, 0, 0, t_first, DT, np.asarray(data, float), **fields)


def usable(made, due=0):
    first = int(np.searchsorted(made.times(), due))
    return Usable(made.times()[first:], made.data[first:], 0)


waypoints = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=8)
speeds = st.tuples(st.floats(-2, 2), st.floats(-2, 2))


def moving(dq):
    return Plan(0, np.zeros(2), np.array(dq), BRAKING)


def walk(plan, start, end, step=5 * MS):
    return [plan.at(t) for t in range(start, end, step)]


@given(waypoints, speeds)
def test_a_plan_is_smooth_goes_through_its_waypoints_and_ends_at_rest(points, dq):
    plan = moving(dq)
    made = chunk(points)
    plan.go_on(0, made.times(), made.data)
    np.testing.assert_allclose(plan.at(0)[1], dq, atol=1e-12)  # rad/s; a speed may be a subnormal number
    for t, point in zip(made.times().tolist(), points, strict=True):
        np.testing.assert_allclose(plan.at(t)[0], point, atol=1e-12)
    assert plan.rest >= plan.end == made.times()[-1]
    q, still = plan.at(plan.rest)
    np.testing.assert_array_equal(still, 0)
    np.testing.assert_array_equal(plan.at(plan.rest + 10**10)[0], q)
    for t in [*made.times().tolist(), plan.rest, plan.rest // 2]:  # position and speed have no jumps
        before, after = plan.at(t - 1), plan.at(t + 1)
        np.testing.assert_allclose(before[0], after[0], atol=1e-6)
        np.testing.assert_allclose(before[1], after[1], atol=1e-5)


@given(waypoints)
def test_it_never_swings_beyond_two_waypoints(points):
    plan = moving((0, 0))
    made = chunk(points)
    plan.go_on(0, made.times(), made.data)
    corners = [np.zeros(2), *made.data]
    for k, (a, b) in enumerate(pairwise(corners)):
        for q, _ in walk(plan, k * DT, (k + 1) * DT):
            assert np.all((q >= np.minimum(a, b) - 1e-9) & (q <= np.maximum(a, b) + 1e-9))


@given(speeds)
def test_braking_takes_no_more_than_the_acceleration(dq):
    plan = moving(dq)
    path = walk(plan, 0, plan.rest + 20 * MS, MS)
    change = np.abs(np.diff([v for _, v in path], axis=0))
    assert np.all(change <= BRAKING * 1e-3 * (1 + 1e-6))
    for q, _ in path:
        assert abs(q[0] * dq[1] - q[1] * dq[0]) <= 1e-9  # along a straight line


@given(waypoints, waypoints, speeds, st.integers(0, 700))
def test_going_on_changes_nothing_before_and_is_smooth_there(old, new, dq, at):
    plan, same = moving(dq), moving(dq)
    for made in (plan, same):
        made.go_on(0, chunk(old).times(), chunk(old).data)
    t = at * MS
    before = [plan.at(s) for s in range(0, t + 1, 7 * MS)] + [plan.at(t)]
    plan.go_on(t, t + chunk(new).times(), chunk(new).data)
    after = [plan.at(s) for s in range(0, t + 1, 7 * MS)] + [plan.at(t)]
    for (q, v), (q1, v1) in zip(before, after, strict=True):
        np.testing.assert_allclose(q, q1, atol=1e-9)
        np.testing.assert_allclose(v, v1, atol=1e-6)
    plan.forget(t)
    np.testing.assert_allclose(plan.at(t)[0], same.at(t)[0], atol=1e-9)
    assert len(plan._t) <= len(new) + 3


def test_tangents_are_those_of_scipy_where_nothing_limits_them():
    from scipy.interpolate import CubicHermiteSpline

    t, q = np.array([0, 0.1, 0.2, 0.3, 0.4]), np.array([[0.0], [1.0], [2.2], [3.5], [5.0]])
    tangents = monotone_tangents(t, q, np.array([10.0]))
    np.testing.assert_allclose(tangents[1:-1, 0], [(q[i + 1, 0] - q[i - 1, 0]) / 0.2 for i in (1, 2, 3)])
    plan = Plan(0, q[0], np.array([10.0]), np.array([4.0]))
    plan.go_on(0, (t[1:] * 1e9).round().astype(int), q[1:])
    spline = CubicHermiteSpline(t, q, tangents)
    for s in (0.03, 0.11, 0.25, 0.399):
        np.testing.assert_allclose(plan.at(round(s * 1e9))[0], spline(s), atol=1e-9)
        np.testing.assert_allclose(plan.at(round(s * 1e9))[1], spline(s, 1), atol=1e-7)


def test_replacing_takes_the_chunk_as_it_is():
    made = usable(chunk([[0.1, 0.2], [0.3, 0.4]]))
    merged = ReplaceConfig().build().merge(moving((1, 1)), NONE, chunk([[0.0, 0.0]]), made)
    np.testing.assert_array_equal(merged.points, made.values)


def test_blending_fades_from_the_old_plan_to_the_chunk():
    plan = moving((0, 0))
    old, new = chunk([[1.0, -1.0]] * 6), chunk([[0.0, 0.0]] * 6)
    plan.go_on(0, old.times(), old.data)
    merged = BlendConfig(waypoints=2).build().merge(plan, NONE, new, usable(new, 3 * DT))
    np.testing.assert_allclose(merged.points[:, 0], [2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(merged.points[:, 1], [-2 / 3, -1 / 3, 0, 0])


@given(st.floats(-1, 1), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_running_ensemble_equals_the_sum_over_all_chunks(m, every, seed):
    rng = np.random.default_rng(seed)
    rule, chunks = EnsembleConfig(m=m).build(), []
    for i in range(6):
        made = chunk(rng.normal(size=(8, 2)), t_first=DT * (1 + i * every))
        chunks.append(made)
        due = made.t_first + DT // 2 if i else 0  # late by one
        merged = rule.merge(NONE, NONE, made, usable(made, due))
        for t, point in zip(merged.times.tolist(), merged.points, strict=True):
            # a late action was never of use, so it is not averaged either
            said = [c.data[(t - c.t_first) // DT] for k, c in enumerate(chunks) if t in c.times()[bool(k) :]]
            weights = np.exp(-m * np.arange(len(said)))
            np.testing.assert_allclose(point, weights @ np.array(said) / weights.sum(), rtol=0, atol=1e-12)
        assert merged.times[-1] == made.times()[-1]


@pytest.mark.parametrize("m", [0.3, -1000.0, 1000.0])
def test_an_ensemble_leads_through_the_actions_that_evaluation_executes(m):
    policy, rule, generator = Clock(), EnsembleConfig(m=m).build(), torch.Generator().manual_seed(3)
    executed, *_ = play(TemporalEnsemble(policy, m), 10, seed=3)
    for step, action in enumerate(executed.numpy()):
        window = policy.plan({"state": torch.full((1, 2, 1), step / 1000)}, 1, [generator])[0, 0]
        made = chunk(window[policy.spec.n_obs_steps - 1 :].numpy(), t_first=DT * (1 + step))
        merged = rule.merge(NONE, NONE, made, usable(made, made.t_first))
        np.testing.assert_allclose(merged.points[0], action, rtol=0, atol=1e-6)


@given(st.integers(1, 6), st.integers(0, 5))
@settings(max_examples=15)
def test_a_plan_leads_through_the_actions_that_evaluation_executes(period, blend):
    told, policy = RecedingHorizonConfig(n_action_steps=period, blend=min(blend, 6 - period)), Clock()
    rule, plan = merging_of(told.merging), Plan(0, np.zeros(3), np.zeros(3), np.ones(3))
    executed, asked, *_ = play(told.build(policy), 20, seed=3)
    generator = torch.Generator().manual_seed(3)
    for step, action in enumerate(executed.numpy()):
        if asked[step]:
            window = policy.plan({"state": torch.full((1, 2, 1), step / 1000)}, 1, [generator])[0, 0]
            made = chunk(window[policy.spec.n_obs_steps - 1 :].numpy(), t_first=DT * (1 + step))
            merged = rule.merge(plan, NONE, made, usable(made, made.t_first)) if step else made
            points = merged.points if step else made.data
            plan.go_on(DT * step, made.times(), points)
        np.testing.assert_allclose(plan.at(DT * (1 + step))[0], action, rtol=0, atol=1e-5)


def test_an_ensemble_reads_chunks_off_the_grid_between_their_actions():
    rule = EnsembleConfig(m=0.0).build()
    first, second = chunk([[0.0], [0.0], [0.0], [0.0]]), chunk([[2.0], [4.0], [6.0]], t_first=DT + DT // 2)
    rule.merge(NONE, NONE, first, usable(first))
    merged = rule.merge(NONE, NONE, second, usable(second))
    np.testing.assert_array_equal(merged.times, [2 * DT, 3 * DT, 4 * DT])
    np.testing.assert_allclose(merged.points[:, 0], [1.5, 2.5, 0.0])


@pytest.mark.parametrize(("committed", "executed", "fits"), [(2, 3, True), (3, 3, True), (4, 3, False), (3, 4, False)])
def test_a_chunk_that_cannot_continue_the_plan_is_blended(committed, executed, fits):
    plan, new = moving((0, 0)), chunk([[1.0, 1.0]] * 6, committed=committed, executed=executed)
    merged = ContinueConfig(waypoints=2).build().merge(plan, NONE, new, usable(new))
    assert merged.continued == fits
    assert merged.points[0, 0] == (1.0 if fits else pytest.approx(1 / 3))


@pytest.mark.parametrize("late", [2, 3])
def test_a_chunk_that_comes_later_than_it_was_made_for_is_blended(late):
    new = chunk([[1.0, 1.0]] * 6, committed=2, executed=3)
    left = usable(new, due=(1 + late) * DT)
    merged = ContinueConfig(waypoints=2).build().merge(moving((0, 0)), NONE, new, left)
    assert merged.continued == (late == 2)
