"""Training with any sampling of windows: exact resumption, goals from hindsight, splits that copy nothing."""

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from training.resuming import assert_same_bits, cases, stop_and_resume

from robopol.config import parse
from robopol.configs import load_config
from robopol.data import EpisodeBuilder, Episodes, EpisodesMeta, save_episodes
from robopol.errors import DataError
from robopol.evaluation import evaluate
from robopol.training.config import TrainConfig
from robopol.training.run import RunFolder
from robopol.training.train import train
from robopol.training.trainer import Trainer

SMALL = [
    "policy=gaussian",
    "policy.hidden=[64,64]",
    "policy.n_obs_steps=1",
    "policy.horizon=2",
    "policy.n_action_steps=1",
    "batch_size=64",
    "log_every=50",
    "validate_every=50",
    "checkpoint.every=20",
    "algo.warmup=10",
    "algo.lr=3e-3",
    "eval.final_episodes=0",
    "runtime.threads=1",
    "runtime.matmul=highest",
    "data.demos.validation=0.1",
]
SPEED, REACH = 0.2, 0.2


class PointGoal(gymnasium.Env):
    """A point that is to reach a goal in the square; an action is a step of at most 0.2 in each direction."""

    dt = 0.1

    def __init__(self) -> None:
        box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"observation": box, "desired_goal": box})
        self.action_space = gymnasium.spaces.Box(-SPEED, SPEED, (2,), np.float32)

    def _observe(self):
        return {"observation": self.position.astype(np.float32), "desired_goal": self.goal.astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        return self._observe(), {}

    def step(self, action):
        self.position = self.position + np.clip(action, -SPEED, SPEED)
        reached = bool(np.abs(self.position - self.goal).max() < REACH)
        return self._observe(), float(reached), reached, False, {"is_success": reached}


@pytest.fixture(scope="module", autouse=True)
def point_goal():
    gymnasium.register("robopol-test/PointGoal-v0", PointGoal, max_episode_steps=20)
    yield
    del gymnasium.registry["robopol-test/PointGoal-v0"]


def walks(count: int = 60, length: int = 12) -> Episodes:
    """Points that walk somewhere, nobody says where to; some farther than others, which is their reward."""
    rng = np.random.default_rng(0)
    meta = EpisodesMeta(
        control_hz=10.0,
        action_space="box",
        action_names=("action 0", "action 1"),
        action_low=(-SPEED, -SPEED),
        action_high=(SPEED, SPEED),
    )
    parts = []
    for _ in range(count):
        builder, position = EpisodeBuilder(), rng.uniform(-1, 1, 2)
        heading = (rng.uniform(-1, 1, 2) - position) / length
        for step in range(length):
            action = np.clip(heading + rng.normal(0, 0.01, 2), -SPEED, SPEED)
            builder.add(
                {"state": position.astype(np.float32)},
                action.astype(np.float32),
                float(np.abs(action).sum()),
                terminated=False,
                truncated=step == length - 1,
            )
            position = position + action
        builder.finish({"state": position.astype(np.float32)}, success=False)
        parts.append(builder.build(meta))
    return Episodes.concat(parts)


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "walks.hdf5"
    save_episodes(walks(), path)
    return path


def config(uri: object, run: Path, *more: str) -> TrainConfig:
    env = [] if "env=none" in more else ["env=gym", "env.id=robopol-test/PointGoal-v0"]
    tree = load_config("train", [*env, *SMALL, f"data.demos.uri={uri}", f"run={run}", *more])
    return parse(TrainConfig, tree)


NOWHERE = ["env=none"]
HINDSIGHT = ["data.demos.sampling.kind=hindsight", "data.demos.sampling.of=state"]
SAMPLINGS = {
    "trajectory_weighted": ["data.demos.sampling.kind=trajectory_weighted", *NOWHERE],
    "top_k": ["data.demos.sampling.kind=top_k", "data.demos.sampling.share=0.3", *NOWHERE],
    "hindsight": [*HINDSIGHT, "data.demos.sampling.random=0.5"],
}


@pytest.mark.parametrize("kind", cases(SAMPLINGS, ["trajectory_weighted", "top_k"]))
def test_a_stopped_run_resumes_to_the_same_bits(uri, tmp_path, kind):
    more = [*SAMPLINGS[kind], "phases.cloning.updates=60"]
    made = stop_and_resume(tmp_path, lambda run: train(config(uri, run, *more), []), lambda step: step == 40)
    assert_same_bits(*made, "policy")


def test_goals_from_hindsight_are_reached_in_a_world_that_sets_them(uri, tmp_path):
    more = [*HINDSIGHT, "data.demos.sampling.geometric=0.5", "data.demos.sampling.uniform=0.5"]
    with Trainer(config(uri, tmp_path / "run", *more, "phases.cloning.updates=300")) as trainer:
        policy = trainer.algo.policy
        assert policy.spec.obs_shapes == {"state": (2,), "goal": (2,)}
        trainer.start(RunFolder.create(str(tmp_path / "run"), trainer.config.tree(), []))
        env = trainer.env()
        untrained = evaluate(policy, env, 40, 0).success_rate
        trainer.run()
        trained = evaluate(trainer.algo.policy, env, 40, 0).success_rate
    assert trained > 0.8 > 0.4 > untrained


def test_goals_that_the_world_or_the_data_lack_are_refused_in_words(uri, tmp_path):
    with pytest.raises(DataError, match="observation 'goal' is"):
        Trainer(config(uri, tmp_path / "run", *HINDSIGHT, "env.id=InvertedPendulum-v5"))
    with pytest.raises(DataError, match=r"sampling\.of"):
        Trainer(config(uri, tmp_path / "run", *HINDSIGHT, "data.demos.sampling.of=achieved_goal"))


def test_samplings_differ_by_source_and_use_training_episodes_only(uri, tmp_path):
    more = ["data.best.uri=" + str(uri), "data.best.sampling.kind=top_k", "data.best.sampling.share=0.2", *NOWHERE]
    words = [*more, "data.best.validation=0.5", "phases.cloning.sources={demos: 1, best: 1}"]
    with Trainer(config(uri, tmp_path / "run", *words)) as trainer:
        recorded = walks()
        returns = recorded.returns()
        trained = trainer.sources.windows["best"].episode.unique()
        held_out = trainer.held_out.windows["best"].episode.unique()
        assert sorted([*trained.tolist(), *held_out.tolist()]) == list(range(60))
        best = set(trained[returns[trained].argsort(descending=True)[:6]].tolist())
        states = torch.cat([trainer.sources.batch({"best": 1.0}, 64, step)["obs"]["state"] for step in range(5)])
        rows = (recorded.obs["state"] == states).all(-1).nonzero()[:, 1]
        assert set((rows // 12).tolist()) == best
        assert len(trainer.sources.batch({"demos": 1.0, "best": 1.0}, 64, 0)["action"]) == 64


def test_the_split_copies_no_images(tmp_path):
    episodes = walks(8)
    image = torch.arange(96).to(torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3).contiguous()
    last = torch.zeros(8, 8, 8, 3, dtype=torch.uint8)
    episodes = replace(
        episodes,
        obs=episodes.obs | {"images.top": image},
        final_obs=episodes.final_obs | {"images.top": last},
    )
    save_episodes(episodes, f"arrays:{tmp_path / 'walks'}")
    more = ["policy/encoder=image", "policy.encoder.blocks=[1]", "policy.encoder.crop=1", *NOWHERE]
    with Trainer(config(f"arrays:{tmp_path / 'walks'}", tmp_path / "run", *more)) as trainer:
        train, held_out = trainer.sources.windows["demos"], trainer.held_out.windows["demos"]
        whole = train.episodes.obs["images.top"]
        for windows in (train, held_out):
            assert windows._images["images.top"].data_ptr() == whole.data_ptr()
        batch = trainer.sources.batch({"demos": 1.0}, 16, 0)
        assert (batch["obs"]["images.top"][:, -1, 0, 0, 0] < 96).all()
        assert "images.top" not in trainer.train_data["demos"].obs
