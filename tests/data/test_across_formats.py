"""From one format to the next and back: what all of them can say survives."""

from itertools import permutations

import pytest

from robopol.data import load_episodes, save_episodes

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
