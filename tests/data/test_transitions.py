"""Transitions of windows, against the obvious way on episodes that end in every way."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.data import Windows
from robopol.data.windows import Transition, narrowed
from robopol.errors import ConfigError
from robopol.policies import Needs

GAMMA = 0.9


def slow(episodes, episode, now, steps, n_obs_steps):
    """The transition from one step on, step by step."""
    first, length = int(episodes.starts[episode]), int(episodes.lengths[episode])
    reward, factor, time, ended = 0.0, 1.0, now, False
    for k in range(steps):
        if time == length or ended:
            break
        reward += GAMMA**k * float(episodes.reward[first + time])
        ended = bool(episodes.terminated[first + time])
        factor, time = factor * GAMMA, time + 1
    history = {}
    for key, column in episodes.obs.items():
        seen = [column[first + max(t, 0)] for t in range(time - n_obs_steps + 1, min(time, length - 1) + 1)]
        if time == length:
            known = bool(episodes.has_final[episode])
            # what low-dim histories end with where nothing was recorded is not to be used
            seen.append(episodes.final_obs[key][episode] if known else column[first + length - 1])
        history[key] = torch.stack(seen[-n_obs_steps:])
    return reward, 0.0 if ended else factor, history, time < length or bool(episodes.has_final[episode])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    n_obs_steps=st.integers(1, 3),
    steps=st.integers(1, 5),
    spare=st.integers(0, 2),
    beyond=st.integers(0, 4),
    plan=st.booleans(),
    early=st.booleans(),
)
def test_equal_to_the_obvious_way(make_episodes, lengths, n_obs_steps, steps, spare, beyond, plan, early):
    episodes = make_episodes(lengths, images=True)
    if early:  # a termination that the recording went on after
        terminated = episodes.terminated.clone()
        terminated[::4] = True
        episodes = replace(episodes, terminated=terminated)
    horizon = n_obs_steps - 1 + steps + spare
    ask = {"transition": Transition(steps, GAMMA, steps + beyond), "rewards": True, "plan": plan}
    windows = Windows(episodes, n_obs_steps, horizon, **ask)
    plain = Windows(episodes, n_obs_steps, horizon)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    batch, usual = windows.gather(order), plain.gather(order)
    for key in ("action", "mask", "weight"):
        assert torch.equal(batch[key], usual[key])
    for position, index in enumerate(order.tolist()):
        episode, start = int(windows.episode[index]), int(windows.start[index])
        now, counted = start + n_obs_steps - 1, steps + beyond
        reward, discount, history, known = slow(episodes, episode, now, counted, n_obs_steps)
        assert batch["reward"][position].item() == pytest.approx(reward, abs=1e-5)
        assert batch["discount"][position].item() == pytest.approx(discount)
        assert bool(batch["next_mask"][position]) == known
        for key, value in history.items():
            assert torch.equal(batch["obs"][key][position], usual["obs"][key][position])
            if known:
                assert torch.equal(batch["next_obs"][key][position], value), key
        first = int(episodes.starts[episode])
        alone = [float(episodes.reward[first + start + k]) if m else 0.0 for k, m in enumerate(batch["mask"][position])]
        assert batch["rewards"][position].tolist() == alone


def test_a_discount_of_the_whole_leaves_the_sum_and_counts_once(make_episodes):
    episodes = make_episodes([4, 3])
    each, whole, plain = (
        Windows(episodes, 1, 3, transition=told).gather(torch.arange(7))
        for told in (Transition(3, GAMMA), Transition(3, GAMMA, whole=True), Transition(3, 1.0))
    )
    assert torch.equal(whole["reward"], plain["reward"])
    assert not torch.equal(whole["reward"], each["reward"])
    ended = each["discount"] == 0
    assert 0 < ended.sum() < 7
    torch.testing.assert_close(whole["discount"], torch.where(ended, 0.0, GAMMA))


def test_the_next_observation_is_never_that_of_another_episode(make_episodes):
    episodes = make_episodes([4, 4, 4])  # terminated, truncated, and neither nor any final observation
    batch = Windows(episodes, 2, 4, transition=Transition(3, GAMMA)).gather(torch.arange(12))
    final = episodes.final_obs["state"]
    newest = batch["next_obs"]["state"][:, -1]
    assert torch.equal(newest[1:4], final[0].expand(3, -1))
    assert torch.equal(newest[5:8], final[1].expand(3, -1))
    assert batch["discount"][:4].tolist() == pytest.approx([GAMMA**3, 0, 0, 0])
    assert batch["discount"][4:8].tolist() == pytest.approx([GAMMA**3, GAMMA**3, GAMMA**2, GAMMA])
    assert batch["next_mask"].tolist() == [True] * 9 + [False] * 3


def test_a_part_has_the_transitions_of_its_own_windows(make_episodes):
    episodes = make_episodes([5, 3, 7], images=True)
    whole = Windows(episodes, 2, 4, transition=Transition(2, GAMMA), discount=0.5)
    part = whole.only(torch.tensor([2, 0]))
    copied = Windows(episodes.select([2, 0]), 2, 4, transition=Transition(2, GAMMA), discount=0.5)
    one, other = (windows.gather(torch.arange(12)) for windows in (part, copied))
    assert one.keys() == other.keys()
    for key in ("reward", "discount", "next_mask", "return_to_go"):
        assert torch.equal(one[key], other[key])
    for key in one["next_obs"]:
        assert torch.equal(one["next_obs"][key], other["next_obs"][key])


def test_a_window_must_hold_the_actions_of_the_transition(make_episodes):
    with pytest.raises(ConfigError, match="holds 3 actions from now on, not the 4"):
        Windows(make_episodes([5]), 2, 4, transition=Transition(4, GAMMA))
    assert len(Windows(make_episodes([5]), 2, 4, transition=Transition(3, GAMMA, 40))) == 5


def test_a_return_of_several_steps_is_biased_where_actions_go_together_and_a_chunk_is_not(make_episodes):
    """Q-chunking's invariant (Li et al. 2025): two states, one after the other, and the same action in both.

    Only the second action earns, and the first one changes nothing, so both actions of the first state are worth gamma
    to who does the right thing afterwards. A critic of one action that counts two steps holds the first action for what
    the second one was; one that counts one step, and one of whole chunks, are right of what they judge.
    """
    episodes = make_episodes([2] * 20)
    action = (torch.arange(40) // 2 % 2).float()
    earned = torch.where(torch.arange(40) % 2 == 1, action, 0.0)
    final = torch.arange(40) % 2 == 1
    state = final.float()[:, None].expand(-1, 2)
    episodes = replace(
        episodes,
        obs={"state": state.contiguous()},
        action=action[:, None].expand(-1, episodes.action.shape[1]).contiguous(),
        reward=earned,
        terminated=final,
        truncated=torch.zeros_like(final),
        final_obs={"state": torch.zeros(20, 2)},
        has_final=torch.ones(20, dtype=torch.bool),
    )

    def fixed_point(steps: int, returned: int) -> torch.Tensor:
        """Q (state, first action) of the actions that the data take together, by iterating the targets."""
        windows = Windows(episodes, 1, steps, transition=Transition(steps, GAMMA, returned))
        batch, q = windows.gather(torch.arange(40)), torch.zeros(2, 2)
        there, did = batch["obs"]["state"][:, 0, 0].long(), batch["action"][:, 0, 0].long()
        for _ in range(3):
            value = q.amax(1)[batch["next_obs"]["state"][:, 0, 0].long()]
            goal = batch["reward"] + batch["discount"] * value
            q = torch.stack([torch.stack([goal[(there == s) & (did == a)].mean() for a in (0, 1)]) for s in (0, 1)])
        return q

    exact = torch.tensor([[GAMMA, GAMMA], [0.0, 1.0]])
    torch.testing.assert_close(fixed_point(1, 1), exact)
    torch.testing.assert_close(fixed_point(1, 2), torch.tensor([[0.0, GAMMA], [0.0, 1.0]]))
    torch.testing.assert_close(fixed_point(2, 2)[0], torch.tensor([0.0, GAMMA]))  # of (0, 0) and (1, 1): exact


def test_needs_are_joined_and_conflicts_named():
    one = Needs(plan=True, discount=0.9)
    other = Needs(transition=Transition(2, 0.9), rewards=True, bound=0.7)
    assert one.joined(other) == other.joined(one) == Needs(True, 0.9, Transition(2, 0.9), True, 0.7)
    with pytest.raises(ConfigError, match=r"one discount, and both 0\.9 and 0\.8"):
        one.joined(Needs(discount=0.8))


def test_narrowed_windows_are_those_that_would_have_been_cut(make_episodes):
    episodes, everything = make_episodes([5, 3, 7], images=True), torch.arange(15)
    ask = {"transition": Transition(2, GAMMA), "plan": True, "rewards": True, "discount": 0.5}
    wide, small = Windows(episodes, 3, 7, **ask).gather(everything), Windows(episodes, 2, 4, **ask).gather(everything)
    cut = narrowed(wide, 2, 4)
    assert cut.keys() == small.keys()
    for name, value in small.items():
        pairs = [(value[key], cut[name][key]) for key in value] if isinstance(value, dict) else [(value, cut[name])]
        assert all(torch.equal(one, other) for one, other in pairs), name


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_returns_are_bounded_from_below(make_episodes, discount):
    episodes = make_episodes([4, 3])  # the first terminates, the second is cut off
    forever = float(episodes.reward.min()) / (1 - discount) if discount < 1 else -torch.inf
    wanted = []
    for first, last, beyond in ((0, 4, 0.0), (4, 7, forever)):
        for row in range(first, last):
            summed = sum(discount ** (k - row) * float(episodes.reward[k]) for k in range(row, last))
            wanted.append(summed + (discount ** (last - row) * beyond if beyond else 0.0))
    batch = Windows(episodes, 1, 2, bound=discount).gather(torch.arange(7))
    assert batch["return_bound"].tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_task_that_is_never_solved_costs_for_ever(make_episodes):
    episodes = make_episodes([4, 3])
    never = replace(episodes.select([1]), reward=torch.full((3,), -1.0))
    assert never.return_bounds(0.9).tolist() == pytest.approx([-10.0] * 3)
    free = replace(never, reward=torch.tensor([0.0, 0.0, 1.0]))
    assert free.return_bounds(0.9).tolist() == free.returns_to_go(0.9).tolist()
    assert free.return_bounds(1.0).tolist() == [1.0, 1.0, 1.0]
