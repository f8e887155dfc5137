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
from robopol.real_robot.sight import Sight
from robopol.real_robot.states import State
from robopol.real_robot.waypoints import Waypoints
from robopol.real_robot.world import nearest

_LISTENING = (State.ARMED, State.RUNNING, State.HOLD)
_MEMORY = 2.0  # of rows, s, beyond what the policy looks back
_LATENCIES = 20  # the last ones, whose greatest is expected of the next


class Step(NamedTuple):
    """One step of the policy, for the record.

    Attributes:
        t: When it began, ns.
        t_observed: When the newest observation was made, ns.
        epoch: The servo loop's epoch.
        seq: Number of the chunk that was sent, 0 if none was.
        t_created: When that chunk was finished, ns.
        observation: What was seen, pictures included.
        taken: Key of a picture -> when it was taken, ns.
        actions: What was proposed from now on (H, A) in the policy's space; None if nothing was.
    """

    t: int
    t_observed: int
    epoch: int
    seq: int
    t_created: int
    observation: Observation
    taken: dict[str, int]
    actions: NDArray[np.float32] | None


class PolicyLoop:
    """Lets a policy speak to one servo loop.

    A chunk is for the times that it was made for: action k, which in training led from the state at step k to that at
    step k + ``reach``, is to hold ``(k + reach) dt`` after the observation, and a change is relative to what was
    commanded for the time of the observation. A plan that took its time is thus not late, only shorter: in place of the
    actions that are over when it comes, those of the last plan are executed, and it goes on from where they lead to.

    What is observed is what was there at one time and a step, two steps, ... before: the rows and pictures next to
    these times. The newest of them is that of the newest row, or, with cameras, of the newest picture.

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
        sight: Sight | None = None,
        reach: int = 1,
        executed: int | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            policy: The policy.
            robot: The robot.
            observer: What it sees of a row.
            waypoints: What becomes of its actions.
            clock: Time.
            ticks: Returns the rows of the servo loop since the last call.
            post: Sends a packed chunk.
            sight: The cameras that it looks by; None if it looks by none.
            reach: Steps from an action to the time at which it is to hold.
            executed: s, actions of a plan after which the next is asked for; None is the policy's own number.
            seed: All of its noise is drawn from it.
        """
        self.policy, self.robot, self.clock = policy, robot, clock
        self._observer, self._waypoints, self._ticks, self._post = observer, waypoints, ticks, post
        self._sight = sight
        self.id = policy_id(policy)
        self.dt = round(1e9 / policy.spec.control_hz)
        self._reach, self._executed = reach, executed or policy.spec.n_action_steps
        self._generator = torch.Generator().manual_seed(seed)
        self._memory = round(_MEMORY * 1e9) + policy.spec.n_obs_steps * self.dt
        self._rows: deque[tuple[int, np.void]] = deque()  # by when they were received
        self._latencies: deque[int] = deque(maxlen=_LATENCIES)
        self._previous: torch.Tensor | None = None
        self._sent: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None
        # from a chunk's arrival to the first time that the servo loop can still do something about
        self._lead = 2 * robot.period_ns + round(robot.latency * 1e9)
        self._epoch, self._since, self._seq, self._asked = -1, 0, 0, 0

    def run(self, alive: Callable[[], bool], record: Callable[[Step], None]) -> None:
        """Step at the policy's rate while ``alive``; steps that cannot be kept up with are left out."""
        for _ in paced(self.clock, self.dt, alive):
            step = self.step()
            if step is not None:
                record(step)

    def step(self) -> Step | None:
        """Observe, and plan if it is time; returns None if there is nothing yet to be seen, or nothing recent."""
        t = self.clock.now()
        self._hear(t)
        observed = self._observed(t)
        seen = None if observed is None else self._look(observed)
        if observed is None or seen is None:
            self._previous = self._sent = None
            self._since = self._executed  # plan anew as soon as there is something to be seen
            return None
        observation, taken = seen
        row, newest = nearest(self._rows, observed), self._rows[-1][1]
        epoch = int(newest["epoch"])
        if epoch != self._epoch:
            self._epoch, self._since = epoch, self._executed
            self._previous = self._sent = None
        actions, created, seq = None, 0, 0
        # what was seen in an epoch that is over is not acted on in this one
        listening = State(newest["state"]) in _LISTENING and int(row["epoch"]) == epoch
        if listening and self._since >= self._executed:
            committed = self._committed()
            window = self._plan(observed, observation, committed)
            actions = window[self.policy.spec.n_obs_steps - 1 :].numpy()
            created = self.clock.now()
            self._latencies.append(created - observed)
            seq = self._send(actions, observed, created, committed)
            self._previous, self._asked, self._since = window, observed, 0
        self._since += 1
        return Step(t, observed, epoch, seq, created, observation, taken, actions)

    def _hear(self, now: int) -> None:
        """Remember the new rows, and what each of them commands."""
        for row in self._ticks():
            self._rows.append((int(row["t_received"]), row.copy()))
        while len(self._rows) > 1 and self._rows[0][0] < now - self._memory:
            self._rows.popleft()

    def _observed(self, now: int) -> int | None:
        """Return the time of the newest observation, ns; None if there is none."""
        if not self._rows:
            return None
        return self._rows[-1][0] if self._sight is None else self._sight.newest(now)

    def _look(self, t: int) -> tuple[Observation, dict[str, int]] | None:
        """Return what was there at a time, and when its pictures were taken; None if there are none any more."""
        frames = {} if self._sight is None else self._sight.at(t)
        if frames is None:
            return None
        pictures = {key: frame.image for key, frame in frames.items()}
        taken = {key: frame.t for key, frame in frames.items()}
        return self._observer.observe(nearest(self._rows, t)) | pictures, taken

    def _late(self, latency: int) -> int:
        """Return how many actions of a plan are over when it comes, if it comes so late, ns."""
        return max(0, -(-(latency + self._lead) // self.dt) - self._reach)

    def _committed(self) -> int:
        """Return d, how many actions of the last plan will be executed while the next is made."""
        if self._previous is None or not self._latencies:
            return 0
        longest = max(self._latencies)
        return max(-(-longest // self.dt), self._late(longest))

    def _plan(self, t: int, newest: Observation, committed: int) -> torch.Tensor:
        """Return a window (Tp, A) of actions for what was there at ``t`` and before, told of the last one and of d."""
        steps = range(self.policy.spec.n_obs_steps - 1, 0, -1)
        past = [(self._look(t - k * self.dt) or (newest,))[0] for k in steps] + [newest]
        obs = {
            key: torch.from_numpy(np.stack([seen[key] for seen in past]))[None].to(self.policy.device)
            for key in self.policy.spec.obs_shapes
        }
        previous = None
        if self._previous is not None:
            passed = min(round((t - self._asked) / self.dt), len(self._previous) - 1)
            previous = [Previous(self._previous, passed, committed)]
        return self.policy.plan(obs, 1, [self._generator], previous)[0, 0].cpu()

    def _send(self, actions: NDArray[np.float32], observed: int, created: int, committed: int) -> int:
        first, late = observed + self._reach * self.dt, self._late(created - observed)
        points = self._points(actions[:HORIZON_MAX].astype(np.float64), observed, first, late)
        committed = late if self._previous is None else committed  # a first plan has nothing to begin with
        self._sent = first + np.arange(len(points)) * self.dt, points
        self._seq = max(self._seq + 1, created)  # greater than those of a process that died
        chunk = Chunk(self.id, self._seq, self._epoch, observed, created, first, self.dt, points)
        self._post(Chunk(**{**vars(chunk), "committed": committed, "executed": self._executed}).pack())
        return self._seq

    def _points(self, actions: NDArray[np.float64], observed: int, first: int, late: int) -> NDArray[np.float64]:
        """Return the waypoints of a plan; the first, which are too late, are those of the last plan."""
        q, opening = self._commanded(observed)
        if self._sent is None or not 0 < late < len(actions):
            return self._waypoints.points(actions, q, opening)
        times = np.concatenate([[observed], first + np.arange(late) * self.dt])
        way = np.stack([np.interp(times, self._sent[0], column) for column in self._sent[1].T], axis=1)
        start = q if way.shape[1] == len(q) else np.append(q, opening)
        # what the filter made of the last plan up to now stays, so it is its way on that is added
        over = start + way[1:] - way[0]
        over[:, len(q) :] = over[:, len(q) :].clip(0.0, 1.0)
        hand = float(over[-1, -1]) if over.shape[1] > len(q) else opening
        return np.concatenate([over, self._waypoints.points(actions[late:], over[-1, : len(q)], hand)])

    def _commanded(self, t: int) -> tuple[NDArray[np.float64], float]:
        """Return what was commanded to hold at ``t``, or, of what is known, next to it."""
        row = nearest([(int(row["t_hold"]), row) for _, row in self._rows], t)
        opening = float(row["opening"])
        return row["command"].copy(), 0.0 if math.isnan(opening) else opening


def policy_id(policy: Policy) -> bytes:
    """Return 16 bytes that tell a policy from others: a hash of what it is and of its weights."""
    digest = hashlib.sha256(
        repr(sorted(policy.config.tree().items())).encode() + policy.spec.model_dump_json().encode()
    )
    # not its state-dict: packed weights refuse to be saved, and tell by a buffer what they were packed from
    for name, value in sorted([*policy.named_parameters(), *policy.named_buffers()]):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()[:16]
