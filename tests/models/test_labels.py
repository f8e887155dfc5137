"""Labels: the advantage of every step, in order, and what becomes of it."""

import pytest
import torch
from test_value import build

from robopol import cli
from robopol.checkpoint import save_part
from robopol.data import Episodes, EpisodesMeta, load_episodes, save_episodes
from robopol.errors import DataError
from robopol.models.labels import advantages, label


def episodes(lengths=(4, 3)) -> Episodes:
    rows, rng = sum(lengths), torch.Generator().manual_seed(3)
    last = torch.zeros(rows, dtype=torch.bool)
    last[torch.tensor(lengths).cumsum(0) - 1] = True
    count = len(lengths)
    return Episodes(
        obs={"state": torch.randn(rows, 4, generator=rng)},
        action=torch.randn(rows, 2, generator=rng),
        reward=torch.zeros(rows),
        terminated=last,
        truncated=torch.zeros(rows, dtype=torch.bool),
        source=torch.zeros(rows, dtype=torch.int64),
        intervention=torch.zeros(rows, dtype=torch.bool),
        starts=torch.tensor([0, *lengths[:-1]]),
        lengths=torch.tensor(lengths),
        final_obs={"state": torch.randn(count, 4, generator=rng)},
        has_final=torch.ones(count, dtype=torch.bool),
        success=torch.ones(count, dtype=torch.bool),
        way=torch.full((count,), -1),
        seed=torch.arange(count),
        meta=EpisodesMeta(source_names=("toy",), control_hz=10.0, action_names=("x", "y")),
    )


def test_advantages_are_those_of_each_step_with_its_own_history_and_actions():
    critic, data = build().eval(), episodes()
    found = advantages(critic, data)
    assert found.shape == (7,)
    state, action = data.obs["state"], data.action
    for step, history, chunk in (
        (0, [0, 0], [0, 1, 2]),
        (2, [1, 2], [2, 3, 3]),
        (4, [4, 4], [4, 5, 6]),
        (6, [5, 6], [6, 6, 6]),
    ):
        obs = {"state": state[history][None]}
        expected = critic.q(obs, action[chunk][None]).amin(0) - critic.v(obs)
        torch.testing.assert_close(found[step], expected[0])


def test_a_label_is_an_observation_that_is_saved_with_the_rest(tmp_path, capsys):
    critic, data = build(), episodes()
    save_part(critic, tmp_path)
    save_episodes(data, tmp_path / "data.hdf5")
    out = tmp_path / "labelled.hdf5"
    assert cli.run(["data", "label", str(tmp_path / "data.hdf5"), f"critic={tmp_path}", f"out={out}"]) == 0
    assert "'optimal' is 1 in" in capsys.readouterr().out
    again = load_episodes(str(out))
    expected = (advantages(critic.eval(), data) >= 0).float()
    assert torch.equal(again.obs["optimal"][:, 0], expected)
    assert torch.equal(again.obs["state"], data.obs["state"])


def test_what_does_not_fit_is_refused(tmp_path, capsys):
    data = episodes()
    with pytest.raises(DataError, match="an observation 'state' already"):
        label(data, torch.ones(7, dtype=torch.bool), "state")
    renamed = label(data, torch.ones(7, dtype=torch.bool), "other")
    renamed.obs.pop("state")
    with pytest.raises(DataError, match=r"the critic was trained for \{'state': \(4,\)\} and 2"):
        advantages(build(), renamed)
