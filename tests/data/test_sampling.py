"""Distributions over windows and goals: what is drawn is what was promised."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from robopol.config import parse
from robopol.data import Windows
from robopol.data.draws import batch_indices
from robopol.data.hindsight import HindsightConfig
from robopol.data.sampling import UniformConfig
from robopol.data.weighting import TopKConfig, TrajectoryWeightedConfig
from robopol.data.windows import Transition
from robopol.errors import ConfigError, DataError
from robopol.registry import KINDS, lookup


def with_returns(episodes, returns):
    """The same episodes; each return is paid in the first step."""
    reward = torch.zeros_like(episodes.reward)
    reward[episodes.starts] = torch.as_tensor(returns, dtype=torch.float32)
    return replace(episodes, reward=reward)


def counted(episodes):
    """States that say where they are: (episode, time)."""
    index = episodes.episode_index
    time = torch.arange(episodes.num_steps) - episodes.starts[index]
    state = torch.stack([index, time], 1).float()
    final = torch.stack([torch.arange(len(episodes)), episodes.lengths], 1).float()
    final[~episodes.has_final] = 0
    return replace(episodes, obs={"state": state}, final_obs={"state": final})


@pytest.mark.parametrize("kind", KINDS["sampling"])
def test_draws_are_functions_of_seed_and_step(make_episodes, kind):
    config = parse(lookup("sampling", kind), {"kind": kind} | ({"of": "state"} if kind == "hindsight" else {}))
    windows = Windows(config.observed(make_episodes([30, 9, 40, 25, 12])), 2, 8)

    def actions(step, seed):
        return config.build(windows).batch(step, 16, seed)

    sampling = config.build(windows)
    first = [sampling.batch(step, 16, 3) for step in range(4)]
    again = [sampling.batch(step, 16, 3) for step in (3, 2, 1, 0)][::-1]
    fresh = [config.build(windows).batch(step, 16, 3) for step in range(4)]
    for one, two, three in zip(first, again, fresh, strict=True):
        for key in one["obs"]:
            assert torch.equal(one["obs"][key], two["obs"][key])
            assert torch.equal(one["obs"][key], three["obs"][key])
    assert not torch.equal(first[0]["action"], first[1]["action"])
    assert not torch.equal(first[0]["action"], sampling.batch(0, 16, 4)["action"])


def test_uniform_is_the_stream_of_the_windows(make_episodes):
    windows = Windows(make_episodes([30, 9]), 2, 8)
    batch = UniformConfig().build(windows).batch(5, 7, 2)
    assert torch.equal(batch["action"], windows.gather(batch_indices(len(windows), 5, 7, 2))["action"])


def drawn_episodes(sampling, batches=40, size=500):
    states = torch.cat([sampling.batch(step, size, 1)["obs"]["state"][:, -1] for step in range(batches)])
    return states[:, 0].long()


@pytest.mark.parametrize("by", ["return", "advantage"])
def test_weighted_frequencies_are_as_published(make_episodes, by):
    episodes = with_returns(counted(make_episodes([30, 14, 40, 25])), [0.0, 1.0, 3.0, 4.0])
    windows = Windows(episodes, 2, 8)
    sampling = TrajectoryWeightedConfig(by=by, temperature=0.5).build(windows)
    score = [0.0, 0.25, 0.75, 1.0]
    if by == "advantage":  # first states are (e, 0): the fit through 0, 1, 3, 4 at 0, 1, 2, 3 is -0.1 + 1.4 e
        residual = [value - (-0.1 + 1.4 * e) for e, value in enumerate([0.0, 1.0, 3.0, 4.0])]
        score = [(r - min(residual)) / (max(residual) - min(residual)) for r in residual]
    weights = torch.tensor([math.exp(x / 0.5) for x in score], dtype=torch.float64)
    counts = torch.bincount(windows.episode)
    expected = weights * counts / (weights * counts).sum()
    found = torch.bincount(drawn_episodes(sampling), minlength=4)
    assert chisquare(found, expected * found.sum()).pvalue > 0.01
    # not by accident: uniform would not do
    assert chisquare(found, counts / counts.sum() * found.sum()).pvalue < 1e-6
    # the windows of one episode are equally likely
    times = torch.cat([sampling.batch(step, 500, 1)["obs"]["state"][:, -1] for step in range(40)])
    third = torch.bincount(times[times[:, 0] == 2][:, 1].long(), minlength=int(counts[2]))
    assert len(third) == counts[2]
    assert chisquare(third).pvalue > 0.01


@settings(max_examples=25, deadline=None)
@given(
    returns=st.lists(st.integers(-9, 9), min_size=6, max_size=6),
    scale=st.sampled_from([0.01, 3.0, 1e4]),
    shift=st.integers(-50, 50),
    by=st.sampled_from(["return", "advantage"]),
)
def test_shifted_and_scaled_returns_weigh_the_same(make_episodes, returns, scale, shift, by):
    episodes = make_episodes([12, 8, 14, 20, 9, 11])
    values = torch.tensor(returns, dtype=torch.float64)
    one, two = (
        TrajectoryWeightedConfig(by=by).build(Windows(with_returns(episodes, given), 1, 4)).weights
        for given in (values, values * scale + shift)
    )
    torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-7)  # returns are summed from float32 rewards
    assert one.max() == 1


def test_equal_returns_are_sampled_uniformly(make_episodes):
    episodes = with_returns(make_episodes([12, 8, 14]), [7.3, 7.3, 7.3])
    assert TrajectoryWeightedConfig().build(Windows(episodes, 1, 4)).weights.tolist() == [1, 1, 1]
    # as many numbers as episodes explain every return
    episodes = with_returns(make_episodes([12, 8, 14]), [1.0, 5.0, -2.0])
    weights = TrajectoryWeightedConfig(by="advantage").build(Windows(episodes, 1, 4)).weights
    assert weights.tolist() == [1, 1, 1]


def test_episodes_that_are_held_out_weigh_nothing(make_episodes):
    episodes = with_returns(counted(make_episodes([12, 8, 14])), [1.0, 100.0, 2.0])
    part = Windows(episodes, 2, 8).only(torch.tensor([0, 2]))
    sampling = TrajectoryWeightedConfig(temperature=1.0).build(part)
    assert sampling.weights[1].isnan()
    assert sampling.weights[2] == 1
    assert sampling.weights[0].item() == pytest.approx(math.exp(-1))
    assert set(drawn_episodes(sampling, 4).tolist()) == {0, 2}


@settings(max_examples=40, deadline=None)
@given(
    returns=st.lists(st.integers(-3, 3), min_size=7, max_size=7),
    success=st.lists(st.booleans(), min_size=7, max_size=7),
    share=st.sampled_from([0.01, 0.3, 0.5, 1.0]),
    by=st.sampled_from(["return", "success"]),
)
def test_top_k_is_exactly_the_best(make_episodes, returns, success, share, by):
    episodes = with_returns(counted(make_episodes([12, 8, 14, 20, 9, 11, 10])), returns)
    episodes = replace(episodes, success=torch.tensor(success))
    sampling = TopKConfig(share=share, by=by).build(Windows(episodes, 1, 4))
    order = sorted(range(7), key=lambda e: (-success[e] if by == "success" else 0, -returns[e], e))
    best = sorted(order[: {0.01: 1, 0.3: 3, 0.5: 4, 1.0: 7}[share]])
    assert sampling.windows.episode.unique().tolist() == best
    size = len(sampling.windows)
    states = sampling.batch(0, size, 0)["obs"]["state"][:, -1]
    assert len(states.unique(dim=0)) == size, "every window once an epoch"


def goals(sampling, batches=20, size=500):
    """The newest states and the goals of many windows, (B, 2) each."""
    parts = [sampling.batch(step, size, 1)["obs"] for step in range(batches)]
    assert all((part["goal"] == part["goal"][:, :1]).all() for part in parts), "one goal for the whole history"
    return tuple(torch.cat([part[key][:, -1] for part in parts]) for key in ("state", "goal"))


def hindsight(episodes, only=None, **shares):
    config = HindsightConfig(of="state", **{"geometric": 0.0} | shares)
    windows = Windows(config.observed(episodes), 2, 8)
    return config.build(windows if only is None else windows.only(torch.tensor(only)))


@pytest.mark.parametrize("way", ["geometric", "uniform", "final"])
def test_goals_are_of_the_same_episode_and_never_before_now(make_episodes, way):
    episodes = counted(make_episodes([1, 3, 9, 30, 14]))  # the final observation of episode 2 is unknown
    now, goal = goals(hindsight(episodes, **{way: 1.0}))
    assert torch.equal(now[:, 0], goal[:, 0])
    last = torch.where(episodes.has_final, episodes.lengths, episodes.lengths - 1)[now[:, 0].long()]
    assert (goal[:, 1] >= torch.minimum(now[:, 1] + 1, last)).all()
    assert (goal[:, 1] <= last).all()
    assert (goal[:, 1] == last).all() == (way == "final")


def test_geometric_goals_follow_their_law(make_episodes):
    episodes = counted(make_episodes([60]))
    now, goal = goals(hindsight(episodes, geometric=1.0, gamma=0.8), batches=60)
    ahead = (goal - now)[now[:, 1] <= 30][:, 1].long()
    found = torch.bincount(ahead.clamp(max=15))[1:]
    law = torch.tensor([0.2 * 0.8 ** (k - 1) for k in range(1, 15)] + [0.8**14], dtype=torch.float64)
    assert chisquare(found, law * found.sum()).pvalue > 0.01
    # beyond the end it is the end
    late = goal[now[:, 1] == 50][:, 1]
    at_end = (late == 60).double().mean().item()
    assert at_end == pytest.approx(0.8**9, abs=0.05)


def test_uniform_goals_are_uniform_over_what_is_left(make_episodes):
    now, goal = goals(hindsight(counted(make_episodes([40])), uniform=1.0), batches=100)
    for time in (5, 30):
        found = torch.bincount(goal[now[:, 1] == time][:, 1].long(), minlength=41)[time + 1 :]
        assert found.sum() > 500
        assert chisquare(found).pvalue > 0.01


def test_shares_of_goals(make_episodes):
    episodes = counted(make_episodes([40, 40, 40, 40]))
    recorded = torch.full_like(episodes.obs["state"], -7.0)
    final = torch.where(episodes.has_final[:, None], -7.0, 0.0).expand(-1, 2).contiguous()
    episodes = replace(episodes, obs=episodes.obs | {"goal": recorded}, final_obs=episodes.final_obs | {"goal": final})
    now, goal = goals(hindsight(episodes, final=3.0, random=2.0, recorded=1.0), batches=40)
    kept, other = goal[:, 0] == -7, (goal[:, 0] != now[:, 0]) & (goal[:, 0] >= 0)
    found = torch.tensor([kept.sum(), other.sum(), len(goal) - kept.sum() - other.sum()])
    law = torch.tensor([1 / 6, 2 / 6 * 3 / 4, 3 / 6 + 2 / 6 / 4], dtype=torch.float64)
    assert chisquare(found, law * len(goal)).pvalue > 0.01


def test_goals_of_held_out_episodes_are_not_drawn(make_episodes):
    now, goal = goals(hindsight(counted(make_episodes([20, 30, 10])), only=[0, 2], random=1.0), batches=4)
    assert set(now[:, 0].tolist()) == set(goal[:, 0].tolist()) == {0, 2}


def test_the_goal_of_a_plan_is_one_at_every_step(make_episodes):
    episodes = counted(make_episodes([20, 3, 11]))
    goal = {"goal": -episodes.obs["state"]}, {"goal": -episodes.final_obs["state"]}
    episodes = replace(episodes, obs=episodes.obs | goal[0], final_obs=episodes.final_obs | goal[1])
    config = HindsightConfig(of="state", geometric=0.5, uniform=0.5, recorded=1.0)
    windows = Windows(config.observed(episodes), 2, 8, plan=True)
    sampling, plain = config.build(windows), UniformConfig().build(windows)
    kept = 0
    for step in range(8):
        batch, unchanged = sampling.batch(step, 32, 1), plain.batch(step, 32, 1)
        is_recorded = (batch["obs"]["goal"] == unchanged["obs"]["goal"]).flatten(1).all(1)
        drawn = batch["obs"]["goal"][:, :1].expand(-1, 9, -1)
        wanted = torch.where(is_recorded[:, None, None], unchanged["plan"]["goal"], drawn)
        assert torch.equal(batch["plan"]["goal"], wanted)
        assert torch.equal(batch["plan"]["state"], unchanged["plan"]["state"]), "what was passed stays"
        kept += int(is_recorded.sum())
    assert 80 < kept < 176, "about half of 256 as they were recorded"


def test_a_goal_that_nobody_looks_at_is_not_shown(make_episodes):
    config = HindsightConfig(of="state")
    windows = Windows(config.observed(counted(make_episodes([20]))), 2, 8, keys=["state"], plan=True)
    batch = config.build(windows).batch(0, 4, 0)
    assert batch["obs"].keys() == batch["plan"].keys() == {"state"}


READ = {
    "reward": {"transition": Transition(1, 0.9)},
    "rewards": {"rewards": True},
    "return_to_go": {"discount": 0.9},
    "return_bound": {"bound": 0.9},
}


@pytest.mark.parametrize("entry", READ)
def test_rewards_belong_to_the_recorded_goals(make_episodes, entry):
    episodes = counted(make_episodes([20, 9]))
    goal = {"goal": episodes.obs["state"]}, {"goal": episodes.final_obs["state"]}
    episodes = replace(episodes, obs=episodes.obs | goal[0], final_obs=episodes.final_obs | goal[1])
    windows = Windows(episodes, 2, 8, **READ[entry])
    assert entry in windows.entries
    assert entry in UniformConfig().build(windows).batch(0, 4, 0)
    words = rf"reads {entry}, which are for the recorded goals.*geometric=0"
    words = "draw one kind only, not recorded=0.5" if entry == "reward" else words
    with pytest.raises(ConfigError, match=words):
        HindsightConfig(of="state", recorded=0.5).build(windows)
    as_recorded = HindsightConfig(of="state", recorded=1.0, geometric=0.0).build(windows)
    assert entry in as_recorded.batch(0, 4, 0)


def test_windows_say_what_their_batches_hold(make_episodes):
    episodes = make_episodes([20, 9])
    usual = {"obs", "action", "mask", "weight"}
    everything = {"plan": True, "rewards": True, "discount": 0.9, "bound": 0.9, "transition": Transition(2, 0.9)}
    for asked in ({}, {"plan": True}, *READ.values(), everything):
        windows = Windows(episodes, 2, 8, **asked)
        assert windows.entries == windows.gather(torch.arange(3)).keys() - usual


@pytest.mark.parametrize(
    "transition",
    [Transition(1, 0.9), Transition(3, 0.9), Transition(2, 0.9, returned=5), Transition(3, 0.9, whole=True)],
)
def test_what_a_transition_earns_is_told_of_its_goal(make_episodes, transition):
    """-1 a step, and an end without one where the goal is reached; as a loop over steps says it."""
    episodes = counted(make_episodes([20, 3, 1, 11]))
    config = HindsightConfig(of="state", geometric=2.0, gamma=0.7, uniform=1.0, random=0.5)
    windows = Windows(config.observed(episodes), 2, 8, transition=transition)
    seen, ends = config.build(windows), 0
    for step in range(10):
        batch = seen.batch(step, 200, 1)
        now, goal = batch["obs"]["state"][:, -1], batch["obs"]["goal"][:, -1]
        known = batch["next_mask"]
        assert torch.equal(batch["next_obs"]["goal"][known][:, -1], goal[known])
        for (episode, time), (where, when), reward, discount in zip(
            now.tolist(), goal.tolist(), batch["reward"].tolist(), batch["discount"].tolist(), strict=True
        ):
            left, earned, gone, reached = int(episodes.lengths[int(episode)] - time), 0.0, 0, False
            for k in range(min(transition.reach, left)):
                reached = where == episode and when == time + k + 1
                earned -= 0.0 if reached else 1.0 if transition.whole else 0.9**k
                gone += 1
                if reached:
                    break
            after = 0.9 if transition.whole else 0.9**gone
            assert reward == pytest.approx(earned, abs=1e-6)
            assert discount == pytest.approx(0.0 if reached else after, abs=1e-6)
            ends += reached
    assert ends > 100


def test_hindsight_is_refused_in_words(make_episodes):
    episodes = make_episodes([9], images=True)
    with pytest.raises(DataError, match=r"'stat' \(did you mean state\?\)"):
        HindsightConfig(of="stat").observed(episodes)
    with pytest.raises(DataError, match=r"low-dim observation 'images\.front'"):
        HindsightConfig(of="images.front").observed(episodes)
    with pytest.raises(DataError, match="have no goal"):
        HindsightConfig(of="state", recorded=0.5).observed(episodes)
    with pytest.raises(ConfigError, match="must be above 0"):
        parse(HindsightConfig, {"geometric": 0})
