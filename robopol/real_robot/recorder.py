"""Recording: from the rings to files, one folder an episode, which is there whole or under another name.

``python -m robopol.real_robot.recorder`` is the process; see `supervisor`. It only reads rings, so whatever happens to
it, a stop, a full disk, a kill, the servo loop does not notice; what it lost is counted, and told to its parent.
"""

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol import __version__
from robopol.config import parse
from robopol.errors import RobotError
from robopol.files import TEMPORARY, write_json
from robopol.real_robot.channels import EVENT_ROW, Channels
from robopol.real_robot.child import Lifeline, be_polite, die_with_parent, say
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.events import Code
from robopol.real_robot.past import Past
from robopol.real_robot.pictures import Album, Pictures
from robopol.real_robot.rings import Joined, Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.row_file import RowFile
from robopol.real_robot.states import LATCHED, MOVING, Command, State
from robopol.real_robot.ticks import tick_type

LABELS = {0: None, 1: False, 2: True}
"""Argument of `Command.STOP` -> whether the operator calls the episode a success."""
DISCARD = 3
"""Argument of `Command.STOP` that discards the episode that is going on, or else the last one."""
ASIDE = 4
"""Argument of `Command.STOP` that says that the newest motion is no episode: a discard takes the one before."""
DISCARDED = "discarded"
"""Folder beside the episodes that discarded ones are moved to: what was recorded is not deleted."""
BEFORE = "before-"
"""Begins the names of files with what came before."""
_OVER = (State.ARMED, State.CONNECTED, State.FAULT, State.ESTOP)
AGAIN = 2.0
"""From an episode whose files could not be made to the next try, s."""
_EVERY = 0.05  # s
_LINGER = 1.0  # s


class Recorder:
    """Writes episodes: from the first tick in which the arm follows somebody, to the one in which it is stopped.

    An episode is a folder with ``ticks.bin``, ``events.bin`` and ``steps.bin``, rows one after the other, and
    ``episode.json``, which says what the rows are, and all that is known of the episode; beside them, the pictures of
    the cameras (`robopol.real_robot.pictures`). ``before-ticks.bin`` and its like are the rows of the ten seconds
    before, as far as they belong to no other episode. A fault while no episode is going on leaves them as a folder of
    its own, with ``incident.json``.

    Attributes:
        written: Folders of the episodes so far, without those that were discarded.
        dropped: Rows that could not be written.
    """

    def __init__(
        self,
        folder: Path,
        rows: dict[str, np.dtype[Any]],
        about: dict[str, Any],
        album: Album | None = None,
        tell: Callable[..., None] = lambda **said: None,
    ) -> None:
        """Record into a folder.

        Args:
            folder: It is made; episodes of before stay.
            rows: ``ticks``, ``events`` and ``steps`` -> their rows.
            about: What is true of all episodes: the robot, the policy.
            album: The pictures, if there are cameras.
            tell: Told of every motion the ``epoch`` in which it ended, and whether it is ``written``; and, in words,
                what is ``lost``.
        """
        self._tell = tell
        self._album = album or Album({})
        self._folder, self._rows, self._about = folder, rows, about
        self._files: dict[str, RowFile] = {}
        self._again = 0.0
        self._draft: Path | None = None
        self._label: bool | None = None
        self._past, self._count = Past(rows), 0
        self._moving = False  # whether a motion goes on, which may not be recorded
        self._last: Path | None = None  # the newest motion, as long as it may be discarded
        self._before: Path | None = None  # what that was before the newest motion
        self._order = self._epoch = 0
        self.written: list[Path] = []
        self.dropped = 0

    @property
    def at_rest(self) -> bool:
        """Whether no episode is going on."""
        return self._draft is None

    def add(self, found: dict[str, NDArray[np.void]], lost: int) -> None:
        """Take new rows of all kinds; they are recorded if an episode is going on.

        Args:
            found: Name -> rows.
            lost: Rows that the rings lost so far.
        """
        fault = False
        for event in found["events"]:
            if event["code"] == Code.COMMANDED and event["numbers"][0] == Command.STOP:
                self._order = int(event["numbers"][1])
                self._label = LABELS.get(self._order)
            fault |= bool(event["code"] == Code.STATE_CHANGED and event["numbers"][1] in LATCHED)
        ticks = found["ticks"]
        over = np.isin(ticks["state"], _OVER)
        moves = bool(np.isin(ticks["state"], MOVING).any())
        if moves and not self._moving:
            self._moving, self._before, self._last = True, self._last, None
        if self._draft is None and moves and time.monotonic() >= self._again:
            self._begin(lost)
        self._album.add()
        if self._draft is not None:
            self._write(found)
        else:
            self._past.add(found)
            if fault:
                self._keep_incident()
        if not self._moving:
            self._label = None  # it was said of no episode
            self._aside()
        elif len(over) and over[-1]:
            first = 1 + int(np.flatnonzero(~over).max(initial=-1))
            self._epoch = int(ticks["epoch"][first])
            self.end(lost)

    def speaks(self, policy: dict[str, Any]) -> None:
        """Note that another policy speaks from now on; ``policies`` says which weights an id of a plan stands for."""
        known = {name: policy[name] for name in ("speaker", "config", "git") if name in policy}
        named = self._about.get("policies", {}) | {policy["id"]: known}
        self._about = self._about | {"policy": policy, "policies": named}

    def end(self, lost: int) -> None:
        """End the motion that is going on, if there is one."""
        if not self._moving:
            return
        self._moving = False
        written = self._draft is not None and self._finish(self._draft, lost)
        self._draft = self._label = None
        self._tell(epoch=self._epoch, written=written)
        self._aside()

    def _finish(self, draft: Path, lost: int) -> bool:
        dropped = self.dropped + lost - self._lost
        tree = self._about | {
            "robopol_version": __version__,
            "wall_time": self._wall,
            "success": self._label,
            "dropped": dropped,
            "rows": self._described(),
        }
        try:
            tree["pictures"] = self._album.end()
            self._close()
            write_json(draft / "episode.json", tree)
            final = draft.with_name(draft.name.removeprefix(TEMPORARY))
            draft.rename(final)
        except OSError as error:
            self._fail(f"an episode could not be written, and what there is of it is {draft.name}", error)
            return False
        self.written.append(final)
        self._last = final
        if dropped:
            self._tell(lost=f"{final.name} lacks {dropped} rows, as the disk was full or too slow")
        return True

    def _fail(self, what: str, error: OSError) -> None:
        self.dropped += 1
        self._tell(lost=f"{what}: {error}")

    def _begin(self, lost: int) -> None:
        self._lost, self._wall = lost + self.dropped, time.time()
        draft = self._folder / f"{TEMPORARY}{self._name()}"
        try:
            draft.mkdir(parents=True)
            self._write_before(draft)
            for name, row in self._rows.items():
                self._files[name] = RowFile(draft / f"{name}.bin", row)
            self._album.begin(draft)
        except OSError as error:  # until the next try its rows are kept with those that came before
            self._fail(f"this motion is not recorded, which is tried again every {AGAIN:g} s", error)
            self._again = time.monotonic() + AGAIN
            with suppress(OSError):
                self._close()
            shutil.rmtree(draft, ignore_errors=True)
            return
        self._draft = draft

    def _close(self) -> None:
        files, self._files = self._files, {}
        with ExitStack() as stack:  # each of them is closed, whatever becomes of the others
            for file in files.values():
                stack.callback(file.close)

    def _name(self) -> str:
        self._count += 1
        return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{self._count - 1:03d}"

    def _aside(self) -> None:
        """Move the newest motion to those that were discarded, once, if that was said."""
        order, self._order = self._order, 0
        if order not in (DISCARD, ASIDE):
            return
        last, self._last = self._last, None
        if order == ASIDE:
            self._last, self._before = self._before, None
        if last is None:
            return
        try:
            (self._folder / DISCARDED).mkdir(exist_ok=True)
            last.rename(self._folder / DISCARDED / last.name)
            self.written.remove(last)
        except OSError as error:
            self._fail(f"{last.name} could not be discarded, and is among the episodes still", error)

    def _keep_incident(self) -> None:
        folder = self._folder / f"{self._name()}-incident"
        tree = self._about | {"robopol_version": __version__, "wall_time": time.time(), "rows": self._described()}
        try:
            folder.mkdir(parents=True)
            self._write_before(folder)
            write_json(folder / "incident.json", tree)
        except OSError as error:
            self._fail("what came before a fault could not be written", error)
            shutil.rmtree(folder, ignore_errors=True)

    def _write_before(self, folder: Path) -> None:
        for name, rows in self._past.take().items():
            (folder / f"{BEFORE}{name}.bin").write_bytes(rows.tobytes())

    def _described(self) -> dict[str, Any]:
        return {name: np.lib.format.dtype_to_descr(row) for name, row in self._rows.items()}

    def _write(self, found: dict[str, NDArray[np.void]]) -> None:
        for name, rows in found.items():
            if self._draft is not None:
                self.dropped += self._files[name].add(rows)


def record(recorder: Recorder, rings: Mapping[str, Ring | Joined], alive: Callable[[], bool]) -> None:
    """Empty the rings into a recorder while ``alive``, and then until the arm rests or nothing more is heard of it."""
    heard = time.monotonic()
    while True:
        going = alive()
        lost = sum(ring.lost for ring in rings.values())
        found = {name: ring.take() for name, ring in rings.items()}
        recorder.add(found, lost)
        if len(found["ticks"]):
            heard = time.monotonic()
        if not going and (recorder.at_rest or time.monotonic() - heard > _LINGER):
            break
        time.sleep(_EVERY)
    recorder.end(sum(ring.lost for ring in rings.values()))


def check_folder(folder: Path) -> None:
    """Make the folder of recordings, and see that something can be written there.

    Raises:
        RobotError: If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder) as draft:
            Path(draft, "tried").write_bytes(bytes(4096))
    except OSError as error:
        raise RobotError(f"nothing can be recorded in {folder}: {error}; name another folder, record=") from error


def main() -> None:
    """Record until the parent is gone."""
    lifeline = Lifeline()
    die_with_parent(signal.SIGTERM)  # to end the episode that is going on
    be_polite()
    setup, clock = lifeline.setup, MonotonicClock()
    robot = parse(RobotConfig, setup["robot"])
    channels = Channels.open(robot, setup["channels"])
    steps = np.lib.format.descr_to_dtype(_tuples(setup["steps"]))
    rows = {"ticks": tick_type(len(robot.joints)), "events": EVENT_ROW, "steps": steps}
    about = {"robot": setup["robot"], "operator": setup.get("operator")}
    about["monotonic_ns"] = clock.now()
    album = Album({name: film.ring for name, film in channels.films.items()})

    def tell(**said: Any) -> None:
        with suppress(BrokenPipeError):  # a supervisor that is gone
            say(**said)

    try:
        check_folder(Path(setup["folder"]))
    except RobotError as error:
        say(error=str(error))
        raise SystemExit(1) from None
    recorder = Recorder(Path(setup["folder"]), rows, about, album, tell)
    recorder.speaks(setup["policy"])
    rings: dict[str, Ring | Joined] = {"ticks": channels.ticks, "steps": Ring(channels.steps, steps)}
    rings["events"] = Joined(channels.events, channels.remarks)
    say(ready=True)

    def held() -> bool:
        while (told := lifeline.told()) is not None:
            recorder.speaks(told["policy"])
        return lifeline.held()

    record(recorder, rings, held)


def _tuples(tree: Any) -> Any:
    """Return a row's description as numpy takes it, with tuples where JSON has lists."""
    return [tuple(tuple(x) if isinstance(x, list) else x for x in field) for field in tree]


def load(folder: str | Path) -> tuple[dict[str, NDArray[np.void]], dict[str, Any]]:
    """Read an episode.

    Returns:
        ``ticks``, ``events`` and ``steps`` -> rows; and what ``episode.json`` says.
    """
    tree = load_about(folder)
    return _rows(Path(folder), tree, ""), tree


def load_about(folder: str | Path) -> dict[str, Any]:
    """Read what ``episode.json``, or ``incident.json``, says."""
    name = "episode.json" if Path(folder, "episode.json").exists() else "incident.json"
    tree: dict[str, Any] = json.loads(Path(folder, name).read_text(encoding="utf-8"))
    return tree


def load_before(folder: str | Path) -> dict[str, NDArray[np.void]]:
    """Read what came in the ten seconds before an episode or an incident: ``ticks``, ``events``, ``steps`` -> rows."""
    return _rows(Path(folder), load_about(folder), BEFORE)


def _rows(folder: Path, tree: dict[str, Any], prefix: str) -> dict[str, NDArray[np.void]]:
    described = {name: np.lib.format.descr_to_dtype(_tuples(descr)) for name, descr in tree["rows"].items()}
    return {name: np.fromfile(folder / f"{prefix}{name}.bin", row) for name, row in described.items()}


def load_pictures(folder: str | Path, tree: Mapping[str, Any]) -> dict[str, Pictures]:
    """Open the pictures of an episode.

    Args:
        folder: The episode.
        tree: What its ``episode.json`` says.

    Returns:
        Name of a camera -> its pictures.
    """
    return {
        name: Pictures(Path(folder), name, (about["size"][0], about["size"][1]))
        for name, about in tree.get("pictures", {}).items()
    }


if __name__ == "__main__":
    main()
