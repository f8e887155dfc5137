"""One of some processes that take a step of every algorithm together: ``torchrun teammate.py FOLDER``."""

import sys
from pathlib import Path

import pytest
from algos.learners import OFFLINE, learner
from algos.test_trained import step_of
from safetensors.torch import save_file

from robopol.training.team import join


def main(folder: Path) -> None:
    """Write the gradients that this process's optimisers were given, a file for every algorithm."""
    patch = pytest.MonkeyPatch()
    with join() as team:
        for kind in OFFLINE:
            found = step_of(learner(kind, folder, seed=team.rank), team, patch)
            save_file({str(i): one for i, one in enumerate(found)}, folder / f"{kind}-{team.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
