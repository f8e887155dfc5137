"""A rehearsal: a policy acts in simulation through all of the bridge, in virtual time, and is judged."""

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robopol.envs.config import EnvConfig
from robopol.evaluation.rollout import Outcome
from robopol.execution import ExecutorConfig, RecedingHorizonConfig, check_period
from robopol.policies import Policy
from robopol.real_robot.clock import Clock
from robopol.real_robot.events import Event
from robopol.real_robot.eyes import Eyes, with_cameras
from robopol.real_robot.merging import merging_of
from robopol.real_robot.policy_loop import PolicyLoop
from robopol.real_robot.rigs import InProcess, Rig
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.scenes import Scene
from robopol.real_robot.servo import Servo
from robopol.real_robot.sight import check_cameras
from robopol.real_robot.stage import Stage
from robopol.real_robot.states import Command, State
from robopol.real_robot.waypoints import waypoints_for
from robopol.real_robot.world import World

_ARMING = 0.2  # from the connection to the word to run, s
_PATIENCE = 1_000_000_000  # for the first motion, ns; an episode whose plans are all refused ends too


class _Slot:
    """A mailbox within one process."""

    message: bytes | None = None

    def take(self) -> bytes | None:
        message, self.message = self.message, None
        return message


class _Script:
    """An operator who says what is written, is there and holds the switch."""

    def __init__(self, clock: Clock) -> None:
        self.orders: list[tuple[int, int]] = []
        self._clock = clock

    def commands(self) -> list[tuple[int, int]]:
        orders, self.orders = self.orders, []
        return orders

    def held(self) -> int:
        return self._clock.now()

    def attended(self) -> int:
        return self._clock.now()


def rehearse(
    policy: Policy,
    robot: RobotConfig,
    env: EnvConfig,
    seeds: Sequence[int],
    *,
    latency: float = 0.0,
    matched: bool = True,
    reach: int = 1,
    execution: ExecutorConfig | None = None,
    rig: Rig | None = None,
    report: Callable[[int, Event], None] = lambda seed, event: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Let a policy act in a task of the arm suite: servo loop, filter and driver in lock-step with the arm.

    An episode ends with the task's success or at its limit of steps. These are counted as in the simulator: the first
    is over a step after the first command of the policy was to hold, or a second after that was due. It is a function
    of its seed. Cameras take their pictures between two ticks; what they take is
    late by their own latency, and by that of the chunks.

    Args:
        policy: The policy.
        robot: A simulated UR5e with a gripper. If it has no cameras, it gets those of the policy's task.
        env: The task.
        seeds: One for each episode.
        latency: Time by which chunks are late, s.
        matched: Whether chunks say truly when their observation was made; if not, as a bridge would have it that knows
            nothing of latency, their actions are executed when they come.
        reach: Steps from an action to the time at which it is to hold, `robopol.real_robot.policy_process.Speaker`.
        execution: How its plans are executed; None is receding horizon.
        rig: Where the arm is; None is the simulated driver, and others have an emulated wire between.
        report: Told of every event, with the seed of its episode.
        on_outcome: Told of each episode as it ends.

    Returns:
        How the episodes went; the step of a success is the one at whose end it was seen.

    Raises:
        ConfigError: If policy, robot and task do not fit together.
    """
    scene, rig, outcomes = Scene(env), rig or InProcess(), []
    robot = with_cameras(robot, policy.spec, policy.spec.control_hz)
    check_cameras(policy.spec, robot.cameras, recorded=False)
    execution = execution or RecedingHorizonConfig()
    policy = execution.prepared(policy)
    check_period(policy.spec, execution.period(policy.spec))
    robot = robot.heard_every(execution.period(policy.spec) / policy.spec.control_hz + latency)
    late = round(latency * 1e9)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path, stage = Path(folder, "scene.xml"), None
        for seed in seeds:
            placed = scene.reset(seed, path, robot)
            if robot.cameras and stage is None:
                stage = Stage(str(path), lambda: None)
                stack.callback(stage.close)
            one = _Episode(policy, placed, scene, rig, seed, late, matched, reach, execution, report, stage)
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
        rig: Rig,
        seed: int,
        latency: int,
        matched: bool,
        reach: int,
        execution: ExecutorConfig,
        report: Callable[[int, Event], None],
        stage: Stage | None,
    ) -> None:
        robot = rig.fit(robot)
        self.robot, self.scene, self.rig, self.seed = robot, scene, rig, seed
        self.driver, self.clock = rig.place(robot)
        self.mailbox, self.operator = _Slot(), _Script(self.clock)
        self._latency, self._matched = latency, matched
        self._past: deque[tuple[int, NDArray[np.void], World]] = deque()
        told = lambda event: report(seed, event)  # noqa: E731
        self.eyes = None if stage is None else Eyes(robot, stage, self.clock, self._world, self._latency, matched, told)
        self.loop = PolicyLoop(
            policy,
            robot,
            scene,
            waypoints_for(policy.spec, robot),
            self.clock,
            self._seen,
            self._post,
            sight=None if self.eyes is None else self.eyes.sight,
            reach=reach,
            executed=execution.period(policy.spec),
            seed=seed,
            report=told,
        )
        mailboxes = {State.RUNNING: self.mailbox}
        self.servo = Servo(
            robot,
            self.driver,
            self.clock,
            self.operator,
            mailboxes,
            self.loop.id,
            told,
            self._publish,
            merging=merging_of(execution.merging),
        )

    def run(self) -> Outcome:
        """Run it to its end."""
        limit, machine = self.scene.task.options.max_episode_steps or 0, self.servo.life.machine
        self.servo.connect()
        period, t = self.robot.period_ns, self.clock.now()
        self.operator.orders.append((Command.ARM, 0))
        begin = t + -(-round(_ARMING * 1e9) // period) * period
        last = begin + self._latency + _PATIENCE
        steps, total, success, due, over = 0, 0.0, False, begin, 0
        while not success and steps < limit and machine.state not in (State.FAULT, State.ESTOP):
            t += period
            self.clock.sleep_until(t)
            if t == begin:
                self.operator.orders.append((Command.RUN, 0))
            self.servo.tick(t)
            if self.eyes is not None:
                self.eyes.look()
            if not over and (machine.state is State.RUNNING or t > last):
                over = self.servo.life.motion.holds_at(t) + self.loop.dt  # the first step of the policy
            if over and self._past[-1][0] >= over:
                reward, success = self.scene.judge(self._past[-1][2])
                steps, total, over = steps + 1, total + reward + success, over + self.loop.dt
            if t >= due:
                due += self.loop.dt
                self.loop.step()
        self.driver.close()
        self.rig.leave()
        if self.eyes is not None:
            self.eyes.close()
        return Outcome(seed=self.seed, success=success, total_reward=total, length=steps, way=None)

    def _world(self) -> World:
        """Return the world as it is now."""
        return self._past[-1][2]

    def _publish(self, row: NDArray[np.void]) -> None:
        t = self.clock.now()
        self._past.append((t, row.copy(), self.rig.world(int(row["t_received"][0]))))

    def _seen(self) -> NDArray[np.void]:
        """Return the rows that have arrived at the policy, and let it see their worlds."""
        now, last = self.clock.now(), self._past[-1]
        rows = []
        while self._past and self._past[0][0] <= now - self._latency:
            _, row, world = self._past.popleft()
            if not self._matched:
                row["t_received"], row["t_hold"] = now, now
                row["command"], row["opening"] = last[1]["command"], last[1]["opening"]
                world = world._replace(t=now)
            self.scene.worlds.add(world)
            rows.append(row)
        if not self._past:
            self._past.append(last)
        return np.concatenate(rows) if rows else last[1][:0]

    def _post(self, message: bytes) -> None:
        self.mailbox.message = message
