"""Messages: what is written is read, openpi reads and writes the same bytes, and nothing else gets in."""

import math
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robopol.errors import MessageError
from robopol.policies.remote import message
from robopol.policies.remote.message import DTYPES, decode, encode

ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
SIMPLE = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
NAMES = st.text(max_size=9)
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        SIMPLE | st.binary(max_size=9) | ARRAYS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=6,
)


def same(left, right) -> bool:
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and (left.dtype, left.shape, left.tobytes()) == (
            right.dtype,
            right.shape,
            right.tobytes(),
        )
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@given(TREES)
def test_what_is_written_is_read(tree):
    assert same(tree, decode(encode(tree)))


def test_arrays_that_are_read_can_be_written_into_and_scalars_are_numbers():
    found = decode(encode({"x": np.arange(6.0).reshape(2, 3)[:, ::-1], "n": np.int32(3), "t": np.float32(0.5)}))
    found["x"][0, 0] = 7
    assert found["x"].tolist() == [[7, 1, 0], [5, 4, 3]]
    assert (found["n"], found["t"]) == (3, 0.5)
    assert type(found["n"]) is int


GOLDEN = (
    "82a5737461746584c40b5f5f6e6461727261795f5fc3c40464617461c4080000c03f000000c0c4056474797065a33c6634c4"
    "0573686170659102a26d7383c40d5f5f6e7067656e657269635f5fc3c40464617461cb4002000000000000c4056474797065a33c6634"
)
"""What openpi's msgpack_numpy writes for {"state": float32 [1.5, -2], "ms": float32 2.25}."""


def test_openpis_bytes_are_read_and_its_arrays_written():
    found = decode(bytes.fromhex(GOLDEN))
    assert same(found, {"state": np.array([1.5, -2], np.float32), "ms": 2.25})
    # openpi writes shapes as they are: a tuple is a list on the wire
    assert GOLDEN.removeprefix("82").startswith(encode({"state": found["state"]}).hex().removeprefix("81"))


def test_text_may_stand_where_openpi_has_byte_strings():
    told = {"a": {"__ndarray__": True, "data": b"\x01\x00", "dtype": "|b1", "shape": [2]}}
    assert decode(msgpack.packb(told))["a"].tolist() == [True, False]


def array(**changes):
    fields = {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2], **changes}
    return {"x": {key: value for key, value in fields.items() if value is not ...}}


def deep(levels: int):
    return 0 if levels == 0 else [deep(levels - 1)]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (array(data=bytes(7)), "came with 7 bytes"),
        (array(data="12345678"), "came with str"),
        (array(data=None), "came with NoneType"),
        (array(dtype="|O"), "is one of"),
        (array(dtype=">f4"), "is one of"),
        (array(dtype="<f4, <f4"), "is one of"),
        (array(dtype=["<f4"]), "is one of"),
        (array(dtype="<M8[s]"), "is one of"),
        (array(shape=[-2]), "list of sizes"),
        (array(shape=[True, 2]), "list of sizes"),
        (array(shape=[2.0]), "list of sizes"),
        (array(shape=2), "list of sizes"),
        (array(shape=[2**62, 2**62]), "came with 8 bytes"),
        (array(shape=[0, 2**62, 2**62], data=b""), "cannot be made"),
        (array(shape=[1] * 9), "9 axes"),
        (array(shape=...), "data, dtype and shape"),
        (array(order="F"), "data, dtype and shape"),
        (array(__ndarray__=1), "data, dtype and shape"),
        (array(dtype="|b1", data=b"\x02\x00"), "neither 0 nor 1"),
        ({"x": {"__npgeneric__": True, "data": "1", "dtype": "<f4"}}, "number as data"),
        ({"x": {"__npgeneric__": True, "data": 256, "dtype": "|u1"}}, "does not fit"),
        ({"x": {"__npgeneric__": True, "data": math.nan, "dtype": "<i4"}}, "does not fit"),
        ({"x": {b"y": 1}}, "keys of a map are text"),
        ({"x": {1: 1}}, "not a message"),
        ([1, 2], "is a map, this is list"),
        (None, "is a map, this is NoneType"),
        ({"x": deep(16)}, "16 deep"),
        ({"x": [0] * 4097}, "not a message"),
        ({str(i): 0 for i in range(4097)}, "not a message"),
        ({"x": [[0] * 4096] * 17}, "more than 65536 entries"),
        ({"x": [{}] * 4096, "y": [array()["x"]] * 257}, "more than 256 arrays"),
        ({"x": "a" * 65537}, "not a message"),
        ({"x": msgpack.ExtType(3, b"abc")}, "not a message"),
        ({"x": msgpack.ExtType(3, b"")}, "extension of msgpack"),
        ({"x": msgpack.Timestamp(1, 2)}, "not a message"),
    ],
)
def test_whatever_is_not_agreed_on_is_one_error(tree, words):
    with pytest.raises(MessageError, match=words):
        decode(msgpack.packb(tree))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        b"\x81\xa1x",
        b"\x81\xa1x\xc1",  # a byte that msgpack never uses
        b"\x81\xa1x\x00\x00",  # more than one message
        b"\x82\xa1x\x00\xa1x\x01",  # a key twice
        b"\x82\xa1x\x00\xc4\x01x\x01",  # a key twice, once as bytes
        b"\x81\xa1\xff\x00",  # not UTF-8
        b"\x81\xa1x\xdd\xff\xff\xff\xff",  # a list that claims four billion entries
        b"\x81\xa1x\xdf\xff\xff\xff\xff",
        b"\x81\xa1x\xc6\xff\xff\xff\xff",
        b"\x81\xa1x" + b"\xdd\x00\x01\x00\x00" * 500,  # lists in lists, each of which claims 65536 entries
        b"\x81\xa1x" + b"\x91" * 900 + b"\x00",  # lists in lists
        b"\x81\xa1x" + b"\x91" * 9000 + b"\x00",
        b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",  # a pickle
    ],
)
def test_broken_bytes_are_one_error(data):
    with pytest.raises(MessageError):
        decode(data)


@settings(max_examples=500)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_one_error(data):
    with suppress(MessageError):
        assert isinstance(decode(data), dict)


@settings(max_examples=300)
@given(TREES, st.data())
def test_a_message_with_a_byte_changed_is_a_message_or_one_error(tree, data):
    changed = bytearray(encode(tree | {"x": np.arange(4, dtype=np.float32)}))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)))
    for version in (bytes(changed), bytes(changed[:cut])):
        with suppress(MessageError):
            assert isinstance(decode(version), dict)


@given(
    st.fixed_dictionaries(
        {"__ndarray__": st.just(True)},
        optional={
            "data": st.binary(max_size=16) | SIMPLE,
            "dtype": st.sampled_from([*sorted(DTYPES), "O", "V8", "U2"]) | SIMPLE,
            "shape": st.lists(st.integers(-1, 5) | st.integers(0, 2**64 - 1) | SIMPLE, max_size=10) | SIMPLE,
        },
    )
)
def test_any_map_that_calls_itself_an_array_is_one_or_an_error(fields):
    with suppress(MessageError):
        assert isinstance(decode(msgpack.packb({"x": fields}))["x"], np.ndarray)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"x": np.array([None])}, "object"),
        ({"x": np.array(["a"])}, "<U1"),
        ({"x": np.array([1j])}, "complex"),
        ({"x": np.zeros(2, ">f4")}, ">f4"),
        ({"x": np.zeros([1] * 9)}, "9 axes"),
        ({"x": np.datetime64("2020-01-01")}, "datetime64"),
        ({"x": [np.zeros(1)] * 257}, "more than 256"),
        ({"x": object()}, "cannot hold object"),
        ({"x": {1: 2}}, "key of a message is text"),
        ({"__ndarray__": 2}, "mark of an array"),
        ({"x": 2**64}, "cannot be written"),
        ({"x": deep(17)}, "16 deep"),
        ({"x": [0] * 4097}, "4096 entries"),
        ({"x": "é" * 40000}, "at most 65536 bytes"),
        ({"x": "\ud800"}, "cannot be written"),
        ([1], "is a map, not list"),
    ],
)
def test_what_could_not_be_read_is_not_written(tree, words):
    with pytest.raises(MessageError, match=words):
        encode(tree)


def test_a_message_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(message, "MAX_BYTES", 1000)
    packed = encode({"x": np.zeros(900, np.uint8)})
    assert decode(packed)["x"].shape == (900,)
    with pytest.raises(MessageError, match="at most 1000 are sent"):
        encode({"x": np.zeros(1000, np.uint8)})
    with pytest.raises(MessageError, match="at most 1000 are read"):
        decode(packed + bytes(200))
