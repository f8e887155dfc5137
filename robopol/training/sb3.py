"""Runs of Stable-Baselines3: its agent, its loop, and our evaluation, log and run folder."""

import inspect
import math
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from robopol.algos.sb3 import SB3Config
from robopol.checkpoint import AGENT
from robopol.configs.spoken import spoken
from robopol.envs import VectorEnv
from robopol.envs.config import EnvConfig
from robopol.envs.wrappers.reward import with_reward
from robopol.errors import CheckpointError, ConfigError
from robopol.evaluation import Evaluation, evaluate
from robopol.evaluation.report import evaluate_and_film, show
from robopol.evaluation.rollout import check_ends
from robopol.files import whole_file, write_json
from robopol.networks.precision import RuntimeConfig
from robopol.policies.foreign.policy import ForeignConfig
from robopol.policies.foreign.sb3 import SB3Policy
from robopol.policies.plan_only import contract
from robopol.progress import Advance, progress
from robopol.training import plots
from robopol.training.config import PhaseConfig, TrainConfig
from robopol.training.loggers import Loggers
from robopol.training.run import RunFolder, is_run
from robopol.training.sb3_worlds import Worlds


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
    path, phase, env = Path(config.run), _one_phase(config), config.env
    assert env is not None
    if is_run(path):
        raise CheckpointError(f"{path} already holds a run, and baselines do not go on: delete it, or say another run=")
    if config.runtime.threads != "auto":  # else as many as torch takes by itself
        torch.set_num_threads(config.runtime.threads)
    with env.make(config.collection.num_envs) as world, env.make(config.eval.num_envs) as other:
        if config.eval.every or config.eval.final_episodes:
            check_ends(other.spec)
        agent = _agent(config, phase, Worlds(with_reward(world, config.reward), config.seed))
        used = RuntimeConfig(threads=torch.get_num_threads(), device="cpu")
        RunFolder.create(path, config.model_copy(update={"runtime": used}).tree(), overrides)
        told = ForeignConfig(kind="sb3", algorithm=_config(config).algorithm, path=str(path / AGENT))
        policy = SB3Policy(told, contract(world.spec, "the agent", ["state"]), agent)
        loggers, begun = Loggers(path, config.logging), time.monotonic()
        try:
            with progress("online", phase.length, "env steps") as report:
                watcher = Watcher(config, policy, other, loggers, report)
                agent.learn(phase.length, callback=watcher)
        finally:
            loggers.close()
        return _finish(config, watcher, time.monotonic() - begun)


class Watcher(BaseCallback):
    """Logs, evaluates and saves as robopol's own runs do: after the updates that a step brought about."""

    def __init__(
        self, config: TrainConfig, policy: SB3Policy, env: VectorEnv, loggers: Loggers, report: Advance
    ) -> None:
        """Watch over a run.

        Args:
            config: The run.
            policy: The agent as it stands.
            env: Where it is evaluated.
            loggers: Where the log goes.
            report: Told how far it is.
        """
        super().__init__()
        self.config, self.policy, self.env, self.loggers, self.report = config, policy, env, loggers, report
        self._last = 0
        self._ended: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self._ended += [info for info in self.locals["infos"] if "episode" in info]
        self.report(self.num_timesteps)
        return True

    def _on_rollout_start(self) -> None:  # what was met before has been learned from
        config, before, self._last = self.config, self._last, self.num_timesteps

        def passed(every: int) -> bool:
            return every > 0 and self._last // every > before // every

        evaluates = passed(config.eval.every) and self._last < config.length
        if passed(config.log_every) or evaluates:
            self._log(self._rollouts())
        if evaluates:
            seed = config.eval.seed_on_the_way
            found = evaluate(self.policy, self.env, config.eval.episodes, seed, execution=config.execution)
            low, high = found.success_ci95
            told = {"success_rate": found.success_rate, "success_rate_lo": low, "success_rate_hi": high}
            told |= {"return_mean": found.return_mean, "ep_len_mean": found.length_mean}
            self._log({f"eval/{name}": value for name, value in told.items()})
        if passed(config.checkpoint.every) or evaluates:
            self._save()

    def _on_training_end(self) -> None:
        self._log(self._rollouts())
        self._save()

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

    def _save(self) -> None:
        with whole_file(Path(self.config.run) / AGENT) as draft:
            self.model.save(draft)


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
    if config.runtime.device not in ("auto", "cpu"):
        raise ConfigError(f"{name} trains on the CPU, not on {config.runtime.device}: set runtime.device=cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{name} is trained by one process: start robopol without torchrun")
    phases, rolls = list(config.phases.values()), issubclass(_maker(config), OnPolicyAlgorithm)
    if len(phases) != 1 or phases[0].env_steps is None or (phases[0].rollout is not None) != rolls:
        one = "learns from rollouts" if rolls else "learns from a replay"
        raise ConfigError(f"{name} {one}, in one phase: set schedule={'on_policy' if rolls else 'online'}")
    return phases[0]


def _maker(config: TrainConfig) -> type[BaseAlgorithm]:
    """Return the class of the agent."""
    name = _config(config).algorithm
    found: type[BaseAlgorithm] = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    return found


def _agent(config: TrainConfig, phase: PhaseConfig, worlds: Worlds) -> BaseAlgorithm:
    """Make the agent, told what it asks for."""
    algo, maker = _config(config), _maker(config)
    asked = set(inspect.signature(maker.__init__).parameters) - {"self", "policy", "env", "verbose", "tensorboard_log"}
    count = config.collection.num_envs
    told: dict[str, Any] = {"seed": config.seed, "device": "cpu", "batch_size": config.batch_size}
    if phase.rollout is not None:
        told["n_steps"] = phase.rollout // count
    else:
        told |= {"learning_starts": phase.warmup, "buffer_size": config.collection.capacity, "train_freq": 1}
        steps = phase.updates_per_step * count
        whole = round(steps)
        if whole < 1 or not math.isclose(whole, steps, rel_tol=1e-4):
            raise ConfigError(
                f"agents of Stable-Baselines3 take whole gradient steps after a step in all {count} environments, not "
                f"{steps:g}: set phases.online.updates_per_step={1 / count:g} or a multiple"
            )
        told["gradient_steps"] = whole
        if algo.action_noise > 0:  # in the units of the agent, for which actions lie in [-1, 1]
            size = len(worlds.env.spec.action_low)
            told["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, algo.action_noise))
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
            watcher.policy,
            watcher.env,
            config.eval.final_episodes,
            config.eval.seed,
            video,
            config.eval.videos,
            config.execution,
        )
        write_json(path / "evaluation.json", found.tree())
        if video is not None and video.exists():
            rows["video"] = str(video)
    if (log := path / "metrics.jsonl").exists() and plots.drawable([log]):  # one that is short is not judged on its way
        rows["curves"] = str(path / "curves.png")
        plots.plot_curves([log], path / "curves.png")
    algorithm = _config(config).algorithm
    world = EnvConfig.of(watcher.env.spec).tree()
    words = [f"env.id={world['id']}"]
    words += [f"env.{name}={spoken(world[name])}" for name in ("options", "wrappers") if world[name]]
    where = "".join(f" {shlex.quote(word)}" for word in words)
    command = f"robopol eval checkpoint=sb3:{algorithm}:{path / AGENT}{where} trust=true"
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
