"""Replay: what comes out is what went in, successors are true, and a resumed buffer draws the same."""

import pytest
import torch
from scipy.stats import chisquare

from robopol.data.replay import ReplayBuffer
from robopol.errors import DataError, ShapeError

SHAPES = {"state": (3,), "goal": (1, 2)}


def transitions(first: int, count: int):
    """Numbered transitions: number i in every entry."""
    number = torch.arange(first, first + count).float()

    def obs(offset):
        state = (number + offset)[:, None].expand(-1, 3)
        return {"state": state, "goal": state[:, None, :2]}

    return obs(0.0), number[:, None].expand(-1, 2), -number, number % 2 == 0, number % 3 == 0, obs(0.5)


def assert_whole(batch):
    """Every row holds one transition and nothing of another."""
    number = batch["obs"]["state"][..., 0]
    assert (batch["obs"]["state"] == number[..., None]).all()
    assert (batch["obs"]["goal"] == number[..., None, None]).all()
    assert (batch["action"] == number[..., None]).all()
    assert torch.equal(batch["reward"], -number)
    assert torch.equal(batch["terminated"], (number % 2 == 0).float())
    assert torch.equal(batch["truncated"], (number % 3 == 0).float())
    assert (batch["next_obs"]["state"] == number[..., None] + 0.5).all()
    assert (batch["next_obs"]["goal"] == number[..., None, None] + 0.5).all()
    return number


@pytest.mark.parametrize("sizes", [[4, 4], [7, 7, 7], [10, 10], [1] * 25, [9, 3, 9]])
def test_the_newest_transitions_are_kept_whole(sizes):
    buffer, added = ReplayBuffer(10, SHAPES, 2), 0
    for size in sizes:
        buffer.add(*transitions(added, size))
        added += size
        assert len(buffer) == min(added, 10)
        found = assert_whole(buffer.sample(300, added, 0))
        assert set(found.tolist()) == set(range(max(0, added - 10), added))


def test_draws_are_uniform_and_functions_of_seed_and_step():
    buffer = ReplayBuffer(50, SHAPES, 2)
    buffer.add(*transitions(0, 50))
    drawn = torch.stack([buffer.sample(100, step, 3)["reward"] for step in range(100)])
    again = torch.stack([buffer.sample(100, step, 3)["reward"] for step in reversed(range(100))]).flip(0)
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, torch.stack([buffer.sample(100, step, 4)["reward"] for step in range(100)]))
    assert chisquare(torch.bincount((-drawn).flatten().long())).pvalue > 0.01
    assert chisquare(torch.bincount((-drawn[:, 0]).long(), minlength=50)).pvalue > 0.01, "also over steps"
    assert len({tuple(row) for row in drawn.tolist()}) == 100


def test_many_batches_at_once(make_episodes):
    buffer = ReplayBuffer(50, SHAPES, 2)
    buffer.add(*transitions(0, 50))
    batch = buffer.sample(16, 0, 0, draws=20)
    assert batch["obs"]["goal"].shape == (20, 16, 1, 2)
    assert batch["reward"].shape == (20, 16)
    number = assert_whole(batch)
    assert not torch.equal(number[0], number[1])
    blocks = {value.untyped_storage().data_ptr() for value in (batch["action"], *batch["next_obs"].values())}
    assert len(blocks) == 1, "views of one block"
    batch["action"].zero_()
    assert_whole(buffer.sample(16, 0, 0, draws=20))


def test_a_resumed_buffer_goes_on_in_the_same_way():
    def go_on(buffer, first, last):
        drawn = []
        for step in range(first, last):
            buffer.add(*transitions(3 * step, 3))
            drawn.append(buffer.sample(8, step, 1)["action"])
        return torch.stack(drawn)

    whole = ReplayBuffer(20, SHAPES, 2)
    wanted = go_on(whole, 0, 15)
    for stop in (2, 5, 9):
        first, second = ReplayBuffer(20, SHAPES, 2), ReplayBuffer(20, SHAPES, 2)
        go_on(first, 0, stop)
        second.load_state({name: value.clone() for name, value in first.state().items()})
        assert torch.equal(go_on(second, stop, 15), wanted[stop:])
        assert all(torch.equal(value, whole.state()[name]) for name, value in second.state().items())
    with pytest.raises(ShapeError, match="state has rows"):
        ReplayBuffer(21, SHAPES, 2).load_state(whole.state())
    with pytest.raises(ShapeError, match="state has rows"):
        ReplayBuffer(20, {"state": (30,)}, 2).load_state(whole.state())


def test_recorded_successors_are_true_and_unknown_ones_left_out(make_episodes):
    # episode 2 has no final observation and is cut; episode 6 has none and terminated
    episodes = make_episodes([3, 5, 4, 1, 6, 2, 3], images=True)
    buffer = ReplayBuffer.from_episodes(episodes)
    following, known = episodes.without_images().next_obs(torch.arange(24))
    rows = torch.arange(24)[known | episodes.terminated]
    assert len(rows) == 23
    assert len(buffer) == 23
    batch = buffer.sample(500, 0, 0)
    distance = (batch["obs"]["state"][:, None] - episodes.obs["state"][rows][None]).abs().sum(-1)
    row = rows[distance.argmin(1)]
    assert (distance.amin(1) == 0).all()
    assert set(row.tolist()) == set(rows.tolist())
    assert torch.equal(batch["next_obs"]["state"], following["state"][row])
    assert torch.equal(batch["action"], episodes.action[row])
    assert torch.equal(batch["reward"], episodes.reward[row])
    assert torch.equal(batch["terminated"], episodes.terminated[row].float())
    assert torch.equal(batch["truncated"], episodes.truncated[row].float())
    assert len(ReplayBuffer.from_episodes(episodes, capacity=40)) == 23


def test_bad_transitions_are_refused_in_words():
    buffer = ReplayBuffer(5, SHAPES, 2)
    with pytest.raises(DataError, match="empty"):
        buffer.sample(1, 0, 0)
    with pytest.raises(DataError, match="6 transitions do not fit"):
        buffer.add(*transitions(0, 6))
    obs, action, *rest = transitions(0, 3)
    with pytest.raises(ShapeError, match=r"\(3, 1\)"):
        buffer.add(obs, action[:, :1], *rest)
    with pytest.raises(DataError, match="images"):
        ReplayBuffer(5, {"images.front": (4, 4, 3)}, 2)
    with pytest.raises(DataError, match="at least 1"):
        ReplayBuffer(0, SHAPES, 2)
