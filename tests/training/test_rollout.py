"""Runs that learn from their last rollout: its decisions, its clock, exact resumption, saved policies to begin from."""

import json
from pathlib import Path

import pytest
import torch
from training.resuming import assert_same_bits, stop_and_resume

from robopol.algos.algorithm import Explored
from robopol.checkpoint import load_policy
from robopol.commands import train as verb
from robopol.config import parse
from robopol.configs import load_config
from robopol.envs import make_env
from robopol.errors import ConfigError
from robopol.training.collector import Collector
from robopol.training.config import TrainConfig
from robopol.training.rollout import Rollout
from robopol.training.run import RunFolder
from robopol.training.train import train
from robopol.training.trainer import Trainer
from robopol.training.words import configured

CPU = torch.device("cpu")
SMALL = [
    "env=multi_goal",
    "env.options.max_episode_steps=10",
    "model.hidden=[8]",
    "batch_size=8",
    "collection.num_envs=2",
    "log_every=20",
    "eval.every=0",
    "eval.final_episodes=0",
    "runtime.threads=1",
    "runtime.matmul=highest",
]
SHORT = ["phases.online.rollout=20", "phases.online.env_steps=60"]
GAUSSIAN = ["policy.hidden=[8]", "policy.obs_normalization=running", "model.obs_normalization=running"]
CHUNKS = ["policy.horizon=5", "policy.n_obs_steps=2", "policy.n_action_steps=3"]
NET = ["policy/net=mlp", "policy.net.width=8", "policy.obs_normalization=identity"]
WALK = [*NET, *CHUNKS, "policy.action_normalization=bounds"]
RUNS = {
    "ppo": ["algo=ppo", *GAUSSIAN, "algo.scale_rewards=true", "algo.epochs=2"],
    "trpo": ["algo=trpo", *GAUSSIAN, "algo.critic_epochs=2"],
    "chunks": ["algo=ppo", *GAUSSIAN, *CHUNKS, "algo.epochs=2"],
    "dppo": ["algo=dppo", *WALK, "policy.path.train_steps=20", "algo.scoring.steps=3", "algo.epochs=2"],
}


def config(run: Path, *words: str) -> TrainConfig:
    return parse(TrainConfig, load_config("train", [words[0], *SMALL, *SHORT, *words[1:], f"run={run}"]))


def test_environments_that_decide_at_other_times_are_kept_apart():
    """Decisions in the order of each environment; rows of one, by the next, and the one that is not there."""
    with make_env("robopol/MultiGoal-v0", 3, max_episode_steps=7) as env:
        rollout = Rollout(3, CPU)
        made = Collector(env, None, ["state"], 0, CPU, 1, rollout)
        made.begin()

        def choose(obs, rng):
            drawn = torch.randn(len(obs["state"]), 3, 2, generator=rng)
            # environment 0 is walked east, into a goal; the others stay where they are until they are cut off
            return Explored(
                torch.where(obs["state"][:, -1:, :1] > 0, 1.0, 0.0) * 0.05 + 0.001 * drawn, {"drawn": drawn}
            )

        for _ in range(25):
            made.step(choose)
        state = rollout.state()
        made.cut()
        other = Rollout(3, CPU)
        other.load_state(state)
        batch = rollout.take()
        order = batch["order"]
        assert sorted(order[order >= 0].tolist()) == list(range(len(batch["action"])))
        for column in range(3):
            mine = order[:, column]
            mine = mine[mine >= 0]
            assert int(batch["length"][mine].sum()) == 25
            ended = batch["terminated"][mine] | batch["truncated"][mine]
            after, before = batch["next_obs"]["state"][mine[:-1]], batch["obs"]["state"][mine[1:]]
            assert torch.equal((after == before).all(-1).all(-1), ~ended[:-1])
        assert (batch["length"] < 3).any()
        assert batch["trace"]["drawn"].shape == (len(batch["action"]), 3, 2)
        assert max(rollout.state()["counts"]) == 0
        taken = other.take()  # as it stood before the last decisions were cut
        rows = taken["order"].shape[0]
        there = taken["order"] >= 0
        assert 3 < rows <= order.shape[0]
        for part in ("action", "reward", "length"):
            assert torch.equal(taken[part][taken["order"][there]], batch[part][order[:rows][there]])


def test_time_outs_are_bootstrapped_from_the_true_final_observation(tmp_path):
    """The state that the value network is asked about is where the episode ended, not where the next one began."""
    with Trainer(config(tmp_path / "run", *RUNS["ppo"])) as trainer:
        trainer.collector.begin()
        phase = trainer.config.phases["online"]
        learned: list = []
        algo = trainer.algo
        original = algo.update
        algo.update = lambda batch, step, rng: (learned.append(batch), original(batch, step, rng))[1]
        while not learned:
            trainer.advance(phase, 0)
        batch = learned[0]
        cut = batch["truncated"].nonzero()[:, 0]
        assert len(cut) == 2  # both episodes reach their limit of 10 steps
        seen = batch["next_obs"]["state"][cut, -1]
        step = batch["obs"]["state"][cut, -1] + batch["action"][cut, 0]
        torch.testing.assert_close(seen, step, atol=0.2, rtol=0)
        starts = torch.cat([batch["obs"]["state"][:2, -1], trainer.collector._obs["state"][:, -1]])
        assert not any(torch.equal(row, start) for row in seen for start in starts)


def run_of(made: TrainConfig) -> None:
    """Train without evaluation, plots and card."""
    with Trainer(made) as trainer:
        trainer.start(RunFolder.create(made.run, trainer.config.tree()))
        trainer.run()


def resumed(run: Path) -> None:
    folder = RunFolder.open(run)
    with Trainer(parse(TrainConfig, folder.config), resumed=True) as trainer:
        trainer.start(folder)
        trainer.run()


@pytest.mark.parametrize(("name", "at"), [("ppo", 26), ("ppo", 40), ("dppo", 26), ("trpo", 26)])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, name, at):
    """In the middle of a rollout, with decisions under way; and at the end of one."""
    words = [*RUNS[name], f"checkpoint.every={at}"]
    made = stop_and_resume(tmp_path, lambda run: run_of(config(run, *words)), lambda step: step == at, resumed)
    assert_same_bits(*made, "policy", "model")


def test_the_clock_counts_an_update_for_each_rollout(tmp_path):
    made = config(tmp_path, *RUNS["ppo"])
    assert [made.counts(step) for step in (0, 19, 20, 59, 60)] == [(0, 0), (0, 19), (1, 20), (2, 59), (3, 60)]
    run = tmp_path / "run"
    train(config(run, *RUNS["chunks"]), [])
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["updates"], summary["env_steps"]) == (3, 60)
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in log if "train/kl" in line] == [20, 40, 60]


def test_running_normalisers_are_saved_with_the_policy(tmp_path):
    run_of(config(tmp_path / "run", *RUNS["ppo"]))
    policy = load_policy(tmp_path / "run")
    assert policy.observation.normalizer.count == 60
    assert policy.observation.normalizer.offset.abs().sum() > 0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion policy that was trained by acting, with normalisers of its own."""
    run = tmp_path_factory.mktemp("base") / "run"
    run_of(config(run, *RUNS["dppo"]))
    return run


def test_a_run_begins_from_a_saved_policy(tmp_path, base):
    run = tmp_path / "run"
    said = ["algo=dppo", "algo.scoring.steps=3", "algo.epochs=1", "algo.warmup=2", *SMALL, *SHORT, f"run={run}"]
    assert verb.run([f"checkpoint={base}", *said, "checkpoint.every=20", "checkpoint.keep=5"]) == 0
    one, other = load_policy(base), load_policy(run / "checkpoints" / "00000040")
    obs = {"state": torch.randn(4, 2, 2)}
    assert torch.equal(
        one.plan(obs, generator=torch.Generator().manual_seed(0)),
        other.plan(obs, generator=torch.Generator().manual_seed(0)),
    ), "in a warm-up the policy stays what it was"
    with pytest.raises(ConfigError, match="leaves the policy none of the 3 rollouts"):
        verb.run([f"checkpoint={base}", *said, "algo.warmup=3", f"run={tmp_path / 'idle'}"])
    tree = json.loads((run / "config.json").read_text())
    assert tree["start"] == str(base)
    assert tree["policy"] == other.config.tree()


def test_such_a_run_resumes_when_what_it_began_from_is_gone(tmp_path, base, monkeypatch):
    import shutil

    copied = tmp_path / "base"
    shutil.copytree(base / "checkpoints" / "last" / "policy", copied)
    save = RunFolder.save

    def save_and_stop(self, step, *rest):
        save(self, step, *rest)
        raise KeyboardInterrupt

    said = [f"checkpoint={copied}", "algo=fpo", "algo.epochs=1", *SMALL, *SHORT, f"run={tmp_path / 'run'}"]
    monkeypatch.setattr(RunFolder, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        verb.run(said)
    monkeypatch.undo()
    shutil.rmtree(copied)
    resumed(tmp_path / "run")
    assert load_policy(tmp_path / "run").config.kind == "diffusion"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algo=ppo", "phases.online.env_steps=50"], "no whole number of rollouts of 20: set env_steps=40 or 60"),
        (
            ["algo=ppo", "phases.online.rollout=15", "phases.online.env_steps=60"],
            "has 15 rollout, which 2 environments",
        ),
        (["algo=ppo", "phases.online.warmup=4"], "no warm-up"),
        (["algo=ppo", "phases.online.sources={replay: 1.0}"], "sources={rollout: 1.0}"),
        (["algo=ppo", "schedule=online"], "sources={rollout: 1.0}"),
        (["algo=sac", "schedule=on_policy"], "algo=sac learns from drawn samples"),
        (["algo=ppo", "data.rollout.uri=x"], "call the data otherwise"),
    ],
)
def test_what_cannot_run_is_refused_in_words(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        train(
            parse(TrainConfig, load_config("train", [words[0], *SMALL, *SHORT, *words[1:], f"run={tmp_path / 'r'}"])),
            [],
        )


@pytest.mark.parametrize(
    ("words", "world", "limit"),
    [
        ([], "robopol/MultiGoal-v0", 10),
        (["env.options.max_episode_steps=7", "env.workers=2"], "robopol/MultiGoal-v0", 7),
        (["env=multi_goal"], "robopol/MultiGoal-v0", None),
        (["env=gym", "env.id=Pendulum-v1"], "Pendulum-v1", None),
        (["experiment=locomotion_ppo"], "HalfCheetah-v5", None),
        (["env=null"], None, None),
    ],
)
def test_a_saved_policy_goes_on_in_its_own_world_unless_another_is_named(base, words, world, limit):
    env = configured([f"checkpoint={base}", *words])["env"] or {}
    assert (env.get("id"), env.get("options", {}).get("max_episode_steps")) == (world, limit)
    assert env.get("workers", 0) == (2 if "env.workers=2" in words else 0)


def test_a_policy_for_another_world_or_that_is_also_described_is_refused(tmp_path, base):
    said = ["algo=dppo", "algo.scoring.steps=3", *SMALL, *SHORT, f"run={tmp_path / 'r'}", f"checkpoint={base}"]
    with pytest.raises(ConfigError, match=r"leave out policy\.horizon=3"):
        verb.run([*said, "policy.horizon=3"])
    with pytest.raises(ConfigError, match=r"was made for something else: .*action_names"):
        verb.run([*said, "env=gym", "env.id=Pendulum-v1"])
