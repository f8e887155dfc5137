"""`robopol record` in one thread and in virtual time: keyboard, arm, observer, recorder and session, and a person."""

from types import SimpleNamespace

import numpy as np
from led import Led, Typist, operator_of
from lockstep import MS, Bench, Box
from test_rehearsal import ur5e

from robopol.envs.config import EnvConfig
from robopol.real_robot.channels import EVENT_ROW
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.demonstration import DemonstrationConfig, DemonstrationLoop, spec_of
from robopol.real_robot.placing import modelled
from robopol.real_robot.recorder import ASIDE, Recorder
from robopol.real_robot.scenes import Scene
from robopol.real_robot.servo import Servo
from robopol.real_robot.session import Session
from robopol.real_robot.states import Command, State
from robopol.real_robot.steps import fill, step_type
from robopol.real_robot.ticks import tick_type
from robopol.real_robot.world import World

REACH = EnvConfig(id="robopol/Reach-v0")
KEYS = {"kind": "keyboard", "speed": 0.15}


class SceneBench(Bench):
    """A bench whose arm stands in a scene."""

    def __init__(self, config, clock):
        self.robot, self.clock, self.t = config, clock, clock.now()
        self.driver = config.driver.build(clock, config.period)
        self.orders, self.held_at = [], 0
        self.policy, self.human = Box(), Box()
        self.events, self.rows, self.worlds = [], [], []
        boxes = {State.RUNNING: self.policy, State.HUMAN: self.human}
        self.servo = Servo(config, self.driver, clock, self, boxes, bytes(16), self.events.append, self._publish)
        self.servo.connect()

    def _publish(self, row):
        self.rows.append(row[0].copy())
        self.worlds.append(World.of(self.driver.device.data, int(row[0]["t_received"])))


class Demonstration:
    """Everything of `robopol record` but its processes."""

    def __init__(self, folder, episodes=2, reset=0.5):
        self.folder = folder
        # ticks of 20 ms and no distances: these are tested elsewhere
        self.robot = modelled(ur5e(), folder).model_copy(update={"period": 0.02})
        self.scene, self.clock = Scene(REACH), VirtualClock(1_000 * MS)
        self.spec = spec_of(self.robot, DemonstrationConfig(env=REACH))
        self.types = {"ticks": tick_type(6), "events": EVENT_ROW, "steps": step_type(self.spec)}
        policy = {"spec": self.spec.tree(), "speaker": {}, "demonstration": True}
        about, self.recorded = {"robot": self.robot.tree(), "policy": policy}, {}
        tell = lambda epoch, written: self.recorded.update({epoch: written})  # noqa: E731
        self.recorder = Recorder(folder / "record", self.types, about, tell=tell)
        self.typist, self.said = Typist(self.clock), []
        self.session = Session(episodes, reset, False, self.said.append)

    def place(self, seed):
        """Place the arm in a new scene, as a restart of the servo process does, and switch it on."""
        placed = self.scene.reset(seed, self.folder / "scene.xml", self.robot)
        self.bench = SceneBench(placed.model_copy(update={"geometry": None}), self.clock)
        seat = SimpleNamespace(robot=self.robot, clock=self.clock)
        self.person = Led(self.bench, operator_of(KEYS, seat, self.typist.typed))
        self.observer = DemonstrationLoop(self.spec, self.scene, self.clock, lambda: self.new)
        self.heard = self.told = 0
        self.typist.tap("A")
        self.run(0.2)
        assert self.bench.state is State.ARMED

    def run(self, seconds, each=lambda: False):
        """Run step by step, at 10 Hz; ``each`` ends it by saying so."""
        for _ in range(round(seconds * 10)):
            self.person.run(0.1)
            for world in self.bench.worlds[self.heard :]:
                self.scene.worlds.add(world)
            self.new = np.array(self.bench.rows[self.heard :], self.types["ticks"])
            step = np.zeros(1, self.types["steps"])
            fill(step, self.observer.step())
            events = self.bench.events[self.told :]
            self.heard, self.told = len(self.bench.rows), len(self.bench.events)
            for event in events:
                self.session.hear(event)
            if self.session.look(self.clock.now(), self.bench.state, self.recorded):
                self.bench.say(Command.STOP, ASIDE)
            rows = np.zeros(len(events), EVENT_ROW)
            for row, event in zip(rows, events, strict=True):
                row["t"], row["code"], row["numbers"][: len(event.numbers)] = event.t, event.code, event.numbers
            self.recorder.add({"ticks": self.new, "events": rows, "steps": step}, 0)
            if each():
                return True
        return False

    def reach(self):
        """Lead the tool to the target, one key at a time along the way that is longest, until the task is done."""
        self.scene.task.memory[:] = self.scene.task.begin(self.scene.task.view)

        def look():
            _, done = self.scene.judge(self.bench.worlds[-1])
            way = self.scene.task.target - self.scene.task.view.tool_pose()[:3]
            axis = int(np.argmax(np.abs(way)))
            near = np.abs(way[axis]) < 0.013
            self.typist.hold("" if near or done else ("ws", "ad", "rf")[axis][int(way[axis] < 0)])
            return done

        assert self.run(12.0, look), "the target was not reached"
        self.typist.hold("")
