"""Environments on the machines of a Ray cluster, which may lose some of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from robopol.envs.dealt import DealtVectorEnv, portable, serve
from robopol.envs.vector import VectorEnv
from robopol.errors import EnvError, MissingExtraError, RobopolError

MOST_LOSSES = 10
"""So many times one request is tried with a new worker in place of a lost one."""


class Episode(NamedTuple):
    """What leads to where a slot is: an episode is a function of them.

    Attributes:
        seed: Of its reset.
        state: Where it was continued from, if it was.
        actions: Those since then, (A,) each.
    """

    seed: int
    state: NDArray[np.float64] | None
    actions: list[NDArray[np.float32]]


class RayVectorEnv(DealtVectorEnv):
    """A batch whose workers are actors of a Ray cluster.

    A worker that is lost, with its node or by itself, is replaced by a new one, in which the running episodes are
    begun again from their seeds and taken through their actions; then it is asked again. Whoever steps the batch sees
    no difference, and no step is counted twice.

    Attributes:
        lost: Workers that were replaced.
    """

    def __init__(self, make: Callable[[int], VectorEnv], num_envs: int, workers: int, cluster: str) -> None:
        """Start the workers and make the environments.

        Args:
            make: Makes so many environments; it is sent to the workers, so it must pickle.
            num_envs: How many environments.
            workers: How many actors, of one core each; no more than environments are started.
            cluster: Address of a running cluster, such as ``auto`` or ``ray://head:10001``; ``local`` starts one here.

        Raises:
            MissingExtraError: If Ray is not installed.
            RobopolError: What ``make`` raises.
            EnvError: If there is no such cluster, or workers are lost again and again.
        """
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "worlds on a Ray cluster") from None
        if workers < 1:
            raise EnvError(f"worlds on a Ray cluster need at least 1 worker, got workers={workers}")
        self._ray: Any = ray
        self._begun = not ray.is_initialized()
        if self._begun:
            told: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False}
            try:
                ray.init(**told) if cluster == "local" else ray.init(address=cluster, log_to_driver=False)
            except (ConnectionError, RuntimeError) as error:
                raise EnvError(f"there is no Ray cluster at '{cluster}': {error}") from error
        self.num_envs, self.count = num_envs, min(workers, num_envs)
        self.lost = 0
        self._make = make
        self._episodes: list[Episode | None] = [None] * num_envs
        self._actors: list[Any] = [None] * self.count
        try:
            facts = self._answers({worker: ("facts", []) for worker in range(self.count)})
        except BaseException:
            self.close()
            raise
        self.spec, self.model_text = facts[0]

    def ask(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """See `DealtVectorEnv.ask`.

        Raises:
            EnvError: If a worker was lost `MOST_LOSSES` times.
        """
        answers = self._answers(requests)
        for worker, (verb, slots, *more) in requests.items():
            for row, own in enumerate(slots):
                self._remember(
                    own * self.count + worker, verb, [part[row] for part in more] if verb != "restore_state" else more
                )
        return answers

    def close(self) -> None:
        """End the workers, and the cluster if it was started here; closing twice is harmless."""
        for actor in self._actors:
            if actor is not None:
                self._ray.kill(actor)
        self._actors = [None] * self.count
        if self._begun:
            self._begun = False
            self._ray.shutdown()

    def _answers(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Ask until every worker has answered; new ones are told first how their slots came to be where they are."""
        answers: dict[int, Any] = {}
        for _ in range(MOST_LOSSES + 1):
            for worker in requests.keys() - answers.keys():
                if self._actors[worker] is None:
                    self._start(worker)
            waiting = {
                worker: self._actors[worker].serve.remote(*requests[worker])
                for worker in requests.keys() - answers.keys()
            }
            for worker, reference in waiting.items():
                try:
                    answers[worker] = self._ray.get(reference)
                except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError):
                    self._ray.kill(self._actors[worker])  # an answer is lost with its node, too, however well it went
                    self._actors[worker] = None
                    self.lost += 1
            if len(answers) == len(requests):
                break
        else:
            raise EnvError(f"workers on the Ray cluster were lost {MOST_LOSSES} times in a row: look at its logs")
        for answer in answers.values():
            if isinstance(answer, RobopolError):
                raise answer
        return answers

    def _start(self, worker: int) -> None:
        """Start an actor, and let its slots come to where they were."""
        share = len(range(worker, self.num_envs, self.count))
        remote: Any = self._ray.remote
        actor = remote(num_cpus=1, max_restarts=0)(Worker).remote(self._make, share)
        self._actors[worker] = actor
        for own in range(share):
            episode = self._episodes[own * self.count + worker]
            if episode is not None:
                actor.repeat.remote(own, *episode)

    def _remember(self, slot: int, verb: str, more: list[Any]) -> None:
        """Take note of what a slot was told."""
        if verb == "reset":
            self._episodes[slot] = Episode(more[0], None, [])
        elif verb == "restore_state":
            before = self._episodes[slot]
            self._episodes[slot] = Episode(before.seed if before else 0, more[0], [])
        elif verb == "step":
            episode = self._episodes[slot]
            assert episode is not None  # the worker would have refused
            episode.actions.append(more[0])


class Worker:
    """Environments in a process of a cluster."""

    def __init__(self, make: Callable[[int], VectorEnv], count: int) -> None:
        """Make them; what goes wrong is answered to the first request."""
        torch.set_num_threads(1)
        self._fault: RobopolError | None = None
        try:
            self._env = make(count)
        except RobopolError as error:
            self._fault = portable(error)

    def serve(self, verb: str, slots: list[int], *more: Any) -> Any:
        """Answer a request; an error of robopol's is an answer, too."""
        if self._fault is not None:
            return self._fault
        if verb == "facts":
            return self._env.spec, self._env.model
        try:
            return serve(self._env, verb, slots, list(more))
        except RobopolError as error:
            return portable(error)

    def repeat(
        self, slot: int, seed: int, state: NDArray[np.float64] | None, actions: list[NDArray[np.float32]]
    ) -> None:
        """Bring a slot to where another worker had it."""
        if self._fault is not None:
            return
        self._env.reset([slot], [seed])
        if state is not None:
            self._env.restore_state(slot, torch.from_numpy(state))
        for action in actions:
            self._env.step([slot], torch.from_numpy(action)[None])
