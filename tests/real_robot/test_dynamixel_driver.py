"""What only Dynamixel servos have: CRCs and stuffing, a clock, hardware errors that cut the torque, a watchdog."""

import numpy as np
import pytest
from arms_on_wires import MS, TEN, Ramp, Rig
from hypothesis import given
from hypothesis import strategies as st

from robopol.errors import RobotError
from robopol.real_robot.driver import Reading, Status
from robopol.real_robot.emulators.dynamixel import DynamixelBus, crc16, frame

sdk = pytest.importorskip("dynamixel_sdk", reason="needs dynamixel-sdk: pip install 'robopol[dynamixel]'")
from robopol.real_robot.drivers.dynamixel import DynamixelConfig  # noqa: E402


@pytest.fixture
def rig(tmp_path):
    return Rig(DynamixelBus, DynamixelConfig, tmp_path).start()


def raw(rig):
    """Give the vendor's packet handler a moment on the wire."""
    rig.driver._port.until = rig.clock.now() + TEN
    return rig.driver._port, rig.driver._handler


@given(st.binary(min_size=1, max_size=40))
def test_crcs_are_the_vendors(data):
    assert crc16(data) == sdk.PacketHandler(2.0).updateCRC(0, list(data), len(data))


@given(st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x12]), min_size=1, max_size=24))
def test_packets_with_headers_in_them_are_read_by_the_vendor(parameters):
    class Port:
        is_using = False
        data = frame(3, 0x55, bytes([0, *parameters]))

        def readPort(self, n):
            part, self.data = self.data[:n], self.data[n:]
            return part

        def isPacketTimeout(self):
            return not self.data

    packet, result = sdk.PacketHandler(2.0).rxPacket(Port(), False)
    assert result == sdk.COMM_SUCCESS
    length = packet[5] | packet[6] << 8
    assert packet[9 : 5 + length] == parameters


def test_values_that_look_like_a_header_cross_the_wire(rig):
    port, handler = raw(rig)
    servo = rig.bus.servos[2]
    assert handler.write4ByteTxRx(port, 2, 112, 0x00FDFFFF) == (sdk.COMM_SUCCESS, 0)
    assert servo.get(112, 4) == 0x00FDFFFF
    assert handler.read4ByteTxRx(port, 2, 112) == (0x00FDFFFF, sdk.COMM_SUCCESS, 0)


def test_the_vendors_groups_work_on_the_emulated_bus(rig):
    port, handler = raw(rig)
    reader = sdk.GroupSyncRead(port, handler, 132, 4)
    for servo in range(1, 7):
        reader.addParam(servo)
    assert reader.txRxPacket() == sdk.COMM_SUCCESS
    slow = [reader.getData(servo, 132, 4) for servo in range(1, 7)]
    raw(rig)
    assert reader.fastSyncRead() == sdk.COMM_SUCCESS
    assert [reader.getData(servo, 132, 4) for servo in range(1, 7)] == slow
    raw(rig)
    bulk = sdk.GroupBulkRead(port, handler)
    assert bulk.addParam(1, 132, 4)
    assert bulk.addParam(5, 0, 2)
    assert bulk.txRxPacket() == sdk.COMM_SUCCESS
    assert (bulk.getData(1, 132, 4), bulk.getData(5, 0, 2)) == (slow[0], 1200)
    writer = sdk.GroupBulkWrite(port, handler)
    assert writer.addParam(3, 116, 4, [0x00, 0x09, 0, 0])
    assert writer.txPacket() == sdk.COMM_SUCCESS
    assert rig.bus.servos[3].get(116, 4) == 0x900
    raw(rig)
    assert handler.regWriteTxRx(port, 2, 116, 4, [0x10, 0x08, 0, 0]) == (sdk.COMM_SUCCESS, 0)
    handler.action(port, 2)
    assert rig.bus.servos[2].get(116, 4) == 0x810


def test_the_emulated_servo_forbids_what_the_real_one_does(rig):
    port, handler = raw(rig)
    assert handler.write1ByteTxRx(port, 1, 11, 4) == (sdk.COMM_SUCCESS, 7)  # EEPROM with torque on
    assert handler.write4ByteTxRx(port, 1, 116, 4000) == (sdk.COMM_SUCCESS, 6)  # beyond its limit
    assert handler.write4ByteTxRx(port, 1, 132, 0) == (sdk.COMM_SUCCESS, 7)  # read only
    assert handler.reboot(port, 1) == (sdk.COMM_SUCCESS, 0)
    assert rig.bus.servos[1].get(64, 1) == 0


def test_the_watchdog_stops_it_when_the_computer_dies(tmp_path):
    """T4, the device's side: 100 ms after the last packet, and no later than a physics step."""
    rig = Rig(DynamixelBus, DynamixelConfig, tmp_path, max_speed=1.0, max_accel=100.0).start()
    rig.run([1.5, 0, 0, 0, 0], 0.0, 500)
    died = rig.clock.now()
    speeds, places = {}, {}
    for ms in range(0, 300, 2):
        rig.clock.sleep_until(died + ms * MS)
        rig.bus.advance(rig.clock.now())
        speeds[ms], places[ms] = rig.arm.dq[0], rig.arm.q[0]
    assert speeds[98] > 0.9  # it goes on to the last goal
    assert all(q < places[100] + 1.0**2 / 200 + 0.008 for q in places.values())
    assert all(abs(speed) < 0.05 for ms, speed in speeds.items() if ms > 190)
    assert rig.bus.servos[1].get(98, 1) == 0xFF


def test_a_watchdog_that_has_bitten_is_heard_and_goals_are_for_nothing(rig):
    rig.run([0.5, 0, 0, 0, 0], 0.0, 300)
    rig.clock.sleep_until(rig.clock.now() + 150 * MS)
    for _ in range(2):
        rig.tick()
        assert rig.driver.read(rig.state)
    assert rig.state.status == Status(0)
    here = rig.state.q[0]
    rig.run([-0.5, 0, 0, 0, 0], 0.0, 300)
    rig.driver.read(rig.state)
    assert abs(rig.state.q[0] - here) < 0.02
    port, handler = raw(rig)
    assert handler.write4ByteTxRx(port, 1, 116, 2048) == (sdk.COMM_SUCCESS, 4)
    rig.driver.arm()
    rig.run([-0.5, 0, 0, 0, 0], 0.0, 1000)
    rig.driver.read(rig.state)
    assert abs(rig.state.q[0] + 0.5) < 0.02
    assert rig.state.status == Status.POWERED


@pytest.mark.parametrize(
    ("knob", "value", "says"),
    [
        ("overheated", True, Status.OVERHEATED),
        ("overload", True, Status.OVERLOAD),
        ("error_bits", 1, Status.DEVICE_FAULT),
        ("error_bits", 16, Status.DEVICE_FAULT),
    ],
)
def test_what_the_servos_say_of_themselves_is_heard_in_the_next_read(rig, knob, value, says):
    """T10, the driver's part: the alert bit is in every answer; what it means is asked for at once."""
    for _ in range(3):
        rig.tick()
        rig.driver.read(rig.state)
    setattr(rig.faults, knob, value)
    rig.tick()
    assert rig.driver.read(rig.state)
    assert rig.state.status == says
    with pytest.raises(RobotError, match="error 0x80"):
        rig.driver.arm()


def test_servos_whose_clock_stands_still_are_not_fresh(tmp_path):
    """T9: the bus answers, with success codes, and none of it is new."""
    rig = Rig(DynamixelBus, DynamixelConfig, tmp_path, arm=Ramp).start()
    rig.tick()
    assert rig.driver.read(rig.state)
    rig.tick()
    assert rig.driver.read(rig.state)
    was = (rig.state.t_device, rig.state.t_received, rig.state.q.copy())
    rig.faults.frozen = True
    for _ in range(5):
        rig.tick()
        assert not rig.driver.read(rig.state)
        assert not rig.driver.read(Reading(5))  # whatever the reading that it is given knew
    assert was[:2] == (rig.state.t_device, rig.state.t_received)
    np.testing.assert_array_equal(was[2], rig.state.q)


def test_the_servos_clock_may_wrap(tmp_path):
    rig = Rig(DynamixelBus, DynamixelConfig, tmp_path, arm=Ramp).start()
    rig.clock.sleep_until(32_700 * MS)
    last = 0
    for _ in range(20):
        rig.tick()
        assert rig.driver.read(rig.state)
        assert last == 0 or rig.state.t_device - last == TEN
        last = rig.state.t_device


def test_another_arm_is_not_driven(rig):
    rig.driver.close()
    for (address, length, value), words in (
        ((0, 2, 1234), "model 1234"),
        ((20, 4, 100), "homing offset 100"),
        ((11, 1, 1), "mode 1"),
        ((10, 1, 4), "time-based"),
    ):
        servo = rig.bus.servos[4]
        was = servo.get(address, length)
        servo.put(address, length, value)
        with pytest.raises(RobotError, match=words):
            rig.driver.connect()
        servo.put(address, length, was)
