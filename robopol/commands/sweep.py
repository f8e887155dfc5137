"""Train many runs, every combination of what is listed, and put them together.

  robopol sweep out=runs/lr -- experiment=demo data.demos.uri=demos.hdf5 seed=0,1,2,3,4 algo.lr=1e-4,1e-3
  robopol sweep out=runs/lr launcher.jobs=2 -- ...                 two at a time on this machine
  robopol sweep out=runs/lr launcher=ray launcher.address=auto -- ...
  robopol sweep out=runs/lr launcher=slurm launcher.partition=gpu launcher.gpus=1 -- ...

After -- stand the words of `robopol train`; those that list several values (a=1,2 or a=range(5)) are swept. The same
line again goes on with what was interrupted, tries again what failed, and adds what is new; finished runs are kept.
Seeds and worlds are averaged over, all else that is swept is a setting: its interquartile mean with a 95% interval,
bootstrapped within each world, is printed and goes to out/sweep.json, with a picture beside it. What a run printed is
in out/RUN.log.txt.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from robopol.config import Config, OneOf, parse
from robopol.configs import load_config
from robopol.errors import ConfigError
from robopol.sweeps.aggregate import Score
from robopol.sweeps.grid import Point


class SweepCommand(Config):
    """What `robopol sweep` is told.

    Attributes:
        out: The folder of the sweep.
        launcher: Where the runs are done.
        score: What is compared, of the evaluation at each run's end.
    """

    out: str
    launcher: Annotated[Any, OneOf("launcher")]
    score: Score = "success_rate"


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    if "--" not in words:
        raise ConfigError(
            "after the sweep's own words stand -- and those of robopol train: sweep out=DIR -- env=push ..."
        )
    cut = words.index("--")
    command = parse(SweepCommand, load_config("sweep", words[:cut]))

    from robopol.sweeps.aggregate import report, settings
    from robopol.sweeps.grid import check, grid
    from robopol.sweeps.picture import plot_sweep

    folder = Path(command.out)
    points = grid(words[cut + 1 :], folder)
    check(points)
    _check_runs(points, command.score)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [point for point in points if not point.finished]
    print(f"{len(points)} runs, {len(points) - len(missing)} of them finished", flush=True)
    failed: list[Point] = []

    def ended(point: Point, well: bool) -> None:
        if not well:
            failed.append(point)
        print(f"{'finished' if well else 'FAILED  '}  {point.folder}", flush=True)

    if missing:
        with _interrupted_by(signal.SIGTERM, signal.SIGHUP):
            command.launcher.build().launch(missing, ended)
    found = settings(points, command.score)
    if found:
        report(found, command.score, folder / "sweep.json")
        plot_sweep(found, command.score, folder / "sweep.png")
        print(f"sweep: {folder / 'sweep.json'}")
    for point in failed:
        print(f"{point.folder} failed: {_last_line(Path(f'{point.folder}.log.txt'))}", file=sys.stderr)
    return 1 if failed else 0


def _check_runs(points: Sequence[Point], score: Score) -> None:
    """Refuse, before anything starts, what cannot be run or compared."""
    from robopol.training.config import TrainConfig
    from robopol.training.words import configured

    worlds = set()
    for point in points:
        config = parse(TrainConfig, configured(point.words) | {"run": str(point.folder)})
        if config.env is None or config.eval.final_episodes == 0:
            raise ConfigError(
                "runs are compared by the evaluation at their end: name a world by env=, and let eval.final_episodes "
                "be at least 1"
            )
        worlds.add(config.env.id)
    if score == "return_mean" and len(worlds) > 1:
        raise ConfigError(
            f"returns of different worlds ({', '.join(sorted(worlds))}) are not of one scale: sweep one world, or "
            "score=success_rate"
        )


@contextmanager
def _interrupted_by(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals that would end this process at once interrupt it, so that it ends its runs first."""
    deadly = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores one
    for number in deadly:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)


def _last_line(log: Path) -> str:
    """Return the last thing that a run said, and where the rest is."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line for line in lines if line.strip()]
    return f"{said[-1].strip() if said else 'it said nothing'} ({log})"
