"""What was recorded of an arm becomes a dataset: who did what, and that exactly."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lockstep import MS, POLICY, Bench, robot
from reaching import Reacher, ReacherConfig, reach_policy

from robopol import cli
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import Windows, load_episodes, save_episodes
from robopol.data.weighting import InterventionsConfig
from robopol.doctor import check_policy, check_weights
from robopol.errors import ConfigError, DataError
from robopol.policies.policy import standard_normal
from robopol.real_robot.channels import EVENT_ROW
from robopol.real_robot.dataset import episodes_of
from robopol.real_robot.fitness import fitness
from robopol.real_robot.policy_loop import PolicyLoop
from robopol.real_robot.policy_process import Speaker, check_heir
from robopol.real_robot.recorder import Recorder, load
from robopol.real_robot.servo import READ_AT
from robopol.real_robot.states import Command, State
from robopol.real_robot.steps import fill, latencies, step_type
from robopol.real_robot.ticks import tick_type
from robopol.real_robot.waypoints import waypoints_for
from robopol.steering import BestOfConfig
from robopol.training.config import TrainConfig
from robopol.training.trainer import Trainer

DT = 100 * MS


def spec(space):
    policy, _ = reach_policy()
    names = tuple(f"j{i}" for i in range(6))
    low, high = (-3.0,) * 5 + (0.0,), (3.0,) * 5 + (1.0,)
    update = {"action_names": names, "action_low": low, "action_high": high, "action_space": space, "env": None}
    return policy.spec.model_copy(update=update | {"obs_shapes": {"state": (5,)}})


def recorded(folder, space="joint_pos", label=2):
    """Let policy and human take turns at an arm in lock-step, record it, and return ticks and the folder."""
    bench, contract = Bench().ready(), spec(space)
    rows = {"ticks": tick_type(5), "events": EVENT_ROW, "steps": step_type(contract)}
    about = {"robot": bench.robot.tree(), "policy": {"spec": contract.tree(), "speaker": {"reach": 1}}}
    recorder, steps = Recorder(folder, rows, about), []
    for k in range(30):
        if k in (10, 20):
            bench.say(Command.HUMAN if k == 10 else Command.RUN)
            bench.run(0.01)
        send = bench.send_human if 10 <= k < 20 else bench.send
        direction = [1, 0.5, -0.5, 1, -1] if k < 10 or k >= 20 else [-1, 0, 0, 0, 0]
        send(bench.q + 0.02 * np.arange(1, 7)[:, None] * np.array(direction))
        step = np.zeros(1, rows["steps"])
        step["t"] = bench.clock.now()
        step["t_observed"], step["obs.state"] = bench.servo.life.reading.t_received, bench.servo.life.reading.q
        steps.append(step)
        bench.run(0.1 if k not in (10, 20) else 0.09)
    bench.say(Command.STOP, label)
    bench.run(0.5)
    assert bench.state is State.ARMED
    events = np.zeros(len(bench.events), EVENT_ROW)
    for row, event in zip(events, bench.events, strict=True):
        row["t"], row["code"], row["numbers"][: len(event.numbers)] = event.t, event.code, event.numbers
    ticks = np.array(bench.rows, rows["ticks"])
    recorder.add({"ticks": ticks, "events": events, "steps": np.concatenate(steps)}, 0)
    return ticks, recorder.written[0]


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("record"))


def test_actions_are_what_was_commanded_and_interventions_are_marked(taken):
    ticks, folder = taken
    episodes = episodes_of([folder])
    assert 25 <= episodes.num_steps <= 30
    assert episodes.success.tolist() == [True]
    assert episodes.reward.sum() == 1
    assert episodes.terminated[-1]
    human = episodes.intervention.numpy()
    np.testing.assert_array_equal(human, episodes.source.numpy() == 1)
    assert np.abs(np.diff(human.astype(int))).sum() == 2  # taken and given back once
    assert 9 <= human.sum() <= 11
    for k in range(1, episodes.num_steps):
        held = ticks["command"][np.argmin(np.abs(ticks["t_hold"] - 0)) :]
        state, action = episodes.obs["state"][k].numpy(), episodes.action[k].numpy()
        assert np.abs(action[:5] - state).max() < 0.2  # one step on from where it was seen
        # a command that was written, or between two of them: what is seen is seen between two ticks
        assert np.min(np.abs(held - action[:5]).max(1)) <= np.abs(np.diff(held, axis=0)).max() / 2 + 1e-6


def test_changes_add_up_to_the_way_that_was_commanded(taken, tmp_path):
    _, other = recorded(tmp_path, "joint_delta", label=1)
    absolute, changes = episodes_of([taken[1]]), episodes_of([other])
    assert changes.success.tolist() == [False]
    assert changes.truncated[-1]
    way = absolute.action[-1, :5] - absolute.action[0, :5]
    np.testing.assert_allclose(changes.action[1:, :5].sum(0), way, atol=0.02)


def test_an_export_is_a_dataset_like_any_other(taken, tmp_path):
    episodes = episodes_of([taken[1], taken[1]])
    assert len(episodes) == 2
    save_episodes(episodes, tmp_path / "robot.hdf5")
    again = load_episodes(tmp_path / "robot.hdf5")
    np.testing.assert_array_equal(again.action, episodes.action)
    np.testing.assert_array_equal(again.intervention, episodes.intervention)
    assert again.meta.source_names == ("policy", "human")


@pytest.mark.parametrize("name", ["robot.hdf5", "lerobot:robot"])
def test_interventions_are_exported_and_weigh_in_training_again(taken, tmp_path, monkeypatch, name):
    """T15: what a person did is told apart in both formats, and half of every batch, at the neutral settings none."""
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    episodes = episodes_of([taken[1]])
    save_episodes(episodes, name)
    again = load_episodes(name)
    np.testing.assert_array_equal(again.intervention, episodes.intervention)
    np.testing.assert_array_equal(again.source, episodes.source)
    np.testing.assert_allclose(again.action, episodes.action, atol=1e-6)
    windows = Windows(again, 1, 4)
    drawn = InterventionsConfig(share=0.5).build(windows)
    human = again.action[again.intervention]
    count = 0
    for step in range(20):
        first = drawn.batch(step, 64, 0)["action"][:, 0]
        count += int((first[:, None] == human).all(-1).any(-1).sum())
    assert abs(count / 1280 - 0.5) < 0.06
    assert again.intervention.float().mean() < 0.42
    rare = InterventionsConfig(share=0.0).build(windows).batch(0, 64, 0)["action"][:, 0]
    assert not (rare[:, None] == human).all(-1).any()
    alone = dataclasses.replace(again, intervention=torch.zeros_like(again.intervention))
    with pytest.raises(ConfigError, match="no step is an intervention"):
        InterventionsConfig().build(Windows(alone, 1, 4))


def test_a_learner_draws_half_from_all_that_was_done_and_half_from_what_people_did(taken, tmp_path):
    """T15, both buffers (RLPD's, as in Luo et al. 2024): a step of a person is in both, any other in the first only."""
    save_episodes(episodes_of([taken[1]]), tmp_path / "robot.hdf5")
    words = ["algo=sac", "schedule=offline", "env=none", "run=none", "batch_size=64"]
    words += [f"data.{name}.uri={tmp_path}/robot.hdf5" for name in ("demos", "people")]
    words += [f"data.{name}.validation=0" for name in ("demos", "people")]
    words += ["data.people.sampling={kind: interventions, share: 1}", "policy.hidden=[8]", "runtime.threads=1"]
    words += ["phases.cloning.sources={demos: 1, people: 1}", "phases.cloning.updates=20"]
    config = parse(TrainConfig, load_config("train", words))
    (phase,) = config.phases.values()
    episodes = load_episodes(tmp_path / "robot.hdf5")
    actions, human = episodes.action, episodes.intervention
    drawn = torch.zeros(2, episodes.num_steps, dtype=torch.int64)
    with Trainer(config) as trainer:
        for _ in range(20):
            batch = trainer.sources.batch(phase.sources, 64, trainer.updates)
            which = (batch["action"][:, None, 0] == actions).all(-1)
            assert (which.sum(1) == 1).all()
            for half, rows in enumerate(which.split(32)):
                drawn[half] += rows.sum(0)
            weights = [p.detach().clone() for p in trainer.algo.parts()["policy"].parameters()]
            trainer.advance(phase, 0)
        now = trainer.algo.parts()["policy"].parameters()
        assert any(not torch.equal(*pair) for pair in zip(weights, now, strict=True))
    assert (drawn[0] > 0).all(), "the first holds every step"
    assert ((drawn[1] > 0) == human).all(), "the second those of people, and no other"


def test_what_was_proposed_commanded_and_achieved_is_told_apart(taken):
    """T15: in the steps where a person acted, what the policy proposed is not what was commanded."""
    ticks, folder = taken
    found, _ = load(folder)
    human = found["ticks"]["state"] == State.HUMAN
    assert human.sum() > 50
    assert "actions" in found["steps"].dtype.names  # proposed
    command, achieved = found["ticks"]["command"], found["ticks"]["q"]
    assert np.abs(command[human] - achieved[human]).max() > 1e-3  # the arm lags what is commanded
    assert set(found["ticks"]["chunk"][human].tolist()) == {0}  # and follows no plan of the policy
    assert found["ticks"]["chunk"][found["ticks"]["state"] == State.RUNNING].min() > 0
    np.testing.assert_array_equal(command, ticks["command"][-len(command) :])


class Noisy(Reacher):
    """Gives small joint changes that its noise decides."""

    def plan(self, obs, n=1, generator=None, previous=None):
        rows = len(obs["state"])
        window = 0.01 + 0.002 * standard_normal((rows, n, self.spec.horizon, 6), generator, self.device)
        window[..., 5] = 0.5
        return window


def test_how_each_plan_came_about_is_in_the_record_of_an_episode(tmp_path):
    bench, contract = Bench().ready(), spec("joint_delta").model_copy(update={"n_obs_steps": 1})
    policy = (
        Noisy(ReacherConfig(n_obs_steps=1, horizon=12, n_action_steps=4), contract).eval().steered(BestOfConfig(n=4))
    )
    rows = {"ticks": tick_type(5), "events": EVENT_ROW, "steps": step_type(contract)}
    recorder, row, steps, heard = Recorder(tmp_path, rows, {}), np.zeros(1, rows["steps"]), [], [0]

    def ticks():
        start, heard[0] = heard[0], len(bench.rows)
        return np.array(bench.rows[start:], rows["ticks"])

    def post(message):
        bench.policy.message = message

    observer = SimpleNamespace(observe=lambda row: {"state": row["q"].astype(np.float32)})
    waypoints = waypoints_for(contract, bench.robot)
    loop = PolicyLoop(policy, bench.robot, observer, waypoints, bench.clock, ticks, post, seed=7)
    loop.id = POLICY
    for _ in range(9):
        fill(row, loop.step())
        steps.append(row.copy())
        bench.run(0.1)
    bench.say(Command.STOP, 2)
    bench.run(0.5)
    found = {"ticks": np.array(bench.rows, rows["ticks"]), "events": np.zeros(0, EVENT_ROW)}
    recorder.add(found | {"steps": np.concatenate(steps)}, 0)
    told, _ = load(recorder.written[0])
    asked = told["steps"][told["steps"]["seq"] > 0]
    assert len(asked) == 3
    assert asked["executed"].tolist() == [4, 4, 4]
    assert asked["committed"][0] == 0
    assert asked["candidates"].tolist() == [4, 4, 4]
    for step in asked:  # observation and seed say the whole plan
        obs = {"state": torch.from_numpy(step["obs.state"].copy())[None, None]}
        again = policy.plan(obs, 1, [torch.Generator().manual_seed(int(step["seed"]))])
        assert int(policy.choice.chosen) == step["chosen"]
        np.testing.assert_array_equal(again[0, 0].numpy(), step["actions"])
    parts = latencies(told["steps"], told["ticks"])
    assert len(parts) == 3
    for part in parts:
        assert part.wait == pytest.approx((1 - READ_AT) * bench.robot.period)  # the next tick takes it
        assert min(part) >= 0
        assert sum(part) < 0.05


def test_new_weights_are_tried_on_what_was_recorded(taken, tmp_path, monkeypatch, capsys):
    contract = spec("joint_pos").model_copy(update={"n_obs_steps": 1, "control_hz": 0.01})  # there is time enough
    policy = Noisy(ReacherConfig(n_obs_steps=1, horizon=12, n_action_steps=4), contract).eval()
    found = fitness(policy, robot(), episodes_of([taken[1]]))
    assert (found.refused, found.why) == (0.0, "")
    monkeypatch.setattr(Speaker, "load", lambda self: policy)
    tree = {"checkpoint": "x", "record": str(taken[1].parent)}
    patient = robot(gate={"max_latency": 100.0})
    assert [check.status for check in check_policy(patient, tree)][-1] == "ok"
    plan = policy.plan

    def astray(obs, *args):
        window = plan(obs, *args)
        window[obs["state"][:, -1, 0] > 0.15] = torch.nan  # where only some of the observations are
        return window

    monkeypatch.setattr(policy, "plan", astray)
    found = fitness(policy, robot(), episodes_of([taken[1]]))
    assert 0 < found.refused < 1
    assert found.why == "chunk not finite"
    check = check_weights(robot(), policy, 4, str(taken[1].parent))
    assert check.status == "fail"
    assert "are refused, the first one as chunk not finite" in check.detail
    with pytest.raises(ConfigError, match="no recorded episodes"):
        check_weights(robot(), policy, 4, str(tmp_path))


def test_an_episode_without_steps_is_an_error_in_words(taken, tmp_path):
    folder = shutil.copytree(taken[1], tmp_path / "copy")
    (folder / "steps.bin").write_bytes(b"")
    with pytest.raises(DataError, match="0 steps"):
        episodes_of([folder])


def test_an_episode_is_cut_where_steps_are_missing(taken, tmp_path):
    """What is one row after the other is one step after the other: else a learner would move as much faster."""
    folder, whole = shutil.copytree(taken[1], tmp_path / "copy"), episodes_of([taken[1]])
    steps = load(folder)[0]["steps"]
    np.delete(steps, [12, 13]).tofile(folder / "steps.bin")
    episodes = episodes_of([folder])
    assert episodes.lengths.sum() == whole.num_steps - 3
    assert episodes.success.tolist() == [False, True]
    assert episodes.truncated.sum() == 1
    assert episodes.reward.sum() == 1
    left = [k for k in range(whole.num_steps) if k not in range(len(whole.action) - 18, len(whole.action) - 15)]
    np.testing.assert_array_equal(episodes.action, whole.action[left])
    steps[::2].tofile(folder / "steps.bin")
    with pytest.raises(DataError, match=r"14 steps between motion and stop; .* one after the other"):
        episodes_of([folder])


# New weights while others act


# there is time enough on a machine that is busy
PATIENT = spec("joint_delta").model_copy(update={"n_obs_steps": 1, "horizon": 12, "control_hz": 0.01})


class Steady(Reacher):
    """Moves every joint by ``change`` a step."""

    def __init__(self, change):
        super().__init__(ReacherConfig(n_obs_steps=1, horizon=12, n_action_steps=4), PATIENT)
        self.change = change

    def plan(self, obs, n=1, generator=None, previous=None):
        window = torch.full((len(obs["state"]), n, self.spec.horizon, 6), self.change)
        window[..., 5] = 0.5
        return window


def after(folder, **fields):
    return {"id": bytes(16).hex(), "record": None if folder is None else str(folder), "scene": False} | fields


def test_weights_that_pass_may_take_over_and_others_are_refused_in_words(taken, monkeypatch):
    monkeypatch.setattr("robopol.evaluation.fitness.ROWS", 16)
    tried = taken[1].parent
    arm, speaker = robot(gate={"max_latency": 100.0}), Speaker(checkpoint="runs/new")
    policy = Steady(0.1)
    check_heir(policy, arm, speaker, PATIENT, after(tried))
    for change, words in ((np.nan, "100% of its plans .* chunk not finite"), (50.0, "chunk range")):
        with pytest.raises(ConfigError, match=words):
            check_heir(Steady(change), arm, speaker, PATIENT, after(tried))
    with pytest.raises(ConfigError, match=r"take up to .* are allowed"):
        check_heir(policy, robot(gate={"max_latency": 1e-9}), speaker, PATIENT, after(tried))
    with pytest.raises(ConfigError, match="what acts already"):
        check_heir(policy, arm, speaker, PATIENT, after(tried, id=policy.fingerprint()[:16].hex()))
    with pytest.raises(ConfigError, match="nothing to try it on"):
        check_heir(policy, arm, speaker, PATIENT, after(None))
    with pytest.raises(ConfigError, match="no recorded episodes"):
        check_heir(policy, arm, speaker, PATIENT, after(tried / "none"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"obs_shapes": {"state": (6,)}}, r"obs_shapes: \{'state': \(5,\)\} instead of \{'state': \(6,\)\}"),
        ({"action_high": (2.0,) * 5 + (1.0,)}, "action_high"),
        ({"action_space": "joint_pos"}, "action_space: joint_delta instead of joint_pos"),
        ({"control_hz": 20.0}, "control_hz: 0.01 instead of 20"),
        ({"horizon": 16}, "horizon: 12 instead of 16"),
        ({"n_action_steps": 2, "control_hz": 5.0}, "control_hz: .*; n_action_steps: 4 instead of 2"),
    ],
)
def test_what_is_for_something_else_does_not_take_over(change, words):
    old = PATIENT.model_copy(update=change)
    with pytest.raises(ConfigError, match=words):
        check_heir(Steady(0.1), robot(), Speaker(checkpoint="x"), old, after(None))


@pytest.mark.parametrize("out", ["arm.hdf5", "lerobot:arm?images=png"])
def test_what_ends_a_deployment_does_not_cost_its_dataset_nor_one_that_is_there(out, tmp_path, monkeypatch, capfd):
    if out.startswith("lerobot"):
        pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'robopol[lerobot]'")
    monkeypatch.chdir(tmp_path)
    began = []

    class Interrupted:
        """Processes of an arm that is recorded until Ctrl-C: an episode, and one that is too short."""

        scheduling = help = ""
        policy = {"latency": 0.0, "executed": 1, "spec": spec("joint_pos").tree()}  # noqa: RUF012

        def __init__(self, robot, speaker, record, *told):
            began.append(self)
            _, whole = recorded(record)
            short = shutil.copytree(whole, whole.with_name("99990101-000000-000"))
            (short / "steps.bin").write_bytes(b"")

        def events(self):
            raise KeyboardInterrupt

        def quit(self, tell):
            pass

        def close(self):
            pass

    monkeypatch.setattr("robopol.real_robot.supervisor.Supervisor", Interrupted)
    words = ["deploy", "checkpoint=x", "robot=so101_simulated", "record=record", f"out='{out}'"]
    assert cli.run(words) == 130
    assert "left out" in capfd.readouterr().out
    kept = load_episodes(out.partition("?")[0]).action.clone()
    assert cli.run(words) == 1
    assert "arm" in (said := capfd.readouterr().err)
    assert "exists" in said
    assert len(began) == 1  # nothing was armed for it
    assert torch.equal(load_episodes(out.partition("?")[0]).action, kept)
