"""A rehearsal: a policy acts in simulation through all of the bridge, in virtual time, and is judged."""

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robopol.envs.config import EnvConfig
from robopol.evaluation.rollout import Outcome
from robopol.policies import Policy
from robopol.real_robot.clock import Clock
from robopol.real_robot.events import Event
from robopol.real_robot.policy_loop import PolicyLoop
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.scenes import Scene, World
from robopol.real_robot.servo import Servo
from robopol.real_robot.stages import InProcess, Stage
from robopol.real_robot.states import Command, State
from robopol.real_robot.waypoints import waypoints_for

_ARMING = 0.2  # from the connection to the word to run, s
_PATIENCE = 1_000_000_000  # for the first motion, ns; an episode whose plans are all refused ends too


class _Slot:
    """A mailbox within one process."""

    message: bytes | None = None

    def take(self) -> bytes | None:
        message, self.message = self.message, None
        return message


class _Script:
    """An operator who says what is written, and holds the switch."""

    def __init__(self, clock: Clock) -> None:
        self.orders: list[tuple[int, int]] = []
        self._clock = clock

    def commands(self) -> list[tuple[int, int]]:
        orders, self.orders = self.orders, []
        return orders

    def held(self) -> int:
        return self._clock.now()


def rehearse(
    policy: Policy,
    robot: RobotConfig,
    env: EnvConfig,
    seeds: Sequence[int],
    *,
    latency: float = 0.0,
    matched: bool = True,
    executed: int | None = None,
    stage: Stage | None = None,
    report: Callable[[int, Event], None] = lambda seed, event: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Let a policy act in a task of the arm suite: servo loop, filter and driver in lock-step with the arm.

    An episode ends with the task's success or at its limit of steps, counted from the first motion on, or a second
    after that was due. It is a function of its seed.

    Args:
        policy: The policy.
        robot: A simulated UR5e with a gripper.
        env: The task.
        seeds: One for each episode.
        latency: Time by which chunks are late, s.
        matched: Whether chunks say truly when their observation was made; if not, as a bridge would have it that knows
            nothing of latency, their actions are executed when they come.
        executed: Actions of a plan after which the next is asked for; None is the policy's own number.
        stage: Where the arm is; None is the simulated driver, and others have an emulated wire between.
        report: Told of every event, with the seed of its episode.
        on_outcome: Told of each episode as it ends.

    Returns:
        How the episodes went; the step of a success is the one at whose end it was seen.

    Raises:
        ConfigError: If policy, robot and task do not fit together.
    """
    scene, stage, outcomes = Scene(env), stage or InProcess(), []
    robot = robot.heard_every((executed or policy.spec.n_action_steps) / policy.spec.control_hz + latency)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            placed = scene.reset(seed, Path(folder, "scene.xml"), robot)
            one = _Episode(policy, placed, scene, stage, seed, round(latency * 1e9), matched, executed, report)
            outcomes.append(one.run())
            on_outcome(outcomes[-1])
    return outcomes


class _Episode:
    """One episode."""

    def __init__(
        self,
        policy: Policy,
        robot: RobotConfig,
        scene: Scene,
        stage: Stage,
        seed: int,
        latency: int,
        matched: bool,
        executed: int | None,
        report: Callable[[int, Event], None],
    ) -> None:
        self.robot, self.scene, self.stage, self.seed = robot, scene, stage, seed
        self.driver, self.clock = stage.place(robot)
        self.mailbox, self.operator = _Slot(), _Script(self.clock)
        self._latency, self._matched = latency, matched
        self._past: deque[tuple[int, NDArray[np.void], World]] = deque()
        self._fresh: list[NDArray[np.void]] = []
        waypoints = waypoints_for(policy.spec, robot)
        self.loop = PolicyLoop(
            policy, robot, scene, waypoints, self.clock, self._seen, self._post, executed=executed, seed=seed
        )
        mailboxes = {State.RUNNING: self.mailbox}
        told = lambda event: report(seed, event)  # noqa: E731
        self.servo = Servo(robot, self.driver, self.clock, self.operator, mailboxes, self.loop.id, told, self._publish)

    def run(self) -> Outcome:
        """Run it to its end."""
        limit, machine = self.scene.task.options.max_episode_steps or 0, self.servo.life.machine
        self.servo.connect()
        period, t = self.robot.period_ns, self.clock.now()
        self.operator.orders.append((Command.ARM, 0))
        begin = t + -(-round(_ARMING * 1e9) // period) * period
        last = begin + self._latency + _PATIENCE
        steps, total, success, moving, due = 0, 0.0, False, False, begin
        while not success and steps < limit and machine.state not in (State.FAULT, State.ESTOP):
            t += period
            self.clock.sleep_until(t)
            if t == begin:
                self.operator.orders.append((Command.RUN, 0))
            self.servo.tick(t)
            if t < due:
                continue
            due += self.loop.dt
            self.scene.world = self._past[-1][2]
            if moving:
                reward, success = self.scene.judge()
                steps, total = steps + 1, total + reward + success
            moving = moving or machine.state is State.RUNNING or (t == begin and not self._latency) or t > last
            self.loop.step()
        self.driver.close()
        self.stage.leave()
        return Outcome(seed=self.seed, success=success, total_reward=total, length=steps, way=None)

    def _publish(self, row: NDArray[np.void]) -> None:
        self._past.append((int(row["t"][0]), row.copy(), self.stage.world()))

    def _seen(self) -> NDArray[np.void]:
        """Return the rows that have arrived at the policy, and show the world of the newest."""
        now, last = self.clock.now(), self._past[-1]
        rows = []
        while self._past and self._past[0][0] <= now - self._latency:
            _, row, self.scene.world = self._past.popleft()
            if not self._matched:
                row["t_received"], row["t_hold"] = now, now
                row["command"], row["opening"] = last[1]["command"], last[1]["opening"]
            rows.append(row)
        if not self._past:
            self._past.append(last)
        return np.concatenate(rows) if rows else last[1][:0]

    def _post(self, message: bytes) -> None:
        self.mailbox.message = message
