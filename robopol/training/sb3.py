"""Runs of Stable-Baselines3: its agent, its loop, and our evaluation, log and run folder."""

import inspect
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise

from robopol.algos.sb3 import SB3Config
from robopol.envs import VectorEnv
from robopol.errors import ConfigError
from robopol.evaluation import Evaluation, evaluate
from robopol.evaluation.report import evaluate_and_film, show
from robopol.files import whole_file, write_json
from robopol.networks.precision import RuntimeConfig
from robopol.policies.foreign.policy import ForeignConfig
from robopol.policies.foreign.sb3 import SB3Policy
from robopol.policies.plan_only import contract
from robopol.progress import progress
from robopol.training.config import PhaseConfig, TrainConfig
from robopol.training.loggers import Loggers
from robopol.training.plots import plot_curves
from robopol.training.run import RunFolder
from robopol.training.sb3_worlds import Worlds

AGENT = "agent.zip"


def train_baseline(config: TrainConfig, overrides: Sequence[str]) -> Path:
    """Train an agent from the beginning; see `robopol.algos.sb3.SB3Config`.

    Args:
        config: What to do.
        overrides: What the user typed, for the record.

    Returns:
        The run's ``summary.json``. The agent is ``agent.zip``, which only ``trust=true`` loads.

    Raises:
        ConfigError: If the parts do not fit each other.
        CheckpointError: If the folder holds a run already.
    """
    phase, env = _one_phase(config), config.env
    assert env is not None
    if config.runtime.threads != "auto":  # else as many as torch takes by itself
        torch.set_num_threads(config.runtime.threads)
    path = Path(config.run)
    with env.make(config.collection.num_envs) as world, env.make(config.eval.num_envs) as other:
        agent = _agent(config, phase, Worlds(world, config.seed))
        tree = config.model_copy(update={"runtime": RuntimeConfig(threads=torch.get_num_threads())}).tree()
        RunFolder.create(path, tree, overrides)
        told = ForeignConfig(kind="sb3", algorithm=_config(config).algorithm, path=str(path / AGENT))
        policy = SB3Policy(told, contract(world.spec, "the agent", ["state"]), agent)
        watcher = Watcher(config, phase, policy, other, Loggers(path, config.logging))
        begun = time.monotonic()
        agent.learn(phase.length, callback=watcher)
        seconds = time.monotonic() - begun
        watcher.close()
        return _finish(config, watcher, seconds)


class Watcher(BaseCallback):
    """Logs, evaluates and saves, at the same steps as robopol's own runs do."""

    def __init__(
        self, config: TrainConfig, phase: PhaseConfig, policy: SB3Policy, env: VectorEnv, loggers: Loggers
    ) -> None:
        """Watch over a run.

        Args:
            config: The run.
            phase: Its phase.
            policy: The agent as it stands.
            env: Where it is evaluated.
            loggers: Where the log goes.
        """
        super().__init__()
        self.config, self.policy, self.env, self.loggers, self._last = config, policy, env, loggers, 0
        self._shown = progress("online", phase.length, "env steps")
        self._report: Callable[..., None] = self._shown.__enter__()
        self._ended: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        before, self._last, config = self._last, self.num_timesteps, self.config
        self._ended += [info for info in self.locals["infos"] if "episode" in info]
        if self.num_timesteps // config.log_every > before // config.log_every:
            self._report(self.num_timesteps)
            self._log(self._rollouts())
        every = config.eval.every
        if every > 0 and self.num_timesteps // every > before // every:
            found = evaluate(self.policy, self.env, config.eval.episodes, config.eval.seed + config.eval.final_episodes)
            low, high = found.success_ci95
            told = {"success_rate": found.success_rate, "success_rate_lo": low, "success_rate_hi": high}
            told |= {"return_mean": found.return_mean, "ep_len_mean": found.length_mean}
            self._log({f"eval/{name}": value for name, value in told.items()})
            self.save()
        return True

    def _rollouts(self) -> dict[str, float]:
        ended, self._ended = self._ended, []
        if not ended:
            return {}
        names = {"return_mean": "r", "ep_len_mean": "l"}
        told = {
            f"rollout/{name}": float(np.mean([info["episode"][key] for info in ended])) for name, key in names.items()
        }
        return told | {"rollout/success_rate": float(np.mean([info["is_success"] for info in ended]))}

    def _log(self, metrics: dict[str, float]) -> None:
        self.loggers.log(self.updates, metrics, self.num_timesteps)

    @property
    def updates(self) -> int:
        """Gradient steps of the agent, as it counts them."""
        return int(getattr(self.model, "_n_updates", 0))

    def save(self) -> None:
        """Write the agent."""
        with whole_file(Path(self.config.run) / AGENT) as draft:
            self.model.save(draft.open("wb"))

    def close(self) -> None:
        """Write what is left to be written."""
        self._report(self.num_timesteps)
        self._shown.__exit__(None, None, None)
        self._log(self._rollouts())
        self.save()
        self.loggers.close()


def _config(config: TrainConfig) -> SB3Config:
    assert isinstance(config.algo, SB3Config)
    return config.algo


def _one_phase(config: TrainConfig) -> PhaseConfig:
    """Return the phase of a run that a baseline can do.

    Raises:
        ConfigError: If there is anything else to do.
    """
    name = f"algo=sb3_{_config(config).algorithm.lower()}"
    if config.env is None:
        raise ConfigError(f"{name} learns by acting, and no world was named: set env=NAME")
    if config.data or config.start is not None or config.policy is not None or config.model is not None:
        raise ConfigError(
            f"{name} trains an agent of its own by acting alone: leave out data, checkpoint, policy, model"
        )
    phases = list(config.phases.values())
    if len(phases) != 1 or phases[0].env_steps is None:
        raise ConfigError(f"{name} acts in one phase: set schedule=online, or on_policy, and nothing else")
    return phases[0]


def _agent(config: TrainConfig, phase: PhaseConfig, worlds: Worlds) -> BaseAlgorithm:
    """Make the agent, told what it asks for."""
    algo = _config(config)
    maker = getattr(stable_baselines3, algo.algorithm, None) or getattr(sb3_contrib, algo.algorithm)
    asked = set(inspect.signature(maker.__init__).parameters) - {"self", "policy", "env", "verbose", "tensorboard_log"}
    count = config.collection.num_envs
    told: dict[str, Any] = {"seed": config.seed, "device": "cpu", "batch_size": config.batch_size}
    if phase.rollout is not None:
        told["n_steps"] = phase.rollout // count
    else:
        told |= {"learning_starts": phase.warmup, "buffer_size": config.collection.capacity, "train_freq": 1}
        steps = phase.updates_per_step * count
        if steps != int(steps) or steps < 1:
            raise ConfigError(
                f"agents of Stable-Baselines3 take whole gradient steps after a step in all {count} environments, not "
                f"{steps:g}: set phases.online.updates_per_step={1 / count:g} or a multiple"
            )
        told["gradient_steps"] = int(steps)
        if algo.action_noise > 0:
            box = worlds.action_space
            assert isinstance(box, Box)
            told["action_noise"] = NormalActionNoise(
                np.zeros(box.shape), algo.action_noise * (np.asarray(box.high) - np.asarray(box.low)) / 2
            )
    if wrong := sorted(algo.options.keys() - asked):
        raise ConfigError(
            f"{algo.algorithm} of Stable-Baselines3 has no {', '.join(wrong)}; it has {', '.join(sorted(asked))}"
        )
    told = {name: value for name, value in told.items() if name in asked}
    try:
        agent: BaseAlgorithm = maker("MlpPolicy", worlds, **(told | algo.options))
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{algo.algorithm} of Stable-Baselines3 cannot be made so: {error}") from error
    return agent


def _finish(config: TrainConfig, watcher: Watcher, seconds: float) -> Path:
    """Evaluate the agent, and write everything that says how it went."""
    path, found = Path(config.run), None
    notes: list[str] = []
    rows = {"checkpoint": str(path / AGENT)}
    if config.eval.final_episodes > 0:
        video = path / "evaluation.mp4" if config.eval.videos > 0 else None
        found, notes = evaluate_and_film(
            watcher.policy, watcher.env, config.eval.final_episodes, config.eval.seed, video, config.eval.videos
        )
        write_json(path / "evaluation.json", found.tree())
        if video is not None and video.exists():
            rows["video"] = str(video)
    rows["curves"] = str(path / "curves.png")
    plot_curves([path / "metrics.jsonl"], path / "curves.png")
    algorithm = _config(config).algorithm
    command = f"robopol eval checkpoint=sb3:{algorithm}:{path / AGENT} env.id={watcher.env.spec.id} trust=true"
    (path / "README.md").write_text(_card(path, algorithm, watcher, found, command), encoding="utf-8")
    summary = path / "summary.json"
    told: dict[str, Any] = {
        "run": str(path),
        "policy": f"sb3 {algorithm}",
        "parameters": sum(p.numel() for p in watcher.model.policy.parameters()),
        "updates": watcher.updates,
        "env_steps": watcher.num_timesteps,
        "train_seconds": round(seconds, 1),
        **rows,
    }
    if found is not None:
        told |= {key: value for key, value in found.tree().items() if key != "outcomes"}
    write_json(summary, told)
    show(found, rows | {"next": command}, notes)
    print(f"summary: {summary}")
    return summary


def _card(path: Path, algorithm: str, watcher: Watcher, found: Evaluation | None, command: str) -> str:
    """Return a README that says what this is, and how good."""
    what = f"An agent of Stable-Baselines3 {stable_baselines3.__version__} ({algorithm}), trained in "
    what += f"`{watcher.env.spec.id}` for {watcher.num_timesteps:,} environment steps: a baseline."
    parts = [f"# {path.resolve().name}", what]
    if found is not None:
        low, high = found.return_ci95
        rates = f"success {found.success_rate:.1%}, return {found.return_mean:.3f} ({low:.3f} to {high:.3f})"
        parts.append(f"{found.episodes} episodes: {rates}.")
    parts.append("`agent.zip` runs code when it is loaded, so it is loaded only if you say so:")
    return "\n\n".join([*parts, f"```sh\n{command}\n```"]) + "\n"
