"""From one format to the next and back: what all of them can say survives."""

import importlib
import inspect
from functools import partial
from itertools import permutations

import pytest

from robopol.data import check_writable, load_episodes, save_episodes
from robopol.data.load import FORMATS
from robopol.errors import DataError

PLACES = {"robomimic": "robomimic:{}/a.hdf5", "minari": "minari:{}/a-v0", "lerobot": "lerobot:{}/a?images=png"}


@pytest.mark.parametrize("order", permutations(PLACES), ids="-".join)
@pytest.mark.parametrize("images", [False, True])
def test_nothing_is_lost_on_the_way_through_all_formats(make_episodes, tmp_path, order, images):
    pytest.importorskip("pyarrow")
    first = episodes = make_episodes([3, 1, 5], images=images, states=True, seed=4)
    for step, name in enumerate((*order, order[0])):
        folder = tmp_path / str(step)
        folder.mkdir()
        uri = PLACES[name].format(folder)
        save_episodes(episodes, uri)
        episodes = load_episodes(uri.partition("?")[0])
    assert episodes.equal(first)


WRITERS = {name: module for name, module in FORMATS.items() if hasattr(importlib.import_module(module), "write")}


@pytest.mark.parametrize("module", WRITERS.values(), ids=WRITERS)
def test_a_target_is_checked_with_the_options_that_it_is_written_with(module):
    write, check = (
        inspect.signature(getattr(importlib.import_module(module), name)) for name in ("write", "check_target")
    )
    assert list(check.parameters.values()) == list(write.parameters.values())[1:]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("minari:{}/points", "no id of a Minari dataset"),
        ("minari:{}/taken-v0", "is not a dataset with data/metadata.json"),
        ("lerobot:{}/taken-v0", "is not a dataset with meta/info.json"),
        ("lerobot:{}/new?images=jpeg", "got 'jpeg'"),
        ("lerobot:{}/new?fps=0", "above 0, got 0"),
        ("arrays:{}/taken-v0", "is not a dataset with meta.json"),
        ("arrays:{}/taken-v0/file/new", "nothing can be written into .*taken-v0/file: Not a directory"),
        ("robomimic:{}/taken-v0", "is a folder"),
        ("{}/new.hdf5?valid=abc", "got 'abc'"),
        ("{}/new.hdf5?valid=1.5", "got '1.5'"),
        ("{}/taken-v0/file/new/new.hdf5", "nothing can be written into .*file/new: Not a directory"),
    ],
)
def test_what_cannot_be_written_is_refused_before_there_is_anything_to_write(make_episodes, tmp_path, uri, message):
    pytest.importorskip("pyarrow")
    (tmp_path / "taken-v0").mkdir()
    (tmp_path / "taken-v0/file").touch()
    uri = uri.format(tmp_path)
    for act in (check_writable, partial(save_episodes, make_episodes([2]))):
        with pytest.raises(DataError, match=message):
            act(uri)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken-v0", "file"]


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_is_checked_can_be_written_and_replaced(make_episodes, tmp_path, place):
    pytest.importorskip("pyarrow")
    for _ in range(2):
        assert check_writable(place.format(tmp_path)).parent == tmp_path
        save_episodes(make_episodes([2]), place.format(tmp_path))
