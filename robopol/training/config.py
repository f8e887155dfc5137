"""What a training run is told."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from robopol.config import Config, OneOf
from robopol.data.sampling import UniformConfig
from robopol.envs.config import EnvConfig
from robopol.evaluation import SEED0
from robopol.execution import RecedingHorizonConfig
from robopol.networks.precision import RuntimeConfig
from robopol.reward import Reward
from robopol.training.loggers import LoggingConfig


class DataConfig(Config):
    """One named source of episodes.

    Attributes:
        uri: Where they lie, e.g. ``robomimic:demos.hdf5``.
        validation: Share of the episodes, at least one, that is held out to measure the loss.
        limit: Use at most so many episodes, the first ones; None uses all.
        cache: A folder for datasets with more images than fit into memory; see `robopol.data.load_episodes`.
        sampling: How windows are drawn, e.g. ``{kind: top_k, share: 0.2}``.
    """

    uri: str
    validation: float = Field(0.02, ge=0, lt=1)
    limit: int | None = Field(None, ge=1)
    cache: str | None = None
    sampling: Annotated[Any, OneOf("sampling")] = UniformConfig()


REPLAY = "replay"
"""The source that holds what the run itself has met in its world."""

ROLLOUT = "rollout"
"""The source that holds what the policy, as it stands, has met since it last learned; then it is empty again."""


class PhaseConfig(Config):
    """One stretch of a run: gradient steps alone, or steps in the world with gradient steps between them.

    Attributes:
        updates: Gradient steps of a phase that does not act.
        env_steps: Steps in the world, of all environments together; then `updates` is left out.
        updates_per_step: Gradient steps for each of them, on average; may be a fraction.
        warmup: In the first so many of them nothing is learned, and actions are uniformly random; where an algorithm
            begins from a policy, that policy acts (`robopol.algos.algorithm.WarmsUp`).
        rollout: Steps in the world, of all environments together, after each of which there is one update, which
            learns from what was met in them and from nothing else.
        sources: Data source -> its share of every batch; shares are relative. ``replay`` is what was met in the world,
            ``rollout`` what was met since the last update.
    """

    updates: int | None = Field(None, ge=1)
    env_steps: int | None = Field(None, ge=1)
    updates_per_step: float = Field(1.0, gt=0)
    warmup: int = Field(0, ge=0)
    rollout: int | None = Field(None, ge=1)
    sources: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if (self.updates is None) == (self.env_steps is None):
            raise ValueError("a phase has either updates (it learns only) or env_steps (it acts and learns)")
        if self.env_steps is None and (self.warmup or self.updates_per_step != 1):
            raise ValueError("warmup and updates_per_step belong to a phase with env_steps")
        if (self.rollout is not None) != (ROLLOUT in self.sources) or (self.rollout and len(self.sources) > 1):
            raise ValueError(
                "a phase that learns from its last rollout has rollout=STEPS and sources={rollout: 1.0}, and no other "
                "source"
            )
        if self.rollout is not None:
            if self.env_steps is None or self.warmup or self.updates_per_step != 1:
                raise ValueError(
                    "a phase with rollout has env_steps, one update for each rollout, and no warm-up: who learns from "
                    "what its own policy meets acts from the beginning"
                )
            if self.env_steps % self.rollout:
                whole = self.env_steps // self.rollout * self.rollout
                raise ValueError(
                    f"{self.env_steps} env_steps are no whole number of rollouts of {self.rollout}: set "
                    f"env_steps={whole or self.rollout} or {whole + self.rollout}"
                )
        if self.env_steps is not None and self.due(self.env_steps) < 1:
            raise ValueError(f"{self.env_steps} env_steps, {self.warmup} of them a warm-up, come to no gradient step")
        return self

    @property
    def length(self) -> int:
        """What the phase's progress is counted to: `env_steps`, or `updates`."""
        return self.env_steps or self.updates or 0

    def due(self, progress: int) -> int:
        """Return the gradient steps that have been done when the phase has come so far, at most `length`."""
        if self.env_steps is None:
            return progress
        if self.rollout is not None:
            return progress // self.rollout
        return int(max(0, progress - self.warmup) * self.updates_per_step)


class CollectionConfig(Config):
    """How a run acts to learn.

    Attributes:
        num_envs: Environments that are stepped together; each phase's env_steps are a multiple of it.
        capacity: Transitions that the replay keeps, the newest.
    """

    num_envs: int = Field(1, ge=1)
    capacity: int = Field(1_000_000, ge=1)


class EvalConfig(Config):
    """Evaluation while training and at its end.

    Attributes:
        every: Steps of the run between evaluations; 0 evaluates at the end only.
        episodes: Episodes of an evaluation on the way.
        final_episodes: Episodes of the evaluation at the end; 0 leaves it out.
        seed: Seed of the final evaluation's first episode; see also `seed_on_the_way`.
        num_envs: Environments stepped together; the outcome does not depend on it.
        videos: Episodes of the final evaluation that are filmed.
    """

    every: int = Field(0, ge=0)
    episodes: int = Field(20, ge=1)
    final_episodes: int = Field(100, ge=0)
    seed: int = Field(SEED0, ge=0)
    num_envs: int = Field(32, ge=1)
    videos: int = Field(6, ge=0)

    @property
    def seed_on_the_way(self) -> int:
        """Seed of the first episode of evaluations while training, which choose the best checkpoint.

        It is far from the seeds that the evaluation at the end, `robopol eval` and `robopol tune` look at.
        """
        return self.seed + 1_000_000


class CheckpointConfig(Config):
    """When the run is saved.

    Attributes:
        every: Steps of the run between checkpoints; one is also written at every evaluation and at the end.
        keep: Newest checkpoints that are kept, besides the best one.
        segment: Transitions of a file of the replay. Such a file is written once; what is not enough for one yet is
            written into every checkpoint.
    """

    every: int = Field(1000, ge=1)
    keep: int = Field(2, ge=1)
    segment: int = Field(16384, ge=1)


class TrainConfig(Config):
    """A training run.

    A step of the run is an update, or, in a phase that acts, a step in the world.

    Attributes:
        run: The run folder.
        start: Folder of a saved policy that training begins from, ``checkpoint=`` on the command line: its weights,
            its normalisers, and what it is; `policy` is then its config.
        seed: Of everything random in training.
        batch_size: Samples of a gradient step.
        log_every: Steps of the run between two lines of the log.
        validate_every: Steps of the run between two looks at held-out data.
        env: Where the policy will act; None trains without any evaluation.
        data: The named sources of episodes; there need not be any if the run acts.
        reward: What is learned from instead of the reward, in the data and while acting; evaluations tell the world's
            own.
        policy: The policy that is trained; None trains none, if the algorithm can do without.
        model: The model that is trained, if the algorithm trains one.
        algo: How they are trained.
        phases: What is done, in order; names are for the log.
        collection: How the run acts, if a phase does.
        eval: How it is evaluated.
        execution: How its plans are executed when it is evaluated.
        checkpoint: When it is saved.
        logging: Where the log goes besides the run folder.
        runtime: Device, precision and threads.
    """

    run: str
    start: str | None = None
    seed: int = Field(0, ge=0)
    batch_size: int = Field(256, ge=1)
    log_every: int = Field(100, ge=1)
    validate_every: int = Field(1000, ge=1)
    env: EnvConfig | None = None
    data: dict[str, DataConfig] = Field(default_factory=dict)
    reward: Reward = Reward()
    policy: Annotated[Any, OneOf("policy")] | None = None
    model: Annotated[Any, OneOf("model")] | None = None
    algo: Annotated[Any, OneOf("algo")]
    phases: dict[str, PhaseConfig] = Field(min_length=1)
    collection: CollectionConfig = CollectionConfig()
    eval: EvalConfig = EvalConfig()
    execution: Annotated[Any, OneOf("executor")] = RecedingHorizonConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _replay_is_filled(self) -> Self:
        for name in (REPLAY, ROLLOUT):
            if name in self.data:
                raise ValueError(f"data.{name}: '{name}' names what the run itself meets; call the data otherwise")
        acted = False
        for name, phase in self.phases.items():
            acted = acted or phase.env_steps is not None
            if REPLAY in phase.sources and not acted:
                raise ValueError(f"phase '{name}' draws from {REPLAY}, and no phase up to it has env_steps to fill it")
            for key in ("env_steps", "rollout"):
                steps = getattr(phase, key) or 0
                if steps % self.collection.num_envs:
                    raise ValueError(
                        f"phase '{name}' has {steps} {key}, which {self.collection.num_envs} environments "
                        "(collection.num_envs) do not divide"
                    )
        return self

    @property
    def acts(self) -> bool:
        """Whether a phase steps the world."""
        return any(phase.env_steps is not None for phase in self.phases.values())

    @property
    def length(self) -> int:
        """Steps of the whole run."""
        return sum(phase.length for phase in self.phases.values())

    def counts(self, step: int) -> tuple[int, int]:
        """Return how many updates and environment steps have been done after so many steps of the run."""
        updates = env_steps = 0
        for phase in self.phases.values():
            done = min(step, phase.length)
            updates += phase.due(done)
            env_steps += done if phase.env_steps is not None else 0
            step -= done
        return updates, env_steps
