"""What an arm may do now: its state, who may change it, and which faults stay until a human has looked."""

from collections.abc import Callable
from enum import IntEnum

from robopol.real_robot.events import Code, Event, Severity


class State(IntEnum):
    """The states of an arm."""

    DISCONNECTED = 0
    CONNECTED = 1
    """Its state is read; nothing is written."""
    ARMED = 2
    """It holds its position."""
    RUNNING = 3
    """It follows the policy's plan."""
    HOLD = 4
    """It brakes, then holds."""
    HUMAN = 5
    """It follows a human's plan."""
    STOPPING = 6
    """It brakes; at rest the device's own stop follows, and it is armed."""
    FAULT = 7
    """It was stopped; latched until a reset."""
    ESTOP = 8
    """Its emergency stop was pressed; latched until a reset."""


class Command(IntEnum):
    """What an operator may ask for."""

    ARM = 1
    """From CONNECTED; the arm holds where it is."""
    RUN = 2
    """Follow the policy, from its next chunk on; until then, hold."""
    HOLD = 3
    """Brake and hold, until RUN or HUMAN."""
    STOP = 4
    """Brake, stop the device, be armed."""
    ABORT = 5
    """The device's protective stop; a fault."""
    HUMAN = 6
    """Follow the human, from their next chunk on."""
    RESET = 7
    """Leave a latched fault; its argument is the number of the reason, not 0."""
    QUIT = 8
    """Brake, stop the device, end."""


LATCHED = (State.FAULT, State.ESTOP)
"""Left by RESET only."""
MOVING = (State.RUNNING, State.HUMAN)
"""In which a plan is followed."""
WRITING = (State.ARMED, State.RUNNING, State.HOLD, State.HUMAN, State.STOPPING)
"""In which commands are written."""
_ALLOWED: dict[State, tuple[State, ...]] = {
    State.DISCONNECTED: (State.CONNECTED,),
    State.CONNECTED: (State.ARMED, State.DISCONNECTED),
    State.ARMED: (State.RUNNING, State.HUMAN, State.STOPPING, State.HOLD),
    State.RUNNING: (State.HOLD, State.HUMAN, State.STOPPING),
    State.HOLD: (State.RUNNING, State.HUMAN, State.STOPPING),
    State.HUMAN: (State.HOLD, State.RUNNING, State.STOPPING),
    State.STOPPING: (State.ARMED,),
    State.FAULT: (State.CONNECTED, State.ESTOP),
    State.ESTOP: (State.CONNECTED,),
}
"""From any state but DISCONNECTED, FAULT and ESTOP can be entered."""


def describe(event: Event) -> str:
    """Return one line for people, with the names of states and commands."""
    numbers = [int(number) for number in event.numbers[:2]]
    head = f"{event.t * 1e-9:.3f} {event.severity.name.lower()}"
    if event.code is Code.STATE_CHANGED:
        return f"{head}: {State(numbers[0]).name} -> {State(numbers[1]).name}"
    known = event.code in (Code.COMMANDED, Code.COMMAND_REFUSED) and numbers[0] in Command.__members__.values()
    if known and event.code is Code.COMMANDED:
        return f"{head}: told to {Command(numbers[0]).name}"
    if known:
        return f"{head}: cannot {Command(numbers[0]).name} in state {State(numbers[1]).name}"
    if event.code is Code.UNMEASURED:
        what = (
            f"robot.joints[{numbers[1]}].effort limits what that joint does not measure"
            if numbers[0] == 0
            else "robot.watch.force limits what no sensor of the arm measures"
        )
        return f"{head}: not armed: {what}; say null there, and know that nothing watches it"
    return str(event)


class Machine:
    """The state, the epoch, and who is wanted to speak.

    An epoch is a time in which chunks are worth something. A new one begins whenever what chunks were made for ends: at
    a reset, at a stop, and with each word of the operator about who speaks. A chunk of another epoch is refused.

    Attributes:
        state: The present state.
        epoch: Number of the epoch.
        wanted: `State.RUNNING` or `State.HUMAN` if their next good chunk may move the arm; None if the operator is to
            say so first.
    """

    def __init__(self, report: Callable[[Event], None]) -> None:
        """Begin disconnected, in epoch 0; changes are reported as events."""
        self.state, self.epoch = State.DISCONNECTED, 0
        self.wanted: State | None = None
        self._report = report

    def enter(self, state: State, now: int) -> None:
        """Change the state; nothing happens if it is the present one, or if that is a latched one.

        Raises:
            ValueError: If there is no such way, which is a fault of the caller.
        """
        if state is self.state or (self.state in LATCHED and state is State.FAULT):
            return
        stops = state in LATCHED
        if state not in _ALLOWED[self.state] and not (stops and self.state is not State.DISCONNECTED):
            raise ValueError(f"there is no way from {self.state.name} to {state.name}")
        old, self.state = self.state, state
        if stops or state in (State.STOPPING, State.CONNECTED):
            self.begin_epoch()
            self.wanted = None
        severity = Severity.STOP if stops or state is State.STOPPING else Severity.INFO
        self._report(Event(now, Code.STATE_CHANGED, severity, (old, state, self.epoch)))

    def begin_epoch(self) -> None:
        """Make all chunks that were asked for so far worthless."""
        self.epoch += 1
