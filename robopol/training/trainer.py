"""The one training loop: phases that learn, or act and learn, with logs, evaluations and checkpoints on the way."""

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from robopol.algos import Algorithm
from robopol.algos.algorithm import Explores, WarmsUp, by_owner, owned
from robopol.checkpoint import save_part
from robopol.config import parse
from robopol.data import Normalizer
from robopol.data.replay import ReplayBuffer
from robopol.data.replay_windows import AGE
from robopol.data.windows import narrowed
from robopol.envs import VectorEnv
from robopol.envs.wrappers.reward import with_reward
from robopol.errors import CheckpointError, ConfigError, TrainingError
from robopol.evaluation import evaluate
from robopol.evaluation.rollout import check_ends
from robopol.networks.precision import RuntimeConfig
from robopol.policies import PolicySpec
from robopol.progress import progress
from robopol.training.collector import Choose, Collector
from robopol.training.config import REPLAY, ROLLOUT, PhaseConfig, TrainConfig
from robopol.training.contract import begin_from, joined, spec_for
from robopol.training.loggers import Loggers
from robopol.training.records import load_records, together
from robopol.training.rollout import Rollout
from robopol.training.run import RunFolder
from robopol.training.seeding import generator, seed_layers, seed_of
from robopol.training.segments import Segments
from robopol.training.sources import Replayed, Sources
from robopol.training.team import Team

VALIDATION_WINDOWS = 512
"""Most held-out windows that validation looks at, always the same ones."""

WEIGHTS = {"policy": "initial weights", "model": "initial weights of the model"}
"""Group of what can be trained -> the purpose that its weights are drawn for."""


_EPISODE = {"total": "rollout/return_mean", "length": "rollout/ep_len_mean", "success": "rollout/success_rate"}
"""What is told of an episode that was learned from -> the name of its mean in the log."""


class Trainer:
    """Trains a policy, a model or both, and fills a run folder.

    Everything random in an update is a function of (seed, updates done), and in acting of (seed, environment steps
    done), so a run that was killed and resumed ends in the same bits as one that was not.

    Attributes:
        team: The processes that train together.
        algo: The algorithm, which holds what is trained.
        train_data: Source -> its training episodes, without images.
        data: Source -> what tells its episodes from others; see `RunFolder.check_data`.
        collector: What acts, if a phase does.
        replay: What it has met in its world, if a phase draws from that.
        segments: How that is saved.
        rollout: What it has met since the last update, if phases learn from that.
        step: Steps of the run done: updates, or, in phases that act, environment steps.
        updates: Updates done.
        seconds: Time spent training, over all resumptions.
    """

    def __init__(self, config: TrainConfig, *, resumed: bool = False, team: Team | None = None) -> None:
        """Build everything, so that what cannot work fails before there is a run folder.

        Args:
            config: What to do.
            resumed: Whether a checkpoint of the run will be taken up, which has all weights.
            team: The processes that train together; None is this one alone.

        Raises:
            ConfigError: If the parts do not fit each other.
            DataError: If the data cannot be used.
            EnvError: If the world cannot be made, or has no time limit and is evaluated in.
            CheckpointError: If there is no such policy to begin from.
        """
        self.team = team or Team()
        self.team.check(config.batch_size)
        if config.acts and self.team.size > 1:
            raise ConfigError("a phase with env_steps is done by one process: start robopol without torchrun")
        chosen = _trained(config)
        world = None
        if config.env is not None:
            with config.env.make() as one:
                world = one.spec
        self._worlds = ExitStack()
        self._env: VectorEnv | None = None
        episodes, train, held_out = load_records(config)
        specs = {group: spec_for(part, episodes, world) for group, part in chosen.items()}
        self.train_data = {name: part.without_images().select(train[name]) for name, part in episodes.items()}
        self.data = {
            name: {"episodes": len(part), "steps": part.num_steps, "sha256": part.fingerprint()}
            for name, part in episodes.items()
        }
        fitted = together(list(self.train_data.values())) if self.train_data else None
        parts: dict[str, Any] = {}
        for group, part in chosen.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(config.seed, WEIGHTS[group]))
                parts[group] = part.build(specs[group])
            if group == "policy" and config.start is not None:
                if not resumed:
                    begin_from(config.start, parts[group])
                continue
            if fitted is not None:
                parts[group].fit_normalizers(fitted)
            _check_fitted(group, parts[group], any(phase.rollout is not None for phase in config.phases.values()))
        matrices = (p for part in parts.values() for p in part.parameters() if p.ndim > 1)
        self.runtime = config.runtime.build(max((p.shape[-1] for p in matrices), default=1), config.batch_size)
        chosen_by_leader = self.team.agree(self.runtime.pins().tree())
        if not self.team.leader:
            self.runtime = parse(RuntimeConfig, chosen_by_leader).build()
        self.runtime.apply()
        # pinned, so that a resumed run computes in the same way
        self.config = config.model_copy(update={"runtime": self.runtime.pins()})
        self.device = torch.device(self.runtime.device)
        self.total = config.length
        parts = {group: part.to(self.device) for group, part in parts.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, "initial weights of the algorithm's own"))
            self.algo: Algorithm = config.algo.build(
                **parts, total_updates=config.counts(self.total)[0], runtime=self.runtime
            )
        self.team.unite(self.algo)
        policy = self.algo.deployed()
        if policy is not None:
            config.execution.build(policy)  # what cannot be executed or evaluated is refused now
            if world is not None and (config.eval.every or config.eval.final_episodes):
                check_ends(world)
        sampling = {name: config.data[name].sampling for name in episodes}
        spec = joined(specs.values())
        if policy is not None:  # what steers it may look at more than what is trained
            seen = dict(spec.obs_shapes) | dict(policy.spec.obs_shapes)
            spec = spec.model_copy(update={"obs_shapes": seen})
        sources = Sources(episodes, spec, config.seed, self.device, sampling, self.algo.needs)
        self.sources, self.held_out = sources.only(train, config.seed), sources.held_out(held_out)
        self.collector: Collector | None = None
        self.replay: ReplayBuffer | None = None
        self.segments: Segments | None = None
        self.rollout: Rollout | None = None
        _check_phases(config, self.algo)
        if config.acts:
            self._act(spec)
        self.step, self.updates, self.seconds = 0, 0, 0.0
        self.best, self.best_step = (-1.0, 0.0), -1
        self._told: dict[str, list[Tensor]] = {}  # since the last line of the log

    def _act(self, spec: PolicySpec) -> None:
        """Make what acts and what it fills, after checking that it can."""
        config = self.config
        if config.env is None:
            raise ConfigError("a phase has env_steps, and no world was named: set env=NAME")
        if not isinstance(self.algo, Explores):
            raise ConfigError(
                f"algo={config.algo.tree()['kind']} learns from records only: a phase has updates, not env_steps"
            )
        if self.algo.deployed() is None:
            raise ConfigError("a phase has env_steps, and there is no policy to act: name one, policy=KIND")
        if self.algo.needs.rollout:
            self.rollout = Rollout(config.collection.num_envs, self.device)
        else:
            kept = None if self.algo.needs.trace is None else {**self.algo.needs.trace, AGE: ()}
            # no larger than what will be met, but large enough for a decision in every environment
            met = max(config.counts(self.total)[1], (spec.horizon + spec.chunk) * config.collection.num_envs)
            capacity = min(config.collection.capacity, met)
            self.replay = ReplayBuffer(capacity, spec.obs_shapes, spec.action_dim, self.device, kept)
            self.segments = Segments(self.replay, config.checkpoint.segment)
            self.sources.add(REPLAY, Replayed(self.replay, spec, self.algo.needs, config.collection.num_envs))
        world = self._worlds.enter_context(config.env.make(config.collection.num_envs))
        world = with_reward(world, config.reward)
        self.collector = Collector(
            world, self.replay, spec.obs_shapes, config.seed, self.device, spec.n_obs_steps, self.rollout
        )
        if any(phase.warmup for phase in config.phases.values()) and not isinstance(self.algo, WarmsUp):
            self.collector.check_bounds()

    def start(self, folder: RunFolder) -> None:
        """Take up the newest checkpoint of a run folder; in one without, start from the beginning.

        Args:
            folder: Where the run is kept.

        Raises:
            CheckpointError: If the checkpoint is damaged.
        """
        self.folder = folder
        self.loggers = Loggers(folder.path, self.config.logging) if self.team.leader else None
        found = folder.latest()
        if found is not None:
            self.step = found.step
            self.updates = self.config.counts(self.step)[0]
            self.algo.load_state({name: value.to(self.device) for name, value in found.state.items()})
            self.seconds = found.progress["seconds"]
            if not isinstance(found.progress["best"], list):
                raise CheckpointError(
                    f"{folder.path} was begun by an earlier robopol, which judged by success alone: resume it with the "
                    "version that its environment.json names"
                )
            self.best, self.best_step = tuple(found.progress["best"]), found.progress["best_step"]
            if self.team.leader and self.best_step in folder.steps():  # whoever went back to an earlier one lost it
                folder.mark_best(self.best_step)
        if self.collector is not None:
            if found is None:
                self.collector.begin()
            else:
                parts = by_owner(found.state)
                if self.rollout is not None:
                    self.rollout.load_state(parts[ROLLOUT])
                if self.segments is not None:
                    self.segments.load(parts[REPLAY], found.segments)
                self.collector.load_state(parts["collector"], acts=self.step < self.total)
        if self.loggers is not None:
            self.loggers.rewind(*((self.updates, self.env_steps) if found is not None else (-1, -1)))

    @property
    def env_steps(self) -> int:
        """Environment steps done, those of evaluations apart."""
        return 0 if self.collector is None else self.collector.env_steps

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes the worlds."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the worlds."""
        self._worlds.close()

    def env(self) -> VectorEnv | None:
        """Return the world to evaluate in, made when it is first needed; None if none was named or nobody acts."""
        config = self.config.env if self.algo.deployed() is not None else None
        if self._env is None and config is not None:
            self._env = self._worlds.enter_context(config.make(self.config.eval.num_envs))
        return self._env

    def run(self) -> None:
        """Do all phases, from where the run stands to its end, and write the last checkpoint.

        Raises:
            TrainingError: If the loss stops being finite; what was saved before stays.
        """
        first = 0
        for name, phase in self.config.phases.items():
            self._run_phase(name, phase, first)
            first += phase.length
        if self.loggers is not None:
            self.loggers.close()

    def _run_phase(self, name: str, phase: PhaseConfig, first: int) -> None:
        """Do a phase that begins at step ``first`` of the run."""
        config, last = self.config, first + phase.length
        if self.step >= last:
            return
        begun, before, since = (self.updates, self.env_steps), self.seconds, time.monotonic()
        unit = "updates" if phase.env_steps is None else "env steps"
        shown = progress(name, last, unit, start=self.step) if self.team.leader else nullcontext(_unseen)
        with shown as report:
            while self.step < last:
                came_from = self.step
                self.advance(phase, first)
                passed = partial(_passed, came_from, self.step)
                self.seconds = before + time.monotonic() - since
                evaluates = config.eval.every > 0 and passed(config.eval.every) and self.step != self.total
                saves = passed(config.checkpoint.every) or self.step == self.total or evaluates
                if passed(config.log_every) or saves:
                    metrics = self.team.mean(self._means()) | self._speeds(*begun, time.monotonic() - since)
                    loss = metrics.get("train/loss")
                    report(self.step, "" if loss is None else f"loss {loss:.4f}")
                    self._log(metrics)
                    if loss is not None and not math.isfinite(loss):  # before anything of it is saved
                        raise TrainingError(
                            f"training diverged before update {self.updates}: the loss is {loss}. What was saved in "
                            f"{self.folder.path} is sound; lower algo.lr{_clipped(config.algo)}"
                        )
                if not self.team.leader:
                    continue
                if passed(config.validate_every) or self.step == self.total:
                    self._log(self._validate(phase.sources))
                if evaluates:
                    self._evaluate()
                if saves:
                    self._save()

    def advance(self, phase: PhaseConfig, first: int) -> None:
        """Do an update; or, where the phase acts, a step in every environment and the updates that are then due."""
        if phase.env_steps is None or self.collector is None:
            self._update(phase)
            self.step += 1
            return
        done = self.step - first
        explorer = cast(Explores, self.algo)
        if done == 0 or done - self.config.collection.num_envs < phase.warmup <= done:  # another chooses from here on
            self.collector.cut()
        choose: Choose | None = explorer.explore
        if done < phase.warmup:
            choose = explorer.warm_up if isinstance(explorer, WarmsUp) else None
        taken = self.collector.step(choose)
        due = phase.due(done + taken) - phase.due(done)
        if due and self.rollout is not None:  # what comes next is chosen by another policy
            self.collector.cut()
        for _ in range(due):
            self._update(phase)
        self.step += taken

    def _update(self, phase: PhaseConfig) -> None:
        """Do one update."""
        config = self.config
        if phase.rollout is not None and self.rollout is not None:
            batch = self.rollout.take() | {"minibatch": config.batch_size}
        else:
            batch = self.team.share(self.sources.batch(phase.sources, config.batch_size, self.updates))
        own = f" {self.team.rank}" if self.team.rank else ""  # no two processes draw the same noise
        rng = generator(self.device, config.seed, f"update{own}", self.updates)
        seed_layers(self.device, seed_of(config.seed, f"dropout{own}", self.updates))
        self._count(self.algo.update(batch, self.updates, rng))
        self.updates += 1

    def _log(self, metrics: Mapping[str, float]) -> None:
        if self.loggers is not None:
            self.loggers.log(self.updates, metrics, self.env_steps)

    def _count(self, metrics: Mapping[str, Tensor]) -> None:
        for name, value in metrics.items():
            self._told.setdefault(name, []).append(value)

    def _means(self) -> dict[str, float]:
        """Return the means since they were last asked for."""
        means = {name: torch.stack(values).mean().item() for name, values in self._told.items()}
        self._told = {}
        if self.collector is not None and self.collector.finished:
            ended, self.collector.finished = self.collector.finished, []
            for name in ("total", "length", "success"):
                values = [float(getattr(episode, name)) for episode in ended]
                means[_EPISODE[name]] = sum(values) / len(values)
        return means

    def _speeds(self, updates: int, env_steps: int, seconds: float) -> dict[str, float]:
        """Return what is done in a second, given what was done before they began."""
        speeds = {"time/updates_per_s": (self.updates - updates) / seconds}
        if self.env_steps > env_steps:
            speeds["time/env_steps_per_s"] = (self.env_steps - env_steps) / seconds
        return speeds

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
        found = evaluate(policy, env, eval_.episodes, eval_.seed_on_the_way, execution=self.config.execution)
        self._log(
            {
                "eval/success_rate": found.success_rate,
                "eval/success_rate_lo": found.success_ci95[0],
                "eval/success_rate_hi": found.success_ci95[1],
                "eval/return_mean": found.return_mean,
                "eval/ep_len_mean": found.length_mean,
            }
        )
        judged = (found.success_rate, found.return_mean)  # where nothing counts as success, the return decides
        if judged > self.best:
            self.best, self.best_step = judged, self.step

    def _state(self) -> dict[str, Tensor]:
        """Return everything that the rest of the run depends on."""
        state = dict(self.algo.state())
        if self.collector is not None:
            state |= owned("collector", self.collector.state())
        if self.rollout is not None:
            state |= owned(ROLLOUT, self.rollout.state())
        if self.segments is not None:
            state |= owned(REPLAY, self.segments.rest())
        return state

    def _save(self) -> None:
        if self.loggers is not None:
            self.loggers.flush()
        self.folder.save(
            self.step,
            {group: partial(save_part, part) for group, part in self.algo.parts().items()},
            self._state(),
            {"seconds": self.seconds, "best": self.best, "best_step": self.best_step},
            self.config.checkpoint.keep,
            {} if self.segments is None else self.segments.complete(),
        )
        if self.best_step == self.step:
            self.folder.mark_best(self.step)


def _unseen(done: int, note: str = "") -> None:
    """Report progress to nobody."""


def _passed(before: int, now: int, every: int) -> bool:
    """Say whether a multiple of ``every`` was reached since ``before``."""
    return now // every > before // every


def _check_phases(config: TrainConfig, algo: Algorithm) -> None:
    """Check that every phase learns from what the algorithm learns from.

    Raises:
        ConfigError: If one learns from rollouts and the other from drawn samples.
    """
    kind = config.algo.tree()["kind"]
    for name, phase in config.phases.items():
        if algo.needs.rollout and phase.rollout is None:
            raise ConfigError(
                f"algo={kind} learns from rollouts of the policy as it stands, and phase '{name}' has none: set "
                "schedule=on_policy"
            )
        if phase.rollout is not None and not algo.needs.rollout:
            raise ConfigError(
                f"algo={kind} learns from drawn samples, and phase '{name}' from its last rollout: set "
                "schedule=online, or another algorithm"
            )


def _check_fitted(group: str, part: nn.Module, rollouts: bool) -> None:
    """Check that a part's normalisers are known, before anything is learned with them.

    Args:
        group: The part's group.
        part: The part.
        rollouts: Whether there will be rollouts, which running ones take note of.

    Raises:
        ConfigError: If one is to be fitted to data or to rollouts that there are not.
    """
    scales = [module for module in part.modules() if isinstance(module, Normalizer)]
    if not rollouts and any(scale.mode == "running" and scale.count == 0 for scale in scales):
        raise ConfigError(
            f"{group}.obs_normalization=running takes note of rollouts (ppo and its like), and this run has neither "
            f"those nor data: set {group}.obs_normalization=identity"
        )
    if any(not scale.fitted for scale in scales):
        raise ConfigError(
            f"the normalisers of the {group} are fitted to data, and this run has none: name the policy that is to "
            f"become better, checkpoint=DIR, or data; or, to begin with nothing, set "
            f"{group}.obs_normalization=identity and {group}.action_normalization=bounds"
        )


def _clipped(algo: Any) -> str:
    """Say what else can be tried against divergence."""
    return " or set algo.clip_norm" if "clip_norm" in type(algo).model_fields else ""


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
