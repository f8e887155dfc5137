"""The folder of one run: what was asked for, where it ran, and its checkpoints.

```
config.json  overrides.txt  environment.json  data.json
checkpoints/<step>/policy/, model/                       what was trained, ready for use; see `robopol.checkpoint`
checkpoints/<step>/train/state.safetensors, progress.json   what training goes on from
checkpoints/last, checkpoints/best                       relative links to a step
segments/                                                what checkpoints share; see `robopol.training.shelf`
```

Everything appears under its name at once and synced to disk, so a process killed at any instant leaves a
folder whose newest checkpoint is whole. A checkpoint, once written, never changes.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from robopol.errors import CheckpointError, DataError
from robopol.files import TEMPORARY, point, whole_file, whole_folder, write_json
from robopol.training.environment import environment
from robopol.training.shelf import Shelf

CONFIG, OVERRIDES, ENVIRONMENT, DATA = "config.json", "overrides.txt", "environment.json", "data.json"
STATE, PROGRESS = "train/state.safetensors", "train/progress.json"
LOCK = ".lock"
SHARED = "segments"
"""Key of the state file's header: the segments that go with it."""


class Checkpoint(NamedTuple):
    """What training goes on from.

    Attributes:
        step: Steps of the run done; see `robopol.training.config.TrainConfig`.
        state: Everything that further updates depend on, on the CPU.
        progress: What was saved beside it.
        segments: Name -> what reads a part of the state that checkpoints share.
    """

    step: int
    state: dict[str, Tensor]
    progress: dict[str, Any]
    segments: dict[str, Callable[[], Tensor]]


class RunFolder:
    """The folder of one run, for the one process that trains in it.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        """Take a folder as it is; use `create` or `open`."""
        self.path = path
        self._checkpoints = path / "checkpoints"
        self._shelf = Shelf(path / "segments")

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        overrides: Sequence[str] = (),
        data: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> Self:
        """Begin a run.

        Args:
            path: The folder; it is made if needed and must not hold a run yet.
            config: The whole configuration, as a tree of JSON types.
            overrides: What was written on the command line.
            data: Source -> what tells its episodes from others, see `check_data`.

        Returns:
            The run folder, without checkpoints.

        Raises:
            CheckpointError: If the folder holds a run already.
        """
        path = Path(path)
        if is_run(path):
            raise CheckpointError(
                f"{path} already holds a run: go on with it by resume={path}, or name another folder by run="
            )
        path.mkdir(parents=True, exist_ok=True)
        with whole_file(path / OVERRIDES) as draft:
            draft.write_text("".join(f"{line}\n" for line in overrides), encoding="utf-8")
        write_json(path / ENVIRONMENT, environment())
        write_json(path / DATA, dict(data))
        write_json(path / CONFIG, config)  # last: a folder is a run once everything else is there
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run to go on with it, and clean up what a killed process left unfinished.

        Only the process that trains may do so: it takes what another one is just writing for a leftover.

        Args:
            path: A folder that `create` made.

        Returns:
            The run folder.

        Raises:
            CheckpointError: If it is not a run folder.
        """
        path = Path(path)
        _check_run(path)
        folder = cls(path)
        for place in (path, folder._checkpoints, folder._shelf.path):
            for leftover in place.glob(f"{TEMPORARY}*"):
                _remove(leftover)
        folder._clear_shelf()
        if steps := folder.steps():
            folder._point("last", steps[-1])
        return folder

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the run was created with.

        Raises:
            CheckpointError: If the file is damaged.
        """
        return _read_json(self.path / CONFIG, "restore it, or start a new run")

    @property
    def environment(self) -> dict[str, Any]:
        """Where the run was created; see `robopol.training.environment`.

        Raises:
            CheckpointError: If the file is damaged.
        """
        return _read_json(self.path / ENVIRONMENT, "restore it, or start a new run")

    def check_data(self, data: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse to go on with other data than those that the run was begun with.

        Args:
            data: Source -> what tells its episodes from others, of JSON types.

        Raises:
            DataError: If a source is not as it was.
            CheckpointError: If what it was begun with cannot be read.
        """
        begun = _read_json(self.path / DATA, "restore it, or start a new run") if data else {}
        for name, now in data.items():
            if (then := begun.get(name)) != now:
                raise DataError(
                    f"data.{name} is not what {self.path} was begun with ({_said(then or {})} then, {_said(now)} "
                    "now): put the data back to go on, or begin another run from its policy with these, "
                    f"checkpoint={self.path}"
                )

    def steps(self) -> list[int]:
        """Return the steps that have a whole checkpoint, oldest first."""
        names = (folder.name for folder in self._checkpoints.glob("[0-9]*") if folder.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def checkpoint(self, step: int) -> Path:
        """Return where the checkpoint of a step lies."""
        return self._checkpoints / f"{step:08d}"

    def save(
        self,
        step: int,
        parts: Mapping[str, Callable[[Path], None]],
        state: Mapping[str, Tensor],
        progress: Mapping[str, Any],
        keep: int,
        segments: Mapping[str, Callable[[], Tensor]] = MappingProxyType({}),
    ) -> None:
        """Write the checkpoint of a step, unless there is one, and point ``last`` to it.

        Args:
            step: Steps of the run done, at least 0.
            parts: Name of a folder -> what writes a part into that folder, which exists.
            state: Everything that further updates depend on; no two tensors may share memory.
            progress: More to save, of JSON types.
            keep: How many of the newest checkpoints stay, at least 1; those that ``last`` and ``best`` point
                to stay as well.
            segments: Name -> what gives a part of the state that is too large to be written each time. Under its name
                it never changes, and it is asked for only where the checkpoint before does not have it.
        """
        folder = self.checkpoint(step)
        if not folder.exists():
            newest = self.steps()[-1:]
            shared = self._shelf.put(segments, self._shared(newest[0]) if newest else {})
            with whole_folder(folder) as draft:
                for name, write in parts.items():
                    (draft / name).mkdir()
                    write(draft / name)
                (draft / "train").mkdir()
                notes = {SHARED: json.dumps(shared, sort_keys=True)}
                save_file({name: value.contiguous() for name, value in state.items()}, draft / STATE, notes)
                write_json(draft / PROGRESS, progress)
        self._point("last", step)
        kept = {self._linked("last"), self._linked("best"), *self.steps()[-keep:]}
        for old in set(self.steps()) - kept:
            _remove(self.checkpoint(old))
        self._clear_shelf()

    def mark_best(self, step: int) -> None:
        """Point ``best`` to the checkpoint of a step.

        Raises:
            CheckpointError: If there is none.
        """
        if step not in self.steps():
            raise CheckpointError(
                f"{self.path} has no checkpoint of step {step} to mark as best; it has {self.steps()}"
            )
        self._point("best", step)

    def latest(self) -> Checkpoint | None:
        """Load the training state of the newest checkpoint.

        Returns:
            The checkpoint, or None if there is none yet.

        Raises:
            CheckpointError: If its files are damaged; says which and what to do.
        """
        steps = self.steps()
        if not steps:
            return None
        folder = self.checkpoint(steps[-1])
        older = f"the checkpoint of step {steps[-2]}" if len(steps) > 1 else "the beginning"
        advice = f"delete {folder} to go on from {older}"
        progress = _read_json(folder / PROGRESS, advice)
        try:
            state, shared = load_file(folder / STATE), self._shared(steps[-1])
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / STATE} cannot be read ({error}): {advice}") from error
        return Checkpoint(steps[-1], state, progress, self._shelf.readers(shared, advice))

    def _shared(self, step: int) -> dict[str, str]:
        """Return the segments that the checkpoint of a step needs, name -> sum."""
        with safe_open(self.checkpoint(step) / STATE, "pt") as file:
            noted: dict[str, str] = json.loads((file.metadata() or {}).get(SHARED, "{}"))
        return noted

    def _clear_shelf(self) -> None:
        """Remove the segments that no checkpoint needs; none while a checkpoint cannot tell which it does."""
        with suppress(OSError, SafetensorError):
            self._shelf.keep(name for step in self.steps() for name in self._shared(step))

    def _point(self, link: str, step: int) -> None:
        point(self._checkpoints / link, self.checkpoint(step).name)

    def _linked(self, link: str) -> int | None:
        """Return the step that a link points to."""
        path = self._checkpoints / link
        return int(os.readlink(path)) if path.is_symlink() else None


def is_run(path: Path) -> bool:
    """Say whether a folder holds a run."""
    return (path / CONFIG).is_file() and (path / ENVIRONMENT).is_file()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Train in a run folder, and keep other processes from doing so; however this one ends, that ends with it.

    Args:
        path: The folder of a run. Where its file system has no locks, nobody is kept out.

    Raises:
        CheckpointError: If another process trains there, or it is not a run folder.
    """
    _check_run(path)
    with open(path / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise CheckpointError(
                f"process {file.read()} trains in {path}: wait until it has ended, or end it"
            ) from error
        except OSError:
            pass
        file.truncate(0)
        file.write(f"{os.getpid()} of {os.uname().nodename}")
        file.flush()
        yield


def _check_run(path: Path) -> None:
    if not is_run(path):
        what = f"has no {CONFIG} and {ENVIRONMENT}" if path.is_dir() else "is not a folder"
        raise CheckpointError(f"{path} {what}: give the folder that the run was started with by run=")


def _said(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value[:12] if isinstance(value, str) else value}" for key, value in told.items())


def _read_json(file: Path, advice: str) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError(f"it holds {type(tree).__name__}, not a mapping")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}): {advice}") from error
    return tree


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder loses its name first, so that no half of it is ever seen."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    if not path.name.startswith(TEMPORARY):
        doomed = path.with_name(f"{TEMPORARY}{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        path = path.rename(doomed)
    shutil.rmtree(path)
