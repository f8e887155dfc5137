"""The golden fixture of the datasets sheet, in every format: what each file says, and never more than that."""

from collections.abc import Callable
from dataclasses import dataclass

import dataset_files as files
import numpy as np
import pytest
import torch

from robopol.data import Windows, load_episodes, save_episodes


@dataclass(frozen=True)
class Case:
    """One file and what it must read as: rows that are terminal, rows that are cut, rows without a successor."""

    write: Callable  # (path without suffix, golden episodes) -> URI
    terminal: tuple[int, ...]
    cut: tuple[int, ...]
    unknown: tuple[int, ...] = ()
    reversed: bool = False
    rewards: bool = True


def ours(format, suffix, saving=""):
    """A file of the format's own writer."""

    def write(path, golden):
        uri = f"{format}:{path.with_suffix(suffix)}"
        save_episodes(golden, uri + saving)
        return uri

    return write


CASES = {
    "d4rl": Case(lambda p, _: f"d4rl:{files.d4rl(p)}", (2,), (4,), (2, 4)),
    "d4rl, B before A": Case(lambda p, _: f"d4rl:{files.d4rl(p, (files.B, files.A))}", (4,), (1,), (1, 4), True),
    "d4rl, next_observations": Case(lambda p, _: f"d4rl:{files.d4rl(p, following=True)}", (2,), (4,)),
    "robomimic, done mode 0": Case(lambda p, _: f"robomimic:{files.robomimic(p, 0)}?dones=success", (2,), (4,)),
    "robomimic, done mode 1": Case(lambda p, _: f"robomimic:{files.robomimic(p, 1)}?dones=end", (), (2, 4)),
    "robomimic, done mode 2": Case(lambda p, _: f"robomimic:{files.robomimic(p, 2)}?dones=both", (2,), (4,)),
    "robomimic, ours": Case(ours("robomimic", ".hdf5"), (2,), (4,)),
    "zarr": Case(
        lambda p, _: f"zarr:{files.zarr(p.with_suffix('.zarr'))}?ends=truncated", (), (2, 4), (2, 4), rewards=False
    ),
    "zarr, zip": Case(
        lambda p, _: f"zarr:{files.zarr(p.with_suffix('.zarr.zip'))}?ends=truncated", (), (2, 4), (2, 4), rewards=False
    ),
    "ogbench": Case(lambda p, _: f"ogbench:{files.ogbench(p.with_suffix('.npz'))}", (), (2, 4), rewards=False),
    "ogbench, masks": Case(
        lambda p, _: f"ogbench:{files.ogbench(p.with_suffix('.npz'), masks=1.0 - np.eye(7)[2], rewards=np.eye(7)[2])}",
        (2,),
        (2, 4),
    ),
    "dppo": Case(lambda p, _: f"dppo:{files.dppo(p)}", (2,), (4,), (2, 4)),
    "dppo, no terminals": Case(lambda p, _: f"dppo:{files.dppo(p, ended=False)}?ends=truncated", (), (2, 4), (2, 4)),
    # These two keep everything that robopol knows; what their foreign files say is tested with their readers.
    "minari": Case(ours("minari", ""), (2,), (4,)),
    "lerobot": Case(ours("lerobot", "", "?fps=10"), (2,), (4,)),
}


@pytest.fixture(params=CASES)
def case(request):
    chosen = CASES[request.param]
    return chosen


@pytest.fixture
def read(case, golden, tmp_path):
    return load_episodes(case.write(tmp_path / "golden-v0", golden))


def flat(column):
    return column.flatten().tolist()


def test_the_table(case, read):
    assert read.num_steps == 5
    assert tuple(flat(read.terminated.nonzero())) == case.terminal
    assert tuple(flat(read.truncated.nonzero())) == case.cut
    _, known = read.next_obs(torch.arange(5))
    assert tuple(flat((~known).nonzero())) == case.unknown


def test_values_and_returns_are_those_of_every_other_format(case, read, golden):
    expected = golden.select([1, 0]) if case.reversed else golden
    torch.testing.assert_close(read.obs["state"], expected.obs["state"], rtol=0, atol=1e-5)
    torch.testing.assert_close(read.action, expected.action, rtol=0, atol=1e-6)
    assert read.lengths.tolist() == expected.lengths.tolist()
    assert read.starts.tolist() == expected.starts.tolist()
    assert read.returns().tolist() == (expected.returns().tolist() if case.rewards else [0, 0])


def test_a_successor_is_one_higher_or_unknown(read):
    following, known = read.next_obs(torch.arange(5))
    counted = read.obs["state"] + 1
    torch.testing.assert_close(following["state"][known], counted[known], rtol=0, atol=1e-5)


def test_no_window_crosses_an_episode(read):
    windows = Windows(read, n_obs_steps=2, horizon=4)
    batch = windows.gather(torch.arange(len(windows)))
    episode = (batch["obs"]["state"] > 5).flatten(1)  # A counts below, B above
    assert (episode == episode[:, :1]).all()
    acted = (batch["action"] > 0.05).flatten(1)
    assert (acted == episode[:, :1]).all()
    for index, start in enumerate(windows.start.tolist()):
        first = int(windows.episode[index] * 10) if read.obs["state"][0] < 5 else int((1 - windows.episode[index]) * 10)
        last = first + int(read.lengths[windows.episode[index]]) - 1
        wanted = [min(max(first + start + step, first), last) for step in range(4)]
        torch.testing.assert_close(batch["action"][index].flatten() * 100, torch.tensor(wanted).float())


@pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")
@pytest.mark.parametrize("format", ["robomimic", "minari", "lerobot"])
def test_twelve_episodes_keep_their_order(format, make_episodes, tmp_path):
    episodes = make_episodes(range(1, 13))
    uri = f"{format}:{tmp_path / 'twelve-v0'}"
    save_episodes(episodes, uri)
    again = load_episodes(uri)
    assert again.lengths.tolist() == list(range(1, 13))
    assert again.equal(episodes)


def test_robomimics_loader_sees_five_rows(tmp_path):
    pytest.importorskip("robomimic")
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": ["state"]})
    for done_mode, done in ((0, [2]), (1, [2, 4])):
        dataset = SequenceDataset(
            hdf5_path=str(files.robomimic(tmp_path / f"{done_mode}.hdf5", done_mode)),
            obs_keys=("state",),
            dataset_keys=("actions", "rewards", "dones"),
            load_next_obs=True,
        )
        assert [row for row in range(len(dataset)) if dataset[row]["dones"][0]] == done
        assert [float(dataset[row]["next_obs"]["state"][0, 0]) for row in range(len(dataset))] == [1, 2, 3, 11, 12]


def test_ogbenchs_loader_sees_the_same_rows(tmp_path):
    pytest.importorskip("ogbench")
    from ogbench.utils import load_dataset

    path = files.ogbench(tmp_path / "golden.npz")
    theirs, read = load_dataset(str(path)), load_episodes(f"ogbench:{path}")
    np.testing.assert_array_equal(theirs["observations"], read.obs["state"])
    np.testing.assert_array_equal(theirs["next_observations"], read.next_obs(torch.arange(5))[0]["state"])
    np.testing.assert_array_equal(theirs["actions"], read.action)
    assert np.flatnonzero(theirs["terminals"]).tolist() == [2, 4]  # ends of trajectories, which are no terminals
    assert not read.terminated.any()
