"""Feetech's client, unmodified, against an emulated bus: alone, where it fails, and in our driver."""

import time

import numpy as np
import pytest
from arms_on_wires import MS, TEN, Ramp, Rig, served

from robopol.errors import RobotError
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.driver import Status
from robopol.real_robot.emulators.feetech import FeetechBus

sdk = pytest.importorskip("scservo_sdk", reason="needs feetech-servo-sdk: pip install 'robopol[feetech]'")
from robopol.real_robot.drivers.feetech import FeetechConfig  # noqa: E402


@pytest.fixture
def rig(tmp_path):
    return Rig(FeetechBus, FeetechConfig, tmp_path).start()


def test_a_late_answer_shifts_the_vendors_reads_for_good(tmp_path, monkeypatch):
    """The unmodified client and its port handler, on a pty: one late answer, and each read gives the one before."""
    rig = Rig(FeetechBus, FeetechConfig, tmp_path, arm=Ramp)
    rig.faults.delay_once = 60.0  # its timeout is 34 ms and some
    handler = sdk.PacketHandler(0)
    with served(rig.bus) as address:
        port = sdk.PortHandler(address)
        port.setBaudRate(1_000_000)
        assert handler.read2ByteTxRx(port, 1, 9)[1] == sdk.COMM_RX_TIMEOUT
        while not port.getBytesAvailable():
            time.sleep(0.001)
        values = {}
        for address in (9, 11, 3, 48):
            while not port.getBytesAvailable():  # the answer to the question before
                time.sleep(0.001)
            values[address] = handler.read2ByteTxRx(port, 1, address)[:2]
        port.closePort()
    memory = rig.bus.servos[1]
    true = {address: memory.get(address, 2) for address in values}
    assert all(result == sdk.COMM_SUCCESS for _, result in values.values())
    assert [value for value, _ in values.values()] == [true[9], true[9], true[11], true[3]]


@pytest.mark.parametrize(
    ("knob", "value", "says"),
    [
        ("overheated", True, Status.OVERHEATED),
        ("overload", True, Status.OVERLOAD),
        ("error_bits", 1, Status.DEVICE_FAULT),
        ("error_bits", 2, Status.DEVICE_FAULT),
        ("error_bits", 8, Status.OVERLOAD),
    ],
)
def test_what_the_servos_say_of_themselves_is_heard_in_the_next_read(rig, knob, value, says):
    """T10, the driver's part: Feetech's own group reader throws the error byte away."""
    rig.run(np.zeros(5), 0.0, 100)
    setattr(rig.faults, knob, value)
    rig.tick()
    assert rig.driver.read(rig.state)
    assert rig.state.status == says | Status.POWERED
    with pytest.raises(RobotError, match="error"):
        rig.driver.arm()


def test_another_arm_is_not_driven(tmp_path):
    rig = Rig(FeetechBus, FeetechConfig, tmp_path)
    for (address, length, value), words in (
        ((3, 2, 1234), "model 1234"),
        ((31, 2, 100), "homing offset 100"),
        ((33, 1, 1), "mode 1"),
    ):
        servo = rig.bus.servos[4]
        was = servo.get(address, length)
        servo.put(address, length, value)
        with pytest.raises(RobotError, match=words):
            rig.driver.connect()
        servo.put(address, length, was)
    del rig.bus.servos[6]
    with pytest.raises(RobotError, match="servo 6"):
        rig.driver.connect()
    config = FeetechConfig(port="/dev/there-is-none", calibration=str(tmp_path / "rig.json"), max_speed=1, max_accel=1)
    with pytest.raises(RobotError, match="cannot be opened"):
        config.build(VirtualClock(), 0.01).connect()


def test_the_torque_limit_is_set(tmp_path):
    rig = Rig(FeetechBus, FeetechConfig, tmp_path, torque=0.5).start()
    np.testing.assert_allclose(rig.arm.model.actuator_forcerange[:, 1], 3.35 / 2)


def test_the_eeprom_is_locked(rig):
    """The raw client against registers that are kept without power."""
    port = rig.driver._port
    port.until = rig.clock.now() + TEN
    assert rig.driver._handler.write2ByteTxRx(port, 3, 31, 77)[0] == sdk.COMM_SUCCESS
    assert rig.bus.servos[3].get(31, 2) == 0
    for lock, offset in ((0, 77), (1, 77)):
        rig.driver._handler.write1ByteTxRx(port, 3, 55, lock)
        rig.driver._handler.write2ByteTxRx(port, 3, 31, offset)
    assert rig.bus.servos[3].get(31, 2) == 77
    assert rig.driver._handler.ping(port, 3)[:2] == (777, sdk.COMM_SUCCESS)


def test_the_vendors_groups_work_on_the_emulated_bus(rig):
    """Sync read and sync write of the raw client, and registered writes."""
    port, handler = rig.driver._port, rig.driver._handler
    group = sdk.GroupSyncWrite(port, handler, 42, 2)
    for servo in range(1, 7):
        assert group.addParam(servo, [0x00, 0x08])
    assert group.txPacket() == sdk.COMM_SUCCESS
    rig.clock.sleep_until(rig.clock.now() + 1000 * MS)
    reader = sdk.GroupSyncRead(port, handler, 56, 2)
    for servo in range(1, 7):
        reader.addParam(servo)
    port.until = rig.clock.now() + TEN
    assert reader.txRxPacket() == sdk.COMM_SUCCESS
    assert all(abs(reader.getData(servo, 56, 2) - 2048) < 5 for servo in range(1, 7))
    port.until = rig.clock.now() + TEN
    assert handler.regWriteTxRx(port, 2, 42, 2, [0x00, 0x09]) == (sdk.COMM_SUCCESS, 0)
    assert rig.bus.servos[2].get(42, 2) == 2048
    handler.action(port, sdk.BROADCAST_ID)
    assert rig.bus.servos[2].get(42, 2) == 0x900
