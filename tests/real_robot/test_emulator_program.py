"""The emulators as a user runs them: a process, a pty or a socket, faults typed in."""

import json
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from robopol.errors import RobotError
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.driver import Reading
from robopol.registry import lookup

WORDS = [sys.executable, "-m", "robopol.real_robot.emulators"]


@pytest.mark.parametrize(
    ("kind", "package", "options"),
    [("feetech", "scservo_sdk", []), ("dynamixel", "dynamixel_sdk", ["--tcp", "0", "--max-speed", "0.01"])],
)
def test_an_arm_in_another_process(tmp_path, kind, package, options):
    pytest.importorskip(package, reason=f"needs the vendor's client: pip install 'robopol[{kind}]'")
    path = str(tmp_path / "arm.json")
    process = subprocess.Popen(
        [*WORDS, kind, "--calibration", path, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def tell(line):
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        port = process.stdout.readline().split()[-1]
        clock, state = MonotonicClock(), Reading(5)
        config = lookup("driver", kind)(port=port, calibration=path, max_speed=2, max_accel=20, timeout=1.0)
        driver = config.build(clock, period=0.01)
        driver.connect()
        driver.arm()
        end = clock.now() + 10_000_000_000
        while clock.now() < end and not abs(state.q[0] - 0.2) < 0.02:
            driver.read(state)
            driver.write(np.array([0.2, 0, 0, 0, 0]), 0.0)
        said = json.loads(tell("state"))
        assert abs(said["q"][0] - 0.2) < 0.05
        assert said["goals"] > 6
        assert "write NAME=NUMBER" in tell("nonsense")
        assert tell("drop=1") == "ok"
        with pytest.raises(RobotError):
            driver.read(state)
        driver.close()
    finally:
        process.stdin.close()
        said = process.stdout.read()
        status = process.wait(20)
    strict = bool(options)  # then the jump to the goal was over the declared speed
    assert status == int(strict)
    assert ("is over 0.01" in said) is strict


def test_the_shipped_model_can_be_written_to_a_file():
    xml = subprocess.run([*WORDS, "model", "so101"], capture_output=True, text=True, check=True).stdout
    assert mujoco.MjModel.from_xml_string(xml).nu == 6
