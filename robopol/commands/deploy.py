"""Let a policy move a robot.

  robopol deploy checkpoint=DIR robot=NAME [robot.speed=0.1] [seconds=20] [record=FOLDER] [out=FILE.hdf5]
  robopol deploy checkpoint=DIR robot=ur5e_simulated seconds=10
  robopol deploy checkpoint=DIR robot=ur5e_simulated rehearse=20 [latency=0.1] [matched=false]
  robopol deploy checkpoint=DIR robot=NAME execution=temporal_ensemble
  robopol deploy checkpoint=ws://127.0.0.1:8000 robot=NAME 'observe={state: [q, gripper]}'
  robopol deploy checkpoint=DIR robot=ur5e_simulated operator=keyboard

The servo loop, the policy and the recorder run in processes of their own. Without ``seconds`` the robot does what is
typed: arm, run, take over, hold, stop, stop success, stop failure, stop discard, abort, reset 1, restart policy,
restart servo, swap CHECKPOINT, quit.
With it, the arm is armed, the policy runs so long, and the arm is stopped; the status is not 0 if anything failed. An
arm that cannot be armed, or that a fault stops, ends it. Ctrl-C and Ctrl-Z stop the arm at any time, and end. What
happens is printed as it happens; docs/deploy.md says what each line means, and what to do before a policy moves an arm
for the first time.

``operator`` is a device by which a person takes over and gives back, docs/operators.md: `robopol list operator`. One
that takes keys has the terminal, so words are not typed then.

``rehearse`` lets the policy act so many episodes in the task that it was trained for, through the same servo loop and
filter, in virtual time, and judges it as `robopol eval` does.
"""

import os
import select
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from robopol.commands.recorded import check_new, episodes_in
from robopol.config import OneOf, parse
from robopol.configs import load_config
from robopol.errors import ConfigError, RobotError
from robopol.real_robot.console import Console
from robopol.real_robot.events import Code
from robopol.real_robot.placing import Place, is_placed, modelled
from robopol.real_robot.policy_process import Speaker
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.script import Script
from robopol.real_robot.states import Command, describe

_WORDS = {
    "arm": (Command.ARM, 0),
    "run": (Command.RUN, 0),
    "take over": (Command.HUMAN, 0),
    "hold": (Command.HOLD, 0),
    "stop": (Command.STOP, 0),
    "stop failure": (Command.STOP, 1),
    "stop success": (Command.STOP, 2),
    "stop discard": (Command.STOP, 3),
    "abort": (Command.ABORT, 0),
    "quit": (Command.QUIT, 0),
}


_MOVED = ("operator", "seconds", "record", "trials", "out", "seed", "observe")
"""What is said of a robot that is moved, and of no rehearsal."""
_REHEARSED = ("latency", "matched")
"""What is said of a rehearsal only."""
RESTART = "restart policy"
"""Said where it died, or hangs."""
REBUILD = "restart servo"
"""Said where the servo loop died, or was killed because it hung."""
SWAP = "swap "
"""Said before the checkpoint of new weights."""


class DeployCommand(Speaker):
    """What `robopol deploy` is told.

    Attributes:
        robot: The robot.
        operator: The device by which a person takes over; None has none.
        seconds: How long the policy runs; None does what is typed.
        record: Folder that the episodes are recorded in.
        trials: Folder of recorded episodes that new weights are tried on before they act; None is ``record``.
        out: New dataset that they are written to at the end, whatever ends it; the suffix says the format.
        rehearse: Episodes of a rehearsal in simulation; 0 moves the robot.
        latency: Time by which chunks are late in a rehearsal, s.
        matched: Whether latency is matched in a rehearsal.
        episode_seed: Seed of a rehearsal's first episode, or of the simulated scene.
    """

    robot: RobotConfig
    operator: Annotated[Any, OneOf("operator")] | None = None
    seconds: float | None = Field(None, gt=0)
    record: str | None = None
    trials: str | None = None
    out: str | None = None
    rehearse: int = Field(0, ge=0)
    latency: float = Field(0.0, ge=0)
    matched: bool = True
    episode_seed: int = Field(100_000, ge=0)


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    tree = load_config("deploy", words)
    command = parse(DeployCommand, tree)
    _check_of_use(command, tree)
    if command.rehearse:
        with tempfile.TemporaryDirectory() as folder:
            return _rehearse(command, modelled(command.robot, Path(folder)))
    if command.out is not None and command.record is None:
        raise ConfigError("out= is made of what is recorded: name a folder for that too, record=")
    if command.out is not None:
        check_new(command.out)
    if command.robot.watch.deadman is not None and command.operator is None:
        raise ConfigError(
            "this robot has a deadman's switch, and nobody can hold one by typing: name a device that has one, "
            "operator=gamepad or operator=keyboard, or say robot.watch.deadman=null"
        )
    with tempfile.TemporaryDirectory() as folder:
        speaker = {key: value for key, value in tree.items() if key in Speaker.model_fields}
        return _move(command, speaker, Path(folder))


def _check_of_use(command: DeployCommand, tree: dict[str, Any]) -> None:
    """Refuse what was said and would change nothing."""
    if lost := [f"{key}=" for key in (_MOVED if command.rehearse else _REHEARSED) if tree.get(key) is not None]:
        raise ConfigError(
            f"{', '.join(lost)} would change nothing in a rehearsal, which the task of the policy begins, observes and "
            "ends, and of which nothing is recorded: leave it out, or rehearse="
            if command.rehearse
            else f"{', '.join(lost)} is of a rehearsal: say rehearse=EPISODES too, or leave it out"
        )


def _rehearse(command: DeployCommand, robot: RobotConfig) -> int:
    from collections import Counter

    import torch

    from robopol.evaluation.statistics import wilson
    from robopol.real_robot.rehearsal import rehearse

    torch.set_num_threads(command.threads)
    policy = command.load()
    if policy.spec.env is None:
        raise ConfigError(f"{command.checkpoint} does not say which task it is for, so it cannot be rehearsed")
    seeds = range(command.episode_seed, command.episode_seed + command.rehearse)
    told: Counter[str] = Counter()
    outcomes = rehearse(
        policy,
        robot,
        policy.spec.env,
        seeds,
        latency=command.latency,
        matched=command.matched,
        reach=command.reach,
        execution=command.execution,
        report=lambda seed, event: told.update([event.code.name.lower()]),
        on_outcome=lambda outcome: print(
            f"seed {outcome.seed}: {'success' if outcome.success else 'no success'} in {outcome.length} steps"
        ),
    )
    wins = sum(outcome.success for outcome in outcomes)
    low, high = wilson(wins, len(outcomes))
    print(f"success: {wins} of {len(outcomes)}, 95% interval {low:.2f} to {high:.2f}")
    print("events: " + ", ".join(f"{count} {name}" for name, count in sorted(told.items())))
    return 0


def _move(command: DeployCommand, speaker: dict[str, Any], folder: Path) -> int:
    from robopol.real_robot.checkup import verdict
    from robopol.real_robot.supervisor import Supervisor

    robot, world = _placed(command, folder)
    record = None if command.record is None else Path(command.record)
    before = set() if record is None else set(record.glob("*/episode.json"))
    with Console() as console:
        supervisor = Supervisor(robot, speaker, record, world, command.operator)
        try:
            console.say(f"{robot.name}: {1 / robot.period:.0f} Hz, {supervisor.scheduling}")
            console.say(verdict(robot, **{key: supervisor.policy[key] for key in ("latency", "executed", "spec")}))
            if supervisor.help:
                console.say(supervisor.help)
            typed = command.seconds is None and not (command.operator is not None and command.operator.terminal)
            tried = record if command.trials is None else Path(command.trials)
            swap = lambda new: supervisor.swap_policy(speaker | new, tried)  # noqa: E731
            return _watch(supervisor, console, command.seconds, typed, swap)
        finally:
            try:
                with closing(supervisor):
                    supervisor.quit(lambda event: console.say(describe(event)))
            finally:
                if record is not None:
                    found = sorted(path.parent for path in set(record.glob("*/episode.json")) - before)
                    console.say(f"{record}: {len(found)} new episodes")
                    _save(command.out, found, console)


def _save(out: str | None, found: list[Path], console: Console) -> None:
    """Write the dataset of what was recorded, if there is to be one."""
    from robopol.data import save_episodes

    if out is not None and (episodes := episodes_in(found, console.say)) is not None:
        save_episodes(episodes, out)
        console.say(f"{out}: {len(episodes)} episodes")


def _watch(
    supervisor: Any,
    console: Console,
    seconds: float | None,
    listening: bool,
    swap: Callable[[dict[str, Any]], None],
) -> int:
    """Pass on what the operator says and say what happens, until the end; nothing here waits."""
    script = None if seconds is None else Script(seconds, supervisor.order)
    keyboard, failed = _Keyboard(), 0
    while True:
        if console.gone:  # and so is whoever would see what happens
            raise BrokenPipeError
        for event in supervisor.events():
            console.say(describe(event))
            if script is not None:
                script.hear(event)
            if event.code is Code.COMMANDED and event.numbers[0] == Command.QUIT:
                return 0
        for words in supervisor.alarms():
            failed = 1
            console.say(f"ALARM: {words}")
        for name in supervisor.deaths():
            failed = 1
            if name == "servo_process":
                why = supervisor.why(name) or "the arm's own watchdog stops it, if it has one"
                console.say(f"ALARM: {name} has died: {why}")  # at once: to end the rest takes its time
                if not listening:
                    raise RobotError(f"the servo loop has ended: {why}")
                console.say(f"ALARM: '{REBUILD}' connects the arm anew, and it rests until it is armed")
                continue
            listening = listening or (name == "operator_process" and seconds is None)
            console.say(_alarm(name, supervisor.why(name), listening))
        if script is not None and script.look(time.monotonic_ns(), supervisor.state):
            return failed
        if not listening:
            time.sleep(0.05)
            continue
        for line in keyboard.lines(0.05):
            words = "quit" if line is None else line.lower()
            if words == "quit":
                return 0
            if words == RESTART:
                supervisor.restart_policy()
            elif words == REBUILD:
                supervisor.rebuild_servo()
            elif line is not None and words.startswith(SWAP):
                console.say(f"{line[len(SWAP) :]} is loaded and tried, and the policy that acts goes on")
                swap({"checkpoint": line[len(SWAP) :]})
            elif words.startswith("reset ") and words[6:].isdigit():
                supervisor.order(Command.RESET, int(words[6:]))
            elif words in _WORDS:
                supervisor.order(*_WORDS[words])
            elif words:
                known = f"{', '.join(_WORDS)}, {RESTART}, {REBUILD}, {SWAP}CHECKPOINT"
                console.say(f"say one of {known}, or reset and the number of the reason")


def _alarm(name: str, why: str, listening: bool) -> str:
    """Return what a process's death means, and what can be said then if somebody listens."""
    again = f"'{RESTART}' starts the policy anew, and the arm goes on with its next plan"
    means = {
        "recorder": "nothing more is recorded",
        "operator_process": "its switch counts as let go, and nobody can take over; words can be typed now",
    }.get(name, f"the arm brakes and holds; {again if listening else 'quit and start anew'}")
    return f"ALARM: {name} has died{f' ({why})' if why else ''}: {means}"


class _Keyboard:
    """Lines from standard input, as they come."""

    def __init__(self) -> None:
        self._rest = b""

    def lines(self, patience: float) -> Iterator[str | None]:
        """Yield the lines that have come after so many seconds at most, then None if there will be no more."""
        if not select.select([0], [], [], patience)[0]:
            return
        found = os.read(0, 4096)  # not by sys.stdin, which keeps lines that select does not know of
        *lines, self._rest = (self._rest + found).split(b"\n")
        yield from (" ".join(line.decode(errors="replace").split()) for line in lines)
        if not found:
            yield None


def _placed(command: DeployCommand, folder: Path) -> tuple[RobotConfig, list[int] | None]:
    """Return the robot, and, if it is simulated in the scene of the policy's task, the sizes of that."""
    robot = modelled(command.robot, folder)
    if not is_placed(robot):
        return robot, None
    from robopol.real_robot.eyes import FPS, with_cameras

    policy = command.load()
    if policy.spec.env is None:
        raise ConfigError(
            f"{command.checkpoint} does not say which task it is for: name an MJCF file, robot.driver.model"
        )
    place = Place(robot, policy.spec.env, folder)
    return with_cameras(place.reset(command.episode_seed), policy.spec, FPS), place.sizes
