"""A person at a terminal: keys lead the tool, or the joints, and give commands."""

from typing import Literal

import numpy as np
from pydantic import Field

from robopol.errors import ConfigError
from robopol.real_robot.clock import Clock
from robopol.real_robot.operator import Operator, OperatorConfig, Saying, Typed, Vector
from robopol.real_robot.operators.jog import Jog, jog_of
from robopol.real_robot.operators.keys import Keys
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import Command

COMMANDS: dict[str, tuple[Command, int]] = {
    "A": (Command.ARM, 0),
    "T": (Command.HUMAN, 0),
    "G": (Command.RUN, 0),
    "H": (Command.HOLD, 0),
    "P": (Command.STOP, 0),
    "F": (Command.STOP, 1),
    "S": (Command.STOP, 2),
    "X": (Command.STOP, 3),
    "!": (Command.ABORT, 0),
    "R": (Command.RESET, 1),
    "Q": (Command.QUIT, 0),
}
"""Key -> what it commands; capital letters, so that no key that moves is one that commands."""
HELP = (
    "A arm, T take over, G give back to the policy, H hold, S stop: success, F stop: failure, X stop: discard, P stop, "
    "! abort, R reset, Q quit; the space bar, as any key, holds the switch"
)
PAIRS = ("ws", "ad", "rf", "qe", "tg", "yh", "uj", "ik")
"""Keys of each direction that a tool or an arm has, forwards and backwards."""
GRIPPER = "oc"
"""Keys that open and close the gripper."""
LONGEST = 0.1
"""Most time that a key moves by at once, s."""


class KeyboardConfig(OperatorConfig):
    """The keys of a terminal. Those that move lead the tool where the robot has a model with ``site``, else its joints.

    A terminal says nothing when a key is let go, so it is known late: after ``patience`` for a key that repeats, after
    ``delay`` for one that was only tapped.

    Attributes:
        site: The tool in the model, `robopol.real_robot.geometry.GeometryConfig.model`.
        speed: Of the tool, m/s.
        turn: Of its yaw, or of the joints, rad/s.
        grip: Of the gripper, strokes/s.
        delay: Time until the keyboard begins to repeat a key, s; what `xset r rate` says, with some reserve.
        patience: Time without a repeat after which a key was let go, s; some three times that between two repeats.
    """

    kind: Literal["keyboard"] = "keyboard"
    site: str = "tool"
    speed: float = Field(0.1, gt=0)
    turn: float = Field(0.5, gt=0)
    grip: float = Field(1.0, gt=0)
    delay: float = Field(0.7, gt=0)
    patience: float = Field(0.15, gt=0)

    @property
    def terminal(self) -> bool:
        """See `OperatorConfig.terminal`."""
        return True

    def build(self, robot: RobotConfig, clock: Clock, typed: Typed) -> "Keyboard":
        """See `OperatorConfig.build`."""
        jog = jog_of(robot, self.site)
        if len(jog.axes) > len(PAIRS) + (robot.gripper is not None):
            raise ConfigError(f"{robot.name} has more joints than the keyboard has keys for: {len(PAIRS)}")
        return Keyboard(self, jog, clock, typed)


class Keyboard(Operator):
    """See `KeyboardConfig`."""

    def __init__(self, config: KeyboardConfig, jog: Jog, clock: Clock, typed: Typed) -> None:
        """Prepare."""
        self._jog, self._clock, self._typed = jog, clock, typed
        self._keys, self._last, self._gone = Keys(config.delay, config.patience), clock.now(), False
        speeds = {"m": config.speed, "rad": config.turn, "stroke": config.grip}
        pairs = [GRIPPER if unit == "stroke" else PAIRS[k] for k, (_, unit) in enumerate(jog.axes)]
        self._rates: dict[str, Vector] = {}
        for k, (pair, (_, unit)) in enumerate(zip(pairs, jog.axes, strict=True)):
            for key, sign in zip(pair, (1.0, -1.0), strict=True):
                self._rates[key] = sign * speeds[unit] * np.eye(len(jog.axes))[k]
        named = zip(pairs, jog.axes, strict=True)
        self._help = "keys: " + ", ".join(f"{pair[0]}/{pair[1]} {name}" for pair, (name, _) in named)

    def connect(self) -> str:
        """See `Operator.connect`."""
        return f"{self._help}\n{HELP}"

    def listen(self, target: Vector) -> Saying:
        """See `Operator.listen`."""
        now, data = self._clock.now(), self._typed()
        seconds, self._last = min((now - self._last) * 1e-9, LONGEST), now
        if data is None:  # the terminal is gone, and with it whoever could stop the arm
            orders = () if self._gone else (COMMANDS["Q"],)
            self._gone = True
            return Saying(False, None, orders)
        pressed = self._keys.hear(data, now)
        rates = self._rates.get(self._keys.moving(now))
        move = None if rates is None else self._jog.move(target, rates * seconds)
        return Saying(self._keys.held(now), move, tuple(COMMANDS[key] for key in pressed if key in COMMANDS))

    def close(self) -> None:
        """See `Operator.close`."""
