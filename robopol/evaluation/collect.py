"""Collects a number of episodes of an actor."""

from robopol.data import Episodes
from robopol.envs import VectorEnv
from robopol.errors import EnvError
from robopol.evaluation.actors import Actor
from robopol.evaluation.recorder import Recorder
from robopol.evaluation.rollout import Outcome, rollout
from robopol.progress import progress

PATIENCE = 10
"""How many times the wanted number of episodes are tried before giving up."""


def collect(actor: Actor, env: VectorEnv, episodes: int, seed: int, *, source: str, only_success: bool) -> Episodes:
    """Record episodes until there are enough.

    What is recorded depends on the actor, the world and the seed alone: episodes are taken in the order of their
    seeds.

    Args:
        actor: Who chooses the actions.
        env: Where.
        episodes: How many are wanted.
        seed: Seed of the first that is tried.
        source: Who the actor is, for the record.
        only_success: Keep successful episodes only.

    Returns:
        The episodes.

    Raises:
        EnvError: If too few succeed.
    """
    kept: list[Episodes] = []
    have = tried = 0
    with progress("collecting", episodes, "episodes") as report:

        def count(outcome: Outcome) -> None:
            nonlocal have
            have += outcome.success or not only_success
            report(have)

        while have < episodes:
            if tried >= PATIENCE * episodes:
                raise EnvError(
                    f"only {have} of {tried} episodes of {env.spec.id} succeeded, {episodes} are wanted: "
                    "record failures too (keep=all) or ask for fewer"
                )
            recorder = Recorder(env, source)
            batch = range(seed + tried, seed + tried + episodes - have)
            rollout(actor, env, batch, recorder=recorder, on_outcome=count)
            tried += len(batch)
            found = recorder.episodes()
            kept.append(found.select(found.success.nonzero()[:, 0]) if only_success else found)
    return Episodes.concat(kept)
