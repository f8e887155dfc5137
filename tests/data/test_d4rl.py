import warnings

import dataset_files as files
import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.data import load_episodes
from robopol.errors import DataError, DataWarning


def load(path, **options):
    return load_episodes(f"d4rl:{path}", **options)


def made(path, terminals, timeouts, following=None, **more):
    """A file of the given flags; observations count the rows."""
    count = np.arange(len(terminals), dtype=np.float32)[:, None]
    return files.d4rl(
        path,
        observations=count,
        actions=count / 100,
        rewards=np.ones(len(count), np.float32),
        terminals=np.array(terminals, bool),
        timeouts=None if timeouts is None else np.array(timeouts, bool),
        next_observations=None if following is None else np.array(following, np.float32)[:, None],
        **more,
    )


def where(column):
    return column.nonzero().flatten().tolist()


def sheet_sequences(terminals, timeouts):
    """Trajectories as D4RL's sequence_dataset cuts them, and what it never returns: the unfinished rest."""
    parts, part = [], []
    for row, (terminal, timeout) in enumerate(zip(terminals, timeouts, strict=True)):
        part.append(row)
        if terminal or timeout:
            parts.append(part)
            part = []
    return parts, part


def sheet_transitions(terminals, timeouts):
    """Rows of D4RL's qlearning_dataset: (row, its successor, done); timeouts and the last row are dropped."""
    return [(row, row + 1, bool(terminals[row])) for row in range(len(terminals) - 1) if not timeouts[row]]


@settings(max_examples=60)
@given(flags=st.lists(st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]), min_size=1, max_size=30))
def test_rows_are_those_of_d4rls_own_loaders(tmp_path_factory, flags):
    terminals, timeouts = zip(*flags, strict=True)
    read = load(made(tmp_path_factory.getbasetemp() / "f.hdf5", terminals, timeouts), terminals="ends")
    parts, rest = sheet_sequences(terminals, timeouts)
    assert read.lengths.tolist() == [len(part) for part in (*parts, rest) if part]
    assert where(read.terminated) == [row for row, flag in enumerate(terminals) if flag]
    expected = {row for row, flag in enumerate(timeouts) if flag} | ({len(flags) - 1} if rest else set())
    assert set(where(read.truncated)) == expected
    # Of what it keeps and bootstraps from, the successor is ours as well.
    following, known = read.next_obs(torch.arange(len(flags)))
    for row, successor, done in sheet_transitions(terminals, timeouts):
        assert bool(read.terminated[row]) == done
        if not done:
            assert known[row]
            assert following["state"][row] == read.obs["state"][successor]
    assert not read.has_final.any()


def test_the_unfinished_end_is_cut(tmp_path):
    read = load(made(tmp_path / "f", [0, 1, 0, 0], [0, 0, 0, 0]))
    assert read.lengths.tolist() == [2, 2]
    assert (where(read.terminated), where(read.truncated)) == ([1], [3])
    assert read.success.tolist() == [False, False]


def test_a_row_may_be_both(tmp_path):
    read = load(made(tmp_path / "f", [0, 1, 0], [0, 1, 0]))
    assert (where(read.terminated), where(read.truncated)) == ([1], [1, 2])


def test_stored_successors_are_the_final_observations(tmp_path):
    read = load(made(tmp_path / "f", [0, 1, 0, 0], [0, 0, 0, 0], following=[1, 50, 3, 60]))
    assert read.has_final.all()
    assert read.final_obs["state"].flatten().tolist() == [50, 60]


def test_a_break_without_a_flag_is_refused_or_cut(tmp_path):
    path = made(tmp_path / "f", [0, 0, 0, 0, 1], [0] * 5, following=[1, 50, 3, 40, 5])
    with pytest.raises(DataError, match=r"row 1 \(and 1 others\).*breaks=cut"):
        load(path)
    read = load(path, breaks="cut")
    assert read.lengths.tolist() == [2, 2, 1]
    assert (where(read.terminated), where(read.truncated)) == ([4], [1, 3])
    assert read.final_obs["state"].flatten().tolist() == [50, 40, 5]


ANTMAZE = ([0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0])


def test_antmaze_is_cut_by_timeouts_and_keeps_its_masks(tmp_path):
    read = load(made(tmp_path / "f", *ANTMAZE), terminals="masks")
    assert read.lengths.tolist() == [5, 3]
    assert where(read.terminated) == [2, 3, 7]  # in the middle as well
    assert where(read.truncated) == [4, 7]
    assert read.success.tolist() == [True, True]
    following, known = read.next_obs(torch.arange(8))
    assert following["state"][[2, 3]].flatten().tolist() == [3, 4]
    assert where(~known) == [4, 7]


@pytest.mark.parametrize(
    ("terminals", "timeouts", "more", "words"),
    [
        (*ANTMAZE, {}, "row 2 and the row after it are terminal"),
        ([0, 1, 0, 0], [0, 0, 0, 1], {"infos/goal": np.zeros((4, 2))}, "row 1 is terminal .* with goals"),
        ([0, 1, 0, 0], [0, 0, 0, 1], {"following": [1, 2, 3, 4]}, "after the terminal row 1 the trajectory goes on"),
        ([0, 1, 0, 1], None, {}, "no 'timeouts'"),
    ],
)
def test_terminals_that_may_not_be_ends_must_be_explained(tmp_path, terminals, timeouts, more, words):
    path = made(tmp_path / "f", terminals, timeouts, **more)
    with pytest.raises(DataError, match=f"{words}.*ends, masks, cuts"):
        load(path)


def test_goals_alone_leave_no_doubt(tmp_path):
    goal = {"infos/goal": np.zeros((4, 2), np.float32)}
    assert load(made(tmp_path / "f", [0, 0, 0, 0], [0, 1, 0, 1], **goal)).lengths.tolist() == [2, 2]


def test_a_time_limit_stands_in_for_timeouts(tmp_path):
    path = made(tmp_path / "f", [0, 0, 0, 0, 1, 0, 0, 0, 0, 0], None)
    with pytest.raises(DataError, match="say steps="):
        load(path, terminals="ends")
    read = load(path, terminals="ends", steps="3")
    assert read.lengths.tolist() == [3, 2, 3, 2]  # every episode, not only the first, is 3 long
    assert (where(read.terminated), where(read.truncated)) == ([4], [2, 7, 9])
    assert load(path, terminals="ends", steps="0").lengths.tolist() == [5, 5]
    assert load(path, terminals="masks", steps="4").lengths.tolist() == [4, 4, 2]
    cut = load(path, terminals="cuts")
    assert cut.lengths.tolist() == [5, 5]
    assert (where(cut.terminated), where(cut.truncated)) == ([], [4, 9])
    # The limit and the terminal in one row: the task ended.
    assert where(load(path, terminals="ends", steps="5").truncated) == [9]


def test_a_time_limit_beside_timeouts_is_refused(tmp_path):
    with pytest.raises(DataError, match="leave out the option 'steps'"):
        load(files.d4rl(tmp_path / "f"), steps="1000")


def test_simulator_states_of_the_same_row(tmp_path):
    qpos = np.random.default_rng(0).normal(size=(5, 3))
    qvel = np.random.default_rng(1).normal(size=(5, 2))
    obs = np.concatenate([qpos[:, 1:], qvel], axis=1).astype(np.float32)  # as MuJoCo's tasks observe
    after = np.roll(qpos, -1, axis=0)  # as AntMaze's script stores it
    infos = {"infos/qpos": qpos, "infos/qvel": qvel, "observations": obs, "actions": obs}
    read = load(files.d4rl(tmp_path / "f", **infos))
    assert read.states.dtype == torch.float64
    np.testing.assert_array_equal(read.states, np.concatenate([qpos, qvel], axis=1))
    with pytest.warns(DataWarning, match="not those of the observation in the same row"):
        assert load(files.d4rl(tmp_path / "g", **infos | {"infos/qpos": after})).states is None


def test_env_id(tmp_path):
    path = files.d4rl(tmp_path / "f")
    assert load(path).meta.env_id == ""
    assert load(path, env="hopper-medium-v2").meta.env_id == "hopper-medium-v2"


def test_columns_with_an_axis_of_one(tmp_path):
    column = np.zeros((5, 1), np.float32)
    read = load(files.d4rl(tmp_path / "f", rewards=column + 2, timeouts=column, terminals=column))
    assert read.returns().tolist() == [10]


def replaced(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def huge(file):
    del file["actions"]
    file.create_dataset("actions", (5, 10**12), "f8", chunks=(1, 1024))


def outside(file):
    del file["actions"]
    file.create_dataset("actions", (5, 2), "f8", external=[("/etc/hostname", 0, 80)])


def objects(file):
    del file["actions"]
    file.create_dataset("actions", (5, 2), h5py.vlen_dtype(np.float64))


SPOILT = {
    "missing": (lambda file: file.pop("rewards"), "there is no 'rewards'"),
    "ragged": (replaced("actions", np.zeros((4, 1))), r"actions has shape \(4, 1\); it needs 5 rows"),
    "ragged flags": (replaced("timeouts", np.zeros(4)), "timeouts has shape"),
    "ragged next": (replaced("next_observations", np.zeros((5, 2))), "next_observations alike"),
    "empty": (lambda file: [replaced(n, np.zeros((0, 1)))(file) for n in list(file) if n != "metadata"], "with rows"),
    "nan": (replaced("observations", np.full((5, 1), np.nan)), "obs.state is not finite in episode 0, row 0"),
    "nan action": (replaced("actions", np.full((5, 1), np.nan)), "action is not finite in episode 0, row 0"),
    "overflow": (replaced("actions", np.full((5, 1), 1e300)), "action is not finite"),
    "flat observation": (replaced("observations", np.zeros(5)), r"must be \(N, d\)"),
    "flat action": (replaced("actions", np.zeros(5)), "column action has shape"),
    "empty chunk": (lambda file: file["rewards"].id.write_direct_chunk((0,), b"x"), "rewards has a chunk of 1 bytes"),
    "text": (replaced("actions", np.full((5, 1), b"x")), "only plain numbers"),
    "objects": (objects, "only plain numbers"),
    "scalar": (replaced("rewards", 1.0), "not an array"),
    "group": (lambda file: (file.pop("rewards"), file.create_group("rewards")), "not an array"),
    "flag 2": (replaced("terminals", np.full(5, 2)), "terminals must be one 0 or 1 a row"),
    "link": (replaced("actions", h5py.ExternalLink("o.hdf5", "/x")), "is a link"),
    "outside": (outside, "in another file"),
    "huge": (huge, "its size allows"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_files_get_one_clear_error(tmp_path, name):
    change, words = SPOILT[name]
    path = files.d4rl(tmp_path / "f.hdf5", following=True)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_cut_files_are_refused(tmp_path):
    whole = files.d4rl(tmp_path / "f.hdf5").read_bytes()
    for keep in range(0, len(whole), 211):
        (tmp_path / "cut.hdf5").write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"cut\.hdf5"):
            load(tmp_path / "cut.hdf5")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"terminals": "end"}, "ends, masks, cuts"), ({"breaks": "keep"}, "breaks is cut"), ({"step": "3"}, "'step'")],
)
def test_unknown_options(tmp_path, options, words):
    with pytest.raises(DataError, match=words):
        load(files.d4rl(tmp_path / "f"), **options)


def test_nothing_is_said_of_what_is_read_whole(tmp_path):
    path = files.d4rl(tmp_path / "f", following=True)
    with h5py.File(path, "r+") as file:
        del file["metadata"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path)


def test_losses_are_named_once(tmp_path):
    infos = {"infos/action_log_probs": np.zeros(5), "infos/qpos": np.zeros((5, 2))}
    path = files.d4rl(tmp_path / "f", observations=np.full((5, 1), 0.1), **infos)
    with pytest.warns(DataWarning) as caught:
        load(path)
    (warning,) = caught
    assert str(warning.message) == (
        f"{path}: not carried over: metadata, infos/action_log_probs, infos/qpos; rounded to float32: observations"
    )
