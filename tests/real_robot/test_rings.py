"""Memory shared by processes: no row and no message is ever half of one and half of another."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopol.real_robot.rings import _FRAME, _HEAD, Box, Memory, Ring

ROW = np.dtype([("n", np.int64), ("data", np.float64, (40,))])


def ring(rows=8):
    memory = Memory.new(Ring.size(ROW, rows))
    return memory, Ring(memory, ROW)


def row(n):
    made = np.zeros(1, ROW)
    made["n"], made["data"] = n, n
    return made


@given(st.lists(st.integers(0, 20), max_size=12))
def test_a_reader_gets_every_row_once_and_knows_what_it_lost(bursts):
    memory, writer = ring()
    reader, n, got, lost = Ring(memory, ROW), 0, [], 0
    for burst in bursts:
        for _ in range(burst):
            writer.put(row(n))
            n += 1
        got += reader.take()["n"].tolist()
        lost += max(0, burst - 8)
    assert len(got) + reader.lost == n
    assert reader.lost == lost
    assert got == sorted(set(got))
    memory.close()


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_a_box_holds_the_newest_message(messages):
    memory = Memory.new(Box.size(100))
    writer, reader = Box(memory, 100), Box(memory, 100)
    assert reader.take() is None
    for message in messages:
        writer.put(message)
    assert reader.take() == (messages[-1] if messages else None)
    assert reader.take() is None
    memory.close()


def test_a_message_that_is_too_long_is_refused():
    box = Box(Memory.new(Box.size(10)), 10)
    with pytest.raises(ValueError, match="11 bytes"):
        box.put(bytes(11))


def test_what_a_killed_writer_left_half_done_is_not_read():
    memory = Memory.new(Box.size(64))
    writer, reader = Box(memory, 64), Box(memory, 64)
    writer.put(b"a" * 64)
    memory.view[_HEAD + _FRAME.size + 30] ^= 1  # one byte of the next message
    assert reader.take() is None
    writer.put(b"b" * 64)
    assert reader.take() == b"b" * 64


WRITER = """
import sys, numpy as np
from robopol.real_robot.rings import Box, Memory, Ring
ring_memory, box_memory = (Memory(int(fd), int(size)) for fd, size in zip(sys.argv[1::2], sys.argv[2::2]))
ring, box = Ring(ring_memory, np.dtype([("n", np.int64), ("data", np.float64, (40,))])), Box(box_memory, 4000)
row, n = np.zeros(1, [("n", np.int64), ("data", np.float64, (40,))]), 0
print("ready", flush=True)
for n in range(1, 10_001):
    row["n"], row["data"] = n, n
    ring.put(row)
    box.put(n.to_bytes(8, "little") * (1 + n % 500))
"""


def test_two_processes_never_tear_a_row():
    """The writer writes as fast as it can, into a ring of two rows, so that it overtakes the reader all the time."""
    memories = [Memory.new(Ring.size(ROW, 2)), Memory.new(Box.size(4000))]
    ring, box = Ring(memories[0], ROW), Box(memories[1], 4000)
    words = [str(number) for memory in memories for number in memory.handle()]
    command = [sys.executable, "-c", WRITER, *words]
    fds = [memory.fd for memory in memories]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=fds) as writer:
        assert writer.stdout.readline() == b"ready\n"
        last, seen, messages = 0, 0, 0
        while True:
            over = writer.poll() is not None
            rows = ring.take()
            assert np.all(rows["data"] == rows["n"][:, None])
            assert np.all(np.diff(np.concatenate([[last], rows["n"]])) > 0)
            seen += len(rows)
            last = int(rows["n"][-1]) if len(rows) else last
            message = box.take()
            if message is not None:
                n = int.from_bytes(message[:8], "little")
                assert message == n.to_bytes(8, "little") * (1 + n % 500)
                messages += 1
            if over:
                break
    assert writer.returncode == 0
    assert seen + ring.lost == last == 10_000
    assert seen > 10
    assert messages > 10
