"""What can go wrong with an arm and its wire, as knobs that are turned while the emulator runs."""

import random
from dataclasses import dataclass, field, fields

from robopol.errors import RobotError

MS = 1_000_000


@dataclass
class Faults:
    """All off at first. Probabilities are of each answer, from a generator of a known seed.

    Attributes:
        drop: Probability that an answer is lost; of a controller on TCP, that it leaves a state out.
        corrupt: Probability that one of its bits is turned.
        truncate: Probability that its end is missing.
        duplicate: Probability that it comes twice.
        wrong_id: Probability that it says that it comes from another servo.
        delay: Every answer comes so much later, ms.
        delay_once: The next answer comes so much later, ms.
        stall: From now on so long the device does nothing: it hears nothing and says nothing, ms.
        error_bits: Bits that are set in the error byte, or in the safety status, of every answer.
        overheated: The device is too hot.
        overload: The device is overloaded.
        torque_lost: The servos hang, or the arm's power is off.
        protective_stop: The controller is in its protective stop.
        emergency_stop: The emergency stop is pressed.
        program_stopped: The program that listens to us has ended.
        frozen: The device's state and its timestamp stay as they are.
        closed: The device closes the connection, or was unplugged.
        seed: Of the probabilities.
    """

    drop: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    duplicate: float = 0.0
    wrong_id: float = 0.0
    delay: float = 0.0
    delay_once: float = 0.0
    stall: float = 0.0
    error_bits: int = 0
    overheated: bool = False
    overload: bool = False
    torque_lost: bool = False
    protective_stop: bool = False
    emergency_stop: bool = False
    program_stopped: bool = False
    frozen: bool = False
    closed: bool = False
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)
    _deaf_until: int = field(init=False, repr=False, default=-1)

    def __post_init__(self) -> None:
        """Seed the generator."""
        self._random = random.Random(self.seed)

    def set(self, text: str) -> None:
        """Turn a knob by a line such as ``drop=0.05`` or ``emergency_stop=1``.

        Raises:
            RobotError: If there is no such knob, or the value is no number.
        """
        knobs = [f.name for f in fields(self) if f.init]
        name, _, value = text.strip().partition("=")
        try:
            if name not in knobs:
                raise KeyError(name)
            number = float(int(value, 0)) if value.startswith("0x") else float(value)
            setattr(self, name, type(getattr(self, name))(number))
        except (KeyError, ValueError) as error:
            names = ", ".join(knobs)
            raise RobotError(f"'{text.strip()}' is no fault: write NAME=NUMBER with one of {names}") from error
        if name == "seed":
            self.__post_init__()

    def deaf(self, t: int) -> bool:
        """Return whether the device is stalled at ``t``, ns; a stall begins when this is first asked."""
        if self.stall:
            self._deaf_until, self.stall = t + round(self.stall * MS), 0.0
        return t < self._deaf_until

    def chance(self, probability: float) -> bool:
        """Draw whether something of a probability happens; nothing is drawn of what cannot."""
        return probability > 0 and self._random.random() < probability

    def pass_on(self, answer: bytes) -> list[tuple[int, bytes]]:
        """Return what becomes of an answer on its way: (further delay in ns, bytes), none or more."""
        if self.chance(self.drop):
            return []
        if self.chance(self.corrupt):
            at = self._random.randrange(8 * len(answer))
            answer = bytes(b ^ (1 << at % 8) if i == at // 8 else b for i, b in enumerate(answer))
        if self.chance(self.truncate):
            answer = answer[: self._random.randrange(1, len(answer))]
        later = round((self.delay + self.delay_once) * MS)
        self.delay_once = 0.0
        return [(later, answer)] * (2 if self.chance(self.duplicate) else 1)
