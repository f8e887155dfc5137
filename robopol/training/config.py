"""What a training run is told."""

from typing import Annotated, Any

from pydantic import Field

from robopol.config import Config, OneOf
from robopol.data.sampling import UniformConfig
from robopol.envs.config import EnvConfig
from robopol.evaluation import SEED0
from robopol.execution import RecedingHorizonConfig
from robopol.networks.precision import RuntimeConfig
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


class PhaseConfig(Config):
    """One stretch of a run.

    Attributes:
        updates: Gradient steps.
        sources: Data source -> its share of every batch; shares are relative.
    """

    updates: int = Field(ge=1)
    sources: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)


class EvalConfig(Config):
    """Evaluation while training and at its end.

    Attributes:
        every: Updates between evaluations; 0 evaluates at the end only.
        episodes: Episodes of an evaluation on the way.
        final_episodes: Episodes of the evaluation at the end; 0 leaves it out.
        seed: Seed of the first episode. Evaluations on the way use seeds after those of the final one, so
            that the final figure is never the one that was looked at while training.
        num_envs: Environments stepped together; the outcome does not depend on it.
        videos: Episodes of the final evaluation that are filmed.
    """

    every: int = Field(0, ge=0)
    episodes: int = Field(20, ge=1)
    final_episodes: int = Field(100, ge=0)
    seed: int = Field(SEED0, ge=0)
    num_envs: int = Field(32, ge=1)
    videos: int = Field(6, ge=0)


class CheckpointConfig(Config):
    """When the run is saved.

    Attributes:
        every: Updates between checkpoints; one is also written at every evaluation and at the end.
        keep: Newest checkpoints that are kept, besides the best one.
    """

    every: int = Field(1000, ge=1)
    keep: int = Field(2, ge=1)


class TrainConfig(Config):
    """A training run.

    Attributes:
        run: The run folder.
        seed: Of everything random in training.
        batch_size: Samples of a gradient step.
        log_every: Updates between two lines of the log.
        validate_every: Updates between two looks at held-out data.
        env: Where the policy will act; None trains without any evaluation.
        data: The named sources of episodes.
        policy: The policy that is trained; None trains none, if the algorithm can do without.
        model: The model that is trained, if the algorithm trains one.
        algo: How they are trained.
        phases: What is done, in order; names are for the log.
        eval: How it is evaluated.
        execution: How its plans are executed when it is evaluated.
        checkpoint: When it is saved.
        logging: Where the log goes besides the run folder.
        runtime: Device, precision and threads.
    """

    run: str
    seed: int = Field(0, ge=0)
    batch_size: int = Field(256, ge=1)
    log_every: int = Field(100, ge=1)
    validate_every: int = Field(1000, ge=1)
    env: EnvConfig | None = None
    data: dict[str, DataConfig] = Field(min_length=1)
    policy: Annotated[Any, OneOf("policy")] | None = None
    model: Annotated[Any, OneOf("model")] | None = None
    algo: Annotated[Any, OneOf("algo")]
    phases: dict[str, PhaseConfig] = Field(min_length=1)
    eval: EvalConfig = EvalConfig()
    execution: Annotated[Any, OneOf("executor")] = RecedingHorizonConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
