"""Recorded episodes replay to the bit here, and what was altered is found."""

from dataclasses import replace
from importlib.metadata import version

import pytest
import torch

from robopol import __version__
from robopol.data import load_episodes, save_episodes
from robopol.envs import make_env, rendering
from robopol.errors import EnvError
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect
from robopol.evaluation.recorded_world import differences, world_of
from robopol.evaluation.replay import replay, spaced, why_not
from robopol.evaluation.restart import Restart, restart_deviations

DOMAIN = {"mass": [0.5, 2.0], "friction": [0.5, 1.5], "latency": 2}
MODES = ("states", "actions")


def record(id, count=3, **options):
    with make_env(id, 2, **options) as env:
        return collect(ExpertActor(env), env, count, 0, source="expert", only_success=False)


def wander(id, count, **options):
    """Record random actions; the experts act in ee_delta only."""

    class Random:
        def reset(self, slots, seeds):
            self.generator = torch.Generator().manual_seed(seeds[0])

        def act(self, slots, obs):
            return torch.rand(len(slots), len(env.spec.action_low), generator=self.generator) * 0.2 - 0.1

    with make_env(id, **options) as env:
        return collect(Random(), env, count, 0, source="random", only_success=False)


@pytest.fixture(scope="module")
def reach():
    return record("robopol/Reach-v0")


def run(episodes, mode, indices=None, **options):
    with world_of(episodes) as env:
        assert why_not(mode, episodes, env) is None
        return replay(episodes, env, mode, range(len(episodes)) if indices is None else indices, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("recorded", "id", "options"),
    [
        (record, "robopol/Reach-v0", {}),
        (record, "robopol/Push-v0", {"max_episode_steps": 15, "domain": DOMAIN}),
        (wander, "robopol/PickPlace-v0", {"max_episode_steps": 15, "action_space": "joint_delta", "control_hz": 20}),
    ],
)
def test_recorded_episodes_replay_to_the_bit(recorded, id, options, mode, tmp_path):
    episodes = recorded(id, 2, **options)
    save_episodes(episodes, tmp_path / "demos.hdf5")
    again = load_episodes(tmp_path / "demos.hdf5")
    drifts = run(again, mode)
    assert [drift.steps for drift in drifts] == again.lengths.tolist()
    assert all(drift.within(0) and drift.worst == "" and drift.success for drift in drifts)


def test_a_dataset_makes_no_world_that_reads_files(reach, tmp_path):
    model = tmp_path / "evil.xml"
    model.write_text("<mujoco/>")
    meta = reach.meta.model_copy(update={"env_id": "Hopper-v5", "env_options": {"xml_file": str(model)}})
    with pytest.raises(EnvError, match="option xml_file names the file"):
        world_of(replace(reach, meta=meta))


@pytest.mark.skipif(rendering.why_not() is not None, reason="no picture can be drawn here")
def test_pictures_are_compared():
    episodes = wander("robopol/Reach-v0", 1, cameras=("front",), image_size=(24, 32), max_episode_steps=4)
    pictures = episodes.obs["images.front"].clone()
    pictures[2] = 255 - pictures[2]
    altered = replace(episodes, obs=episodes.obs | {"images.front": pictures})
    with world_of(episodes) as env:
        assert replay(episodes, env, "states", [0])[0].within(0)
        for mode in MODES:
            (drift,) = replay(altered, env, mode, [0])
            assert drift.worst.startswith("obs.images.front at step ")
            assert not drift.within(0.01)


@pytest.mark.parametrize("mode", MODES)
def test_altered_actions_are_found(reach, mode):
    action = reach.action.clone()
    row = int(reach.starts[1]) + 3
    action[row, 0] += 0.01  # 1 cm of the tool's way
    drifts = run(replace(reach, action=action), mode)
    assert [drift.within(0.01) for drift in drifts] == [True, False, True]
    assert drifts[1].next_max > 0.05
    assert drifts[1].worst.startswith("obs.state[")
    if mode == "states":
        assert drifts[1].worst.endswith(" at step 3")


@pytest.mark.parametrize("mode", MODES)
def test_altered_observations_rewards_and_successes_are_found(reach, mode):
    obs = {"state": reach.obs["state"].clone()}
    obs["state"][2, 7] += 1.0
    first = run(replace(reach, obs=obs), mode)[0]
    assert first.worst.startswith("obs.state[7] at step ")
    assert not first.within(0.01)
    reward = reach.reward.clone()
    reward[-1] -= 1.0
    assert run(replace(reach, reward=reward), mode)[-1].reward_max > 1
    assert run(replace(reach, success=~reach.success), mode)[0].success is False
    flipped = run(replace(reach, terminated=~reach.terminated), mode)[0]
    assert flipped.flags == flipped.steps


def test_restored_observations_are_compared_too(reach):
    states = reach.states.clone()
    states[5] = states[4]
    drift = run(replace(reach, states=states), "states")[0]
    assert drift.start_max > 0.1
    assert not drift.within(0.01)


def test_an_open_loop_that_ends_early_is_no_agreement(reach):
    options = dict(reach.meta.env_options) | {"max_episode_steps": 4}
    shorter = replace(reach, meta=reach.meta.model_copy(update={"env_options": options}))
    drift = run(shorter, "actions")[0]
    assert (drift.steps, drift.flags, drift.success) == (4, 1, None)
    assert not drift.within(1e9)


def test_only_some_steps_and_episodes_are_taken(reach):
    drifts = run(reach, "states", [0, 2], steps=4)
    assert [(drift.episode, drift.steps) for drift in drifts] == [(0, 4), (2, 4)]
    assert drifts[1].success  # the last step is among them
    seeds = reach.seed.clone()
    seeds[0] = -1
    assert [drift.episode for drift in run(replace(reach, seed=seeds), "actions")] == [1, 2]


def test_spaced():
    assert spaced(5, None) == spaced(5, 9) == [0, 1, 2, 3, 4]
    assert spaced(101, 3) == [0, 50, 100]
    assert spaced(7, 1) == [0]


def test_noise_that_a_restored_world_draws_anew_is_not_taken_for_drift():
    episodes = record("robopol/Reach-v0", 1, domain={"observation_noise": 0.01})
    with world_of(episodes) as env:
        assert "fresh noise" in why_not("states", episodes, env)
        assert all(drift.within(0) for drift in replay(episodes, env, "actions", [0]))


def test_what_cannot_be_replayed_is_said(reach):
    with world_of(reach) as env:
        assert "no simulator states" in why_not("states", replace(reach, states=None), env)
        assert "no seeds" in why_not("actions", replace(reach, seed=torch.full_like(reach.seed, -1)), env)
        assert "the state has shape" in why_not("states", replace(reach, states=reach.states[:, :9].contiguous()), env)
        narrow = replace(reach, action=reach.action[:, :2].contiguous())
        assert "2 action entries, robopol/Reach-v0 takes 5" in why_not("actions", narrow, env)
        other = replace(reach, obs={"other": reach.reward[:, None]}, final_obs={"other": torch.zeros(len(reach), 1)})
        assert "no observation of the file" in why_not("actions", other, env)
    foreign = reach.meta.model_copy(update={"env_id": "Pendulum-v1", "env_options": {}})
    pendulum = replace(reach, action=reach.action[:, :1].contiguous(), meta=foreign)
    state = {"state": reach.obs["state"][:, :3].contiguous()}
    final = {"state": reach.final_obs["state"][:, :3].contiguous()}
    with world_of(pendulum) as env:
        reason = why_not("states", replace(pendulum, obs=state, final_obs=final), env)
        assert "state" in reason


def test_robopols_worlds_go_on_from_a_restored_state_to_the_bit(reach):
    with world_of(reach) as env:
        found = restart_deviations(reach, env)
        assert (found.there, found.reward, found.free) == (0, 0, [])
        assert not found.later.any()


def test_a_foreign_world_is_measured_on_itself_first():
    """Forces of contact are observed as the physics step before left them: restoring cannot know them."""
    pytest.importorskip("gymnasium_robotics")
    episodes = wander("AntMaze_UMaze-v5", 1, max_episode_steps=60)
    short = replace(episodes, states=episodes.states[:, 1 : 1 + 15 + 14].contiguous())  # qpos and qvel, as in D4RL
    with world_of(episodes) as env:
        found = restart_deviations(episodes, env)
        assert found.there > 0.01
        assert found.greatest == 0
        assert not found.beyond(0).any()
        for recorded, success in ((episodes, True), (short, None)):
            (drift,) = replay(recorded, env, "states", [0], 30, compare_start=False)
            assert drift.within(0)
            assert drift.success is success
            assert drift.start_max is None


def test_what_a_world_is_off_by_itself_is_allowed_column_by_column(reach):
    names = tuple(f"obs.state[{index}]" for index in range(reach.obs["state"].shape[1]))
    later = torch.zeros(len(names), dtype=torch.float64)
    later[:3] = torch.tensor([0.005, 0.25, 12.0])
    restart = Restart(0.0, later, 0.03, names, later > 99)
    assert (restart.greatest, restart.free) == (0.25, ["obs.state[2]"])
    own = restart.beyond(0.01)
    assert own[:4].tolist() == pytest.approx([0, 0.24, torch.inf, 0])
    assert float(own[-1]) == pytest.approx(0.02)
    for column, amount, passes in ((0, 0.02, False), (1, 0.24, True), (1, 0.26, False), (2, 99.0, True)):
        state = reach.obs["state"].clone()
        unit = float(state[:, column].double().std(correction=0))
        state[4, column] += amount * unit
        altered = replace(reach, obs={"state": state})
        with world_of(altered) as env:
            (drift,) = replay(altered, env, "states", [0], compare_start=False, own=own)
        assert drift.within(0.01) is passes, (column, amount)


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("", {}, "does not name"),
        ("nowhere/Nothing-v0", {}, "cannot be made here"),
        ("robopol/Reach-v0", {"colour": 3}, "cannot be made here"),
        ("os:Reach-v0", {}, "module to import"),
        ("GymV26Environment-v0", {"env_id": "os:Reach-v0"}, "modules to import included"),
        ("GymV21Environment-v0", {"env_id": "CartPole-v1"}, "modules to import included"),
        ("hopper-medium-v2", {}, r"another version of MuJoCo: say d4rl:hopper-medium-v2\?env=Hopper-v5"),
        ("antmaze-large-play-v2", {}, "none that can be made here"),
    ],
)
def test_worlds_that_cannot_be_made_are_said(reach, id, options, message):
    meta = reach.meta.model_copy(update={"env_id": id, "env_options": options})
    with pytest.raises(EnvError, match=message):
        world_of(replace(reach, meta=meta))


def test_another_simulator_is_said(reach):
    with world_of(reach) as env:
        assert differences(reach, env) == []
        versions = dict(reach.meta.versions) | {"mujoco": "2.1.0", "robopol": "0.0.0", "elsewhere": "1"}
        meta = reach.meta.model_copy(update={"versions": versions, "models": ("<mujoco/>",)})
        found = "\n".join(differences(replace(reach, meta=meta), env))
    assert "recorded with mujoco 2.1.0, here is " in found
    assert f"recorded with robopol 0.0.0, here is {__version__}" in found
    assert "1 simulator model(s) other than the one that is used here; they are not loaded" in found
    assert "elsewhere" not in found
    with world_of(reach) as env:
        (note,) = differences(replace(reach, meta=reach.meta.model_copy(update={"versions": {}})), env)
    assert f"here are mujoco {version('mujoco')}, gymnasium " in note
