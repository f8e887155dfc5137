"""What a policy sees by the cameras of a simulated arm, in lock-step: the true picture of the true time."""

import functools

import numpy as np
import pytest
from lockstep import MS
from looking import PIXELS, looking_policy

from robopol import cli
from robopol.commands.deploy import DeployCommand
from robopol.config import parse
from robopol.configs import load_config
from robopol.envs import rendering
from robopol.errors import ConfigError
from robopol.real_robot import rehearsal
from robopol.real_robot.cameras.rendered import RenderedConfig
from robopol.real_robot.events import Code
from robopol.real_robot.policy_loop import PolicyLoop
from robopol.real_robot.rehearsal import rehearse
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.servo import READ_AT
from robopol.real_robot.sight import check_cameras
from robopol.real_robot.states import State

pytestmark = pytest.mark.skipif(rendering.why_not() is not None, reason=str(rendering.why_not()))
DT, START = 100 * MS, 1_000 * MS
READ = round(READ_AT * 10 * MS)


@functools.cache
def arm():
    return parse(RobotConfig, load_config("deploy", ["robot=ur5e_simulated", "checkpoint=x"])["robot"])


def ur5e(**cameras):
    made = {name: parse(RenderedConfig, {"size": [PIXELS, PIXELS]} | tree) for name, tree in cameras.items()}
    gate = arm().gate.model_copy(update={"max_age": 0.3})
    return arm().model_copy(update={"geometry": None, "gate": gate, "cameras": made})


@pytest.fixture(scope="module")
def simulator():
    """The simulator that a policy which looks by both cameras is trained in."""
    _, env = looking_policy(("front", "wrist"))
    with env.make(1) as made:
        made.reset([0], [3])
        yield made.envs[0]


class Watched:
    """Rehearses one episode and keeps its worlds, the policy's steps, and the events."""

    def __init__(self, monkeypatch, robot, frozen=None, **options):
        self.policy, self.env = looking_policy(**options)
        self.worlds, self.steps, self.events = {}, [], []
        publish, step = rehearsal._Episode._publish, PolicyLoop.step

        def published(episode, row):
            publish(episode, row)
            world = episode._past[-1][2]
            self.worlds[world.t] = world

        def stepped(loop):
            done = step(loop)
            if done is not None:
                self.steps.append(done)
            return done

        def world(episode):
            now = episode._past[-1][2].t
            return self.worlds[frozen[0] if frozen and frozen[0] <= now < frozen[1] else now]

        monkeypatch.setattr(rehearsal._Episode, "_publish", published)
        monkeypatch.setattr(rehearsal._Episode, "_world", world)
        monkeypatch.setattr(PolicyLoop, "step", stepped)
        rehearse(self.policy, robot, self.env, [3], report=lambda seed, event: self.events.append(event))
        self.plans = [done for done in self.steps if done.asked.actions is not None]
        assert len(self.plans) == len(self.policy.seen) > 2

    def truth(self, simulator, times):
        """Return what the policy's own simulator shows of the world at some times."""
        found = []
        for t in times:
            self.worlds[t].show(simulator.data)
            found.append(simulator.restore_state(simulator.save_state()))
        return found


def test_it_is_what_the_simulator_shows_at_that_time_to_the_bit(monkeypatch, simulator):
    run = Watched(monkeypatch, ur5e(), cameras=("front", "wrist"), steps=6)
    for done, seen in zip(run.plans, run.policy.seen, strict=True):
        assert done.t_observed == done.t  # no latency
        for k, true in enumerate(run.truth(simulator, [done.t - DT, done.t])):
            for key, value in seen.items():
                np.testing.assert_array_equal(value[k], true[key], err_msg=key)
    pictures = [seen["images.wrist"][-1] for seen in run.policy.seen]
    assert not np.array_equal(pictures[0], pictures[-1])  # it has moved


def arrived(t, fps, latency):
    """Return when those pictures were taken that have arrived by ``t``: next to the ticks at which the arm was read."""
    period = round(1e9 / fps)
    return [s + READ for s in range(START + period, t, period) if s + READ + latency <= t]


def test_latency_shifts_everything_that_is_seen_to_the_time_that_all_cameras_know(monkeypatch, simulator):
    cameras = {
        "front": {"fps": 25.0, "latency": 0.07},
        "wrist": {"camera": "wrist", "fps": 10.0, "latency": 0.2},
    }
    run = Watched(monkeypatch, ur5e(**cameras), cameras=("front", "wrist"), steps=6)
    for done, seen in zip(run.plans, run.policy.seen, strict=True):
        front, wrist = arrived(done.t, 25.0, 70 * MS), arrived(done.t, 10.0, 200 * MS)
        assert wrist[-1] == done.t - 2 * DT
        assert done.t_observed == wrist[-1]
        for k, t in enumerate((wrist[-1] - DT, wrist[-1])):
            nearest = min(front, key=lambda s: abs(s - t))
            of_front, of_wrist = run.truth(simulator, [nearest, t])
            np.testing.assert_array_equal(seen["images.front"][k], of_front["images.front"])
            np.testing.assert_array_equal(seen["images.wrist"][k], of_wrist["images.wrist"])
            np.testing.assert_array_equal(seen["state"][k], of_wrist["state"])  # of the pictures' time, not of now
        assert done.taken == {"images.front": nearest, "images.wrist": wrist[-1]}


def test_when_pictures_stay_the_same_the_plan_runs_out_and_all_goes_on_when_they_are_back(monkeypatch):
    robot = ur5e(front={"fps": 10.0})
    freeze, thaw = 1_600 * MS + READ, 2_900 * MS + READ
    run = Watched(monkeypatch, robot, frozen=(freeze, thaw), steps=20)
    stale = next(event for event in run.events if event.code is Code.CAMERA_STALE)
    assert stale.numbers[0] == 0
    assert 0.3 < stale.numbers[1] <= 0.4 + 1e-9
    assert stale.t - freeze <= 400 * MS
    back = next(event for event in run.events if event.code is Code.CAMERA_BACK)
    assert back.numbers[1] == pytest.approx((thaw - freeze) * 1e-9, abs=0.11)
    blind = [done for done in run.steps if stale.t <= done.t < back.t]
    assert not blind
    states = {
        State(int(event.numbers[1])): event.t
        for event in run.events
        if event.code is Code.STATE_CHANGED and event.t > stale.t
    }
    assert Code.STARVED in [event.code for event in run.events]
    reach = 5 * DT  # of the last plan, from its observation on
    assert stale.t < states[State.HOLD] <= freeze + reach + 200 * MS
    assert back.t <= states[State.RUNNING] <= back.t + 200 * MS
    refused = {Code.CHUNK_OLD, Code.CHUNK_EPOCH, Code.REJECTED_TOO_OFTEN}
    assert not refused & {event.code for event in run.events}


def test_cameras_that_do_not_fit_the_policy_are_refused_in_words():
    policy, env = looking_policy()
    other = parse(RobotConfig, ur5e().tree() | {"cameras": {"front": {"kind": "opencv", "size": [PIXELS, PIXELS]}}})
    for robot, text in (
        (ur5e(side={}), r"looks by the camera 'front'.*there are: side.*does not look by the camera 'side'"),
        (ur5e(front={"size": [24, 32]}), r"robot.cameras.front.size=\[16,16\]"),
        (ur5e(front={}, wrist={"camera": "wrist"}), r"~robot.cameras.wrist"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_cameras(policy.spec, robot.cameras, recorded=False)
    check_cameras(policy.spec, robot.cameras, recorded=True)
    with pytest.raises(ConfigError, match="looks back"):
        check_cameras(policy.spec.model_copy(update={"n_obs_steps": 30}), robot.cameras, recorded=True)
    with pytest.raises(ConfigError, match="front kind=rendered"):
        rehearse(policy, other, env, [0])


def test_a_rehearsal_of_a_policy_that_looks_by_the_command_line(monkeypatch, capsys):
    policy, _ = looking_policy(steps=1)
    monkeypatch.setattr(DeployCommand, "load", lambda self: policy)
    assert cli.run(["deploy", "checkpoint=x", "robot=ur5e_simulated", "rehearse=1"]) == 0
    assert "success: 0 of 1" in capsys.readouterr().out
    assert policy.seen[0]["images.front"].shape == (2, PIXELS, PIXELS, 3)


def test_a_camera_that_is_always_too_late_lets_nothing_move_and_the_episode_ends():
    policy, env = looking_policy(steps=2)
    events = []
    robot = ur5e(front={"fps": 2.0, "latency": 0.5})
    (outcome,) = rehearse(policy, robot, env, [0], latency=0.1, report=lambda seed, event: events.append(event))
    assert outcome.length == 2
    assert not policy.seen
    assert [event.code for event in events].count(Code.CAMERA_STALE) == 1
