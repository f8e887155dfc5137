"""What is recorded of every step of a policy."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.data.episodes import is_image
from robopol.policies import PolicySpec
from robopol.real_robot.chunk import ID_BYTES
from robopol.real_robot.observing import Observation


class Asked(NamedTuple):
    """What came of asking the policy once.

    Attributes:
        t_asked: When it was asked, ns.
        t_planned: When its plan was there, ns; 0 if none came.
        t_created: When that had become joint positions, ns; 0 if it did not.
        t_sent: When the chunk was sent, ns; 0 if none was.
        seq: Number of that chunk; 0 if none was sent.
        seed: The generator of the plan's noise was seeded with it.
        committed: d, actions of the running plan that the new one begins with.
        executed: s, actions of it that are meant to be executed.
        candidates: N, plans that it was chosen from, as far as it is known here.
        chosen: Which of them it is, from 0.
        actions: What was proposed from now on (H, A) in the policy's space; None if nothing was.
    """

    t_asked: int = 0
    t_planned: int = 0
    t_created: int = 0
    t_sent: int = 0
    seq: int = 0
    seed: int = -1
    committed: int = 0
    executed: int = 0
    candidates: int = 0
    chosen: int = -1
    actions: NDArray[np.float32] | None = None


NOT_ASKED = Asked()


class Step(NamedTuple):
    """One step of the policy, for the record.

    Attributes:
        t: When it began, ns.
        t_observed: When the newest observation was made, ns.
        epoch: The servo loop's epoch.
        observation: What was seen, pictures included.
        taken: Key of a picture -> when it was taken, ns.
        asked: What the policy was asked and said, if it was.
        policy: Id of the policy, its weights included, `ID_BYTES`; zeros where there is none.
    """

    t: int
    t_observed: int
    epoch: int
    observation: Observation
    taken: dict[str, int]
    asked: Asked = NOT_ASKED
    policy: bytes = bytes(ID_BYTES)


_STEP, _ASKED = ("t", "t_observed", "epoch"), tuple(name for name in Asked._fields if name != "actions")


def step_type(spec: PolicySpec) -> np.dtype[np.void]:
    """Return the row of a policy's step: times, ns, whose it is, what was seen, and what is in `Asked`.

    Of a picture it has the time, ns, at which it was taken; the picture itself is on the camera's film.
    """
    head: list[Any] = [(name, np.int64) for name in (*_STEP, *_ASKED)] + [("policy", np.uint8, (ID_BYTES,))]
    seen: list[Any] = [
        (f"taken.{key}", np.int64) if is_image(key) else (f"obs.{key}", np.float32, shape)
        for key, shape in spec.obs_shapes.items()
    ]
    return np.dtype([*head, *seen, ("actions", np.float32, (spec.chunk, spec.action_dim))])


def fill(row: NDArray[np.void], step: Step) -> None:
    """Write a step into a row, a structured array (1,) of `step_type`."""
    for name in _STEP:
        row[name] = getattr(step, name)
    for name in _ASKED:
        row[name] = getattr(step.asked, name)
    row["policy"] = np.frombuffer(step.policy, np.uint8)
    for key, value in step.observation.items():
        if not is_image(key):
            row[f"obs.{key}"] = value
    for key, t in step.taken.items():
        row[f"taken.{key}"] = t
    row["actions"] = math.nan if step.asked.actions is None else step.asked.actions


class Latency(NamedTuple):
    """Where the time goes from an observation until the arm follows the plan that was made of it, s.

    Attributes:
        capture: Until a step of the policy had it before it.
        queue: Until the policy was asked.
        infer: Until its plan was there.
        convert: Until that had become joint positions.
        ipc: Until the chunk of these was sent.
        wait: Until the servo loop took it.
    """

    capture: float
    queue: float
    infer: float
    convert: float
    ipc: float
    wait: float


def latencies(steps: NDArray[np.void], ticks: NDArray[np.void]) -> list[Latency]:
    """Return the parts of the latency of every chunk of a recorded episode that the servo loop took.

    Args:
        steps: Rows of `step_type`.
        ticks: Rows of `robopol.real_robot.ticks.tick_type`.
    """
    found = []
    for step in steps[steps["seq"] > 0]:
        taken = ticks[ticks["chunk"] == step["seq"]]
        if len(taken):
            times = [int(step[name]) for name in ("t_observed", "t", "t_asked", "t_planned", "t_created", "t_sent")]
            times.append(int(taken["t"][0] + taken["late"][0]))
            found.append(Latency(*(float(part) for part in np.diff(times) * 1e-9)))
    return found
