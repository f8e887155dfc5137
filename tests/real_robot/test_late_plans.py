"""Late plans through the bridge: what goes on meanwhile is what they begin with, and the sampler is told (T14, T17)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lockstep import DT, MS, Bench
from lockstep import robot as arm
from reaching import Reacher, ReacherConfig, reach_policy
from test_rehearsal import ur5e

from robopol.execution import RecedingHorizonConfig
from robopol.policies.policy import Previous
from robopol.real_robot.camera import Frame
from robopol.real_robot.chunk import Chunk, Refusal, Usable
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.events import Code
from robopol.real_robot.merging import ContinueConfig
from robopol.real_robot.plan import Plan
from robopol.real_robot.policy_loop import PolicyLoop
from robopol.real_robot.rehearsal import rehearse
from robopol.real_robot.rigs import InProcess, OnBus
from robopol.real_robot.states import Command, State
from robopol.real_robot.ticks import new_tick
from robopol.real_robot.waypoints import waypoints_for


class Fixed(Reacher):
    """Gives joint changes that it was told, and remembers what it was asked with; a plan takes ``seconds``."""

    clock: VirtualClock
    change, seconds = 0.01, 0.0

    def plan(self, obs, n=1, generator=None, previous=None):
        self.asked = [*getattr(self, "asked", []), previous and previous[0]]
        self.clock.sleep_until(self.clock.now() + round(self.seconds * 1e9))
        window = torch.full((1, n, self.spec.horizon, 6), float(self.change))
        window[..., 5] = 0.5
        return window


class Talk:
    """A policy's side with nobody on the other: the test says what the servo loop commanded."""

    def __init__(self, speaks=None, executed=None, **fields):
        policy, _ = reach_policy()
        names = tuple(f"j{i}" for i in range(6))
        box = {"action_names": names, "action_low": (-0.2,) * 6, "action_high": (0.2,) * 5 + (1.0,)}
        spec = policy.spec.model_copy(update={"action_space": "joint_delta", "control_hz": 20.0, **box})
        self.policy = Fixed(ReacherConfig(n_obs_steps=2, horizon=12, n_action_steps=4), spec).eval()
        self.clock = self.policy.clock = VirtualClock(1_000 * MS)
        self.robot, self.sent, self.refusals, self.q = arm(**fields), [], [], np.zeros(5)
        observer = type("", (), {"observe": lambda self, row: {"state": np.zeros(14, np.float32)}})()
        waypoints = waypoints_for(spec, self.robot)
        self.events, self.words = [], []
        self.refusing, self.taken, self.speed, self.t = False, 0, 0.0, None
        told = {"report": self.events.append, "complain": self.words.append, "executed": executed}
        self.loop = PolicyLoop(
            speaks or self.policy, self.robot, observer, waypoints, self.clock, self.rows, self.post, **told
        )

    def post(self, message):
        if (refusal := Refusal.unpack(message)) is not None:
            self.refusals.append(refusal)
            return
        self.sent.append(Chunk.unpack(message))
        if not self.refusing:
            self.taken = self.sent[-1].seq

    def rows(self):
        row, now = new_tick(5), self.clock.now()
        row["t_received"], row["t_hold"] = now, now
        row["t"] = now if self.t is None else self.t
        row["state"], row["command"], row["opening"] = State.RUNNING, self.q, 0.5
        row["command_speed"], row["chunk"] = self.speed, self.taken
        return row

    def codes(self):
        return [event.code for event in self.events]

    def step(self, count=1):
        found = []
        for _ in range(count):
            began = self.clock.now()
            found.append(self.loop.step())
            self.clock.sleep_until(began + DT)
        return found


def test_what_was_commanded_for_a_time_between_two_ticks_lies_between_their_commands():
    """An arm is read between two ticks, and changes are relative to what was commanded to hold then."""
    talk, t = Talk(), 1_000 * MS
    rows = np.concatenate([talk.rows() for _ in range(3)])
    rows["t_hold"], rows["state"][0] = [t, t + 10 * MS, t + 20 * MS], State.CONNECTED
    rows["command"], rows["opening"] = np.array([[9.0], [0.1], [0.2]]), [0.0, 0.4, 0.8]
    talk.loop._rows.extend((int(row["t_received"]), row.copy()) for row in rows)
    for late, q, opening in ((14, 0.14, 0.56), (0, 0.1, 0.4), (30, 0.2, 0.8)):  # none before it was armed
        command, hand = talk.loop._commanded(t + late * MS)
        np.testing.assert_allclose(command, q)
        assert hand == pytest.approx(opening)


def test_the_last_plan_d_and_s_reach_the_sampler_and_the_servo_loop():
    talk = Talk()
    talk.policy.seconds = 0.06  # 50 ms a step, so d = 2
    for _ in range(3):
        talk.step(4)
    first, second, third = talk.policy.asked
    assert first is None
    assert isinstance(second, Previous)
    # the first plan was waited for, 60 ms and two ticks: of its actions only so many are over
    assert [(old.passed, old.delay) for old in (second, third)] == [(3, 2), (4, 2)]
    torch.testing.assert_close(second.window[:, :5], torch.full((12, 5), 0.01))
    assert [(chunk.committed, chunk.executed) for chunk in talk.sent[1:]] == [(2, 4), (2, 4)]


def test_a_plan_is_executed_for_as_many_steps_as_the_next_one_is_late():
    """Black et al. 2025: s = max(d, the least that was asked for), so that a slow policy's plans still continue."""
    talk = Talk(executed=1)
    talk.policy.seconds = 0.06
    talk.step(8)
    assert {(chunk.committed, chunk.executed) for chunk in talk.sent[1:]} == {(2, 2)}
    new, none = talk.sent[-1], Plan(0, *np.zeros((3, 0)))
    left = Usable(new.times()[new.committed :], new.data[new.committed :], 0)
    assert ContinueConfig().build().merge(none, none, new, left).continued


def passing(talk, dark=(0, 0)):
    """Let an arm be read every 10 ms, at a place that tells the time, s, and filmed every 20 ms but for some time."""
    heard, image = [talk.clock.now() - 200 * MS], np.zeros((1, 1, 3), np.uint8)

    def rows():
        times = np.arange(heard[0], talk.clock.now(), 10 * MS) + 10 * MS
        heard[0] += len(times) * 10 * MS
        found = np.concatenate([new_tick(5)[:0], *[talk.rows() for _ in times]])
        found["t_received"], found["q"] = times, (times * 1e-9)[:, None]
        return found

    def at(t):
        film = [s for s in range(0, talk.clock.now(), 20 * MS) if not dark[0] < s < dark[1]]
        return {"images.front": Frame(min(film, key=lambda s: abs(s - t)), image)}

    talk.loop._ticks, talk.loop._sight = rows, SimpleNamespace(newest=lambda now: now - 30 * MS, at=at)
    talk.loop._observer.observe = lambda row: {"state": np.full(14, row["q"][0], np.float32)}


@pytest.mark.parametrize(
    ("seconds", "dark", "hole"),
    [
        (0.12, (0, 0), 0),
        (2.6, (0, 0), 2600 - 2000 - 50),  # rows are kept for two seconds, and as long as the policy looks back
        (0.5, (1_100 * MS, 1_400 * MS), 300),
    ],
)
def test_steps_that_pass_while_a_plan_is_made_are_recorded_with_what_was_there(seconds, dark, hole):
    """Else what is recorded would be as much faster than what was done; what is not remembered is left out."""
    talk, steps = Talk(cameras={"front": {"kind": "opencv", "fps": 50.0, "size": [1, 1]}}), []
    passing(talk, dark)
    talk.policy.seconds = seconds
    talk.loop.run(lambda: len(steps) < 14, steps.append)
    gaps = np.diff([step.t for step in steps])
    assert [step.asked.seq > 0 for step in steps].count(True) >= 1
    assert gaps.min() > 0.5 * DT
    assert np.sum(gaps > 1.5 * DT) == bool(hole)
    assert gaps.max() == pytest.approx(hole * MS, abs=DT) if hole else gaps.max() <= 1.5 * DT
    for step in steps:
        assert step.observation["state"][0] * 1e9 == pytest.approx(step.t_observed, abs=DT / 2)
        assert abs(step.taken["images.front"] - step.t_observed) <= DT / 2


def test_d_is_of_the_longest_of_the_last_plans_and_of_the_arms_own_latency():
    talk = Talk()
    for seconds in (0.0, 0.11, 0.0, 0.0):
        talk.policy.seconds = seconds
        talk.step(4)
    assert [old and old.delay for old in talk.policy.asked] == [None, 0, 3, 3]
    slow = Talk(latency=0.1)  # what is written now holds 120 ms from now on: two actions are over
    slow.step(5)
    assert slow.policy.asked[-1].delay == 2


def test_a_late_plan_goes_on_from_where_the_last_one_leads_meanwhile():
    """Changes that are never executed are not made up for: nobody asked for so fast a motion."""
    talk = Talk()
    talk.step(4)  # 0.01 a step
    talk.q = np.full(5, 0.037)  # of the 0.04 that were asked for, the filter let so many pass
    talk.policy.seconds, talk.policy.change = 0.06, 0.2
    talk.step()
    chunk = talk.sent[-1]
    # 60 ms late and two ticks: the first action is over when it comes, and the last plan has moved on by 0.01
    np.testing.assert_allclose(chunk.data[:3, 0], [0.047, 0.247, 0.447], atol=1e-7)
    np.testing.assert_allclose(chunk.data[:, 5], 0.5)


def test_what_the_way_to_joint_positions_takes_makes_a_plan_later_too():
    talk = Talk()
    points = talk.loop._waypoints.points

    def slowly(*given):
        talk.clock.sleep_until(talk.clock.now() + 40 * MS)
        return points(*given)

    talk.loop._waypoints.points = slowly
    talk.step(4)
    assert talk.sent[0].t_created == 1_040 * MS
    assert talk.sent[0].t_first == 1_040 * MS + 20 * MS + DT
    talk.policy.seconds, talk.policy.change = 0.03, 0.2
    talk.step()
    # 30 ms, 40 ms and two ticks: the first action is over
    np.testing.assert_allclose(talk.sent[-1].data[:2, 0], [0.01, 0.21], atol=1e-7)


def test_a_plan_in_time_is_relative_to_what_is_commanded():
    talk = Talk()
    talk.step(4)
    talk.q, talk.policy.change = np.full(5, 0.3), 0.1
    talk.step()
    np.testing.assert_allclose(talk.sent[-1].data[:2, 0], [0.4, 0.5], atol=1e-7)


def test_a_first_plan_that_is_late_is_not_made_good_in_less_time():
    """The arm rested and waited for it, as for the first plan of an episode in process."""
    plans = []
    for seconds in (0.0, 0.1, 0.2):
        talk = Talk()
        talk.policy.seconds = seconds
        talk.step()
        chunk = talk.sent[0]
        plans.append(np.append(chunk.data[:, 0], (chunk.t_first - chunk.t_created) * 1e-9))
        assert chunk.committed == 0
        np.testing.assert_allclose(plans[-1], plans[0])
    assert plans[0][-1] == pytest.approx(0.07)  # a step, once two ticks are over
    moving = Talk()
    moving.speed, moving.policy.seconds = 0.1, 0.1
    moving.step()
    assert moving.sent[0].t_first - moving.sent[0].t_observed == DT


class Heard(InProcess):
    """Notes the commands that reach the driver."""

    def place(self, robot):
        driver, clock = super().place(robot)
        self.commands, write = [], driver.write

        def noted(q, gripper):
            self.commands.append(q.copy())
            write(q, gripper)

        driver.write = noted
        return driver, clock


def test_from_rest_the_arm_begins_alike_however_late_the_first_plan_is():
    ways = []
    for latency in (0.0, 0.1, 0.2):
        rig = Heard()
        run(rig, latency=latency, limit=4)
        way = np.array(rig.commands) - rig.commands[0]
        first = int(np.argmax(np.abs(way).max(1) > 1e-9))
        ways.append(way[first : first + round(0.3 / ur5e().period)])
    assert np.abs(ways[0]).max() > 0.02
    for way in ways[1:]:
        np.testing.assert_allclose(way, ways[0], atol=1e-3)


def test_what_the_servo_loop_refused_was_never_executed():
    talk = Talk()
    talk.step(4)
    first = talk.sent[-1]
    talk.refusing, talk.policy.change = True, 0.05
    talk.step(4)
    talk.refusing, talk.policy.change, talk.policy.seconds = False, 0.2, 0.06
    talk.step()
    assert len(talk.sent) == 3
    previous = talk.policy.asked[-1]
    torch.testing.assert_close(previous.window[:, :5], torch.full((12, 5), 0.01))  # the one that was taken
    assert previous.passed == 8
    assert talk.sent[-1].seq > first.seq
    np.testing.assert_allclose(talk.sent[-1].data[:2, 0], [0.01, 0.21], atol=1e-7)
    talk.taken = 0  # the filter holds the arm: that plan is given up too
    talk.step(4)
    assert talk.policy.asked[-1] is None


def test_the_next_plan_is_not_asked_for_before_it_is_known_what_became_of_the_last():
    talk = Talk()
    talk.t = talk.clock.now() - 1  # the rows that arrive are of ticks before the chunk was sent
    talk.step(8)
    assert len(talk.sent) == 1
    talk.t = None
    talk.step()
    assert len(talk.sent) == 2


def test_a_plan_that_is_there_just_before_the_next_is_due_does_not_cost_a_step():
    talk, steps = Talk(executed=1), iter([True] * 5 + [False])
    talk.policy.seconds = DT * 1e-9
    talk.loop.run(lambda: next(steps), lambda step: None)
    assert len(talk.policy.asked) == len(talk.sent) == 5
    assert [old and old.passed for old in talk.policy.asked[:2]] == [None, 0]
    silent, steps = Talk(executed=1), iter([True] * 5 + [False])
    silent.t = silent.clock.now() - 1  # whoever is not answered waits for no longer than an answer takes
    silent.loop.run(lambda: next(steps), lambda step: None)
    assert len(silent.sent) == 1
    assert silent.clock.now() <= 1_000 * MS + 6 * DT


def test_the_servo_loop_says_which_chunk_the_arm_follows():
    bench = Bench().ready()
    ramp = np.linspace(0.02, 0.4, 16)[:, None] * [1, 0.5, -0.5, 1, -1]
    assert bench.rows[-1]["chunk"] == 0
    bench.send(bench.q + ramp)
    bench.run(0.1)
    assert bench.rows[-1]["chunk"] == 1
    bench.send(bench.q + ramp + 0.6)
    bench.run(0.05)
    assert bench.codes()[-1] is Code.CHUNK_JUMP
    assert bench.rows[-1]["chunk"] == 1
    bench.send(bench.q + ramp)
    bench.run(0.05)
    assert bench.rows[-1]["chunk"] == 3
    bench.say(Command.HUMAN)
    bench.run(0.02)
    bench.send_human(bench.q + ramp)
    bench.run(0.1)
    assert bench.state is State.HUMAN
    assert {row["chunk"] for row in bench.rows if row["state"] != State.RUNNING} == {0}


class Continued(RecedingHorizonConfig):
    """Of plans that continue the last one by themselves."""

    @property
    def merging(self):
        return {"kind": "continue"}


def run(rig=None, limit=80, horizon=12, **options):
    policy, env = reach_policy(horizon)
    env = env.model_copy(update={"options": {**env.options, "max_episode_steps": limit}})
    events = []
    robot = ur5e().model_copy(update={"geometry": None})
    outcomes = rehearse(policy, robot, env, [101], rig=rig, report=lambda _, event: events.append(event), **options)
    return outcomes[0], [event.code for event in events]


def test_late_plans_continue_unless_most_of_them_is_over():
    outcome, codes = run(execution=Continued(), latency=0.2)
    assert outcome.success
    assert Code.CHUNK_NOT_CONTINUED not in codes  # d = 2 <= s = 4 <= H - d
    outcome, codes = run(execution=Continued(), latency=0.45, limit=8)
    assert Code.CHUNK_NOT_CONTINUED not in codes  # d = s = 5, H = 11
    outcome, codes = run(execution=Continued(), latency=0.45, limit=8, horizon=9)
    assert Code.CHUNK_NOT_CONTINUED in codes  # d = 5 > H - s = 3


def test_an_episode_whose_plans_are_all_too_late_ends():
    outcome, codes = run(latency=0.6, limit=5)
    assert not outcome.success
    assert set(codes) & {Code.CHUNK_OLD, Code.CHUNK_SLOW}


@pytest.mark.parametrize(("kind", "package"), [("feetech", "scservo_sdk"), ("dynamixel", "dynamixel_sdk")])
def test_a_task_is_done_over_the_vendors_client(kind, package, tmp_path):
    """T17 in small: a policy, the bridge, the unmodified client, an emulated bus around the task's own scene."""
    pytest.importorskip(package, reason=f"needs the vendor's client: pip install 'robopol[{kind}]'")
    rig = OnBus(kind, tmp_path)
    outcome, codes = run(rig, execution=Continued(), latency=0.1)
    direct, _ = run(execution=Continued(), latency=0.1)
    assert outcome.success
    assert abs(outcome.length - direct.length) <= 2
    assert rig.goals > 300
    assert rig.outside == 0
    assert not {Code.READ_FAILED, Code.WRITE_REFUSED, Code.CHUNK_NOT_CONTINUED} & set(codes)
