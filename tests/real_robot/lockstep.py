"""A servo loop, a simulated arm and whoever speaks to them, in one thread and in virtual time."""

import numpy as np

from robopol.config import parse
from robopol.real_robot.chunk import Chunk
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.driver import StopLevel
from robopol.real_robot.drivers.simulated import SimulatedConfig, SimulatedDriver
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.merging import merging_of
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.servo import HUMAN_ID, Servo
from robopol.real_robot.states import Command, State

MS = 1_000_000
POLICY = b"policy".ljust(16, b"\0")
DT = 50 * MS
JOINTS = {
    "shoulder_pan": (-1.8, 1.8),
    "shoulder_lift": (-1.6, 1.6),
    "elbow_flex": (-1.6, 1.6),
    "wrist_flex": (-1.6, 1.6),
    "wrist_roll": (-2.6, 2.6),
}


def robot(**fields):
    joints = [{"name": n, "low": a, "high": b, "speed": 3.0, "acceleration": 15.0} for n, (a, b) in JOINTS.items()]
    tree = {"name": "so101", "driver": "simulated", "joints": joints, "gripper": {}, "period": 0.01}
    return parse(RobotConfig, tree | fields)


class Wire(SimulatedDriver):
    """The simulated arm with an oracle at its wire: every goal is logged and must be within the robot's limits."""

    def __init__(self, config, clock, robot):
        super().__init__(config, clock)
        self.goals, self.calls = [], []
        self.oracle = Oracle.of(robot, hand=(0.0, 1.0))
        self.read_error = self.write_error = None

    def arm(self):
        super().arm()
        self.calls.append("arm")
        self.oracle.rest()

    def read(self, out):
        if self.read_error is not None:
            raise self.read_error
        return super().read(out)

    def write(self, q, gripper):
        if self.write_error is not None:
            raise self.write_error
        stands = np.stack([self._joints_of(self.device.q), self._joints_of(self.device.goal)], 1)
        super().write(q, gripper)
        self.goals.append((self.clock.now(), q.copy(), gripper))
        for joint, (angle, place) in enumerate(zip(np.append(q, gripper), stands, strict=True)):
            self.oracle.goal(self.clock.now(), joint, float(angle), tuple(place.tolist()))

    def stop(self, level):
        super().stop(level)
        self.calls.append(level)
        if level is not StopLevel.REST:
            self.oracle.rest()

    def check(self):
        """Assert limits of position, speed and acceleration over all goals; return how many there were."""
        assert self.oracle.violations == []
        return len(self.goals)

    def _joints_of(self, q):
        """Return positions of the joints and the opening."""
        low, high = self.device.low[self._hand], self.device.high[self._hand]
        return np.append(q[self._joints], (q[self._hand] - low) / (high - low))


class Box:
    """A mailbox."""

    def __init__(self):
        self.message = None

    def take(self):
        message, self.message = self.message, None
        return message


class Bench:
    """Everything of one arm; time moves by `run` only.

    Attributes:
        attended_at: When the supervisor was last there, ns; None is now.
    """

    attended_at = None

    def __init__(self, config=None, start=None, merging="replace"):
        self.robot = config or robot()
        self.clock = VirtualClock(1_000 * MS)
        self.driver = Wire(SimulatedConfig(), self.clock, self.robot)
        self.orders, self.held_at = [], 0
        self.policy, self.human = Box(), Box()
        self.events, self.rows, self.words = [], [], []
        boxes = {State.RUNNING: self.policy, State.HUMAN: self.human}
        publish = lambda row: self.rows.append(row[0].copy())  # noqa: E731
        rule = merging_of({"kind": merging} if isinstance(merging, str) else merging)
        told = self.events.append, publish, None, rule
        self.servo = Servo(self.robot, self.driver, self.clock, self, boxes, POLICY, *told, self.words.append)
        self.servo.connect()
        if start is not None:
            self.driver.device.data.qpos[:5] = start
            self.driver.device.goal[:5] = self.driver.device._setpoint[:5] = start
        self.seq = 0
        self.t = self.clock.now()

    # the operator
    def commands(self):
        orders, self.orders = self.orders, []
        return orders

    def held(self):
        return self.held_at

    def attended(self):
        return self.clock.now() if self.attended_at is None else self.attended_at

    def say(self, command, argument=0):
        self.orders.append((int(command), argument))

    def run(self, seconds, each=None):
        """Tick for some time; ``each`` is called before every tick."""
        for _ in range(round(seconds / self.robot.period)):
            self.t += self.robot.period_ns
            self.clock.sleep_until(self.t)
            if each is not None:
                each()
            self.servo.tick(self.t)

    def ready(self):
        """Arm it and let the policy speak."""
        self.run(0.05)
        self.say(Command.ARM)
        self.run(0.1)
        self.say(Command.RUN)
        self.run(0.02)
        assert self.state is State.ARMED
        return self

    def chunk(self, data, late=0.0, **fields):
        """Return a chunk that was observed ``late`` seconds ago."""
        now = self.clock.now()
        observed = now - round(late * 1e9)
        self.seq += 1
        data = np.atleast_2d(np.asarray(data, float))
        if data.shape[1] == 5:
            data = np.concatenate([data, np.full((len(data), 1), 0.5)], 1)
        known = {
            "policy": POLICY,
            "seq": self.seq,
            "epoch": self.epoch,
            "t_observed": observed,
            "t_created": now,
            "t_first": observed + DT,
            "step": DT,
            "data": data,
        }
        return Chunk(**(known | fields))

    def send(self, data, **fields):
        self.policy.message = self.chunk(data, **fields).pack()

    def send_human(self, data, **fields):
        self.human.message = self.chunk(data, policy=HUMAN_ID, **fields).pack()

    @property
    def state(self):
        return self.servo.life.machine.state

    @property
    def epoch(self):
        return self.servo.life.machine.epoch

    @property
    def q(self):
        return self.servo.life.motion.filter.limiter.q

    @property
    def dq(self):
        return self.servo.life.motion.filter.limiter.dq

    def codes(self):
        return [event.code for event in self.events]
