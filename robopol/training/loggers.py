"""The log of a run: one JSON object a line, a CSV at the end, and TensorBoard or wandb beside it on request.

``metrics.jsonl`` is the truth; the other sinks are copies, and one that breaks is dropped with a warning
while training goes on.
"""

import csv
import json
import math
import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from robopol.config import Config
from robopol.errors import ConfigError, DataError, MissingExtraError
from robopol.files import whole_file

METRICS = "metrics.jsonl"
AXES = ("global_step", "env_steps", "time")
"""What every line says besides its metrics: updates done, environment steps done, seconds since 1970."""


class LoggingConfig(Config):
    """Where the log goes besides the run folder.

    Attributes:
        tensorboard: Whether TensorBoard event files are written to ``tb/``.
        wandb: Weights & Biases: ``"offline"`` only writes to ``wandb/`` and needs no login.
        wandb_project: The project that the run appears in.
    """

    tensorboard: bool = False
    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "robopol"


class MetricsLog:
    """``metrics.jsonl`` of a run."""

    def __init__(self, run: Path) -> None:
        """Log into the folder ``run``, which must exist."""
        self.path = run / METRICS

    def log(self, step: int, metrics: Mapping[str, float], env_steps: int = 0) -> None:
        """Append one line.

        Args:
            step: Updates done.
            metrics: ``group/name`` -> value; one that is not finite is written as null.
            env_steps: Environment steps done.
        """
        line: dict[str, Any] = {"global_step": step, "env_steps": env_steps, "time": round(time.time(), 3)}
        line |= {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def rewind(self, step: int, env_steps: int | None = None) -> None:
        """Drop what was logged after a moment of the run, and a last line that was cut off, in one step.

        Args:
            step: Updates done then; -1 drops everything.
            env_steps: Environment steps done then; None where there are none.
        """
        if not self.path.exists():
            return
        lines = read_metrics(self.path)
        most = math.inf if env_steps is None else env_steps
        kept = [line for line in lines if line["global_step"] <= step and line["env_steps"] <= most]
        with whole_file(self.path) as draft:
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def flush(self) -> None:
        """Wait until everything logged so far is on disk."""
        if self.path.exists():
            with self.path.open("a") as file:
                os.fsync(file.fileno())

    def write_csv(self) -> Path:
        """Write ``metrics.csv``: a row for every line, a column for everything that any line says.

        Returns:
            Where it lies.
        """
        lines = read_metrics(self.path) if self.path.exists() else []
        columns = dict.fromkeys([*AXES, *(name for line in lines for name in line)])
        table = self.path.with_suffix(".csv")
        with whole_file(table) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(lines)
        return table


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a ``metrics.jsonl``, also that of a run that is just writing it.

    Args:
        path: The file.

    Returns:
        Its lines; a last one that is cut off is left out.

    Raises:
        DataError: If the file is missing, or another line is not what `MetricsLog.log` writes.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    # what follows the last line end is a line that is cut off, or nothing
    return [_read_line(path, number, line) for number, line in enumerate(lines[:-1], 1)]


def _read_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(line)
        if not isinstance(values["global_step"], int):
            raise ValueError("its global_step is not an integer")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"line {number} of {path} is damaged ({error}): repair or delete that line") from error
    return values


class Sink(Protocol):
    """A copy of the log somewhere else."""

    def log(self, step: int, metrics: Mapping[str, float], env_steps: int) -> None:
        """See `MetricsLog.log`."""

    def rewind(self, step: int) -> None:
        """See `MetricsLog.rewind`."""

    def flush(self) -> None:
        """See `MetricsLog.flush`."""

    def close(self) -> None:
        """Finish; nothing is logged afterwards."""


class TensorBoard:
    """Event files in ``tb/``; a `Sink`."""

    def __init__(self, run: Path) -> None:
        """Log the run in the folder ``run``.

        Raises:
            MissingExtraError: If TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard", "logging.tensorboard=true") from error
        self._open: Callable[[int | None], Any] = lambda purge: SummaryWriter(str(run / "tb"), purge_step=purge)
        self._writer: Any = self._open(None)

    def log(self, step: int, metrics: Mapping[str, float], env_steps: int) -> None:
        """See `MetricsLog.log`."""
        for name, value in {**metrics, "time/env_steps": env_steps}.items():
            self._writer.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """See `MetricsLog.rewind`; TensorBoard then hides the dropped points."""
        self._writer.close()
        self._writer = self._open(step + 1)

    def flush(self) -> None:
        """See `MetricsLog.flush`."""
        self._writer.flush()

    def close(self) -> None:
        """See `Sink.close`."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, resumed under the same id; a `Sink`."""

    def __init__(self, run: Path, config: LoggingConfig) -> None:
        """Log the run in the folder ``run``.

        Args:
            run: The run folder; the id lies in its ``wandb_id.txt``.
            config: Mode and project.

        Raises:
            MissingExtraError: If wandb is not installed.
            ConfigError: If it does not start, e.g. for lack of a login.
        """
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb", f"logging.wandb={config.wandb}") from error
        whole = run / "config.json"
        try:
            self._run: Any = wandb.init(
                project=config.wandb_project,
                mode="online" if config.wandb == "online" else "offline",
                name=run.resolve().name,
                id=_wandb_id(run / "wandb_id.txt"),
                resume="allow",
                dir=str(run),
                config=json.loads(whole.read_text(encoding="utf-8")) if whole.exists() else {},
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as error:
            raise ConfigError(
                f"wandb did not start ({error}): log in by 'wandb login', or use logging.wandb=offline and "
                "send the run later by 'wandb sync'"
            ) from error
        # wandb's own step may not go back, which that of a resumed run does
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")

    def log(self, step: int, metrics: Mapping[str, float], env_steps: int) -> None:
        """See `MetricsLog.log`."""
        self._run.log({**metrics, "global_step": step, "env_steps": env_steps})

    def rewind(self, step: int) -> None:
        """Keep everything: wandb cannot forget, so a resumed stretch appears twice there."""

    def flush(self) -> None:
        """Do nothing: wandb writes on its own."""

    def close(self) -> None:
        """See `Sink.close`."""
        self._run.finish()


def _wandb_id(file: Path) -> str:
    """Return the id that the run has, or give it one."""
    if not file.exists():
        with whole_file(file) as draft:
            draft.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return file.read_text(encoding="utf-8")


class Loggers:
    """The log of a run and its copies, as one."""

    def __init__(self, run: Path, config: LoggingConfig) -> None:
        """Open the log in the folder ``run``.

        Args:
            run: The run folder.
            config: The copies that are wished for.

        Raises:
            MissingExtraError: If a package for one of them is not installed.
            ConfigError: If one of them does not start.
        """
        self._log = MetricsLog(run)
        self._sinks: list[Sink] = []
        if config.tensorboard:
            self._sinks.append(TensorBoard(run))
        if config.wandb != "off":
            self._sinks.append(WandB(run, config))

    def log(self, step: int, metrics: Mapping[str, float], env_steps: int = 0) -> None:
        """See `MetricsLog.log`; no metrics, no line."""
        if not metrics:
            return
        self._log.log(step, metrics, env_steps)
        self._tell(lambda sink: sink.log(step, metrics, env_steps))

    def rewind(self, step: int, env_steps: int | None = None) -> None:
        """See `MetricsLog.rewind`."""
        self._log.rewind(step, env_steps)
        self._tell(lambda sink: sink.rewind(step))

    def flush(self) -> None:
        """See `MetricsLog.flush`."""
        self._log.flush()
        self._tell(lambda sink: sink.flush())

    def close(self) -> None:
        """Write ``metrics.csv`` and finish the copies."""
        self._log.write_csv()
        self._tell(lambda sink: sink.close())

    def _tell(self, message: Callable[[Sink], None]) -> None:
        """Tell every copy; drop one that fails, with a warning, because training matters more."""
        for sink in list(self._sinks):
            try:
                message(sink)
            except Exception as error:
                self._sinks.remove(sink)
                name = type(sink).__name__
                warnings.warn(
                    f"{name} failed and gets no more metrics ({type(error).__name__}: {error}); "
                    f"{self._log.path} still gets them all",
                    RuntimeWarning,
                    stacklevel=3,
                )
