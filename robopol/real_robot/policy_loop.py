"""The policy's side: observe at its own rate, plan when it is time, send chunks that say when they are meant for."""

import hashlib
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from robopol.policies import Policy, Previous
from robopol.real_robot.chunk import HORIZON_MAX, Chunk
from robopol.real_robot.clock import Clock, paced
from robopol.real_robot.observing import Observation, Observer
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import State
from robopol.real_robot.waypoints import Waypoints

_LISTENING = (State.ARMED, State.RUNNING, State.HOLD)
_MEMORY = 2.0  # of commands, s
_LATENCIES = 20  # the last ones, whose greatest is expected of the next


class Step(NamedTuple):
    """One step of the policy, for the record.

    Attributes:
        t: When it began, ns.
        t_observed: When the newest observation was made, ns.
        epoch: The servo loop's epoch.
        seq: Number of the chunk that was sent, 0 if none was.
        t_created: When that chunk was finished, ns.
        observation: What was seen.
        actions: What was proposed from now on (H, A) in the policy's space; None if nothing was.
    """

    t: int
    t_observed: int
    epoch: int
    seq: int
    t_created: int
    observation: Observation
    actions: NDArray[np.float32] | None


class PolicyLoop:
    """Lets a policy speak to one servo loop.

    A chunk is for the times that it was made for: action k, which in training led from the state at step k to that at
    step k + ``reach``, is to hold ``(k + reach) dt`` after the observation, and a change is relative to what was
    commanded for the time of the observation. A plan that took its time is thus not late, only shorter.

    Attributes:
        id: 16 bytes that name the policy.
        dt: Time between two actions, ns.
    """

    def __init__(
        self,
        policy: Policy,
        robot: RobotConfig,
        observer: Observer,
        waypoints: Waypoints,
        clock: Clock,
        ticks: Callable[[], NDArray[np.void]],
        post: Callable[[bytes], None],
        *,
        reach: int = 1,
        executed: int | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            policy: The policy.
            robot: The robot.
            observer: What it sees.
            waypoints: What becomes of its actions.
            clock: Time.
            ticks: Returns the rows of the servo loop since the last call.
            post: Sends a packed chunk.
            reach: Steps from an action to the time at which it is to hold.
            executed: s, actions of a plan after which the next is asked for; None is the policy's own number.
            seed: All of its noise is drawn from it.
        """
        self.policy, self.robot, self.clock = policy, robot, clock
        self._observer, self._waypoints, self._ticks, self._post = observer, waypoints, ticks, post
        self.id = policy_id(policy)
        self.dt = round(1e9 / policy.spec.control_hz)
        self._reach, self._executed = reach, executed or policy.spec.n_action_steps
        self._generator = torch.Generator().manual_seed(seed)
        self._history: deque[Observation] = deque(maxlen=policy.spec.n_obs_steps)
        self._commands: deque[tuple[int, NDArray[np.float64], float]] = deque()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._row: np.void | None = None
        self._previous: torch.Tensor | None = None
        self._epoch, self._since, self._seq = -1, 0, 0

    def run(self, alive: Callable[[], bool], record: Callable[[Step], None]) -> None:
        """Step at the policy's rate while ``alive``; steps that cannot be kept up with are left out."""
        for _ in paced(self.clock, self.dt, alive):
            step = self.step()
            if step is not None:
                record(step)

    def step(self) -> Step | None:
        """Observe, and plan if it is time; returns None if the servo loop has not been heard yet."""
        t = self.clock.now()
        row = self._newest(t)
        if row is None:
            return None
        observation, observed, epoch = self._observer.observe(row), int(row["t_received"]), int(row["epoch"])
        self._history.append(observation)
        if epoch != self._epoch:
            self._epoch, self._previous, self._since = epoch, None, self._executed
        actions, created, seq = None, 0, 0
        if State(row["state"]) in _LISTENING and self._since >= self._executed:
            window = self._plan()
            actions = window[self.policy.spec.n_obs_steps - 1 :].numpy()
            created = self.clock.now()
            self._latencies.append((created - observed) * 1e-9)
            seq = self._send(actions, observed, created)
            self._previous, self._since = window, 0
        self._since += 1
        return Step(t, observed, epoch, seq, created, observation, actions)

    def _newest(self, now: int) -> np.void | None:
        """Return the newest row, and remember what all of them command."""
        for row in self._ticks():
            self._row = row.copy()
            self._commands.append((int(row["t_hold"]), row["command"].copy(), float(row["opening"])))
        while len(self._commands) > 1 and self._commands[0][0] < now - _MEMORY * 1e9:
            self._commands.popleft()
        return self._row

    def _plan(self) -> torch.Tensor:
        """Return a window (Tp, A) of the policy's actions."""
        past = [self._history[0]] * (self.policy.spec.n_obs_steps - len(self._history)) + list(self._history)
        obs = {
            key: torch.from_numpy(np.stack([seen[key] for seen in past]))[None].to(self.policy.device)
            for key in self.policy.spec.obs_shapes
        }
        previous = None if self._previous is None else [Previous(self._previous, self._since)]
        return self.policy.plan(obs, 1, [self._generator], previous)[0, 0].cpu()

    def _send(self, actions: NDArray[np.float32], observed: int, created: int) -> int:
        q, opening = self._commanded(observed)
        points = self._waypoints.points(actions.astype(np.float64)[:HORIZON_MAX], q, opening)
        self._seq = max(self._seq + 1, created)  # greater than those of a process that died
        committed = 0 if self._previous is None else math.ceil(max(self._latencies) * 1e9 / self.dt)
        first = observed + self._reach * self.dt
        chunk = Chunk(self.id, self._seq, self._epoch, observed, created, first, self.dt, points)
        self._post(Chunk(**{**vars(chunk), "committed": committed, "executed": self._executed}).pack())
        return self._seq

    def _commanded(self, t: int) -> tuple[NDArray[np.float64], float]:
        """Return what was commanded to hold at ``t``, or, of what is known, next to it."""
        _, q, opening = min(self._commands, key=lambda command: abs(command[0] - t))
        return q, 0.0 if math.isnan(opening) else opening


def policy_id(policy: Policy) -> bytes:
    """Return 16 bytes that tell a policy from others: a hash of what it is and of its weights."""
    digest = hashlib.sha256(
        repr(sorted(policy.config.tree().items())).encode() + policy.spec.model_dump_json().encode()
    )
    for name, value in sorted(policy.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()[:16]
