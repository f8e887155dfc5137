"""Environments in processes of their own, for worlds that are heavy and step in Python.

gymnasium's ``AsyncVectorEnv`` does not fit the contract: it steps all environments or none, so that an episode that is
over would be stepped on while others run.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from robopol.envs.dealt import DealtVectorEnv, portable, serve
from robopol.envs.vector import VectorEnv
from robopol.errors import EnvError, RobopolError


class ProcessVectorEnv(DealtVectorEnv):
    """A batch whose workers are processes of this machine."""

    def __init__(self, make: Callable[[int], VectorEnv], num_envs: int, workers: int) -> None:
        """Start the workers and make the environments.

        Args:
            make: Makes so many environments; it is sent to the workers, so it must pickle.
            num_envs: How many environments.
            workers: How many processes; no more than environments are started.

        Raises:
            RobopolError: What ``make`` raises.
            EnvError: If a worker dies.
        """
        if workers < 0:
            raise EnvError(f"workers must be at least 0, got {workers}")
        self.count = min(workers, num_envs)
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._pipes: list[Connection] = []
        self._processes = []
        for worker in range(self.count):
            ours, theirs = context.Pipe()
            share = len(range(worker, num_envs, self.count))
            process = context.Process(target=_work, args=(theirs, make, share), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self.num_envs = num_envs
        try:
            facts = [self._receive(worker) for worker in range(self.count)]
        except BaseException:
            self.close()
            raise
        self.spec, self.model_text = facts[0]

    def close(self) -> None:
        """End the workers; closing twice is harmless."""
        for pipe in self._pipes:
            pipe.close()  # a worker ends when its pipe does
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.terminate()
                process.join()
        self._pipes, self._processes = [], []

    def ask(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """See `DealtVectorEnv.ask`.

        Raises:
            EnvError: If a worker died.
        """
        answers, asked = {}, []
        errors: list[RobopolError] = []
        for worker, request in requests.items():
            try:
                self._pipes[worker].send(request)
                asked.append(worker)
            except OSError:
                errors.append(self._death(worker))
        for worker in asked:  # all of them, so that no answer is taken for that to a later request
            try:
                answers[worker] = self._receive(worker)
            except RobopolError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return answers

    def _receive(self, worker: int) -> Any:
        try:
            answer = self._pipes[worker].recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _death(self, worker: int) -> EnvError:
        self._processes[worker].join(10)
        code = self._processes[worker].exitcode
        return EnvError(f"worker {worker} died with exit code {code}; its own output says more")


def _work(pipe: Connection, make: Callable[[int], VectorEnv], count: int) -> None:
    """Make environments and serve requests until the pipe closes."""
    torch.set_num_threads(1)
    try:
        env = make(count)
    except RobopolError as error:
        pipe.send(portable(error))
        return
    with env:
        pipe.send((env.spec, env.model))
        while True:
            try:
                verb, slots, *more = pipe.recv()
            except (EOFError, OSError, KeyboardInterrupt):
                return
            try:
                answer = serve(env, verb, slots, more)
            except RobopolError as error:
                answer = portable(error)
            pipe.send(answer)
