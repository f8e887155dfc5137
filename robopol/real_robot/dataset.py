"""From recorded episodes to a dataset: what was observed, and what was done about it, by whomever."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol import __version__
from robopol.config import parse
from robopol.data import EpisodeBuilder, Episodes, EpisodesMeta
from robopol.errors import DataError
from robopol.policies import PolicySpec
from robopol.real_robot.pictures import Pictures
from robopol.real_robot.recorder import load, load_pictures
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.sight import PREFIX
from robopol.real_robot.states import MOVING, State
from robopol.real_robot.ticks import Source
from robopol.real_robot.waypoints import waypoints_for

SOURCES = ("policy", "human")
"""Who chose an action."""
HOLE = 1.5
"""Times of a step from which on two steps do not follow each other."""


def episodes_of(folders: Sequence[str | Path]) -> Episodes:
    """Make a dataset of recorded episodes, one row a step of the policy.

    Three kinds of action are kept apart in a record: proposed (``steps``), commanded and achieved (``ticks``). The
    dataset has the commanded ones, as that is what led to the next observation: after the filter, and of the human
    where one had taken over. They are said in the policy's space. The only reward is 1 for the last step of what the
    operator called a success. A human who demonstrates, where there is no policy, overrules none: that is their
    ``source``, but no ``intervention``.

    Every camera that was recorded is an observation, whether the policy looked by it or not: the picture that it saw,
    or, of a camera that it did not look by, the one nearest to the time of the observation.

    Where more than one and a half times of a step lie between two, as while a camera was stale or the policy started
    anew, the episode is cut: what is one row after the other is one step after the other. What comes before is
    truncated, and no success.

    Args:
        folders: Folders that a `robopol.real_robot.recorder.Recorder` wrote, of one policy on one robot.

    Raises:
        DataError: If an episode has no two steps between motion and stop, or a picture is missing.
    """
    return Episodes.concat([_episode(Path(folder)) for folder in folders])


def _episode(folder: Path) -> Episodes:
    found, about = load(folder)
    ticks, steps = found["ticks"], found["steps"]
    about["robot"].pop("merging", None)  # once was the robot's
    if about["robot"]["driver"]["kind"] == "ur":
        about["robot"]["driver"].pop("period", None)  # once was said twice
    robot, spec = parse(RobotConfig, about["robot"]), parse(PolicySpec, about["policy"]["spec"])
    reach = int(about["policy"]["speaker"].get("reach", 1))
    waypoints, dt = waypoints_for(spec, robot), round(1e9 / spec.control_hz)
    begin, end = _span(ticks)
    last = int(ticks["t_hold"][-1])
    used = (steps["t_observed"] >= begin) & (steps["t_observed"] <= end) & (steps["t_observed"] + reach * dt <= last)
    steps = steps[used]
    parts = np.split(steps, np.flatnonzero(np.diff(steps["t"]) > HOLE * dt) + 1)
    if max(map(len, parts)) < 2:
        raise DataError(
            f"{folder} has {len(steps)} steps between motion and stop; a dataset needs two, one after the other"
        )
    pictures, late = load_pictures(folder, about), _lateness(robot)
    overruled, made = not about["policy"].get("demonstration", False), []
    meta = EpisodesMeta(
        env_id="" if spec.env is None else spec.env.id,
        control_hz=spec.control_hz,
        action_space=spec.action_space,
        action_names=spec.action_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
        source_names=SOURCES,
        versions={"robopol": __version__},
    )
    for part in parts:
        if len(part) < 2:
            continue
        builder, success = EpisodeBuilder(), about["success"] is True and part is parts[-1]
        for k, step in enumerate(part[:-1]):
            observed = int(step["t_observed"])
            start, stop = (_commanded(ticks, robot, observed + (reach + side) * dt) for side in (-1, 0))
            during = ticks[(ticks["t"] >= observed) & (ticks["t"] < observed + dt)]
            human = bool(np.any((during["state"] == State.HUMAN) | (during["source"] == Source.HUMAN)))
            over = k == len(part) - 2
            builder.add(
                _observation(step, pictures, late),
                waypoints.action(start, stop).astype(np.float32),
                float(over and success),
                over and success,
                over and not success,
                source=int(human),
                intervention=human and overruled,
            )
        builder.finish(_observation(part[-1], pictures, late), success)
        made.append(builder.build(meta))
    return Episodes.concat(made)


def _span(ticks: NDArray[np.void]) -> tuple[int, int]:
    """Return when the arm began to follow somebody and when it was told to stop, ns."""
    moving = np.flatnonzero(np.isin(ticks["state"], MOVING) | (ticks["source"] < Source.HOLD))
    if not len(moving):
        return 0, -1
    return int(ticks["t"][moving[0]]), int(ticks["t"][moving[-1]])


def _commanded(ticks: NDArray[np.void], robot: RobotConfig, t: int) -> NDArray[np.float64]:
    """Return what was commanded to hold at a time, joints and, if there is one, gripper."""
    columns: list[Any] = [*ticks["command"].T] + ([ticks["opening"]] if robot.gripper else [])
    since = (ticks["t_hold"] - ticks["t_hold"][0]).astype(np.float64)
    return np.array([np.interp(float(t - ticks["t_hold"][0]), since, column) for column in columns])


def _lateness(robot: RobotConfig) -> dict[str, int]:
    """Return by how much a picture's time may differ from the one that is wanted, ns, for each camera."""
    return {name: round(robot.gate.max_age * 1e9) + camera.period_ns for name, camera in robot.cameras.items()}


def _observation(
    step: np.void, pictures: dict[str, Pictures], late: dict[str, int]
) -> dict[str, NDArray[np.float32] | NDArray[np.uint8]]:
    names = step.dtype.names or ()
    seen: dict[str, Any] = {name.removeprefix("obs."): step[name] for name in names if name.startswith("obs.")}
    for camera, found in pictures.items():
        key = f"{PREFIX}{camera}"
        wanted = int(step[f"taken.{key}"] if f"taken.{key}" in names else step["t_observed"])
        frame = found.nearest(wanted)
        if abs(frame.t - wanted) > late[camera]:
            raise DataError(
                f"the camera '{camera}' has no picture within {late[camera] * 1e-9:.2f} s of a step: too many were lost"
            )
        seen[key] = frame.image
    return {key: np.asarray(value) for key, value in seen.items()}
