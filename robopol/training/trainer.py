"""The one training loop: phases of updates, with logs, evaluations and checkpoints on the way."""

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor

from robopol.algos import Algorithm
from robopol.checkpoint import Part, save_part
from robopol.data import Episodes, load_episodes
from robopol.data.episodes import split_indices
from robopol.data.windows import narrowed
from robopol.envs import VectorEnv
from robopol.errors import ConfigError, DataError, TrainingError
from robopol.evaluation import evaluate
from robopol.progress import progress
from robopol.training.config import PhaseConfig, TrainConfig
from robopol.training.contract import joined, spec_for
from robopol.training.loggers import Loggers
from robopol.training.run import RunFolder
from robopol.training.seeding import generator, seed_of
from robopol.training.sources import Sources

VALIDATION_WINDOWS = 512
"""Most held-out windows that validation looks at, always the same ones."""

WEIGHTS = {"policy": "initial weights", "model": "initial weights of the model"}
"""Group of what can be trained -> the purpose that its weights are drawn for."""


class Trainer:
    """Trains a policy, a model or both, and fills a run folder.

    Everything random in an update is a function of (seed, step), so a run that was killed and resumed ends in
    the same bits as one that was not.

    Attributes:
        algo: The algorithm, which holds what is trained.
        train_data: Source -> its training episodes, without images.
        step: Updates done.
        seconds: Time spent training, over all resumptions.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Build everything, so that what cannot work fails before there is a run folder.

        Args:
            config: What to do.

        Raises:
            ConfigError: If the parts do not fit each other.
            DataError: If the data cannot be used.
        """
        chosen = _trained(config)
        world = None
        if config.env is not None:
            with config.env.make() as one:
                world = one.spec
        self._env: VectorEnv | None = None
        episodes, train, held_out = _load_data(config)
        specs = {group: spec_for(part, episodes, world) for group, part in chosen.items()}
        self.train_data = {name: part.without_images().select(train[name]) for name, part in episodes.items()}
        fitted = Episodes.concat(list(self.train_data.values()))
        parts: dict[str, Any] = {}
        for group, part in chosen.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(config.seed, WEIGHTS[group]))
                parts[group] = part.build(specs[group])
            parts[group].fit_normalizers(fitted)
        matrices = (p for part in parts.values() for p in part.parameters() if p.ndim > 1)
        self.runtime = config.runtime.build(max((p.shape[-1] for p in matrices), default=1), config.batch_size)
        self.runtime.apply()
        # pinned, so that a resumed run computes in the same way
        self.config = config.model_copy(update={"runtime": self.runtime.pins()})
        self.device = torch.device(self.runtime.device)
        self.total = sum(phase.updates for phase in config.phases.values())
        parts = {group: part.to(self.device) for group, part in parts.items()}
        self.algo: Algorithm = config.algo.build(**parts, total_updates=self.total, runtime=self.runtime)
        policy = self.algo.deployed()
        if policy is not None:
            config.execution.build(policy)  # what cannot be executed is refused now
        sampling = {name: config.data[name].sampling for name in episodes}
        spec = joined(specs.values())
        sources = Sources(episodes, spec, config.seed, self.device, sampling, self.algo.needs)
        self.sources, self.held_out = sources.only(train, config.seed), sources.only(held_out, 0)
        self.step, self.seconds = 0, 0.0
        self.best, self.best_step = -1.0, -1
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    def start(self, folder: RunFolder) -> None:
        """Take up the newest checkpoint of a run folder; in one without, start from the beginning.

        Args:
            folder: Where the run is kept.

        Raises:
            CheckpointError: If the checkpoint is damaged.
        """
        self.folder = folder
        self.loggers = Loggers(folder.path, self.config.logging)
        found = folder.latest()
        if found is not None:
            self.step = found.step
            self.algo.load_state({name: value.to(self.device) for name, value in found.state.items()})
            self.seconds = found.progress["seconds"]
            self.best, self.best_step = found.progress["best"], found.progress["best_step"]
            if self.best_step >= 0:
                folder.mark_best(self.best_step)
        self.loggers.rewind(self.step if found is not None else -1)

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes the worlds."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the worlds."""
        if self._env is not None:
            self._env.close()

    def env(self) -> VectorEnv | None:
        """Return the world to evaluate in, made when it is first needed; None if none was named or nobody acts."""
        config = self.config.env if self.algo.deployed() is not None else None
        if self._env is None and config is not None:
            self._env = config.make(self.config.eval.num_envs)
        return self._env

    def run(self) -> None:
        """Do all phases, from where the run stands to its end, and write the last checkpoint.

        Raises:
            TrainingError: If the loss stops being finite; what was saved before stays.
        """
        first = 0
        for name, phase in self.config.phases.items():
            self._run_phase(name, phase, first)
            first += phase.updates
        self.loggers.close()

    def _run_phase(self, name: str, phase: PhaseConfig, first: int) -> None:
        """Do the updates of a phase that begins at update ``first``."""
        config, last = self.config, first + phase.updates
        if self.step >= last:
            return
        resumed, before, since = self.step, self.seconds, time.monotonic()
        with progress(name, last, "updates", start=resumed) as report:
            while self.step < last:
                batch = self.sources.batch(phase.sources, config.batch_size, self.step)
                rng = generator(self.device, config.seed, "update", self.step)
                torch.manual_seed(seed_of(config.seed, "dropout", self.step))  # layers draw from torch's own
                self._count(self.algo.update(batch, self.step, rng))
                self.step += 1
                self.seconds = before + time.monotonic() - since
                evaluates = config.eval.every > 0 and self.step % config.eval.every == 0 and self.step != self.total
                saves = self.step % config.checkpoint.every == 0 or self.step == self.total or evaluates
                if self.step % config.log_every == 0 or saves:
                    metrics = self._means() | {"time/updates_per_s": (self.step - resumed) / (time.monotonic() - since)}
                    report(self.step, f"loss {metrics['train/loss']:.4f}")
                    self.loggers.log(self.step, metrics)
                    if not math.isfinite(metrics["train/loss"]):  # before anything of it is saved
                        raise TrainingError(
                            f"training diverged before update {self.step}: the loss is {metrics['train/loss']}. What "
                            f"was saved in {self.folder.path} is sound; lower algo.lr or set algo.clip_norm"
                        )
                if self.step % config.validate_every == 0 or self.step == self.total:
                    self.loggers.log(self.step, self._validate(phase.sources))
                if evaluates:
                    self._evaluate()
                if saves:
                    self._save()

    def _count(self, metrics: Mapping[str, Tensor]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._summed += 1

    def _means(self) -> dict[str, float]:
        """Return the means since they were last asked for."""
        means = {name: value.item() / self._summed for name, value in self._sums.items()}
        self._sums, self._summed = {}, 0
        return means

    def _validate(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Measure the deployed policy's loss and action error on held-out windows."""
        shares = {name: share for name, share in shares.items() if name in self.held_out.windows}
        policy = self.algo.deployed()
        if not shares or policy is None:
            return {}
        count = min(VALIDATION_WINDOWS, sum(len(self.held_out.windows[name]) for name in shares))
        batch = self.held_out.batch(shares, max(count, len(shares)), 0)
        batch = narrowed(batch, policy.spec.n_obs_steps, policy.spec.horizon)
        rng = generator(self.device, 0, "validation")
        with torch.no_grad():
            loss = policy.loss(batch, rng).mean().item()
        past = policy.spec.n_obs_steps - 1
        chunk = policy.act(batch["obs"], generator=rng)[:, 0]
        error, mask = (chunk - batch["action"][:, past:]).abs().mean(-1), batch["mask"][:, past:]
        return {"val/loss": loss, "val/action_error": ((error * mask).sum() / mask.sum()).item()}

    def _evaluate(self) -> None:
        """Evaluate the deployed policy on the way, on seeds that the final evaluation does not use."""
        env, policy, eval_ = self.env(), self.algo.deployed(), self.config.eval
        if env is None or policy is None:
            return
        seed = eval_.seed + eval_.final_episodes
        found = evaluate(policy, env, eval_.episodes, seed, execution=self.config.execution)
        self.loggers.log(
            self.step,
            {
                "eval/success_rate": found.success_rate,
                "eval/success_rate_lo": found.success_ci95[0],
                "eval/success_rate_hi": found.success_ci95[1],
                "eval/return_mean": found.return_mean,
                "eval/ep_len_mean": found.length_mean,
            },
        )
        if found.success_rate > self.best:
            self.best, self.best_step = found.success_rate, self.step

    def _save(self) -> None:
        self.loggers.flush()
        self.folder.save(
            self.step,
            {group: partial(save_part, cast(Part, part)) for group, part in self.algo.parts().items()},
            self.algo.state(),
            {"seconds": self.seconds, "best": self.best, "best_step": self.best_step},
            self.config.checkpoint.keep,
        )
        if self.best_step == self.step:
            self.folder.mark_best(self.step)


def _trained(config: TrainConfig) -> dict[str, Any]:
    """Return the configs of what is trained by their group, after checking that the algorithm trains it.

    Raises:
        ConfigError: If something is missing, or would be left untrained.
    """
    algo, kind = config.algo, config.algo.tree()["kind"]
    named = {group: part for group in WEIGHTS if (part := getattr(config, group)) is not None}
    for group in algo.trains:
        if group not in named:
            raise ConfigError(f"algo={kind} trains a {group}, and none was named: set {group}=KIND")
    for group, part in named.items():
        if group not in (*algo.trains, *algo.may_train):
            raise ConfigError(
                f"algo={kind} does not train a {group}, and {part.tree()['kind']} was named: "
                + ("set policy=none" if group == "policy" else "leave it out")
            )
    return named


def _load_data(config: TrainConfig) -> tuple[dict[str, Episodes], dict[str, Tensor], dict[str, Tensor]]:
    """Load every source that a phase uses: its episodes, and which of them are for training and which held out.

    Nothing is copied for the split. The episodes have all observations that batches will have.
    """
    episodes, train, held_out = {}, {}, {}
    used = {name for phase in config.phases.values() for name in phase.sources}
    if unknown := used - config.data.keys():
        raise ConfigError(f"no data source is called {', '.join(sorted(unknown))}; there are {', '.join(config.data)}")
    for name in sorted(used):
        source = config.data[name]
        loaded = load_episodes(source.uri, cache=source.cache)
        count = min(source.limit or len(loaded), len(loaded))
        if source.validation > 0 and count < 2:
            raise DataError(f"{source.uri} has {count} episodes, too few to hold one out: set data.{name}.validation=0")
        episodes[name] = source.sampling.observed(loaded)
        train[name], out = split_indices(count, source.validation, config.seed)
        if len(out):
            held_out[name] = out
    return episodes, train, held_out
