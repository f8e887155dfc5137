"""The arm behind every emulated wire: a MuJoCo model whose joints have servos with speed and acceleration limits."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopol.errors import RobotError

Vector = NDArray[np.float64]


class Arm:
    """A simulated arm, moved on to whatever time it is asked for: in real time or not is the caller's clock.

    Attributes:
        names: The n servos, in the order of the model's actuators.
        low: Lowest goals that the model's servos take (n,), rad (or m, whatever the model's joints are in).
        high: Highest goals (n,).
        goal: Where the servos are to go (n,).
        powered: Which servos hold (n,); the others hang.
        max_speed: Speed limits of the servos' own set points (n,), rad/s; infinite at first.
        max_accel: Acceleration limits (n,), rad/s^2; infinite at first.
        t: Time up to which it was simulated, ns.
    """

    def __init__(self, xml: str, t: int, servos: int | None = None) -> None:
        """Make an arm at rest, in its keyframe if it has one, at zero otherwise; all servos are on and hold.

        Args:
            xml: MJCF; each actuator is a position servo with a control range.
            t: Now, ns.
            servos: How many of the actuators are the arm's, n; what comes after them, a hand, stays as it is at first.
                None is all.

        Raises:
            RobotError: If the model cannot be read, or a servo has no range.
        """
        try:
            self.model = mujoco.MjModel.from_xml_string(xml)
        except ValueError as error:
            raise RobotError(f"MuJoCo cannot read the model of the arm: {error}") from error
        self.names = tuple(self.model.actuator(i).name for i in range(self.model.nu))[:servos]
        if not self.names or not self.model.actuator_ctrllimited.all():
            raise RobotError("a model of an arm needs position servos, each with a ctrlrange")
        self.data = mujoco.MjData(self.model)
        if self.model.nkey:
            mujoco.mj_resetDataKeyframe(self.model, self.data, 0)
        mujoco.mj_forward(self.model, self.data)
        self.low, self.high = self.model.actuator_ctrlrange[: len(self.names)].T.copy()
        self._gain, self._bias = self.model.actuator_gainprm.copy(), self.model.actuator_biasprm.copy()
        self._force = self.model.actuator_forcerange.copy()
        self.powered = np.ones(len(self.names), bool)
        self.goal = self.q
        self._setpoint, self._speed = self.goal.copy(), np.zeros(len(self.names))
        self.max_speed, self.max_accel = (np.full(len(self.names), np.inf) for _ in range(2))
        self.t, self._pushed = t, 0.0
        self._step = round(self.model.opt.timestep * 1e9)

    @property
    def q(self) -> Vector:
        """Positions (n,), rad."""
        return self.data.actuator_length[: len(self.names)].copy()

    @property
    def dq(self) -> Vector:
        """Speeds (n,), rad/s."""
        return self.data.actuator_velocity[: len(self.names)].copy()

    @property
    def effort(self) -> Vector:
        """Torques of the servos (n,), N m."""
        return self.data.actuator_force[: len(self.names)].copy()

    @property
    def at_rest(self) -> bool:
        """Whether no set point moves, but for what rounding leaves."""
        return bool(np.abs(self._speed).max() < 1e-9)

    def power(self, servo: int, on: bool) -> None:
        """Switch one servo on, where it holds its goal, or off, where it hangs."""
        self.powered[servo] = on
        self.model.actuator_gainprm[servo] = self._gain[servo] * on
        self.model.actuator_biasprm[servo] = self._bias[servo] * on

    def push(self, angle: float) -> None:
        """Turn the first joint by hand, rad, when time goes on; this may be said by another thread."""
        self._pushed += angle

    def limit_effort(self, servo: int, share: float) -> None:
        """Limit one servo's torque to a share, 0 to 1, of what the model gives it."""
        self.model.actuator_forcerange[servo] = self._force[servo] * share

    def hold(self, servos: slice | int = slice(None)) -> None:
        """Brake some servos within their acceleration limits, and stay; those that hang come to hold where they are."""
        brake = self._speed * np.abs(self._speed) / (2 * self.max_accel)
        self.goal[servos] = np.clip(self._setpoint + brake, self.low, self.high)[servos]

    def advance(self, t: int) -> None:
        """Simulate up to the last physics step before ``t``, ns."""
        if self._pushed:
            self.data.qpos[self.model.jnt_qposadr[self.model.actuator_trnid[0, 0]]] += self._pushed
            self._pushed = 0.0
            mujoco.mj_forward(self.model, self.data)
        while self.t + self._step <= t:
            self._move()
            self.data.ctrl[: len(self.names)] = self._setpoint
            mujoco.mj_step(self.model, self.data)
            self.t += self._step

    def _move(self) -> None:
        """Move the set points by one physics step, along a trapezoid of speed where there are limits."""
        dt = self._step * 1e-9
        q = self.q
        np.copyto(self._setpoint, q, where=~self.powered)
        goal = np.where(self.powered, self.goal, q)
        error, half = goal - self._setpoint, np.minimum(self.max_accel, 1e9) * dt / 2
        # The fastest from which the limit of acceleration, taken in whole steps, still stops at the goal.
        fastest = np.sqrt(2 * np.minimum(self.max_accel, 1e9) * np.abs(error) + half**2) - half
        want = np.sign(error) * np.minimum(np.minimum(fastest, self.max_speed), np.abs(error) / dt)
        self._speed += np.minimum(np.maximum(want - self._speed, -2 * half), 2 * half)
        self._speed[~self.powered] = 0.0
        self._setpoint += self._speed * dt
