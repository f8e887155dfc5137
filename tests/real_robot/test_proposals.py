"""What a policy says that is no plan, or does not say at all: nothing of it reaches the wire (T8)."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from reaching import Reacher, reach_policy
from test_late_plans import Fixed, Talk
from test_rehearsal import ur5e

from robopol.errors import RemoteError
from robopol.loading import load_policy
from robopol.real_robot.events import Code
from robopol.real_robot.rehearsal import rehearse
from robopol.real_robot.rigs import OnBus
from robopol.real_robot.steps import fill, step_type
from robopol.serving import Served, Server

NO_PLANS = {
    "nan": (np.nan, Code.CHUNK_NOT_FINITE),
    "inf": (np.inf, Code.CHUNK_NOT_FINITE),
    "-inf": (-np.inf, Code.CHUNK_NOT_FINITE),
    "1e6": (1e6, Code.CHUNK_RANGE),
    "-1e6": (-1e6, Code.CHUNK_RANGE),
    "degrees": (0.1 * 180 / np.pi, Code.CHUNK_RANGE),
}


@pytest.mark.parametrize("name", NO_PLANS)
def test_what_would_be_clipped_to_full_speed_is_refused_in_words(name):
    value, code = NO_PLANS[name]
    talk = Talk()
    talk.step(4)
    talk.policy.change = value
    talk.step()
    assert len(talk.sent) == 1
    assert talk.codes() == [code]
    assert talk.refusals == [(talk.loop.id, 0)]  # the servo loop counts it
    assert talk.policy.asked[-1].window[0, 0] == pytest.approx(0.01)
    if code is Code.CHUNK_RANGE:
        assert talk.events[0].numbers[1:] == pytest.approx((value, np.sign(value) * (0.2 + 0.1 * 0.4)))
    talk.policy.change = 0.02  # asked again at once, and of the plan that is followed
    talk.step()
    assert len(talk.sent) == 2
    assert talk.policy.asked[-1].window[0, 0] == pytest.approx(0.01)
    assert talk.codes() == [code]


def test_a_little_beyond_the_box_is_in_order_and_much_is_clipped_and_counted_where_that_is_allowed():
    talk = Talk()
    talk.policy.change = 0.23  # the box ends at 0.2, and a tenth of its width is allowed
    talk.step()
    np.testing.assert_allclose(talk.sent[0].data[:2, 0], [0.2, 0.4], atol=1e-6)
    assert not talk.events
    lenient = Talk(gate={"strict": False})
    lenient.policy.change = 50.0
    lenient.step()
    np.testing.assert_allclose(lenient.sent[0].data[:2, 0], [0.2, 0.4], atol=1e-6)
    assert lenient.codes() == [Code.CHUNK_CLIPPED]
    assert lenient.events[0].numbers == (5 * 11,)
    lenient.policy.change = np.inf
    lenient.step(4)
    assert len(lenient.sent) == 1


class Faulty(Reacher):
    """Says something else in place of its third plan."""

    asked, instead = 0, 0.0

    def plan(self, obs, n=1, generator=None, previous=None):
        window = super().plan(obs, n, generator, previous)
        self.asked += 1
        if self.asked != 3:
            return window
        if self.instead is None:
            raise RemoteError("nobody is there")
        window[..., 3, 1] = self.instead
        return window


def test_nothing_of_it_is_on_the_wire(tmp_path):
    """To the last goal, the bus is told the same as when the policy had said nothing."""
    pytest.importorskip("scservo_sdk", reason="needs the vendor's client: pip install 'robopol[feetech]'")
    made, env = reach_policy()
    env = env.model_copy(update={"options": {**env.options, "max_episode_steps": 14}})
    robot, wires = ur5e().model_copy(update={"geometry": None}), []
    for instead, code in ((None, Code.POLICY_AWAY), (1e6, Code.CHUNK_RANGE), (np.nan, Code.CHUNK_NOT_FINITE)):
        policy = Faulty(made.config, made.spec).eval()
        policy.instead, rig, codes = instead, OnBus("feetech", tmp_path), []
        rehearse(policy, robot, env, [101], rig=rig, report=lambda _, event, codes=codes: codes.append(event.code))
        wires.append(rig.oracle.log)
        assert codes.count(code) == 1
        assert rig.outside == 0
        assert policy.asked > 3
    assert len(wires[0]) > 100
    assert wires[0] == wires[1] == wires[2]


@contextmanager
def served(policy, port=0):
    with Server(Served(policy, 1, 1), port=port) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server.url
        finally:
            server.stop()
            thread.join()


def test_a_server_may_go_and_come_and_only_its_own_weights_are_obeyed():
    behind = Talk().policy
    other = Fixed(behind.config, behind.spec).eval()
    other.clock = behind.clock
    other.action_normalizer.offset += 1
    with served(behind) as url:
        remote = load_policy(url)
        talk = Talk(remote)
        talk.step(4)
        assert len(talk.sent) == 1
    port = int(url.rsplit(":", 1)[1])
    talk.step(5)
    assert talk.codes() == [Code.POLICY_AWAY]
    assert len(talk.words) <= 2  # the connection that broke, and that there is no other
    assert "cannot be reached" in talk.words[-1]
    with served(other, port):
        talk.step(3)
    assert len(talk.sent) == 1
    assert "has other weights than before" in talk.words[-1]
    with served(behind, port):
        talk.step()
    assert len(talk.sent) == 2
    assert talk.codes() == [Code.POLICY_AWAY, Code.POLICY_BACK]
    assert talk.events[-1].numbers[0] == pytest.approx(0.4)


def test_a_step_has_in_its_record_how_its_plan_came_about():
    talk = Talk()
    talk.policy.seconds = 0.06
    row = np.zeros(1, step_type(talk.policy.spec))
    rows = []
    for _ in range(9):
        fill(row, talk.step()[0])
        rows.append(row[0].copy())
    sent = [row for row in rows if row["seq"]]
    assert [row["seq"] for row in sent] == [chunk.seq for chunk in talk.sent]
    assert [(row["committed"], row["executed"]) for row in sent] == [(0, 4), (2, 4), (2, 4)]
    assert sent[0]["seed"] == 0
    assert len({int(row["seed"]) for row in sent}) == 3
    for row in sent:
        assert row["t_observed"] <= row["t"] <= row["t_asked"]
        assert row["t_planned"] - row["t_asked"] == 60_000_000
        assert row["t_planned"] <= row["t_created"] <= row["t_sent"]
    assert {int(row["t_sent"]) for row in rows if not row["seq"]} == {0}
    assert torch.isnan(torch.from_numpy(rows[1]["actions"])).all()
