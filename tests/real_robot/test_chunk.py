"""A chunk is refused for each of its faults by one event, and never half taken."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lockstep import robot

from robopol.errors import MessageError
from robopol.real_robot.chunk import Chunk, Gate, GateConfig, Rejection, Usable
from robopol.real_robot.events import Code

MS = 1_000_000
NOW = 1_000 * MS
POLICY = b"p" * 16
LOW, HIGH = np.array([-1.0, -1.0, 0.0]), np.array([1.0, 1.0, 1.0])
GOOD = Chunk(POLICY, 7, 3, NOW - 60 * MS, NOW - 10 * MS, NOW - 60 * MS, 50 * MS, np.full((6, 3), 0.5))


def gate(**config):
    made = Gate(GateConfig(**config), 2, LOW, HIGH)
    made.policies, made.seq = {POLICY}, 6
    return made


def judge(made, chunk, q=(0.4, 0.4)):
    return made.judge(chunk, NOW, NOW + 20 * MS, 3, np.array(q))


def with_number(value):
    data = GOOD.data.copy()
    data[4, 1] = value
    return replace(GOOD, data=data)


def test_a_good_chunk_is_taken_without_what_is_late():
    made = gate()
    found = judge(made, GOOD)
    assert isinstance(found, Usable)
    np.testing.assert_array_equal(found.times, GOOD.times()[2:])  # those at -60 ms and -10 ms are over
    assert made.seq == 7
    assert judge(made, GOOD) == Rejection(Code.CHUNK_ORDER, (7, 7))


BAD = {
    "no rows": (replace(GOOD, data=np.zeros((0, 3))), Code.CHUNK_SHAPE),
    "too few columns": (replace(GOOD, data=np.zeros((6, 2))), Code.CHUNK_SHAPE),
    "too many columns": (replace(GOOD, data=np.zeros((6, 4))), Code.CHUNK_SHAPE),
    "one axis": (replace(GOOD, data=np.zeros(3)), Code.CHUNK_SHAPE),
    "float32": (replace(GOOD, data=GOOD.data.astype(np.float32)), Code.CHUNK_SHAPE),
    "a list": (replace(GOOD, data=[[0.5, 0.5, 0.5]]), Code.CHUNK_SHAPE),
    "objects": (replace(GOOD, data=GOOD.data.astype(object)), Code.CHUNK_SHAPE),
    "nan": (with_number(np.nan), Code.CHUNK_NOT_FINITE),
    "inf": (with_number(np.inf), Code.CHUNK_NOT_FINITE),
    "-inf": (with_number(-np.inf), Code.CHUNK_NOT_FINITE),
    "1e6": (with_number(1e6), Code.CHUNK_RANGE),
    "-1e6": (with_number(-1e6), Code.CHUNK_RANGE),
    "just outside": (with_number(1.2001), Code.CHUNK_RANGE),
    "in a thousand years": (replace(GOOD, t_first=2**63 - 1), Code.CHUNK_TIME),
    "an age from action to action": (replace(GOOD, step=2**62), Code.CHUNK_TIME),
    "old number": (replace(GOOD, seq=6), Code.CHUNK_ORDER),
    "another epoch": (replace(GOOD, epoch=2), Code.CHUNK_EPOCH),
    "another policy": (replace(GOOD, policy=b"q" * 16), Code.CHUNK_POLICY),
    "old observation": (
        replace(GOOD, t_observed=NOW - 501 * MS, t_created=NOW - 490 * MS, t_first=NOW),
        Code.CHUNK_OLD,
    ),
    "first action before the observation": (replace(GOOD, t_first=NOW - 61 * MS), Code.CHUNK_TIME),
    "made before the observation": (replace(GOOD, t_created=NOW - 61 * MS), Code.CHUNK_TIME),
    "made in the future": (replace(GOOD, t_created=NOW + 1), Code.CHUNK_TIME),
    "no time between actions": (replace(GOOD, step=0), Code.CHUNK_TIME),
    "time runs back": (replace(GOOD, step=-50 * MS), Code.CHUNK_TIME),
    "everything late": (replace(GOOD, data=GOOD.data[:2]), Code.CHUNK_LATE),
    "far from here": (replace(GOOD, data=GOOD.data * [1, -1, 1]), Code.CHUNK_JUMP),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_chunk_is_refused_by_name(name):
    chunk, code = BAD[name]
    found = judge(gate(), chunk)
    assert isinstance(found, Rejection)
    assert found.code is code
    assert all(isinstance(float(number), float) for number in found.numbers)


def test_a_slow_policy_is_refused():
    found = judge(gate(max_latency=0.04), GOOD)
    assert found == Rejection(Code.CHUNK_SLOW, (pytest.approx(0.05), 0.04))


def test_a_refused_chunk_of_a_stranger_uses_up_no_number():
    made = gate()
    judge(made, replace(GOOD, seq=10**15, policy=b"q" * 16))
    judge(made, replace(GOOD, seq=10**15, epoch=0))
    assert isinstance(judge(made, GOOD), Usable)


def test_without_strictness_numbers_are_clipped_to_the_widened_range():
    data = GOOD.data.copy()
    data[4] = [1.3, -9.0, 7.0]
    found = judge(gate(strict=False), replace(GOOD, data=data))
    assert isinstance(found, Usable)
    np.testing.assert_allclose(found.values[2], [1.2, -1.2, 1.1])
    assert found.clipped == 3


def test_the_range_of_the_training_data_can_be_narrower_than_the_joints():
    made = robot(gate={"low": [0.0] * 6, "high": [0.4, *[1.0] * 5], "margin": 0.0}).make_gate()
    made.policies, made.seq = {POLICY}, 6
    found = judge(made, replace(GOOD, data=np.full((6, 6), 0.5)), [0.4] * 5)
    assert found == Rejection(Code.CHUNK_RANGE, (0.0, 0.5, 0.4))


@given(st.integers(0, 20), st.integers(1, 4), st.integers(0, 2**62), st.integers(-(2**62), 2**62))
def test_packing_keeps_everything(rows, columns, seq, t):
    data = np.random.default_rng(rows).normal(size=(rows, columns))
    made = Chunk(POLICY, seq, 1, t, t + 1, t + 2, 3, data, 4, 5)
    again = Chunk.unpack(made.pack())
    np.testing.assert_array_equal(again.data, data)
    for name in ("policy", "seq", "epoch", "t_observed", "t_created", "t_first", "step", "committed", "executed"):
        assert getattr(again, name) == getattr(made, name)


@given(st.binary(max_size=200), st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_rubbish_is_no_chunk(junk, cut, patch):
    whole = GOOD.pack()
    for message in (junk, whole[:cut], whole + patch):
        with pytest.raises(MessageError):
            Chunk.unpack(message)
    with pytest.raises(MessageError):
        replace(GOOD, data=np.zeros((257, 3))).pack()
