"""Runs on a Ray cluster, each a task that is begun again elsewhere if its node dies."""

from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, Literal

from pydantic import Field

from robopol.config import Config, parse
from robopol.errors import MissingExtraError
from robopol.sweeps.grid import Point
from robopol.sweeps.launchers.launcher import Ended, log_of
from robopol.training.run import is_run


class RayConfig(Config):
    """A Ray cluster, whose nodes see the sweep's folder under the same path.

    Attributes:
        address: Of a running cluster, e.g. ``auto`` or ``ray://head:10001``; None starts one on this machine.
        cpus: Of each run.
        gpus: Of each run; may be a fraction.
        retries: How often a run whose worker or node died is begun again; it goes on from its last checkpoint.
    """

    kind: Literal["ray"] = "ray"
    address: str | None = None
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    retries: int = Field(3, ge=0)

    def build(self) -> "RayLauncher":
        """Return the launcher."""
        return RayLauncher(self)


class RayLauncher:
    """See `RayConfig`."""

    def __init__(self, config: RayConfig) -> None:
        """See `RayConfig.build`."""
        self.config = config

    def launch(self, points: Sequence[Point], ended: Ended) -> None:
        """See `Launcher.launch`."""
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "a sweep on a Ray cluster") from None
        config = self.config
        begun = not ray.is_initialized()
        if begun:
            ray.init(address=config.address, log_to_driver=False, include_dashboard=False)
        options = {"num_cpus": config.cpus, "num_gpus": config.gpus, "max_retries": config.retries, "max_calls": 1}
        remote: Any = ray.remote
        task = remote(**options)(attempt)
        threads = [] if config.cpus < 1 else [f"runtime.threads={int(config.cpus)}"]
        try:
            pending = {}
            for point in points:
                more = [] if any(word.startswith("runtime.threads=") for word in point.words) else threads
                pending[task.remote(point._replace(folder=point.folder.resolve()), more)] = point
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1)
                for reference in done:
                    point = pending.pop(reference)
                    try:
                        ray.get(reference)
                    except ray.exceptions.RayError as error:
                        with open(log_of(point), "a", encoding="utf-8") as log:
                            log.write(f"{error}\n")
                    ended(point, point.finished)
        finally:
            if begun:
                ray.shutdown()


def attempt(point: Point, more: Sequence[str]) -> None:
    """Do a run in this process, which dies with its worker, so that no two ever train in one folder.

    Args:
        point: The run.
        more: Words for one that has not begun.
    """
    from robopol.training.config import TrainConfig
    from robopol.training.train import resume, train
    from robopol.training.words import configured

    with open(log_of(point), "a", encoding="utf-8", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        if is_run(point.folder):
            resume(point.folder)
            return
        words = [*point.words, *more, f"run={point.folder}"]
        train(parse(TrainConfig, configured(words)), words)
