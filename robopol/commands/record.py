"""Record a person's demonstrations as a dataset.

  robopol record robot=NAME operator=gamepad out=demos.hdf5 [episodes=20] [reset=10] [control_hz=10] [keep=all]
  robopol record robot=so101 'operator={kind: leader, driver: {kind: feetech, port: ..., ...}}' out=demos.hdf5
  robopol record robot=ur5e_simulated env=reach operator=keyboard out=demos.hdf5

The arm is switched on and holds. An episode begins when the person takes over and ends when they stop, with success,
with failure, or to discard it; to discard once more, after the stop, discards the last one. Then there is time to put
things back, and the arm may be led somewhere else meanwhile: that is not kept. Of a simulated arm the scene is drawn
anew. `robopol list operator` says which devices there are, docs/operators.md how they are used.

The dataset is written at the end, also after Ctrl-C or a fault, from what was recorded in a folder beside it, which
stays; the status is not 0 if an episode that was to be kept is not there. `robopol train data.demos.uri=FILE` trains
on it.
"""

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.commands.recorded import check_new, episodes_in
from robopol.config import OneOf, parse
from robopol.configs import load_config
from robopol.errors import ConfigError, RobotError
from robopol.real_robot.console import Console
from robopol.real_robot.demonstration import DemonstrationConfig, spec_of
from robopol.real_robot.events import Code, Event, Severity
from robopol.real_robot.eyes import FPS, with_cameras
from robopol.real_robot.placing import Place, is_placed, modelled
from robopol.real_robot.recorder import ASIDE, load_about
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.session import Session
from robopol.real_robot.states import Command, State, describe


class RecordCommand(DemonstrationConfig):
    """What `robopol record` is told.

    Attributes:
        robot: The robot.
        operator: The device that the person leads it with.
        out: Dataset that is written; the suffix says the format.
        episodes: How many are to be kept.
        keep: Whether failed episodes are kept too.
        reset: Time to put things back after an episode, s.
        seed: Of the first scene of a simulated arm; each episode takes the next one.
        record: Folder that episodes are recorded in; beside ``out`` unless given.
    """

    robot: RobotConfig
    operator: Annotated[Any, OneOf("operator")]
    out: str
    episodes: int = Field(10, ge=1)
    keep: Literal["success", "all"] = "success"
    reset: float = Field(5.0, ge=0)
    seed: int = Field(0, ge=0)
    record: str | None = None


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(RecordCommand, load_config("record", words))
    out = check_new(command.out)
    folder = Path(command.record) if command.record else out.with_name(f"{out.stem}-record")
    before = set(folder.glob("*/episode.json"))
    with tempfile.TemporaryDirectory() as scratch, Console() as console:
        session = Session(command.episodes, command.reset, command.keep == "all", console.say)
        try:
            _record(command, session, folder, Path(scratch), console)
        except KeyboardInterrupt:
            console.say("interrupted")
        finally:
            found = sorted(path.parent for path in set(folder.glob("*/episode.json")) - before)
            lost = session.wanted - _save(command, folder, found, console)
            if lost > 0:
                console.say(
                    f"{lost} of {session.wanted} episodes that were to be kept could not be written to {folder}"
                )
    return int(lost > 0)


def _record(command: RecordCommand, session: Session, folder: Path, scratch: Path, console: Console) -> None:
    from robopol.real_robot.supervisor import Supervisor

    robot, place = modelled(command.robot, scratch), None
    robot = with_cameras(robot, spec_of(robot, command), FPS)
    if is_placed(robot):
        if command.env is None:
            raise ConfigError("a simulated arm without a model stands in the scene of a task: say env=reach")
        place = Place(robot, command.env, scratch)
        robot = place.reset(command.seed)
    speaker = {key: value for key, value in command.tree().items() if key in DemonstrationConfig.model_fields}
    sizes = None if place is None else place.sizes
    eyes = "demonstration_process"
    supervisor = Supervisor(robot, speaker, folder, sizes, command.operator, eyes=eyes)
    with closing(supervisor):
        try:
            console.say(f"{robot.name}: {1 / robot.period:.0f} Hz, {supervisor.scheduling}\n{supervisor.help}")
            _watch(supervisor, console, session, command, place)
        finally:
            supervisor.quit(lambda event: _tell(console, event))


def _watch(supervisor: Any, console: Console, session: Session, command: RecordCommand, place: Place | None) -> None:
    """Follow the session until it is over, or the person quits."""
    armed, ended = False, 0
    while not session.over:
        if console.gone:  # and so is whoever would see what happens
            raise BrokenPipeError
        for event in supervisor.events():
            _tell(console, event)
            session.hear(event)
            if event.code is Code.COMMANDED and event.numbers[0] == Command.QUIT:
                return
        for words in supervisor.alarms():
            console.say(f"ALARM: {words}")
        for name in supervisor.deaths():
            raise RobotError(f"{name} has died: {supervisor.why(name) or 'what is recorded so far is kept'}")
        if place is not None and session.ended > ended and not session.over:
            ended = session.ended
            supervisor.restart_servo(place.reset(command.seed + ended), lambda event: _tell(console, event))
            armed = False
        elif not armed and supervisor.state is State.CONNECTED:
            supervisor.order(Command.ARM)
            armed = True
        if session.look(time.monotonic_ns(), supervisor.state, supervisor.recorded):
            supervisor.order(Command.STOP, ASIDE)
        time.sleep(0.02)


def _save(command: RecordCommand, folder: Path, found: list[Path], console: Console) -> int:
    """Write the dataset of the episodes that have a label that is kept; return how many these are."""
    from robopol.data import save_episodes

    labels = (True,) if command.keep == "success" else (True, False)
    labelled = [path for path in found if load_about(path)["success"] in labels]
    episodes = episodes_in(labelled, console.say)
    if episodes is not None:
        save_episodes(episodes, command.out)
        count, steps, won = len(episodes), episodes.num_steps, int(episodes.success.sum())
        console.say(f"{command.out}: {count} episodes, {won} of them successes, {steps} steps; recorded in {folder}")
    elif found:
        console.say(f"{folder}: {len(found)} episodes, none to keep; no dataset is written")
    return len(labelled)


def _tell(console: Console, event: Event) -> None:
    """Say what is more than in the order of things."""
    if event.severity is not Severity.INFO and event.code is not Code.STATE_CHANGED:
        console.say(describe(event))
