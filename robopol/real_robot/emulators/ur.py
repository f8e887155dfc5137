"""The inside of a Universal Robots controller: registers, the program that ur_rtde uploads, safety, the arm.

The program is not interpreted: it is emulated by the contract that it keeps with the client (SDU Robotics, ur_rtde,
scripts/rtde_control.script). input_int_register_0 holds a command; output_int_register_0 says 1, ready, or 2, done.
Real-time commands are done anew in each cycle; any other once, until the register was 0 in between.
"""

import itertools
from typing import Any

import numpy as np

from robopol.real_robot.emulators.arm import Arm, Vector
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.oracle import Oracle

PERIOD = 2_000_000
"""Of the controller, ns: 500 Hz."""
MOVE_J, SERVO_J, SPEED_STOP, SERVO_STOP, PROTECTIVE_STOP, STOP_J, SET_WATCHDOG, END = 1, 11, 15, 16, 31, 34, 35, 255
REAL_TIME = frozenset((6, 9, 10, 11, 24, 25, 26, 27, 38, 58))
READY, DONE = 1, 2
STOPPED, PLAYING, PAUSED = 1, 2, 4
"""Of runtime_state."""
BRAKE = 10.0
"""Deceleration when a program ends or safety stops it, rad/s^2; nominal."""
SERVO_SPEED, SERVO_ACCEL = np.pi, 40.0
"""Limits of the set point in servo mode; nominal."""


class Controller:
    """Moves the arm as the program, its watchdog and the safety system say.

    Attributes:
        arm: Its six joints.
        oracle: Witness of the goals of servoj.
        faults: What goes wrong.
        inputs: Registers that clients write, by name.
        outputs: Registers that the program writes, by name.
        runtime: STOPPED, PLAYING or PAUSED.
        t: Up to when it ran, ns.
    """

    def __init__(self, arm: Arm, oracle: Oracle, faults: Faults) -> None:
        """Switch it on: brakes released, no program."""
        self.arm, self.oracle, self.faults, self.t = arm, oracle, faults, arm.t
        kinds = (("int", 0), ("double", 0.0))
        self.inputs = {f"input_{kind}_register_{i}": zero for (kind, zero), i in itertools.product(kinds, range(48))}
        self.outputs = {f"output_{kind}_register_{i}": zero for (kind, zero), i in itertools.product(kinds, range(48))}
        self.runtime = STOPPED
        self._executing = self._finishing = False
        self._watchdog, self._fed = 0, self.t
        self._frozen: dict[str, Any] | None = None

    def upload(self, script: str) -> None:
        """Replace the program: ur_rtde's is known by its name; any other one is taken for one that stops the arm."""
        self.end()
        if "def rtde_control" in script and not self._safety():
            self.inputs["input_int_register_0"] = 0
            self.runtime, self._executing, self._finishing = PLAYING, False, False
            self.outputs["output_int_register_0"] = READY
            self.oracle.rest()

    def end(self) -> None:
        """End the program and brake."""
        self.runtime, self._watchdog = STOPPED, 0
        self._brake(BRAKE)

    def unlock(self) -> None:
        """Leave the protective stop; the program stays paused."""
        self.faults.protective_stop = False

    def written(self, names: list[str]) -> None:
        """Note that a client wrote registers: writing the command register feeds the watchdog."""
        if "input_int_register_0" not in names:
            return
        self._fed = self.t
        if self.runtime == PLAYING and self.inputs["input_int_register_0"] == SERVO_J:
            stands = zip(self.arm.q.tolist(), self.arm.goal.tolist(), strict=True)
            for joint, (angle, place) in enumerate(zip(self._target().tolist(), stands, strict=True)):
                self.oracle.goal(self.t, joint, angle, place)  # each one, also if it is the same as before

    def advance(self, t: int) -> None:
        """Run all cycles up to ``t``, ns."""
        while self.t + PERIOD <= t:
            self.t += PERIOD
            self._cycle()
            self.arm.advance(self.t)

    def _cycle(self) -> None:
        if self._safety() or self.faults.torque_lost:
            if self.runtime == PLAYING:
                self.end()
                self.runtime = PAUSED if self.faults.protective_stop else STOPPED
            self._brake(BRAKE)
        if self.faults.program_stopped and self.runtime != STOPPED:
            self.end()
        if self._watchdog and self.t - self._fed > self._watchdog:
            self.end()
        if self.runtime != PLAYING:
            return
        command = int(self.inputs["input_int_register_0"])
        if command in REAL_TIME:
            if command == SERVO_J:
                self._servo()
            self._say(READY)
        elif command == 0:
            self._executing = self._finishing = False
            self._say(READY)
        elif not self._executing:
            self._executing = True
            self._begin(command)
        elif self._finishing and self.arm.at_rest:
            self._say(DONE)

    def _begin(self, command: int) -> None:
        number = [float(self.inputs[f"input_double_register_{i}"]) for i in range(8)]
        self._finishing = command in (SPEED_STOP, SERVO_STOP, STOP_J, MOVE_J)
        if command == END:
            self.end()
        elif command == MOVE_J:
            self.arm.max_speed[:], self.arm.max_accel[:] = number[6], number[7]
            self.arm.goal[:] = number[:6]
        elif self._finishing:
            self._brake(number[0])
        elif command == PROTECTIVE_STOP:
            self.faults.protective_stop = True
        elif command == SET_WATCHDOG:
            self._watchdog, self._fed = round(1e9 / number[0]) if number[0] > 0 else 0, self.t
        if not self._finishing and command != END:
            self._say(DONE)

    def _servo(self) -> None:
        """Follow the target in the registers; what is no number stops the program, as a script error does."""
        q = self._target()
        if not np.isfinite(q).all():
            self.end()
            return
        self.arm.max_speed[:], self.arm.max_accel[:] = SERVO_SPEED, SERVO_ACCEL
        self.arm.goal[:] = np.clip(q, self.arm.low, self.arm.high)

    def _target(self) -> Vector:
        """Return the target in the registers (6,), rad."""
        return np.array([self.inputs[f"input_double_register_{i}"] for i in range(6)], np.float64)

    def _brake(self, deceleration: float) -> None:
        self.arm.max_accel[:] = max(deceleration, 0.1)
        self.arm.hold()
        self.oracle.rest()

    def _say(self, state: int) -> None:
        self.outputs["output_int_register_0"] = state

    def _safety(self) -> int:
        """Return safety_status_bits without the bit of normal operation."""
        f = self.faults
        return 4 * f.protective_stop | 128 * f.emergency_stop | 512 * (f.overheated or f.overload) | f.error_bits

    def state(self) -> dict[str, Any]:
        """Return what RTDE can tell, by name."""
        if self.faults.frozen and self._frozen is not None:
            return self._frozen
        q, dq = self.arm.q, self.arm.dq
        safety = self._safety()
        powered = not (self.faults.emergency_stop or self.faults.torque_lost)
        zero = np.zeros(6)
        self._frozen = {
            "timestamp": self.t * 1e-9,
            "target_q": self.arm.goal.copy(),
            "actual_q": q,
            "target_qd": dq,
            "actual_qd": dq,
            "actual_current": self.arm.effort / 10.0,  # nominal: 10 N m / A
            "actual_TCP_force": zero,
            "actual_TCP_pose": zero,
            "actual_TCP_speed": zero,
            "runtime_state": self.runtime,
            "robot_mode": 7 if powered else 3,
            "safety_mode": 1 if not safety else 3 if safety & 4 else 7 if safety & 224 else 9,
            "robot_status_bits": powered | 2 * (self.runtime == PLAYING),
            "safety_status_bits": safety or 1,
            "speed_scaling": 1.0,
            "target_speed_fraction": 1.0,
            **self.outputs,
        }
        return self._frozen
