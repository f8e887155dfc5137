"""What `robopol data check` finds: a valid dataset, the world it names, and a replay in it."""

from typing import TYPE_CHECKING, Any, Literal

from robopol.errors import EnvError

if TYPE_CHECKING:
    from robopol.data import Episodes
    from robopol.envs import VectorEnv
    from robopol.evaluation.replay import Drift
    from robopol.evaluation.restart import Restart


def check(
    episodes: "Episodes", mode: Literal["auto", "states", "actions", "none"], count: int, steps: int, tolerance: float
) -> tuple[dict[str, Any], bool]:
    """Replay a dataset, which is valid as it was read.

    Args:
        episodes: The dataset.
        mode: How it is replayed. ``auto``: open loop where there are seeds; the episodes that drift, and all where
            there are no seeds, step by step. What can be replayed in neither way is told of and not judged.
        count: How many episodes, evenly spaced.
        steps: How many steps of an episode step by step; the episodes that drifted are replayed whole.
        tolerance: Deviation that passes, standard deviations.

    Returns:
        What was found, in JSON types, and whether the check is passed.
    """
    facts: dict[str, Any] = {"valid": True, "env_id": episodes.meta.env_id}
    facts |= {"episodes": len(episodes), "steps": episodes.num_steps, "notes": [], "replays": {}}
    if mode == "none" or not len(episodes):
        return facts, True
    from robopol.evaluation.recorded_world import differences, world_of
    from robopol.evaluation.replay import replay, spaced, why_not
    from robopol.evaluation.restart import restart_deviations

    try:
        env = world_of(episodes)
    except EnvError as error:
        return facts | {"notes": [f"no replay: {error}"]}, mode == "auto"
    with env:
        facts["notes"] = differences(episodes, env)
        left, tried = spaced(len(episodes), count), set[int]()
        for way in ("actions", "states"):
            if mode not in ("auto", way) or not left:
                continue
            try:
                if reason := why_not(way, episodes, env):
                    raise EnvError(reason)
                restart = restart_deviations(episodes, env) if way == "states" else None
                own = None if restart is None else restart.beyond(tolerance)
                compared = restart is None or restart.there == 0
                whole = bool(facts["replays"])
                drifts = replay(episodes, env, way, left, None if whole else steps, compare_start=compared, own=own)
            except EnvError as error:  # e.g. pictures cannot be drawn here
                facts["notes"].append(f"no replay of {way}: {error}")
                continue
            if restart is not None:
                facts["notes"] += [*_restart(restart), *_short(episodes, env)]
            if unseeded := len(left) - len(drifts):
                facts["notes"].append(f"{unseeded} of {len(left)} episodes have no seed to reset with, so no open loop")
            if not drifts:
                continue
            tried |= {drift.episode for drift in drifts}
            facts["replays"][way] = _summary(drifts, tolerance)
            facts["replays"][way]["to_the_bit"] &= own is None or not bool(own.any())
            passed = {drift.episode for drift in drifts if drift.within(tolerance)}
            left = [index for index in left if index not in passed]
    if mode == "auto":
        left = [index for index in left if index in tried]
    return facts, not left if tried else mode == "auto"


def _restart(restart: "Restart") -> list[str]:
    """Say how far the world is from itself once it is restored."""
    notes = []
    if restart.there:
        notes.append(
            f"the world here observes a state that is restored up to {restart.there:.2g} standard deviations otherwise "
            "than before; observations at restored states are not compared"
        )
    if restart.greatest:
        notes.append(
            f"it goes on from them up to {restart.greatest:.2g} standard deviations otherwise; what each column is off "
            "by itself is allowed"
        )
    if free := restart.free:
        shown = ", ".join(free[:6]) + (f" and {len(free) - 6} more" if len(free) > 6 else "")
        notes.append(f"the state does not decide {shown}; a step later they are not compared")
    return notes


def _short(episodes: "Episodes", env: "VectorEnv") -> list[str]:
    """Say what is not in states of others."""
    own = env.save_state(0)
    if own is None or episodes.states is None or own.shape == episodes.states[0].shape:
        return []
    return [
        "the states in the file are positions and velocities without the solver's memory: where forces of contact are "
        "observed they may differ a little; tolerance= says how much passes"
    ]


def _summary(drifts: "list[Drift]", tolerance: float) -> dict[str, Any]:
    failed = [drift for drift in drifts if not drift.within(tolerance)]
    return {
        "episodes": len(drifts),
        "to_the_bit": all(drift.within(0) for drift in drifts),
        "greatest_deviation": max((max(drift.start_max or 0.0, drift.next_max) for drift in drifts), default=0.0),
        "tolerance": tolerance,
        "differing": len(failed),
        "drifts": [drift.tree() for drift in failed],
    }
