"""Draw the curves of runs.

  robopol plot runs=[RUN,RUN] [out=curves.png]

Training loss, held-out loss and error, and success with its interval, several runs in one picture.
"""

from pathlib import Path

from pydantic import Field

from robopol.config import Config, parse
from robopol.errors import ConfigError


class PlotCommand(Config):
    """What `robopol plot` is told.

    Attributes:
        runs: Run folders.
        out: Where the picture goes.
    """

    runs: tuple[str, ...] = Field(min_length=1)
    out: str = "curves.png"


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    from omegaconf import OmegaConf

    tree = OmegaConf.to_container(OmegaConf.from_dotlist(words))
    command = parse(PlotCommand, tree)  # type: ignore[arg-type]

    from robopol.training.plots import plot_curves

    logs = [Path(name) / "metrics.jsonl" for name in command.runs]
    if missing := [str(log) for log in logs if not log.is_file()]:
        raise ConfigError(f"no log at {', '.join(missing)}: give run folders, runs=[RUN,RUN]")
    plot_curves(logs, Path(command.out))
    print(command.out)
    return 0
