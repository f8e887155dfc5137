"""`robopol doctor robot=...`: what is said of a robot that is not moved."""

import pytest
from lockstep import robot

from robopol import cli
from robopol.config import parse
from robopol.doctor import check_arm
from robopol.errors import ConfigError
from robopol.real_robot.checkup import answers, verdict
from robopol.real_robot.drivers.simulated import SimulatedDriver
from robopol.real_robot.robot import RobotConfig

SPEC = {"control_hz": 10.0, "horizon": 16, "n_obs_steps": 2}


@pytest.mark.parametrize(
    ("latency", "executed", "text"),
    [(0.1, 8, "in time"), (0.6, 8, "refused"), (0.4, 12, "stop in between"), (0.4, 10, "in time")],
)
def test_the_verdict_says_whether_plans_come_in_time(latency, executed, text):
    assert text in verdict(robot(), latency, executed, SPEC)


def test_an_arm_is_read_and_never_moved(monkeypatch):
    for name in ("arm", "write"):
        monkeypatch.setattr(SimulatedDriver, name, lambda *_, name=name: pytest.fail(f"{name} was called"))
    found = answers(robot(period=0.004), ticks=20)
    assert found.model == "so101"
    assert found.fresh > 0
    assert found.failed == 0


def test_what_is_wrong_with_an_arm_is_said(capsys):
    (check,) = check_arm(robot(driver={"kind": "simulated", "model": "/nowhere.xml"}))
    assert check.status == "fail"
    assert "/nowhere.xml" in check.detail
    wide = robot().tree()["joints"]
    wide[0]["low"] = -2.0
    (check,) = check_arm(robot(joints=wide))
    assert "robot.joints[0].low" in check.detail
    assert cli.run(["doctor", "robot=nowhere"]) == 1
    assert "there is no robot=nowhere" in capsys.readouterr().err


def walls(**constraint):
    return {"geometry": {"model": "x", "workspace": [constraint]}}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"joints": []}, "joints"),
        ({"joints": [{"name": "a", "low": 1.0, "high": 0.0, "speed": 1.0, "acceleration": 1.0}]}, "must be less"),
        ({"driver": "simulatd"}, "did you mean simulated"),
        ({"speed": 1.5}, "less than or equal to 1"),
        ({"period": 0.0}, "greater than 0"),
        ({"geometry": {"model": "x", "stop": 0.1, "slow": 0.05}}, "must be less than slow"),
        (walls(kind="box", sites=["t"], low=[0, 0, 1], high=[1, 1, 0]), "must be less than high"),
        (walls(kind="box", sites=[], low=[0, 0, 0], high=[1, 1, 1]), "sites: .* at least 1"),
        (walls(kind="box", sites=["t"], lo=[0, 0, 0], high=[1, 1, 1]), "did you mean low"),
        (walls(kind="half_space", sites=["t"], normal=[0, 0, 2], offset=0.1), r"length 2; .* say \[0.0, 0.0, 1.0\]"),
        (walls(kind="half_space", sites=["t"], normal=[0, 0, 0], offset=0.1), "length 0"),
        (walls(kind="cone", site="t", around=[0, 0, -3], angle=0.3), r"say \[0.0, 0.0, -1.0\]"),
        (walls(kind="bocks", sites=["t"]), "'box', 'half_space', 'cone'"),
        ({"gate": {"low": [-1.0] * 5}}, "gate.low has 5 numbers; needed are 6: .*wrist_roll and the gripper"),
        ({"gate": {"high": [1.0] * 7}}, "gate.high has 7 numbers"),
        ({"gate": {"low": [1.0] * 6, "high": [-1.0] * 6}}, "of shoulder_pan low=1 must be less than high=-1"),
        ({"gate": {"low": [-1.0] * 5 + [1.0]}}, "of the gripper low=1 must be less than high=1"),
        ({"joints": robot().tree()["joints"][:4] + robot().tree()["joints"][3:4]}, "several are named wrist_flex"),
    ],
)
def test_a_robot_that_makes_no_sense_is_refused_in_words(change, text):
    with pytest.raises(ConfigError, match=text):
        parse(RobotConfig, robot().tree() | change)
