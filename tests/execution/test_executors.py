"""The timing of plans: what is executed when, with and without latency, and what is done when there is no plan."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from clock import Clock, observe, play
from hypothesis import given
from hypothesis import strategies as st

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.execution import BLOCK, OpenLoopConfig, RecedingHorizon, TemporalEnsemble
from robopol.registry import KINDS, lookup

WALKING = ("warm_start", "inpainting", "real_time_chunking")
"""Those of a policy that walks from noise, which the clock does not."""
EXECUTORS = [kind for kind in KINDS["executor"] if kind not in WALKING]


def build(kind, policy, **options):
    return parse(lookup("executor", kind), {"kind": kind, **options}).build(policy)


def planned_at(actions) -> list[int]:
    return actions[:, 1].int().tolist()


def test_a_plan_is_executed_as_far_as_the_policy_says():
    actions, planned, seam, starved = play(RecedingHorizon(Clock(n_action_steps=3)), 8)
    assert planned_at(actions) == [0, 0, 0, 3, 3, 3, 6, 6]
    assert actions[:, 0].tolist() == list(range(8))
    assert planned.tolist() == [step in (0, 3, 6) for step in range(8)]
    assert seam.tolist() == [step in (3, 6) for step in range(8)]
    assert not starved.any()


def test_another_number_of_actions_can_be_said():
    actions, *_ = play(RecedingHorizon(Clock(n_action_steps=3), n_action_steps=5), 8)
    assert planned_at(actions) == [0] * 5 + [5] * 3


def test_a_late_plan_loses_its_first_actions_and_the_old_one_goes_on():
    actions, planned, seam, starved = play(RecedingHorizon(Clock(n_action_steps=3), latency=2), 12)
    assert planned_at(actions) == [0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
    assert actions[:, 0].tolist() == list(range(12))
    assert planned.tolist() == [step in (0, 3, 6, 9) for step in range(12)]
    assert seam.tolist() == [step in (5, 8, 11) for step in range(12)]
    assert not starved.any()


def test_open_loop_starves_while_it_waits_and_repeats_the_last_action():
    """H = 6: plans of step 0 and of step 6; the latter arrives in step 8."""
    actions, planned, seam, starved = play(OpenLoopConfig(latency=2).build(Clock()), 13)
    assert actions[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 8, 9, 10, 11, 11]
    assert starved.tolist() == [step in (6, 7, 12) for step in range(13)]
    assert torch.equal(actions[6], actions[5])
    assert planned.nonzero()[:, 0].tolist() == [0, 6, 12]
    assert seam.nonzero()[:, 0].tolist() == [8]


def test_without_latency_open_loop_executes_whole_plans():
    actions, *_ = play(OpenLoopConfig().build(Clock()), 13)
    assert planned_at(actions) == [0] * 6 + [6] * 6 + [12]


def test_one_plan_is_computed_at_a_time():
    _, planned, *_ = play(RecedingHorizon(Clock(), n_action_steps=1, latency=3), 12)
    assert planned.nonzero()[:, 0].tolist() == [0, 1, 4, 7, 10]


@given(
    st.sampled_from(EXECUTORS),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(0, 8),
    st.data(),
)
def test_no_action_is_executed_in_a_step_that_it_was_not_planned_for(kind, to, chunk, latency, data):
    policy = Clock(to, to + chunk - 1, data.draw(st.integers(1, chunk)))
    actions, planned, seam, starved = play(build(kind, policy, latency=latency % chunk), 30)
    for step in range(30):
        if starved[step]:
            assert step > 0
            assert torch.equal(actions[step], actions[step - 1])
        else:
            assert actions[step, 0].item() == pytest.approx(step)
    latency %= chunk
    asked = planned.nonzero()[:, 0].tolist()
    assert asked[0] == 0
    assert all(later - earlier >= max(1, latency) for earlier, later in pairwise(asked[1:]))
    assert seam.nonzero()[:, 0].tolist() == [step + latency for step in asked[1:] if step + latency < 30]
    if kind != "temporal_ensemble":
        newest = [max(s for s in asked if s == 0 or s + latency <= step) for step in range(30)]
        assert planned_at(actions) == [
            planned_at(actions)[step - 1] if starved[step] else newest[step] for step in range(30)
        ]


def test_a_new_plan_is_faded_in():
    """The k-th of its actions weighs k / (B + 1): of plans made in steps 0, 2 and 4, which say when they were."""
    actions, *_ = play(RecedingHorizon(Clock(), n_action_steps=2, blend=2), 6)
    assert actions[:, 0].tolist() == pytest.approx(range(6))
    assert actions[:, 1].tolist() == pytest.approx([0, 0, 2 / 3, 4 / 3, (4 + 2 * 2) / 3, (2 * 4 + 2) / 3])


@pytest.mark.parametrize("m", [0.01, 0.0, 1.0, -0.5, -1000.0])
def test_ensembling_is_the_published_weighted_mean(m):
    """ACT keeps what step t planned for step s in a table [t, s] and weighs the filled part of a column, top first."""
    steps, chunk, policy = 12, 6, Clock()
    actions, *_ = play(TemporalEnsemble(policy, m), steps, seed=3)
    generator = torch.Generator().manual_seed(3)
    table = np.full((steps, steps + chunk), np.nan)
    for t in range(steps):
        table[t, t : t + chunk] = torch.randn(7, generator=generator)[1:].numpy()
        column = table[: t + 1, t]
        column = column[~np.isnan(column)]
        weights = np.exp(-m * (np.arange(len(column)) - (len(column) - 1 if m < 0 else 0)))
        assert actions[t, 2].item() == pytest.approx((weights / weights.sum() * column).sum(), abs=1e-6)


def test_the_oldest_plan_weighs_most():
    actions, *_ = play(TemporalEnsemble(Clock(), 0.5), 10)
    assert (actions[6:, 1] < torch.arange(6, 10) - 2.5).all()


def test_an_episode_depends_on_its_seed_alone():
    """Not on the slot, on what else runs, on when other slots are reset; and the policy always sees as many rows."""
    for kind in EXECUTORS:
        alone = play(build(kind, Clock(), latency=1), 9, slot=4, seed=7)[0]
        policy = Clock()
        crowd = build(kind, policy, latency=1)
        crowd.reset(range(20), range(100, 120))
        for step in range(5):
            crowd.act(range(20), observe([step] * 20))
        crowd.reset([2], [7])
        rows = []
        for step in range(9):
            slots = [19, 2, *range(3, 3 + step)]
            obs = observe([5 + step, step, *[5] * step])
            rows.append(crowd.act(slots, obs)[1])
        assert torch.equal(torch.stack(rows), alone)
        assert set(policy.batches) == {BLOCK}


def test_the_history_is_filled_with_the_first_observation():
    policy, seen = Clock(n_obs_steps=3, n_action_steps=1), []
    sample = policy._sample
    policy._sample = lambda cond, n, generator: (seen.append(1000 * cond[0, :, 0]), sample(cond, n, generator))[1]
    play(RecedingHorizon(policy), 4)
    assert [history.round().int().tolist() for history in seen] == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("receding_horizon", {"n_action_steps": 7}, "7 actions of a plan cannot be executed: the policy plans 6"),
        ("receding_horizon", {"latency": 6}, "arrives 6 steps late is over.*at most 5"),
        ("temporal_ensemble", {"latency": 9}, "at most 5"),
        ("open_loop", {"latency": 6}, "at most 5"),
        *((kind, {}, "a clock policy has none") for kind in WALKING),
    ],
)
def test_what_cannot_be_executed_is_refused_in_words(kind, options, words):
    with pytest.raises(ConfigError, match=words):
        build(kind, Clock(), **options)
