"""The policy's side: observe at its own rate, plan when it is time, send chunks that say when they are meant for."""

import math
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from robopol.errors import RemoteError
from robopol.policies import Policy, Previous
from robopol.real_robot.chunk import HORIZON_MAX, ID_BYTES, Chunk, Refusal, Rejection
from robopol.real_robot.clock import Clock, paced
from robopol.real_robot.events import Code, Event, Severity
from robopol.real_robot.motion import STILL
from robopol.real_robot.observing import Observation, Observer
from robopol.real_robot.proposal import ProposalGate
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.sent import Handover, Plan, Sent
from robopol.real_robot.sight import PREFIX, Sight
from robopol.real_robot.states import WRITING, State
from robopol.real_robot.steps import NOT_ASKED, Asked, Step
from robopol.real_robot.waypoints import Waypoints
from robopol.real_robot.world import nearest

_LISTENING = (State.ARMED, State.RUNNING, State.HOLD)
_MEMORY = 2.0  # of rows, s, beyond what the policy looks back
_LATENCIES = 20  # the last ones, whose greatest is expected of the next


class PolicyLoop:
    """Lets a policy speak to one servo loop.

    A chunk is for the times that it was made for: action k, which in training led from the state at step k to that at
    step k + ``reach``, is to hold ``(k + reach) dt`` after the observation, and a change is relative to what was
    commanded for the time of the observation. A plan that took its time is thus not late, only shorter: in place of the
    actions that are over when it comes, those of the plan that is followed are executed, and it goes on from where they
    lead to. Where none is followed and the arm rested since the observation, nothing is over: the whole plan is
    executed, from the time on at which it can be.

    Which plan is followed is what the rows of the servo loop say. It is asked for the next one after ``executed``
    steps, and not before it is known what became of the last.

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
        report: Callable[[Event], None] = lambda event: None,
        complain: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Prepare.

        Args:
            policy: The policy.
            robot: The robot.
            observer: What it sees of a row.
            waypoints: What becomes of its actions.
            clock: Time.
            ticks: Returns the rows of the servo loop since the last call.
            post: Sends a packed chunk, or a packed refusal in place of one.
            sight: The cameras that it looks by; None if it looks by none.
            reach: Steps from an action to the time at which it is to hold.
            executed: s, actions of a plan after which the next is asked for; None is the policy's own number.
            seed: All of its noise is drawn from it.
            report: Told of every event.
            complain: Told, in words, why the policy's server cannot be asked, once for each reason.
        """
        self.policy, self.robot, self.clock = policy, robot, clock
        self._observer, self._waypoints, self._ticks, self._post = observer, waypoints, ticks, post
        self._sight, self._report, self._complain = sight, report, complain
        self.id = policy.fingerprint()[:ID_BYTES]
        self.dt = round(1e9 / policy.spec.control_hz)
        self._reach, self._executed = reach, executed or policy.spec.n_action_steps
        self._seed, self._count = seed, 0
        self._memory = round(_MEMORY * 1e9) + policy.spec.n_obs_steps * self.dt
        self._rows: deque[tuple[int, np.void]] = deque()  # by when they were received
        # from the observation to the chunk; and of that, from the plan, as inverse kinematics takes its time too
        self._latencies: deque[int] = deque(maxlen=_LATENCIES)
        self._conversions: deque[int] = deque(maxlen=_LATENCIES)
        self._sent, self._gate = Sent(), ProposalGate(policy.spec, robot.gate)
        # from a chunk's arrival to the first time that the servo loop can still do something about
        self._lead = 2 * robot.period_ns + round(robot.latency * 1e9)
        self._epoch, self._since, self._seq = -1, 0, 0
        self._away, self._words = 0, ""

    def hear(self) -> None:
        """Hear what the arm does and say nothing: another policy speaks."""
        self._hear(self.clock.now())

    def hand_over(self) -> Handover:
        """Return what a policy must know that takes the place of this one; nothing more is to be asked of this one."""
        return Handover(self._epoch, tuple(self._latencies), tuple(self._sent.known))

    def take_over(self, known: Handover) -> None:
        """Go on in the place of another policy: with the next step it is asked, and told the plan that is followed."""
        self._epoch, self._since = known.epoch, self._executed
        self._latencies.extend(known.latencies)
        self._sent.inherit(known.plans)

    def run(self, alive: Callable[[], bool], record: Callable[[Step], None]) -> None:
        """Step at the policy's rate while ``alive``; steps that cannot be kept up with are only recorded, later."""
        last: Step | None = None
        for _ in paced(self.clock, self.dt, alive):
            self._settle()
            step = self.step()
            if step is not None:
                for missed in self._between(last, step):
                    record(missed)
                record(step)
            last = step

    def step(self) -> Step | None:
        """Observe, and plan if it is time; returns None if there is nothing yet to be seen, or nothing recent."""
        t = self.clock.now()
        self._hear(t)
        observed = self._observed(t)
        seen = None if observed is None else self._look(observed)
        if observed is None or seen is None:
            self._since = self._executed  # plan anew as soon as there is something to be seen
            return None
        observation, taken = seen
        row, newest = nearest(self._rows, observed), self._rows[-1][1]
        epoch = int(newest["epoch"])
        if epoch != self._epoch:
            self._epoch, self._since = epoch, self._executed
            self._sent.forget()
        asked = NOT_ASKED
        # what was seen in an epoch that is over is not acted on in this one
        listening = State(newest["state"]) in _LISTENING and int(row["epoch"]) == epoch
        if listening and self._since >= self._executed and not self._sent.undecided:
            asked = self._ask(observed, observation)
            if asked.seq:
                self._since = 0
        self._since += 1
        return Step(t, observed, epoch, observation, taken, asked, self.id)

    def _between(self, last: Step | None, step: Step) -> Iterator[Step]:
        """Return the steps that passed between two, as while a plan was made, as far as what they saw is remembered."""
        count = 1 if last is None else round((step.t - last.t) / self.dt)
        for k in range(1, count):
            assert last is not None
            t, observed = (a + (b - a) * k // count for a, b in ((last.t, step.t), (last.t_observed, step.t_observed)))
            row, seen = nearest(self._rows, observed), self._look(observed)
            if seen is not None and self._recalled(observed, row, seen[1]):
                yield Step(t, observed, int(row["epoch"]), *seen, NOT_ASKED, self.id)

    def _recalled(self, t: int, row: np.void, taken: dict[str, int]) -> bool:
        """Say whether a row and pictures are of a step at ``t``, ns, and not only the oldest that are left."""
        half, cameras = self.dt // 2, self.robot.cameras
        near = {key: max(half, cameras[key.removeprefix(PREFIX)].period_ns) for key in taken}
        return abs(int(row["t_received"]) - t) <= half and all(abs(taken[key] - t) <= near[key] for key in taken)

    def _ask(self, observed: int, observation: Observation) -> Asked:
        """Let the policy plan, and send what it says unless that is no plan."""
        committed, seed, t = self._committed(), self._next_seed(), self.clock.now()
        asked = Asked(t, seed=seed, committed=committed, executed=max(self._executed, committed))
        try:
            window = self._plan(observed, observation, committed, seed)
        except RemoteError as error:
            self._lose(error)
            return asked
        self._regain()
        planned = self.clock.now()
        actions, choice = window[self.policy.spec.n_obs_steps - 1 :].numpy(), self.policy.choice
        asked = asked._replace(t_planned=planned, actions=actions)
        if choice is not None:
            asked = asked._replace(candidates=choice.candidates, chosen=int(choice.chosen[0, 0]))
        found = self._gate.judge(actions)
        if isinstance(found, Rejection):
            self._tell(found.code, *found.numbers)
            self._post(Refusal(self.id, self._epoch).pack())
            return asked
        if found:
            self._tell(Code.CHUNK_CLIPPED, found)
        return self._send(asked, window, observed)

    def _send(self, asked: Asked, window: torch.Tensor, observed: int) -> Asked:
        assert asked.actions is not None
        actions, planned = asked.actions[:HORIZON_MAX].astype(np.float64), asked.t_planned
        followed, committed = self._sent.followed, asked.committed
        if followed is None and self._rested(observed):
            points, committed = self._waypoints.points(actions, *self._commanded(observed)), 0
            created = self.clock.now()
            # made good in less time than they were planned for, the first actions would be a lurch
            first = created + self._lead + self._reach * self.dt
        else:
            first = observed + self._reach * self.dt
            late = self._late(planned + max(self._conversions, default=0) - observed)
            points = self._points(followed, actions, observed, first, late)
            committed = late if followed is None else committed  # there is nothing to begin with
            created = self.clock.now()
        self._conversions.append(created - planned)
        self._latencies.append(created - observed)
        self._seq = max(self._seq + 1, created)  # greater than those of a process that died
        # it is followed until the next one comes, which is as late: d steps at least
        executed = max(self._executed, committed)
        chunk = Chunk(self.id, self._seq, self._epoch, observed, created, first, self.dt, points, committed, executed)
        self._post(chunk.pack())
        sent = self.clock.now()
        self._sent.send(Plan(self._seq, sent, window, first - self._reach * self.dt, chunk.times(), points))
        return asked._replace(t_created=created, t_sent=sent, seq=self._seq, committed=committed, executed=executed)

    def _settle(self) -> None:
        """Wait for the tick that takes the last plan, if it was sent only just now: a step is much to be late by."""
        end = self.clock.now() + self._lead + self.robot.period_ns  # its row comes after the arm was read
        while self._sent.undecided and (now := self.clock.now()) < end:
            self.clock.sleep_until(now + self.robot.period_ns)
            self._hear(self.clock.now())

    def _hear(self, now: int) -> None:
        """Remember the new rows, and what each of them commands."""
        for row in self._ticks():
            self._rows.append((int(row["t_received"]), row.copy()))
            self._sent.hear(row)
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
        """Return d, how many actions of the plan that is followed will be executed while the next is made."""
        if self._sent.followed is None or not self._latencies:
            return 0
        longest = max(self._latencies)
        return max(-(-longest // self.dt), self._late(longest))

    def _next_seed(self) -> int:
        """Return the seed of a plan's noise; that of the first is the loop's own, as of an episode in process."""
        self._count += 1
        drawn = np.random.SeedSequence((self._seed, self._count)).generate_state(1, np.uint64)[0]
        return self._seed if self._count == 1 else int(drawn >> np.uint64(1))

    def _plan(self, t: int, newest: Observation, committed: int, seed: int) -> torch.Tensor:
        """Return a window (Tp, A) of actions for what was there at ``t`` and before, told of the last one and of d."""
        steps = range(self.policy.spec.n_obs_steps - 1, 0, -1)
        past = [(self._look(t - k * self.dt) or (newest,))[0] for k in steps] + [newest]
        obs = {
            key: torch.from_numpy(np.stack([seen[key] for seen in past]))[None].to(self.policy.device)
            for key in self.policy.spec.obs_shapes
        }
        previous, followed = None, self._sent.followed
        if followed is not None:
            passed = max(0, min(round((t - followed.asked) / self.dt), len(followed.window) - 1))
            previous = [Previous(followed.window, passed, committed)]
        return self.policy.plan(obs, 1, [torch.Generator().manual_seed(seed)], previous)[0, 0].cpu()

    def _points(
        self, followed: Plan | None, actions: NDArray[np.float64], observed: int, first: int, late: int
    ) -> NDArray[np.float64]:
        """Return the waypoints of a plan; the first, which are too late, are those of the plan that is followed."""
        q, opening = self._commanded(observed)
        if followed is None or not 0 < late < len(actions):
            return self._waypoints.points(actions, q, opening)
        way = followed.at(np.concatenate([[observed], first + np.arange(late) * self.dt]))
        start = q if way.shape[1] == len(q) else np.append(q, opening)
        # what the filter made of that plan up to now stays, so it is its way on that is added
        over = start + way[1:] - way[0]
        over[:, len(q) :] = over[:, len(q) :].clip(0.0, 1.0)
        hand = float(over[-1, -1]) if over.shape[1] > len(q) else opening
        return np.concatenate([over, self._waypoints.points(actions[late:], over[-1, : len(q)], hand)])

    def _rested(self, since: int) -> bool:
        """Say whether the arm was commanded to rest, as far as it is known, all the time since then, ns."""
        rows = [nearest(self._rows, since), *(row for t, row in self._rows if t > since)]
        still = all(float(np.abs(row["command_speed"]).max()) < STILL for row in rows)
        return still and not float(np.ptp([float(row["opening"]) for row in rows])) > STILL

    def _commanded(self, t: int) -> tuple[NDArray[np.float64], float]:
        """Return what was commanded to hold at ``t``, between two ticks; or, of what is known, next to it."""
        rows = np.array([row for _, row in self._rows if row["state"] in WRITING] or [self._rows[-1][1]])
        columns = [*rows["command"].T, rows["opening"]]
        since = (rows["t_hold"] - t).astype(np.float64)
        *q, opening = (float(np.interp(0.0, since, column)) for column in columns)
        return np.array(q), 0.0 if math.isnan(opening) else opening

    def _lose(self, error: RemoteError) -> None:
        """Report that the policy cannot be asked, once; the arm follows its plan to the end and holds meanwhile."""
        if not self._away:
            self._away = self.clock.now()
            self._tell(Code.POLICY_AWAY)
        if str(error) != self._words:
            self._words = str(error)
            self._complain(self._words)

    def _regain(self) -> None:
        """Report that the policy is back, if it was away."""
        if self._away:
            self._tell(Code.POLICY_BACK, (self.clock.now() - self._away) * 1e-9)
            self._away, self._words = 0, ""

    def _tell(self, code: Code, *numbers: float) -> None:
        severity = Severity.INFO if code is Code.POLICY_BACK else Severity.WARNING
        self._report(Event(self.clock.now(), code, severity, numbers))
