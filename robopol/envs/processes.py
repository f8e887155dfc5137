"""Environments in processes of their own, for worlds that are heavy and step in Python.

gymnasium's ``AsyncVectorEnv`` does not fit the contract: it steps all environments or none, so that an episode that is
over would be stepped on while others run.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.errors import ConfigError, EnvError, RobopolError


class ProcessVectorEnv(VectorEnv):
    """A batch whose slots are dealt out to worker processes in turn; its results are those of a batch in one process.

    There is no looking inside: `envs` is empty, so that experts, which read the world, cannot act.
    """

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
        count = min(workers, num_envs)
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._pipes: list[Connection] = []
        self._processes = []
        for worker in range(count):
            ours, theirs = context.Pipe()
            share = len(range(worker, num_envs, count))
            process = context.Process(target=_work, args=(theirs, make, share), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        try:
            facts = [self._receive(worker) for worker in range(count)]
        except BaseException:
            self.close()
            raise
        self.spec, self._model = facts[0]

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        slots = self.check_slots(slots)
        seeds = self.check_seeds(slots, seeds)
        rows = self._deal(slots)
        parts = self._ask(
            {w: ("reset", [slots[r] for r in mine], [seeds[r] for r in mine]) for w, mine in rows.items()}
        )
        return self._merge(rows, parts, len(slots))

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        slots = self.check_slots(slots)
        array = self.check_actions(slots, actions)
        rows = self._deal(slots)
        parts = self._ask({w: ("step", [slots[r] for r in mine], array[mine]) for w, mine in rows.items()})
        obs = self._merge(rows, {worker: part[0] for worker, part in parts.items()}, len(slots))
        dtypes = (torch.float32, torch.bool, torch.bool, torch.bool, torch.int64)
        columns = [torch.zeros(len(slots), dtype=dtype) for dtype in dtypes]
        for worker, mine in rows.items():
            for column, part in zip(columns, parts[worker][1:], strict=True):
                column[mine] = torch.from_numpy(part)
        return StepResult(obs, *columns)

    def render(self, slot: int) -> NDArray[np.uint8]:
        """See `VectorEnv.render`."""
        picture: NDArray[np.uint8] = self._one("render", slot)
        return picture

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

    @property
    def model(self) -> str | None:
        """See `VectorEnv.model`."""
        return self._model

    def save_state(self, slot: int) -> Tensor | None:
        """See `VectorEnv.save_state`."""
        state = self._one("save_state", slot)
        return None if state is None else torch.from_numpy(state)

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        observation = self._one("restore_state", slot, state.numpy())
        return {key: torch.from_numpy(value) for key, value in observation.items()}

    def _deal(self, slots: list[int]) -> dict[int, list[int]]:
        """Return worker -> rows of the slots that it holds."""
        rows: dict[int, list[int]] = {}
        for row, slot in enumerate(slots):
            rows.setdefault(slot % len(self._pipes), []).append(row)
        return rows

    def _one(self, verb: str, slot: int, *more: Any) -> Any:
        (slot,) = self.check_slots([slot])
        worker = slot % len(self._pipes)
        return self._ask({worker: (verb, [slot], *more)})[worker]

    def _ask(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Send a request to some workers, their own slots numbered from 0, and wait for all answers.

        Raises:
            RobopolError: The first that a worker raised, once all have answered.
        """
        for worker, (verb, slots, *more) in requests.items():
            self._pipes[worker].send((verb, [slot // len(self._pipes) for slot in slots], *more))
        answers, errors = {}, []
        for worker in requests:
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
            self._processes[worker].join(10)
            code = self._processes[worker].exitcode
            raise EnvError(f"worker {worker} died with exit code {code}; its own output says more") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _merge(self, rows: dict[int, list[int]], parts: dict[int, dict[str, Any]], count: int) -> Observation:
        merged = {
            key: torch.zeros(count, *shape, dtype=getattr(torch, self.spec.obs_dtypes[key]))
            for key, shape in self.spec.obs_shapes.items()
        }
        for worker, mine in rows.items():
            for key, value in parts[worker].items():
                merged[key][mine] = torch.from_numpy(value)
        return merged


def _work(pipe: Connection, make: Callable[[int], VectorEnv], count: int) -> None:
    """Make environments and serve requests until the pipe closes."""
    torch.set_num_threads(1)
    try:
        env = make(count)
    except RobopolError as error:
        pipe.send(_portable(error))
        return
    with env:
        pipe.send((env.spec, env.model))
        while True:
            try:
                verb, slots, *more = pipe.recv()
            except (EOFError, KeyboardInterrupt):
                return
            try:
                answer = _serve(env, verb, slots, more)
            except RobopolError as error:
                answer = _portable(error)
            pipe.send(answer)


def _portable(error: RobopolError) -> RobopolError:
    """Return an error that can be sent: some are not made from their text alone."""
    return error if type(error) in (ConfigError, EnvError) else EnvError(str(error))


def _serve(env: VectorEnv, verb: str, slots: list[int], more: list[Any]) -> Any:
    """Answer one request in numpy arrays, which travel without shared memory."""
    if verb == "reset":
        return {key: value.numpy() for key, value in env.reset(slots, more[0]).items()}
    if verb == "step":
        result = env.step(slots, torch.from_numpy(more[0]))
        return {key: value.numpy() for key, value in result.obs.items()}, *(part.numpy() for part in result[1:])
    if verb == "render":
        return env.render(slots[0])
    if verb == "save_state":
        state = env.save_state(slots[0])
        return None if state is None else state.numpy()
    return {key: value.numpy() for key, value in env.restore_state(slots[0], torch.from_numpy(more[0])).items()}
