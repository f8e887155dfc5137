"""An evaluation with its film, and the short table that says how it went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robopol.envs import VectorEnv
from robopol.evaluation.execution import Execution
from robopol.evaluation.protocol import Evaluation, evaluate
from robopol.evaluation.rollout import Outcome
from robopol.evaluation.video import Film, check_film
from robopol.policies import Policy
from robopol.progress import progress


def evaluate_and_film(
    policy: Policy, env: VectorEnv, episodes: int, seed: int, video: Path | None, videos: int, execution: Any = None
) -> tuple[Evaluation, list[str]]:
    """Evaluate with a progress bar, filming the first episodes if asked to and if it is possible here.

    Args:
        policy: The policy.
        env: Where it acts.
        episodes: How many.
        seed: Seed of the first.
        video: Where the film goes; None films nothing.
        videos: How many episodes are filmed.
        execution: How plans are executed; see `robopol.evaluation.evaluate`.

    Returns:
        The evaluation, and what the user should know, e.g. why there is no film.

    Raises:
        ConfigError: If no film can be written to that path.
    """
    film, notes = None, []
    if video is not None and videos > 0:
        check_film(video)
        from robopol.envs.rendering import why_not

        reason = why_not()
        if reason is None:
            film = Film(list(range(seed, seed + min(videos, episodes))), env.spec.control_hz or 10)
        else:
            notes.append(f"no video: {reason}")
    wins = done = 0
    with progress("evaluation", episodes, "episodes") as report:

        def count(outcome: Outcome) -> None:
            nonlocal wins, done
            wins, done = wins + outcome.success, done + 1
            report(done, f"{wins} succeeded")

        found = evaluate(policy, env, episodes, seed, execution=execution, watcher=film, on_outcome=count)
    if film is not None and video is not None:
        import av

        try:
            film.save(video)
        except (
            av.FFmpegError,
            ValueError,
            OSError,
        ) as error:  # e.g. no encoder, no space: the evaluation is worth more
            notes.append(f"no video: {error}")
    return found, notes


def show(found: Evaluation | None, rows: Mapping[str, str], notes: Sequence[str]) -> None:
    """Print the table.

    Args:
        found: The evaluation, if there was one.
        rows: Further lines, name -> text.
        notes: Sentences below the table.
    """
    lines = list(rows.items())
    if found is not None:
        low, high = found.success_ci95
        how = [("success", f"{found.success_rate:.1%}  (95% interval {low:.1%} to {high:.1%}, n = {found.episodes})")]
        if found.ways:
            how.append(("ways taken", ", ".join(f"{name} {count}" for name, count in found.ways.items())))
        low, high = found.return_ci95
        how.append(("return", f"{found.return_mean:.2f}  (95% interval {low:.2f} to {high:.2f})"))
        if found.execution is not None:
            how.append(("execution", _execution(found.execution)))
        if found.steering:
            how.append(("steering", ", ".join(f"{name} {value:.3g}" for name, value in found.steering.items())))
        lines = how + lines
    print()
    for name, text in lines:
        # paths are printed whole, to be copied
        print(f"{name:<12}" + text.replace("\n", "\n" + " " * 12))
    print(*notes, sep="\n", end="\n" if notes else "")


def _execution(found: Execution) -> str:
    """Say on one line how plans were executed."""
    told = found.executor.tree()
    latency = f", {told['latency']} steps late" if told["latency"] else ""
    parts = [f"{told['kind']}{latency}: {found.plans:.1f} plans an episode"]
    if found.seam_jump is not None:
        ordinary = "" if found.step_change is None else f" (ordinary step {found.step_change:.3g})"
        parts.append(f"seam jump {found.seam_jump:.3g}{ordinary}")
    if found.jerk is not None:
        parts.append(f"jerk {found.jerk:.3g}")
    if found.starvation:
        parts.append(f"starved {found.starvation:.1%}")
    return ", ".join(parts)
