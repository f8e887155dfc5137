"""What one tick of the servo loop leaves behind: a fixed row of numbers for the policy and the recorder."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Source(IntEnum):
    """Who made a command what it is."""

    POLICY = 0
    HUMAN = 1
    FILTER = 2
    """It differs from what policy or human asked for."""
    HOLD = 3
    """Braking or holding."""


def tick_type(joints: int) -> np.dtype[np.void]:
    """Return the row of an arm with n joints.

    A tick commands, and reads the arm some time later. ``state`` and ``epoch`` are those after it was read, like what
    was read; all that is said of the command is of when it was written: a row may say FAULT of an arm that has just
    stopped, and that a command was written in the same tick.

    ``t``: when the tick was due, ns. ``late``: by how much it was late, ns. ``t_received``, ``t_device``, ``q``,
    ``dq``, ``effort``, ``wrench``, ``gripper``, ``status``: the newest `robopol.real_robot.driver.Reading`. ``fresh``:
    whether it is new. ``t_hold``: when the command is to hold, ns. ``reference``: what the plan asked for, rad.
    ``command`` and ``command_speed``: what became of it, rad and rad/s. ``opening``: the gripper's command.
    ``written``: whether it was sent. ``chunk``: number of the policy's chunk that was taken last, if the command
    follows it; 0 if it follows none. ``state``, ``epoch``, ``source``, ``marks``: see `State`, `Machine`, `Source` and
    `Mark`.
    """
    vector = (np.float64, (joints,))
    return np.dtype(
        [
            ("t", np.int64),
            ("late", np.int64),
            ("t_received", np.int64),
            ("t_device", np.int64),
            ("t_hold", np.int64),
            ("state", np.int64),
            ("epoch", np.int64),
            ("source", np.int64),
            ("marks", np.int64),
            ("chunk", np.int64),
            ("status", np.int64),
            ("fresh", np.int64),
            ("written", np.int64),
            ("q", *vector),
            ("dq", *vector),
            ("effort", *vector),
            ("wrench", np.float64, (6,)),
            ("gripper", np.float64),
            ("reference", *vector),
            ("command", *vector),
            ("command_speed", *vector),
            ("opening", np.float64),
        ]
    )


def new_tick(joints: int) -> NDArray[np.void]:
    """Return one row, a structured array (1,), to be filled again and again."""
    return np.zeros(1, tick_type(joints))
