"""What tests of exact resumption share: a run that is stopped after a save and taken up, beside one left alone."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from robopol.training.run import RunFolder
from robopol.training.train import resume


def cases(names: Iterable[str], slow: Iterable[str]) -> list[Any]:
    """Return a test's cases, of which some are slow: they save by the code by which another case saves."""
    names, slow = list(names), list(slow)
    assert set(slow) < set(names)
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def stop_and_resume(
    place: Path, begin: Callable[[Path], object], stops: Callable[[int], bool], go_on: Callable[[Path], object] = resume
) -> tuple[Path, Path]:
    """Train in ``place/whole``; and in ``place/stopped`` until a step for which ``stops`` was saved, then go on.

    Args:
        place: An empty folder.
        begin: Trains in a new run folder.
        stops: Says after which saved step the run is stopped.
        go_on: Takes a run folder up.

    Returns:
        Both run folders.
    """
    whole, stopped = place / "whole", place / "stopped"
    begin(whole)
    save = RunFolder.save

    def save_and_stop(self, step, *rest):
        save(self, step, *rest)
        if stops(step):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            begin(stopped)
    torch.rand(7)
    go_on(stopped)
    return whole, stopped


def assert_same_bits(one: Path, other: Path, *holds: str) -> None:
    """Compare all tensors of the last checkpoints of two runs, and what these share with others.

    Args:
        one: A run folder.
        other: Another.
        *holds: What the checkpoint holds beside the training state: ``policy``, ``model``.
    """
    places = ("checkpoints/last/*/*.safetensors", "segments/*.safetensors")
    files, others = (
        sorted(file.relative_to(run) for place in places for file in run.glob(place)) for run in (one, other)
    )
    assert files == others
    assert {file.parent.name for file in files} >= {"train", *holds}
    for file in files:
        mine, theirs = load_file(one / file), load_file(other / file)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in mine.items()), file
