"""A person demonstrates Reach at the keyboard through the whole bridge; the dataset trains a policy."""

import numpy as np
import pytest
from demonstrating import REACH, Demonstration
from lockstep import robot

from robopol import cli
from robopol.data import load_episodes, save_episodes
from robopol.errors import ConfigError
from robopol.real_robot.dataset import episodes_of
from robopol.real_robot.demonstration import DemonstrationConfig, spec_of
from robopol.real_robot.recorder import DISCARDED, load, load_before
from robopol.real_robot.states import State


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Reach done, a motion while things are put back, a failure that is discarded after its stop, one more success."""
    made = Demonstration(tmp_path_factory.mktemp("demonstrated"))
    made.place(3)
    made.typist.tap("T")
    made.reach()
    made.typist.tap("S")
    made.run(0.3)
    made.typist.tap("T")  # it is not kept, and stopped when the time is over
    made.run(0.2)
    assert made.bench.state is State.HUMAN
    made.run(0.7)
    assert made.bench.state is State.ARMED
    made.typist.tap("T")
    made.run(0.3)
    made.typist.tap("F")
    made.run(0.3)
    made.typist.tap("X")
    made.run(0.3)
    made.place(4)
    made.typist.tap("T")
    for key in "wawrwd":
        made.typist.tap(key)
        made.run(0.2)
    made.typist.tap("S")
    made.run(0.3)
    return made


def test_the_person_is_told_what_is_next_in_words(recorded):
    said = [line.split(",")[0] if line.startswith("ready") else line for line in recorded.said]
    said = [line if "," not in line or " s;" not in line else line.rpartition(",")[0] for line in said]
    assert said == [
        "ready for episode 1",
        "recording episode 1: stop with success, failure or discard",
        "episode 1: success",
        "put things back: 0.5 s",
        "this motion is not kept: it is still time to put things back",
        "ready for episode 2",
        "recording episode 2: stop with success, failure or discard",
        "episode 2: failure",
        "put things back: 0.5 s",
        "episode 2 discarded; 1 of 2 kept",
        "ready for episode 3",
        "recording episode 3: stop with success, failure or discard",
        "episode 3: success",
    ]
    assert recorded.session.over
    assert recorded.session.kept == 2


def test_what_was_discarded_is_put_aside_and_not_deleted(recorded):
    folder = recorded.folder / "record"
    assert len(recorded.recorder.written) == 2
    assert {path.parent for path in folder.glob("*/episode.json")} == set(recorded.recorder.written)
    assert len(list((folder / DISCARDED).glob("*/episode.json"))) == 2  # the failure, and the motion in between
    assert not list(folder.glob("*incident*"))


def test_a_demonstration_is_a_dataset_of_what_the_person_did(recorded):
    episodes = episodes_of(recorded.recorder.written)
    assert episodes.success.tolist() == [True, True]
    assert not episodes.intervention.any()  # there was no policy to overrule
    assert (episodes.source == 1).all()
    assert episodes.meta.source_names[1] == "human"
    assert episodes.meta.action_space == "ee_delta"
    assert episodes.meta.env_id == REACH.id
    state, start = episodes.obs["state"].numpy(), int(episodes.starts[1])
    for slot in (slice(0, start), slice(start, None)):
        tool, way = state[slot, 6:9], episodes.action[slot, :3].numpy()[:-1].sum(0)
        np.testing.assert_allclose(tool[-1] - tool[0], way, atol=0.02)  # the changes lead where the tool went
        assert np.abs(way).max() > 0.03
    assert np.linalg.norm(state[start - 1, 6:9] - state[start - 1, 11:14]) < 0.02  # at the target


def test_a_policy_is_trained_on_it_and_other_libraries_read_it(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr("robopol.training.plots.plot_curves", lambda *args: None)  # as long as all of the rest
    episodes, demos = episodes_of(recorded.recorder.written), tmp_path / "demos.hdf5"
    save_episodes(episodes, demos)
    words = ["policy/net=mlp", "policy.net.width=16", "phases.cloning.updates=3", "batch_size=8"]
    words += [
        "eval.final_episodes=0",
        "runtime.matmul=highest",
        f"run={tmp_path / 'run'}",
        f"data.demos.uri={demos}",
        "env=reach",
    ]
    assert cli.run(["train", *words]) == 0
    assert (tmp_path / "run" / "checkpoints" / "last" / "policy" / "model.safetensors").exists()
    for uri in (f"robomimic:{demos}", f"lerobot:{tmp_path / 'lerobot'}"):
        if uri.startswith("lerobot"):
            pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'robopol[lerobot]'")
            save_episodes(episodes, uri)
        again = load_episodes(uri)
        np.testing.assert_allclose(again.action, episodes.action)
        np.testing.assert_array_equal(again.lengths, episodes.lengths)


def test_what_came_before_an_episode_is_kept_beside_it(recorded):
    first, second = recorded.recorder.written
    for folder in (first, second):
        before, (found, about) = load_before(folder), load(folder)
        assert about["success"] is True
        gap = int(found["ticks"]["t"][0]) - int(before["ticks"]["t"][-1])
        assert gap == recorded.robot.period_ns
        assert State.HUMAN not in before["ticks"]["state"]
        assert len(before["steps"]) > 0
    np.testing.assert_array_equal(np.diff(load_before(first)["ticks"]["t"]), recorded.robot.period_ns)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"env": REACH, "control_hz": 20.0}, "control_hz is said by the task"),
        ({"observe": {"state": ("q", "camera")}}, "camera"),
        ({"env": REACH}, "on so101 only joint_pos and joint_delta"),
    ],
)
def test_demonstrations_that_cannot_be_are_refused_in_words(fields, text):
    with pytest.raises((ConfigError, ValueError), match=text):
        spec_of(robot(), DemonstrationConfig(**fields))


def test_without_a_task_joints_are_observed_and_said():
    spec = spec_of(robot(speed=0.5), DemonstrationConfig())
    assert spec.obs_shapes == {"state": (6,)}
    assert spec.action_space == "joint_pos"
    assert spec.action_names[0] == "shoulder_pan [rad]"
    assert spec.action_high[0] == 1.8
    delta = spec_of(robot(speed=0.5), DemonstrationConfig(action_space="joint_delta", control_hz=5.0))
    assert delta.action_high == (0.3,) * 5 + (1.0,)  # 3 rad/s, halved, for 0.2 s


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["robot=ur5e_simulated", "operator=keyboard", "out=x.hdf5"], "say env=reach"),
        (["robot=so101_simulated", "operator=keyboard", "out=taken.hdf5"], "taken.hdf5 exists"),
        (["robot=so101_simulated", "operator=keyboard", "out='lerobot:~/taken?images=png'"], "taken exists"),
    ],
)
def test_wrong_commands_get_one_clear_error_before_anything_moves(words, text, capsys, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "taken/meta").mkdir(parents=True)
    for name in ("taken/meta/info.json", "taken.hdf5"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())
    assert cli.run(["record", *words]) == 1
    errors = capsys.readouterr().err
    assert text in errors
    assert "Traceback" not in errors
    assert sorted(tmp_path.iterdir()) == before
