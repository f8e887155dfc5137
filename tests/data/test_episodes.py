from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.config import parse
from robopol.data import EpisodeBuilder, Episodes, EpisodesMeta
from robopol.errors import DataError, ShapeError

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def test_golden_successors(golden):
    found, valid = golden.next_obs(torch.arange(5))
    assert found["state"].flatten().tolist() == [1, 2, 3, 11, 12]
    assert valid.all()
    assert golden.terminated.nonzero().flatten().tolist() == [2]
    assert golden.truncated.nonzero().flatten().tolist() == [4]
    assert golden.returns().tolist() == [1, 0]


@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_next_obs_never_crosses_an_episode(make_episodes, lengths, seed):
    episodes = make_episodes(lengths, seed, images=True)
    rows = torch.randint(episodes.num_steps, (20,), generator=torch.Generator().manual_seed(seed))
    found, valid = episodes.next_obs(rows)
    ends = (episodes.starts + episodes.lengths).tolist()
    for position, row in enumerate(rows.tolist()):
        episode = next(e for e, end in enumerate(ends) if row < end)
        for key in episodes.obs:
            inside = row + 1 < ends[episode]
            wanted = episodes.obs[key][row + 1] if inside else episodes.final_obs[key][episode]
            assert torch.equal(found[key][position], wanted)
            assert valid[position] == (inside or bool(episodes.has_final[episode]))


@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, data=st.data())
def test_select_then_concat_is_the_reordered_whole(make_episodes, lengths, data):
    episodes = make_episodes(lengths, images=True, states=True)
    order = data.draw(st.permutations(range(len(lengths))))
    selected = episodes.select(order)
    assert selected.lengths.tolist() == [lengths[e] for e in order]
    assert selected.equal(Episodes.concat([episodes.select([e]) for e in order]))
    back = [order.index(e) for e in range(len(order))]
    assert selected.select(back).equal(episodes)


def test_select_refuses_what_is_not_there(golden):
    for wrong in ([2], [-1]):
        with pytest.raises(DataError, match="there are 2"):
            golden.select(wrong)
    assert len(golden.select([])) == 0


def test_split_is_by_episode_and_repeatable(make_episodes):
    episodes = make_episodes([2, 3, 1, 4, 2, 2, 3, 1, 2, 5])
    training, validation = episodes.split(0.2, seed=3)
    assert sorted(training.seed.tolist() + validation.seed.tolist()) == episodes.seed.tolist()
    assert len(validation) == 2
    assert episodes.split(0.2, seed=3)[1].equal(validation)
    assert len({tuple(episodes.split(0.2, seed=s)[1].seed.tolist()) for s in range(8)}) > 1
    assert len(episodes.split(0.001, seed=0)[1]) == 1
    assert len(episodes.split(0.999, seed=0)[0]) == 1
    assert len(episodes.split(0.0, seed=0)[1]) == 0
    with pytest.raises(DataError, match=r"\[0, 1\)"):
        episodes.split(1.0, seed=0)


def test_concat_merges_models(make_episodes):
    episodes = make_episodes([1, 1, 1], states=True)  # models -1, 0, 1
    other = replace(episodes, meta=episodes.meta.model_copy(update={"models": ("<new/>", "<mujoco/>")}))
    whole = Episodes.concat([episodes, other])
    assert whole.meta.models == ("<mujoco/>", "<mujoco model='b'/>", "<new/>")
    assert whole.model.tolist() == [-1, 0, 1, -1, 2, 0]


def test_concat_refuses_parts_that_differ(make_episodes):
    one = make_episodes([2])
    with pytest.raises(DataError, match="there are no episodes"):
        Episodes.concat([])
    with pytest.raises(DataError, match=r"obs\.images\.front"):
        Episodes.concat([one, make_episodes([2], images=True)])
    with pytest.raises(ShapeError, match=r"action is \(2, 2\) in part 0 and \(2, 5\) in part 1"):
        Episodes.concat([one, replace(one, action=torch.zeros(2, 5))])
    other = replace(one, meta=one.meta.model_copy(update={"control_hz": 5.0}))
    with pytest.raises(DataError, match="control_hz"):
        Episodes.concat([one, other])
    assert Episodes.concat([one, other], meta=one.meta).num_steps == 4


@pytest.mark.parametrize(
    ("column", "value", "error", "words"),
    [
        (
            "action",
            torch.zeros(4, 2),
            ShapeError,
            r"state has shape \(5, 1\); it must be \(N, ...\) with N = 4",
        ),
        ("action", torch.zeros(5), ShapeError, r"action has shape \(5,\); it must be \(N, D\)"),
        (
            "action",
            torch.zeros(5, 2).double(),
            DataError,
            "action is torch.float64; it must be torch.float32",
        ),
        ("action", torch.zeros(2, 5).T, DataError, "contiguous"),
        (
            "reward",
            torch.tensor([0, 1, 2, 3, float("nan")]),
            DataError,
            "reward is not finite in episode 1, row 1",
        ),
        ("lengths", torch.tensor([3, 1]), DataError, "bounds"),
        ("lengths", torch.tensor([5, 0]), DataError, "bounds"),
        ("starts", torch.tensor([0, 2]), DataError, "bounds"),
        ("has_final", torch.tensor([True, False]), DataError, r"final_obs.state must be zero"),
        ("way", torch.tensor([0, 1, 2]), ShapeError, "way"),
        ("obs", {"other": torch.zeros(5, 1)}, DataError, "final_obs"),
        ("obs", {"state": torch.zeros(5, 2)}, ShapeError, "final_obs.state"),
        ("obs", {"state": torch.zeros(5, 0)}, ShapeError, "no other axis empty"),
        ("model", torch.tensor([0, -1]), DataError, "models has 0"),
        (
            "states",
            torch.full((5, 2), torch.inf).double(),
            DataError,
            "states is not finite in episode 0, row 0",
        ),
    ],
)
def test_bad_columns_are_refused(golden, column, value, error, words):
    with pytest.raises(error, match=words):
        replace(golden, **{column: value})


def test_codes_beyond_the_names_are_refused(golden):
    with pytest.raises(DataError, match="way goes from 0 to 3"):
        replace(golden, way=torch.tensor([0, 3]), meta=EpisodesMeta(way_names=("left", "right")))


def test_images_are_bytes(make_episodes):
    episodes = make_episodes([2], images=True)
    with pytest.raises(DataError, match=r"images\.front is torch\.float32"):
        replace(episodes, obs=episodes.obs | {"images.front": torch.zeros(2, 4, 5, 3)})


def test_large_finite_values_are_accepted(golden):
    assert replace(golden, action=torch.full((5, 1), 3e38)).num_steps == 5


def test_meta_is_json(make_episodes):
    meta = make_episodes([1], states=True).meta
    assert parse(EpisodesMeta, meta.tree()) == meta


def test_builder_copies_what_it_is_given():
    buffer = torch.zeros(2)
    builder = EpisodeBuilder()
    for _ in range(3):
        builder.add({"state": buffer}, buffer.numpy()[:1], 0.0, False, False)
        buffer += 1
    builder.finish({"state": buffer}, success=False)
    episode = builder.build(EpisodesMeta())
    assert episode.obs["state"][:, 0].tolist() == [0, 1, 2]
    assert episode.action[:, 0].tolist() == [0, 1, 2]
    assert episode.final_obs["state"].tolist() == [[3, 3]]


def test_builder_refuses_what_is_not_an_episode():
    builder = EpisodeBuilder()
    with pytest.raises(DataError, match="0 steps"):
        builder.build(EpisodesMeta())
    builder.add({"state": torch.zeros(2)}, torch.zeros(1), 0.0, False, False, state=torch.zeros(4).double())
    with pytest.raises(DataError, match=r"finish\(\) was not called"):
        builder.build(EpisodesMeta())
    builder.add({"state": torch.zeros(3)}, torch.zeros(1), 0.0, False, False)
    builder.finish(None, success=False)
    with pytest.raises(DataError, match="1 of 2 steps have a simulator state"):
        builder.build(EpisodesMeta())


def test_sources_of_several_parts_are_told_apart_by_name(make_episodes):
    episodes = make_episodes([4, 3])
    other = replace(episodes, meta=episodes.meta.model_copy(update={"source_names": ("human", "policy")}))
    joined = Episodes.concat([episodes, other])
    assert joined.meta.source_names == ("expert", "human", "policy")
    names = [joined.meta.source_names[code] for code in joined.source.tolist()]
    assert names == [part.meta.source_names[code] for part in (episodes, other) for code in part.source.tolist()]
    with pytest.raises(DataError, match="source_names"):
        Episodes.concat([episodes, replace(episodes, meta=episodes.meta.model_copy(update={"source_names": ()}))])
