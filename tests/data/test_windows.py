import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.data import Windows
from robopol.data.sampling import batch_indices
from robopol.errors import ConfigError, DataError, ShapeError


def slow_window(episodes, episode, start, n_obs_steps, horizon):
    """One window, step by step."""
    first, length = int(episodes.starts[episode]), int(episodes.lengths[episode])
    rows = [first + min(max(start + k, 0), length - 1) for k in range(horizon)]
    mask = [0 <= start + k < length for k in range(horizon)]
    obs = {key: torch.stack([column[r] for r in rows[:n_obs_steps]]) for key, column in episodes.obs.items()}
    return obs, torch.stack([episodes.action[r] for r in rows]), mask


def test_sheet_example_has_three_windows(make_episodes):
    episodes = make_episodes([10])
    windows = Windows(episodes, n_obs_steps=2, horizon=16, n_action_steps=8)
    assert windows.start.tolist() == [-1, 0, 1]
    batch = windows.gather(torch.arange(3))
    assert batch["mask"].tolist() == [[0 <= s + k < 10 for k in range(16)] for s in (-1, 0, 1)]
    assert torch.equal(batch["obs"]["state"][0], episodes.obs["state"][[0, 0]])
    assert torch.equal(batch["action"][0, 0], episodes.action[0])
    assert torch.equal(batch["action"][2, 9:], episodes.action[9].expand(7, 2))
    # Action To-1 belongs to the newest observation.
    for window, now in enumerate((0, 1, 2)):
        assert torch.equal(batch["obs"]["state"][window, -1], episodes.obs["state"][now])
        assert torch.equal(batch["action"][window, 1], episodes.action[now])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    n_obs_steps=st.integers(1, 3),
    n_action_steps=st.integers(1, 4),
    spare=st.integers(0, 4),
    images=st.booleans(),
)
def test_equal_to_the_obvious_way(make_episodes, lengths, n_obs_steps, n_action_steps, spare, images):
    episodes = make_episodes(lengths, images=images)
    horizon = n_obs_steps - 1 + n_action_steps + spare
    wanted = [
        (episode, start)
        for episode, length in enumerate(lengths)
        # every episode has at least one, also where the published rule leaves none
        for start in range(-(n_obs_steps - 1), max(length - horizon + n_action_steps, 2 - n_obs_steps))
    ]
    windows = Windows(episodes, n_obs_steps, horizon, n_action_steps)
    assert list(zip(windows.episode.tolist(), windows.start.tolist(), strict=True)) == wanted
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    batch = windows.gather(order)
    assert batch["weight"].tolist() == [1.0] * len(wanted)
    for position, index in enumerate(order.tolist()):
        obs, action, mask = slow_window(episodes, *wanted[index], n_obs_steps, horizon)
        assert torch.equal(batch["action"][position], action)
        assert batch["mask"][position].tolist() == mask
        for key, value in obs.items():
            assert torch.equal(batch["obs"][key][position], value)


def test_weights_are_those_of_the_newest_step(make_episodes):
    episodes = make_episodes([10, 12])
    windows = Windows(episodes, 2, 16, 8, weights=torch.arange(22.0))
    now = episodes.starts[windows.episode] + windows.start + 1
    assert torch.equal(windows.gather(torch.arange(len(windows)))["weight"], now.float())


def test_bad_windows_are_refused(make_episodes):
    episodes = make_episodes([10])
    for to, tp, ta in ((0, 16, 8), (2, 16, 0), (2, 8, 8)):
        with pytest.raises(ConfigError, match="horizon"):
            Windows(episodes, to, tp, ta)
    with pytest.raises(ShapeError, match=r"\(10,\)"):
        Windows(episodes, 2, 16, 8, weights=torch.ones(3))
    for bad in (-1.0, float("nan")):
        with pytest.raises(DataError, match="not negative"):
            Windows(episodes, 2, 16, 8, weights=torch.full((10,), bad))
    with pytest.raises(DataError, match="no episodes to cut"):
        Windows(episodes.select([]), 2, 16, 8)


def test_a_short_demonstration_is_not_lost(make_episodes):
    windows = Windows(make_episodes([3, 20]), 2, 16, 8)
    assert (windows.episode == 0).sum() == 1
    batch = windows.gather(torch.tensor([0]))
    assert windows.start[0] == -1
    assert batch["mask"][0].tolist() == [False] + [True] * 3 + [False] * 12


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 40), batch_size=st.integers(1, 60), seed=st.integers(0, 5))
def test_every_sample_comes_once_an_epoch(size, batch_size, seed):
    epochs = 3
    steps = -(-epochs * size // batch_size)
    stream = torch.cat([batch_indices(size, step, batch_size, seed) for step in range(steps)])
    for epoch in range(epochs):
        assert stream[epoch * size : (epoch + 1) * size].sort().values.tolist() == list(range(size))


def test_batches_depend_on_seed_and_step_alone(make_episodes):
    windows = Windows(make_episodes([40, 60]), 2, 16, 8)
    batches = [windows.batch_indices(step, 16, seed=1) for step in range(12)]
    batches[0].fill_(0)  # what a caller does to a batch must not reach later ones
    again = [windows.batch_indices(step, 16, seed=1) for step in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(again[1:], batches[1:], strict=True))
    assert again[0].any()
    assert not torch.equal(windows.batch_indices(1, 16, seed=2), batches[1])
    first, second = batch_indices(50, 0, 50, 0), batch_indices(50, 1, 50, 0)
    assert not torch.equal(first, second)


def test_bad_batches_are_refused():
    for arguments in ((0, 0, 1, 0), (5, -1, 1, 0), (5, 0, 0, 0), (5, 0, 1, -1)):
        with pytest.raises(DataError, match="cannot draw"):
            batch_indices(*arguments)
