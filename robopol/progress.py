"""Progress with rate and remaining time: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol


class Advance(Protocol):
    """Reports progress."""

    def __call__(self, done: int, note: str = "") -> None:
        """Say how much is done in all, and a few words that change as the work goes on."""


@contextmanager
def progress(title: str, total: int, unit: str, start: int = 0) -> Iterator[Advance]:
    """Show how a piece of work goes on.

    Args:
        title: What is done.
        total: How many units there are.
        unit: What is counted, e.g. ``"updates"``.
        start: Units that were done before.

    Yields:
        A function to report with.
    """
    begun = time.monotonic()

    def rate(done: int) -> float:
        return (done - start) / max(time.monotonic() - begun, 1e-9)

    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.3g} {task.fields[unit]}/s"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total, completed=start, rate=0.0, unit=unit, note="")
            yield lambda done, note="": bar.update(task, completed=done, rate=rate(done), note=note)
        return

    said = begun

    def line(done: int, note: str = "") -> None:
        nonlocal said
        if done < total and time.monotonic() - said < 10:
            return
        said = time.monotonic()
        speed = rate(done)
        eta = timedelta(seconds=round((total - done) / speed)) if speed > 0 else "unknown"
        text = f"{title}: {done}/{total} {unit}, {speed:.3g}/s, ETA {eta} {note}"
        print(text.rstrip(), file=sys.stderr, flush=True)

    yield line
