"""Runs on a Slurm cluster: one array of jobs, written and submitted by submitit."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from robopol.config import Config
from robopol.errors import ConfigError, MissingExtraError
from robopol.sweeps.grid import Point
from robopol.sweeps.launchers.launcher import Ended, log_of


class SlurmConfig(Config):
    """A Slurm cluster, whose nodes see the sweep's folder and this Python under the same paths.

    Attributes:
        partition: Where the jobs go; None is the cluster's default.
        minutes: Time limit of each job; one that is cut off or preempted is submitted again by submitit, and goes on
            from its last checkpoint.
        cpus: Of each run.
        gpus: Of each run.
        memory_gb: Of each run.
        jobs: Most runs at a time.
        options: More options of ``#SBATCH``, e.g. ``{account: robots}``.
        cluster: ``slurm``; ``local`` runs the same jobs as processes of this machine, to try them.
        poll: Seconds between two looks at the jobs.
    """

    kind: Literal["slurm"] = "slurm"
    partition: str | None = None
    minutes: int = Field(240, ge=1)
    cpus: int = Field(4, ge=1)
    gpus: int = Field(0, ge=0)
    memory_gb: int = Field(8, ge=1)
    jobs: int = Field(64, ge=1)
    options: dict[str, JsonValue] = Field(default_factory=dict)
    cluster: Literal["slurm", "local"] = "slurm"
    poll: float = Field(10.0, gt=0)

    def build(self) -> "Slurm":
        """Return the launcher."""
        return Slurm(self)


class Attempt:
    """What a job does; submitit asks it what is to be done when the job was cut off."""

    def __init__(self, point: Point, threads: int) -> None:
        """Remember the run.

        Args:
            point: Its folder is absolute.
            threads: It may use so many, unless its words say otherwise.
        """
        self.point, self.threads = point, threads

    def __call__(self) -> int:
        """Do the run; return its exit status."""
        told = any(word.startswith("runtime.threads=") for word in self.point.words)
        command = self.point.command([] if told else [f"runtime.threads={self.threads}"])
        with open(log_of(self.point), "ab") as log:
            return subprocess.run([sys.executable, "-m", "robopol.cli", *command], stdout=log, stderr=log).returncode

    def checkpoint(self) -> Any:
        """Say what is submitted in place of a job that was cut off: the same, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Slurm:
    """See `SlurmConfig`."""

    def __init__(self, config: SlurmConfig) -> None:
        """See `SlurmConfig.build`."""
        self.config = config

    def launch(self, points: Sequence[Point], ended: Ended) -> None:
        """See `Launcher.launch`."""
        jobs = dict(zip(self.submit(points), points, strict=True))
        while jobs:
            for job in [job for job in jobs if job.done(force_check=False)]:
                point = jobs.pop(job)
                fault = job.exception()
                if fault is not None:
                    with open(log_of(point), "a", encoding="utf-8") as log:
                        log.write(f"{fault}\n")
                ended(point, fault is None and job.result() == 0)
            if jobs:
                time.sleep(self.config.poll)

    def submit(self, points: Sequence[Point]) -> list[Any]:
        """Submit all runs as one array; return submitit's jobs, in the same order."""
        try:
            import submitit
        except ImportError:
            raise MissingExtraError("submitit", "slurm", "a sweep on a Slurm cluster") from None
        config = self.config
        folder = Path(os.path.commonpath([point.folder.resolve().parent for point in points])) / "slurm"
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=config.cluster)
        except RuntimeError as error:
            raise ConfigError(f"there is no Slurm on this machine ({error}): use launcher=local or ray") from error
        executor.update_parameters(
            name="robopol",
            timeout_min=config.minutes,
            cpus_per_task=config.cpus,
            gpus_per_node=config.gpus,
            mem_gb=config.memory_gb,
            slurm_partition=config.partition,
            slurm_array_parallelism=config.jobs,
            slurm_additional_parameters=dict(config.options),
        )
        attempts = [Attempt(point._replace(folder=point.folder.resolve()), config.cpus) for point in points]
        with executor.batch():
            return [executor.submit(attempt) for attempt in attempts]
