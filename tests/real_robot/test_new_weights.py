"""New weights while the arm moves: tried beside those that act, swapped between two plans, told apart in the record."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from arms_on_wires import Rig
from lockstep import POLICY, robot
from reaching import Reacher, ReacherConfig
from test_loop_on_wires import WiredBench
from test_recordings import spec

from robopol.real_robot.channels import EVENT_ROW
from robopol.real_robot.emulators.feetech import FeetechBus
from robopol.real_robot.events import Code
from robopol.real_robot.policy_loop import PolicyLoop
from robopol.real_robot.recorder import Recorder, load
from robopol.real_robot.sent import Handover, Plan
from robopol.real_robot.states import Command, State
from robopol.real_robot.steps import fill, step_type
from robopol.real_robot.ticks import tick_type
from robopol.real_robot.waypoints import waypoints_for
from robopol.registry import lookup

CONTRACT = spec("joint_delta").model_copy(update={"n_obs_steps": 1, "horizon": 12, "control_hz": 10.0})


class Steady(Reacher):
    """Moves all joints by ``change`` a step, and remembers what it was told of the plan before."""

    def __init__(self, change, contract=CONTRACT):
        super().__init__(ReacherConfig(n_obs_steps=1, horizon=12, n_action_steps=4), contract)
        self.change = torch.nn.Parameter(torch.tensor(change))
        self.told = []

    def plan(self, obs, n=1, generator=None, previous=None):
        self.told.append(previous and previous[0])
        window = self.change.detach() * torch.ones(len(obs["state"]), n, self.spec.horizon, 6)
        window[..., 5] = 0.5
        return window


class Speaking:
    """One policy's side, which reads the rows and posts the chunks of a bench."""

    def __init__(self, bench, policy):
        self.bench, self.heard = bench, 0
        self.type, self.steps = step_type(policy.spec), []
        observer = SimpleNamespace(observe=lambda row: {"state": row["q"].astype(np.float32)})
        waypoints = waypoints_for(policy.spec, bench.robot)
        self.loop = PolicyLoop(policy, bench.robot, observer, waypoints, bench.clock, self.rows, self.post)

    def rows(self):
        start, self.heard = self.heard, len(self.bench.rows)
        return np.array(self.bench.rows[start:], tick_type(5))

    def post(self, message):
        self.bench.policy.message = message

    def step(self):
        row = np.zeros(1, self.type)
        fill(row, self.loop.step())
        self.steps.append(row)
        self.bench.run(0.1)


def test_they_are_swapped_between_two_plans_and_no_goal_jumps(tmp_path):
    pytest.importorskip("scservo_sdk", reason="needs the vendor's client: pip install 'robopol[feetech]'")
    config = lookup("driver", "feetech")
    rig = Rig(FeetechBus, config, tmp_path, robot=robot(), max_speed=6.0, max_accel=60.0)
    bench, old, new = WiredBench(rig), Steady(0.02), Steady(-0.03)
    one, other = Speaking(bench, old), Speaking(bench, new)
    one.loop.id = POLICY
    bench.ready()
    for _ in range(5):  # it asked twice, and is in the middle of what the second plan says
        one.step()
        other.loop.hear()
    assert bench.state is State.RUNNING
    last, stray = one.loop.hand_over(), bench.chunk(bench.q + 0.1, policy=other.loop.id)
    bench.policy.message = stray.pack()  # nobody has said yet that it may speak
    bench.run(0.02)
    assert bench.codes()[-1] is Code.CHUNK_POLICY
    bench.heirs.message, count = other.loop.id, len(bench.rows)
    bench.run(0.05)
    assert {row["chunk"] for row in bench.rows[count:]} == {last.plans[-1].seq}  # it has said nothing so far
    assert bench.dq.min() > 0.1
    other.loop.take_over(Handover.of(last.tree()))
    for _ in range(6):
        other.step()
        if len(other.steps) == 1:
            bench.policy.message = bench.chunk(bench.q + 0.1, policy=one.loop.id).pack()
            bench.run(0.02)
            assert bench.codes()[-1] is Code.CHUNK_POLICY  # the old one is out
    assert bench.state is State.RUNNING
    bench.say(Command.STOP, 2)
    bench.run(0.5)
    swaps = [event for event in bench.events if event.code is Code.POLICY_SWAPPED]
    assert len(swaps) == 1
    assert Code.STARVED not in bench.codes()
    # the new one was told the plan that the arm followed
    assert old.told[0] is None
    torch.testing.assert_close(new.told[0].window[:, 0], torch.full((12,), 0.02))
    # the wire
    assert len(rig.oracle.log) > 6 * 100
    assert rig.oracle.violations == []
    # the record
    rows = {"ticks": tick_type(5), "events": EVENT_ROW, "steps": one.type}
    recorder = Recorder(tmp_path / "record", rows, {"robot": {}})
    for loop, name in ((one.loop, "old"), (other.loop, "new")):
        recorder.speaks({"id": loop.id.hex(), "speaker": {"checkpoint": name}, "config": {}})
    found = {"ticks": np.array(bench.rows, rows["ticks"]), "events": np.zeros(0, rows["events"])}
    recorder.add(found | {"steps": np.concatenate(one.steps + other.steps)}, 0)
    found, about = load(recorder.written[0])
    ticks, steps = found["ticks"], found["steps"]
    made = {int(step["seq"]): about["policies"][step["policy"].tobytes().hex()] for step in steps if step["seq"]}
    followed = [made[seq]["speaker"]["checkpoint"] for seq in ticks["chunk"].tolist() if seq]
    assert followed == ["old"] * followed.count("old") + ["new"] * followed.count("new")
    assert min(followed.count("old"), followed.count("new")) > 40
    speeds = ticks["command_speed"][ticks["chunk"] > 0]
    assert np.median(speeds[: followed.count("old")]) == pytest.approx(0.2, abs=0.03)
    assert np.median(speeds[followed.count("old") :]) == pytest.approx(-0.3, abs=0.03)


def test_what_is_handed_over_goes_through_words_to_the_bit():
    rng = np.random.default_rng(0)
    window, points = torch.from_numpy(rng.normal(size=(12, 6)).astype(np.float32)), rng.normal(size=(12, 6))
    known = Handover(3, (5, 7), (Plan(9, 2**62 + 1, window, 11, np.arange(12) + 2**60, points),))
    again = Handover.of(json.loads(json.dumps(known.tree())))
    assert (again.epoch, again.latencies, len(again.plans)) == (3, (5, 7), 1)
    for name, value in known.plans[0]._asdict().items():
        np.testing.assert_array_equal(getattr(again.plans[0], name), value)
        assert getattr(again.plans[0], name).dtype == value.dtype if name in ("window", "points") else True
