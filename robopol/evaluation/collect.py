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
    """Record episodes until there are enough, and put them together; see `collect_into`."""
    kept: list[Episodes] = []
    collect_into(kept, actor, env, episodes, seed, source=source, only_success=only_success)
    return Episodes.concat(kept)


def collect_into(
    kept: list[Episodes],
    actor: Actor,
    env: VectorEnv,
    episodes: int,
    seed: int,
    *,
    source: str,
    only_success: bool,
) -> None:
    """Record episodes until there are enough.

    What is recorded depends on the actor, the world and the seed alone: episodes are taken in the order of their
    seeds.

    Args:
        kept: Where they are put, one by one. Whatever ends this, Ctrl-C and faults included, those that were whole by
            then are there.
        actor: Who chooses the actions.
        env: Where.
        episodes: How many are wanted.
        seed: Seed of the first that is tried.
        source: Who the actor is, for the record.
        only_success: Keep successful episodes only.

    Raises:
        EnvError: If too few succeed.
    """
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
            try:
                rollout(actor, env, batch, recorder=recorder, on_outcome=count)
            finally:
                kept += [found for found in recorder.whole() if bool(found.success) or not only_success]
            tried += len(batch)
