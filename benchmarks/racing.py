"""Races: contenders in processes of their own take turns; a round that other processes disturbed is dropped."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import psutil

WARM_UP = 2  # rounds before the first that counts

Turn = Callable[[], Any]
"""Takes one turn; returns what it measured."""


class Race(NamedTuple):
    """What the contenders answered, by name and in order.

    Attributes:
        kept: Answers of the rounds that count.
        every: Answers of all rounds, with the warm-up and the dropped ones.
        rounds_kept: Rounds that count.
        rounds_dropped: Rounds in which other processes used more of the machine than was allowed.
    """

    kept: dict[str, list[Any]]
    every: dict[str, list[Any]]
    rounds_kept: int
    rounds_dropped: int


class Spread(NamedTuple):
    """Median and ends of some figures."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    return Spread(statistics.median(figures), min(figures), max(figures))


def race(makers: Mapping[str, Callable[[], Turn]], rounds: int, contention: float) -> Race:
    """Interleave contenders until enough undisturbed rounds are kept, or three times as many were run.

    Args:
        makers: Name -> what makes the contender's turn, called in its process; picklable, e.g. a `functools.partial`.
        rounds: Undisturbed rounds to keep.
        contention: Cores that other processes may use in a round.

    Returns:
        The answers.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    kept: dict[str, list[Any]] = {name: [] for name in makers}
    every: dict[str, list[Any]] = {name: [] for name in makers}
    rounds_kept = rounds_dropped = 0
    try:
        for make in makers.values():
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, make))
            process.start()
            there.close()  # so that the end of the process is the end of the pipe
            pipes.append(here)
            processes.append(process)
            here.recv()  # one after the other: what a contender measures when it starts, it measures undisturbed
        for number in range(WARM_UP + 3 * rounds):
            others, begin = cpu_seconds_of_others(), time.perf_counter()
            for name, pipe in zip(makers, pipes, strict=True):
                pipe.send(True)
                every[name].append(pipe.recv())
            share = (cpu_seconds_of_others() - others) / (time.perf_counter() - begin)
            if number < WARM_UP:
                continue
            if share > contention:
                rounds_dropped += 1
                continue
            rounds_kept += 1
            for name in makers:
                kept[name].append(every[name][-1])
            if rounds_kept == rounds:
                break
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            with suppress(BrokenPipeError):
                pipe.send(False)
            process.join()
    return Race(kept, every, rounds_kept, rounds_dropped)


def _serve(pipe: Connection, make: Callable[[], Turn]) -> None:
    """Run in a process of its own: on each request take one turn and answer with what it measured."""
    turn = make()
    pipe.send(True)
    while pipe.recv():
        pipe.send(turn())


def cpu_seconds_of_others() -> float:
    """Return the CPU seconds that processes other than this one and its children have used so far."""
    total = psutil.cpu_times()
    busy = sum(total) - total.idle - getattr(total, "iowait", 0.0) - getattr(total, "guest", 0.0)
    here = psutil.Process()
    own = 0.0
    for process in [here, *here.children(recursive=True)]:
        used = process.cpu_times()
        own += used.user + used.system
    return float(busy - own)
