"""Counts and angles, and the file that knows whether it was changed."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopol.config import parse
from robopol.errors import ConfigError, RobotError
from robopol.real_robot.drivers.calibration import Calibration, Gripper, Joint

ARM = Calibration(
    name="mine",
    joints=(
        Joint(name="a", id=1, sign=1, zero=2048, low=1000, high=3000),
        Joint(name="b", id=2, sign=-1, zero=1500, low=1200, high=1900),
    ),
    gripper=Gripper(id=6, closed=3000, open=2000),
)


@given(st.integers(1000, 3000), st.integers(1200, 1900), st.integers(2000, 3000))
def test_every_count_comes_back(a, b, hand):
    q, gripper = ARM.to_angles(np.array([a, b, hand]))
    np.testing.assert_array_equal(ARM.to_ticks(q, gripper), [a, b, hand])


def test_what_the_numbers_mean():
    np.testing.assert_array_equal(ARM.to_ticks(np.array([np.pi / 4, np.pi / 16]), 0.25), [2560, 1372, 2750])
    low, high = ARM.limits()
    np.testing.assert_allclose([low[1], high[1]], [-400 * 2 * np.pi / 4096, 300 * 2 * np.pi / 4096])
    np.testing.assert_allclose(ARM.to_speeds(np.array([100.0, 100.0, 0])), np.array([1, -1]) * 100 * 2 * np.pi / 4096)
    assert ARM.ids == [1, 2, 6]


@given(st.lists(st.floats(width=64), min_size=3, max_size=3))
def test_no_goal_out_of_limits_becomes_ticks(values):
    with suppress(RobotError):
        ticks = ARM.to_ticks(np.array(values[:2]), values[2])
        assert (ticks >= [1000, 1200, 2000]).all()
        assert (ticks <= [3000, 1900, 3000]).all()


def test_a_limit_is_checked_after_rounding():
    per_tick = 2 * np.pi / 4096
    assert ARM.to_ticks(np.array([(3000.4 - 2048) * per_tick, 0.0]), 0.0)[0] == 3000
    with pytest.raises(RobotError, match="3001 ticks"):
        ARM.to_ticks(np.array([(3000.6 - 2048) * per_tick, 0.0]), 0.0)


def test_the_wrong_number_of_joints_is_refused():
    with pytest.raises(RobotError, match="2 joints"):
        ARM.to_ticks(np.zeros(3), 0.0)


def test_the_file_comes_back_and_a_changed_one_does_not(tmp_path):
    path = tmp_path / "arm.json"
    ARM.save(path)
    assert Calibration.load(path) == ARM
    tree = json.loads(path.read_text())
    tree["calibration"]["joints"][1]["sign"] = 1
    path.write_text(json.dumps(tree))
    with pytest.raises(RobotError, match="was changed since") as error:
        Calibration.load(path)
    meant = parse(Calibration, tree["calibration"])
    assert meant.hash in str(error.value)
    path.write_text(json.dumps(tree | {"sha256": meant.hash}))
    assert Calibration.load(path) == meant


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": "", "calibration": {"name": "x", "joints": []}}'])
def test_what_is_no_calibration_is_said(tmp_path, text):
    path = tmp_path / "arm.json"
    with pytest.raises(RobotError, match=r"arm\.json"):
        Calibration.load(path)
    path.write_text(text)
    with pytest.raises(RobotError, match=r"arm\.json"):
        Calibration.load(path)


def test_impossible_arms_are_refused():
    joint = {"name": "a", "id": 1, "low": 0, "high": 10}
    for joints, gripper, words in (
        ([joint, joint], None, "id of its own"),
        ([joint | {"low": 10}], None, "not below"),
        ([joint], {"id": 2, "closed": 5, "open": 5}, "open and closed"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse(Calibration, {"name": "x", "joints": joints, "gripper": gripper})
