"""A whole run: train, evaluate, draw, and say how it went."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robopol.algos.sb3 import SB3Config
from robopol.checkpoint import load_policy
from robopol.config import parse
from robopol.data import describe
from robopol.errors import CheckpointError, ConfigError, MissingExtraError
from robopol.evaluation import Evaluation
from robopol.evaluation.report import evaluate_and_film, show
from robopol.files import write_json
from robopol.policies import Part
from robopol.training import plots
from robopol.training.card import model_card
from robopol.training.config import TrainConfig
from robopol.training.run import RunFolder, alone, is_run
from robopol.training.team import join
from robopol.training.trainer import Trainer


def train(config: TrainConfig, overrides: list[str]) -> Path:
    """Train from the beginning.

    Args:
        config: What to do.
        overrides: What the user typed, for the record.

    Returns:
        The run's ``summary.json``.

    Raises:
        ConfigError: If the parts do not fit each other, or the run folder is taken.
        DataError: If the data cannot be used.
        MissingExtraError: If a baseline is asked for, and Stable-Baselines3 is not installed.
    """
    path = Path(config.run)
    if isinstance(config.algo, SB3Config):
        try:
            from robopol.training.sb3 import train_baseline
        except ImportError as error:
            raise MissingExtraError(error.name or "stable_baselines3", "sb3", "a baseline") from error
        return train_baseline(config, overrides)
    with join() as team:
        if team.leader and is_run(path):
            raise CheckpointError(f"{config.run} already holds a run: say resume={config.run}, or another run=")
        with Trainer(config, team=team) as trainer, ExitStack() as held:
            if team.leader:
                RunFolder.create(path, trainer.config.tree(), overrides, trainer.data)
                held.enter_context(alone(path))
            team.wait()
            trainer.start(RunFolder(path))
            return finish(trainer)


def resume(path: Path) -> Path:
    """Go on with a run that was stopped or killed; one that is finished is only evaluated again.

    Args:
        path: The run folder.

    Returns:
        The run's ``summary.json``.

    Raises:
        CheckpointError: If it is not a run folder, or is damaged, or another process trains in it.
        ConfigError: If it is a baseline's.
        DataError: If the data are not those that it was begun with.
    """
    with join() as team, ExitStack() as held:
        if team.leader:  # it alone may tidy up
            held.enter_context(alone(path))
            RunFolder.open(path)
        team.wait()
        folder = RunFolder(path)
        config = parse(TrainConfig, folder.config | {"run": str(path)})
        if isinstance(config.algo, SB3Config):
            raise ConfigError(
                f"Stable-Baselines3 saves too little to go on exactly: delete {path}, or begin another run="
            )
        with Trainer(config, resumed=bool(folder.steps()), team=team) as trainer:
            folder.check_data(trainer.data)
            trainer.start(folder)
            return finish(trainer)


def finish(trainer: Trainer) -> Path:
    """Train to the end, evaluate what was saved, and write everything that says how it went."""
    config, path = trainer.config, trainer.folder.path
    if not trainer.team.leader:
        trainer.run()
        return path / "summary.json"
    _announce(trainer)
    trainer.run()
    checkpoint = path / "checkpoints" / "last"
    rows = {"checkpoint": str(checkpoint)}
    notes: list[str] = []
    found: Evaluation | None = None
    env = trainer.env() if config.eval.final_episodes > 0 else None
    if env is not None:
        # the policy that a user will load, not the one in memory
        policy = load_policy(checkpoint, trainer.device)
        video = path / "evaluation.mp4" if config.eval.videos > 0 else None
        found, notes = evaluate_and_film(
            policy, env, config.eval.final_episodes, config.eval.seed, video, config.eval.videos, config.execution
        )
        write_json(path / "evaluation.json", found.tree())
        if video is not None and video.exists():
            rows["video"] = str(video)
    curves = path / "curves.png"
    plots.plot_curves([path / "metrics.jsonl"], curves)
    rows["curves"] = str(curves)
    data = {name: describe(episodes) for name, episodes in trainer.train_data.items()}
    (path / "README.md").write_text(model_card(trainer.folder, found, data), encoding="utf-8")
    summary = path / "summary.json"
    write_json(summary, _summary(trainer, found, rows))
    show(found, rows | {"next": _next(path, trainer.algo.parts(), config.env is not None)}, notes)
    print(f"summary: {summary}")
    return summary


def _summary(trainer: Trainer, found: Evaluation | None, files: dict[str, str]) -> dict[str, Any]:
    """Return the run in a few figures; `evaluation.json` has every episode."""
    parts = trainer.algo.parts()
    summary: dict[str, Any] = {
        "run": str(trainer.folder.path),
        **_kinds(parts),
        "parameters": sum(p.numel() for part in parts.values() for p in part.parameters()),
        "updates": trainer.updates,
        **({"env_steps": trainer.env_steps} if trainer.config.acts else {}),
        "train_seconds": round(trainer.seconds, 1),
        "runtime": asdict(trainer.runtime),
        **files,
    }
    if found is not None:
        summary |= {key: value for key, value in found.tree().items() if key != "outcomes"}
    return summary


def _kinds(parts: Mapping[str, Part]) -> dict[str, str]:
    return {group: str(part.config.tree()["kind"]) for group, part in parts.items()}


def _next(path: Path, parts: Mapping[str, Part], here: bool) -> str:
    """Say what may be done with a run, whose world may be here."""
    lines = [f"robopol plot runs=[{path}]"]
    if "policy" in parts and here:
        lines.insert(0, f"robopol eval checkpoint={path} episodes=200 seed=200000 out=again.json")
        lines.append(f"robopol collect checkpoint={path} out=rollouts.hdf5 keep=all")
    return "\n".join(lines)


def _announce(trainer: Trainer) -> None:
    """Say on one line each what is trained on what, and with which arithmetic."""
    runtime, parts = trainer.runtime, trainer.algo.parts()
    sizes = {group: sum(p.numel() for p in part.parameters()) for group, part in parts.items()}
    what = ", ".join(f"{kind} {group}, {sizes[group]:,} parameters" for group, kind in _kinds(parts).items())
    episodes = sum(len(part) for part in trainer.train_data.values())
    steps = trainer.config.counts(trainer.total)[1]
    learns_from = [f"{episodes} episodes"] * bool(trainer.train_data) + [f"{steps:,} environment steps"] * bool(steps)
    print(f"{trainer.folder.path}: {what}, {', '.join(learns_from)}")
    threads = f"{runtime.threads} thread{'s' * (runtime.threads > 1)}"
    tried = "; ".join(
        f"{t.precision} {t.matmul} x{t.threads}: {t.step_ms:.2f} ms, error {t.rms_error:.1e}" for t in runtime.trials
    )
    print(f"runtime: {runtime.device}, {runtime.precision}, matmul {runtime.matmul}, {threads}")
    if tried:
        print(f"  self-test: {tried}")
