import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.data import Windows
from robopol.data.draws import batch_indices
from robopol.errors import ConfigError, DataError, ShapeError


def slow_window(episodes, episode, start, n_obs_steps, horizon):
    """One window, step by step."""
    first, length = int(episodes.starts[episode]), int(episodes.lengths[episode])
    rows = [first + min(max(start + k, 0), length - 1) for k in range(horizon)]
    mask = [0 <= start + k < length for k in range(horizon)]
    obs = {key: torch.stack([column[r] for r in rows[:n_obs_steps]]) for key, column in episodes.obs.items()}
    return obs, torch.stack([episodes.action[r] for r in rows]), mask


def test_every_step_is_now_once(make_episodes):
    episodes = make_episodes([10, 3])
    windows = Windows(episodes, n_obs_steps=2, horizon=16)
    assert windows.start.tolist() == [*range(-1, 9), *range(-1, 2)]
    batch = windows.gather(torch.arange(13))
    assert batch["mask"][:10].tolist() == [[0 <= s + k < 10 for k in range(16)] for s in range(-1, 9)]
    # Action To-1 belongs to the newest observation.
    assert torch.equal(batch["obs"]["state"][:, -1], episodes.obs["state"])
    assert torch.equal(batch["action"][:, 1], episodes.action)
    assert torch.equal(batch["obs"]["state"][0, 0], episodes.obs["state"][0])
    assert torch.equal(batch["action"][9, 2:], episodes.action[9].expand(14, 2))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    n_obs_steps=st.integers(1, 3),
    spare=st.integers(0, 4),
    images=st.booleans(),
)
def test_equal_to_the_obvious_way(make_episodes, lengths, n_obs_steps, spare, images):
    episodes = make_episodes(lengths, images=images)
    horizon = n_obs_steps + spare
    wanted = [
        (episode, start)
        for episode, length in enumerate(lengths)
        for start in range(-(n_obs_steps - 1), length - n_obs_steps + 1)
    ]
    windows = Windows(episodes, n_obs_steps, horizon)
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
    windows = Windows(episodes, 2, 16, weights=torch.arange(22.0))
    now = episodes.starts[windows.episode] + windows.start + 1
    assert torch.equal(windows.gather(torch.arange(len(windows)))["weight"], now.float())


def test_bad_windows_are_refused(make_episodes):
    episodes = make_episodes([10])
    for to, tp in ((0, 16), (9, 8)):
        with pytest.raises(ConfigError, match="horizon"):
            Windows(episodes, to, tp)
    with pytest.raises(ShapeError, match=r"\(10,\)"):
        Windows(episodes, 2, 16, weights=torch.ones(3))
    for bad in (-1.0, float("nan")):
        with pytest.raises(DataError, match="not negative"):
            Windows(episodes, 2, 16, weights=torch.full((10,), bad))
    with pytest.raises(DataError, match="no episodes to cut"):
        Windows(episodes.select([]), 2, 16)


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 40), batch_size=st.integers(1, 60), seed=st.integers(0, 5))
def test_every_sample_comes_once_an_epoch(size, batch_size, seed):
    epochs = 3
    steps = -(-epochs * size // batch_size)
    stream = torch.cat([batch_indices(size, step, batch_size, seed) for step in range(steps)])
    for epoch in range(epochs):
        assert stream[epoch * size : (epoch + 1) * size].sort().values.tolist() == list(range(size))


def test_batches_depend_on_seed_and_step_alone():
    batches = [batch_indices(100, step, 16, 1) for step in range(12)]
    batches[0].fill_(0)  # what a caller does to a batch must not reach later ones
    again = [batch_indices(100, step, 16, 1) for step in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(again[1:], batches[1:], strict=True))
    assert again[0].any()
    assert not torch.equal(batch_indices(100, 1, 16, 2), batches[1])
    first, second = batch_indices(50, 0, 50, 0), batch_indices(50, 1, 50, 0)
    assert not torch.equal(first, second)


def test_the_stream_of_published_results_is_unchanged():
    stream = [batch_indices(10, step, 4, 3).tolist() for step in range(5)]
    assert stream == [[9, 6, 0, 2], [1, 4, 7, 5], [3, 8, 4, 1], [2, 8, 5, 0], [7, 9, 6, 3]]


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=2, max_size=8),
    order=st.randoms(use_true_random=False),
    data=st.data(),
)
def test_some_episodes_by_index_are_the_same_as_a_copy_of_them(make_episodes, lengths, order, data):
    episodes = make_episodes(lengths, images=True)
    chosen = order.sample(range(len(lengths)), data.draw(st.integers(1, len(lengths))))
    weights = torch.rand(episodes.num_steps, generator=torch.Generator().manual_seed(0))
    whole = Windows(episodes, 2, 8, weights)
    rows = torch.cat([torch.arange(s, s + n) for s, n in zip(episodes.starts, episodes.lengths, strict=True)])
    rows = torch.cat([rows[episodes.episode_index == index] for index in chosen])
    copied = Windows(episodes.select(chosen), 2, 8, weights[rows])
    for part in (whole.only(torch.tensor(chosen)), whole.only(torch.tensor(sorted(chosen))).only(torch.tensor(chosen))):
        everything = torch.arange(len(copied))
        assert len(part) == len(copied)
        assert torch.equal(part.start, copied.start)
        assert torch.equal(part.episode, torch.tensor(chosen)[copied.episode])
        assert equal(part.gather(everything), copied.gather(everything))


def test_a_part_shares_the_data(make_episodes):
    whole = Windows(make_episodes([20, 30], images=True), 2, 8)
    part = whole.only(torch.tensor([1]))
    assert part.episodes is whole.episodes
    for name in ("_action", "_mask", "_obs", "_images", "_frames"):
        assert getattr(part, name) is getattr(whole, name)
    with pytest.raises(DataError, match="no episodes to cut"):
        whole.only(torch.tensor([], dtype=torch.int64))


def test_batches_hold_the_observations_that_were_asked_for(make_episodes):
    windows = Windows(make_episodes([9, 20], images=True), 2, 8, keys=["images.front"])
    batch = windows.gather(torch.tensor([0, 5]))
    assert batch["obs"].keys() == {"images.front"}
    assert batch["obs"]["images.front"].shape == (2, 2, 4, 5, 3)
    assert batch["obs"]["images.front"].dtype == torch.uint8


def test_bad_batches_are_refused():
    for arguments in ((0, 0, 1, 0), (5, -1, 1, 0), (5, 0, 0, 0), (5, 0, 1, -1)):
        with pytest.raises(DataError, match="cannot draw"):
            batch_indices(*arguments)
