"""What happened, as fixed rows of numbers: every rejection, clamp, stop, change of state and missed deadline."""

from enum import IntEnum
from typing import NamedTuple

NUMBERS = 8
"""Numbers that an event carries at most."""


class Severity(IntEnum):
    """How much an event matters."""

    INFO = 0
    """In the order of things."""
    WARNING = 1
    """Something was refused or limited; motion goes on."""
    STOP = 2
    """Motion ends."""


class Code(IntEnum):
    """What happened; each member says which numbers go with it."""

    # The life of the arm
    STATE_CHANGED = 1
    """From, to (`robopol.real_robot.states.State`), epoch."""
    COMMANDED = 2
    """The operator's command (`robopol.real_robot.states.Command`), its argument."""
    COMMAND_REFUSED = 3
    """Command, state in which it is not possible."""
    DEADMAN_LOST = 4
    """Seconds since it was last held."""
    SUPERVISOR_LOST = 5
    """Nothing more."""
    SUPERVISOR_SILENT = 6
    """Seconds since it was last there."""
    # Chunks that were refused: the plan that is there goes on
    CHUNK_SHAPE = 10
    """Rows and columns that came, columns needed."""
    CHUNK_NOT_FINITE = 11
    """How many numbers are not."""
    CHUNK_ORDER = 12
    """Its number, the last number."""
    CHUNK_POLICY = 13
    """It comes from a policy that may not speak now."""
    CHUNK_EPOCH = 14
    """Its epoch, the present one."""
    CHUNK_TIME = 15
    """Its times contradict each other: observed, created, first action, each in seconds from now, and its step, s."""
    CHUNK_OLD = 16
    """Age of its observation, greatest age, s."""
    CHUNK_SLOW = 17
    """Seconds from its observation to its making, greatest number."""
    CHUNK_RANGE = 18
    """Worst column, value, bound that it is beyond."""
    CHUNK_JUMP = 19
    """Worst joint, its distance from what is commanded now, greatest distance, rad."""
    CHUNK_LATE = 20
    """Seconds by which its last action comes too late."""
    # Chunks that were taken with a change
    CHUNK_CLIPPED = 25
    """How many numbers were clipped to the range."""
    CHUNK_NOT_CONTINUED = 26
    """Actions that it was to begin with, actions executed of a plan, rows; it was blended in."""
    # The filter
    POSITION_CLAMPED = 30
    """Worst joint, reference, limit, rad; once until the reference is within limits again."""
    SLOWED = 31
    """Least distance, m, share of the speed limits that is used; once until it is over."""
    LEFT_WORKSPACE = 32
    """Constraint (its place in the configuration), margin where the arm would stop."""
    TOO_NEAR = 33
    """Two geoms of the model, distance where the arm would stop, m."""
    TRACKING_LOST = 34
    """Worst joint, distance of measured from commanded position, limit, rad."""
    OVERLOADED = 35
    """Worst joint, effort, limit."""
    CONTACT = 36
    """Force at the tool, limit, N."""
    WRITE_REFUSED = 37
    """A command was not within limits after all, so it was not sent: worst joint, command, the one before, rad."""
    PLAN_NOT_FINITE = 38
    """The plan led to what is no number, so the arm brakes: how many of the joints' positions and speeds are none."""
    # The device
    READ_FAILED = 40
    """Failures one after the other."""
    WRITE_FAILED = 41
    """Failures one after the other."""
    STATE_STALE = 42
    """Seconds since the last fresh state."""
    DEVICE_FAULT = 43
    """Status bits (`robopol.real_robot.driver.Status`)."""
    POWER_LOST = 44
    """Status bits."""
    DEVICE_FAILED = 45
    """Connecting, arming or stopping the device failed: which (0, 1, 2)."""
    UNMEASURED = 46
    """A limit is set on what the arm does not measure, so it is not armed: 0, joint of an effort; or 1, the force."""
    # Time
    DEADLINE_MISSED = 50
    """Lateness, s, ticks that were skipped."""
    TOO_MANY_MISSED = 51
    """Missed of the last hundred."""
    # The policy
    STARVED = 60
    """The plan has come to its end; seconds since the last chunk was taken."""
    REJECTED_TOO_OFTEN = 61
    """Chunks refused one after the other."""
    POLICY_SILENT = 62
    """Seconds since anything came from the policy."""
    POLICY_AWAY = 63
    """The server of the policy cannot be asked: nothing is planned, and it is asked again in every step."""
    POLICY_BACK = 64
    """Seconds that it was away."""
    POLICY_SWAPPED = 65
    """The first plan of new weights was taken, its number; from now on those before are refused."""
    # Cameras: which one is its place in the configuration, from 0
    CAMERA_STALE = 70
    """Camera, age of its newest picture, s: the policy is not asked."""
    CAMERA_FROZEN = 71
    """Camera, age of its newest picture, s, how often the camera has given that again: the policy is not asked."""
    CAMERA_BACK = 72
    """Camera, seconds that it was away."""


class Event(NamedTuple):
    """One thing that happened.

    Attributes:
        t: When, ns.
        code: What.
        severity: How much it matters.
        numbers: As the code says.
    """

    t: int
    code: Code
    severity: Severity
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        """Return one line for people."""
        numbers = ", ".join(f"{number:.4g}" for number in self.numbers)
        what = self.code.name.lower().replace("_", " ")
        return f"{self.t * 1e-9:.3f} {self.severity.name.lower()}: {what}" + (f" ({numbers})" if numbers else "")
