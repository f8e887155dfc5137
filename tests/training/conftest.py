"""Settings of the tests of training."""

from pathlib import Path

import pytest

from robopol.training import plots


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Spare the runs of single tests their curves: drawing takes longer than so short a training.

    Runs of fixtures, of the command line and the tests of plots draw theirs.
    """

    def plot_curves(_logs: list[Path], out: Path) -> None:
        out.touch()

    monkeypatch.setattr(plots, "plot_curves", plot_curves)
