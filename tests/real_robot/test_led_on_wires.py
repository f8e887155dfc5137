"""A leader and the arm that it leads, each at the other end of a wire of its own."""

import numpy as np
import pytest
from arms_on_wires import Rig
from led import Led, Typist, operator_of, speakers
from lockstep import robot
from test_loop_on_wires import WiredBench
from test_servo import feed

from robopol.real_robot.drivers.feetech import FeetechConfig
from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.feetech import FeetechBus
from robopol.real_robot.events import Code
from robopol.real_robot.states import State

pytest.importorskip("scservo_sdk", reason="needs the vendor's client: pip install 'robopol[feetech]'")


class InHand(Arm):
    """An arm that a hand leads to and fro, whose every joint has a pace of its own."""

    @property
    def q(self):
        t = getattr(self, "t", 0) * 1e-9
        return 0.4 * np.sin(np.pi * t * np.linspace(1, 1.4, 6))

    def advance(self, t):
        self.t = t


@pytest.fixture
def wired(tmp_path):
    """An arm and a leader of Feetech servos; the leader's wire has a time of its own, as another process has."""
    rig = Rig(FeetechBus, FeetechConfig, tmp_path, robot=robot(), max_speed=6.0, max_accel=60.0)
    hand = Rig(FeetechBus, FeetechConfig, tmp_path, arm=InHand)
    bench = WiredBench(rig, watch={"deadman": 0.1})
    typist = Typist(rig.clock)
    driver = {"kind": "feetech", "port": "x", "calibration": str(tmp_path / "rig.json"), "max_speed": 3, "max_accel": 9}
    leader = operator_of({"kind": "leader", "driver": driver}, bench, typist.typed)
    leader.driver = hand.driver
    return rig, bench, hand, leader, typist


def test_a_leader_takes_over_twice_on_the_wire_and_the_switch_stops_it(wired):
    """T15 and T11 at the oracle."""
    rig, bench, hand, leader, typist = wired
    hand.start()  # as it was left, with its torque on
    assert hand.arm.powered.all()
    person, policy = Led(bench, leader), feed(bench, [0.8, 0.3, 0.3, 0.3, 0.3])
    assert not hand.arm.powered.any()
    assert "take over" in person.help

    def each():
        hand.clock.sleep_until(bench.clock.now())
        policy()

    person.run(0.1, each)
    typist.hold(" ")
    typist.tap("A")
    person.until(State.ARMED, each=each)
    for key, state in zip("GTGTG", [State.RUNNING, State.HUMAN] * 2 + [State.RUNNING], strict=True):
        typist.tap(key + " ")
        person.run(0.3, each)
        assert bench.state is state
    assert speakers(bench.rows) == [State.RUNNING, State.HUMAN] * 2 + [State.RUNNING]
    fast = np.abs(bench.dq).max()
    assert fast > 0.3
    typist.hold("")
    person.run(0.15, each)  # a terminal says so that much later
    person.until(State.HOLD, each=each)
    assert np.abs(bench.dq).max() < fast
    person.run(0.3, each)
    assert bench.codes().count(Code.DEADMAN_LOST) == 1
    assert bench.codes()[-1] is Code.STATE_CHANGED
    assert np.abs(bench.dq).max() == 0
    assert len(rig.oracle.log) > 600
    assert rig.oracle.violations == []
    led = np.array([row["command"] for row in bench.rows if row["state"] == State.HUMAN])
    assert np.ptp(led, axis=0).min() > 0.1


def test_a_leader_that_falls_silent_is_lost_after_five_failures(wired):
    _, bench, hand, leader, _ = wired
    person = Led(bench, leader)
    hand.faults.closed = True
    target = np.zeros(6)
    for _ in range(4):
        assert leader.listen(target).move is None
    with pytest.raises(Exception, match="the bus"):
        leader.listen(target)
    assert person.chunks == []
