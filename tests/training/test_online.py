"""Runs that act: their clock, their batches, that a stopped one loses nothing, what they learn and what they refuse."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training.resuming import assert_same_bits, cases, stop_and_resume

from robopol.checkpoint import load_part, load_policy, save_part
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import save_episodes
from robopol.envs import make_env
from robopol.errors import ConfigError, EnvError
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect
from robopol.registry import lookup
from robopol.training.collector import Collector
from robopol.training.config import PhaseConfig, TrainConfig
from robopol.training.contract import spec_for
from robopol.training.run import RunFolder
from robopol.training.team import Team
from robopol.training.train import resume, train
from robopol.training.trainer import Trainer
from robopol.training.words import configured

SMALL = [
    "env=multi_goal",
    "policy.hidden=[16]",
    "model.hidden=[16]",
    "batch_size=16",
    "log_every=10",
    "checkpoint.every=20",
    "eval.every=0",
    "eval.final_episodes=2",
    "eval.num_envs=2",
    "eval.videos=0",
    "runtime.threads=1",
    "runtime.matmul=highest",
]
WITHOUT_DATA = ["model.obs_normalization=identity", "model.action_normalization=bounds"]
SHORT = ["phases.online.env_steps=60", "phases.online.warmup=10"]


def config(run: Path, *words: str) -> TrainConfig:
    small = [word for word in SMALL if not (word.startswith("model") and "algo=meow" in words)]
    return parse(TrainConfig, load_config("train", [*small, f"run={run}", *words]))


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "goals.hdf5"
    with make_env("robopol/MultiGoal-v0", 2) as env:
        save_episodes(collect(ExpertActor(env), env, 4, 0, source="expert", only_success=True), path)
    return path


def test_a_run_without_data_leaves_everything_it_should(tmp_path, capsys):
    run = tmp_path / "run"
    train(config(run, "algo=sac", *SHORT, "eval.every=30", "eval.episodes=2"), [])
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["env_steps"], summary["updates"]) == (60, 50)
    assert "60 environment steps" in capsys.readouterr().out
    policy, critics = load_policy(run), load_part(run, "model")
    chunk = policy.act({"state": torch.zeros(3, 1, 2)})
    assert chunk.shape == (3, 1, 1, 2)
    assert critics.q({"state": torch.zeros(3, 1, 2)}, chunk[:, 0]).shape == (2, 3)
    card = (run / "README.md").read_text()
    assert "trained with `sac` for 60 environment steps and 50 updates" in card
    log = lines(run)
    assert [line["env_steps"] for line in log if "eval/return_mean" in line] == [30]
    assert [(line["env_steps"], line["global_step"]) for line in log if "train/loss" in line][:2] == [
        (20, 10),
        (30, 20),
    ]
    assert "train/loss" not in log[0]  # the warm-up learns nothing
    assert any("rollout/return_mean" in line for line in log)
    assert {path.name for path in (run / "checkpoints").iterdir()} >= {"00000060", "last"}
    assert (run / "curves.png").exists()


@pytest.mark.parametrize("evaluation", ["eval.final_episodes=1", "eval.every=10"])
def test_a_world_that_may_never_end_is_learned_in_and_not_evaluated_in(tmp_path, evaluation):
    words = ["algo=sac", *SHORT, "env.id=Pendulum-v1", "env.options={max_episode_steps: -1}", "eval.final_episodes=0"]
    with Trainer(config(tmp_path / "run", *words)):
        pass
    with pytest.raises(EnvError, match="'Pendulum-v1' has no time limit"):
        Trainer(config(tmp_path / "run", *words, evaluation))


def test_evaluations_are_neither_counted_nor_learned_from(tmp_path):
    with Trainer(config(tmp_path / "run", "algo=sac", *SHORT, "eval.every=15", "eval.episodes=2")) as trainer:
        trainer.start(RunFolder.create(tmp_path / "run", trainer.config.tree()))
        trainer.run()
        assert trainer.env_steps == trainer.replay.added == 60
        assert trainer.updates == 50
    assert sum("eval/return_mean" in line for line in lines(tmp_path / "run")) == 3


def test_what_was_fitted_to_the_records_stays_when_the_run_acts(tmp_path, demos):
    words = ["algo=sac", "schedule=offline_to_online", f"data.demos.uri={demos}", "policy.obs_normalization=zscore"]
    words += ["model.obs_normalization=zscore", "phases.offline.updates=3", "phases.online.env_steps=20"]
    run = tmp_path / "run"
    train(config(run, *words, "checkpoint.every=3", "checkpoint.keep=9"), [])
    first, *_ = sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    for part in ("policy", "model"):
        before, after = (
            {key: value for key, value in load_file(folder / part / "model.safetensors").items() if "normalizer" in key}
            for folder in (first, run / "checkpoints" / "last")
        )
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert any("obs" in key and (before[key] != 1).any() for key in before)


LONGER = {
    "fql": ["algo=fql", "policy.horizon=2", "policy.n_action_steps=2", "policy.net.width=8", "model.hidden=[8]"],
    "dsrl": ["algo=dsrl", "model.hidden=[8]", "algo.actor.hidden=[8]"],
    "expo": ["algo=expo", "model.hidden=[8]", "algo.editor.hidden=[8]"],
}
FLOW = {"net": {"kind": "mlp", "width": 8}, "n_obs_steps": 1, "horizon": 2, "n_action_steps": 2}
FLOW |= {"obs_normalization": "identity", "action_normalization": "bounds"}


@pytest.mark.parametrize("name", LONGER)
def test_who_looks_back_further_than_the_policy_does_not_keep_it_from_acting(tmp_path, name):
    words = [*LONGER[name], "schedule=online", "env=multi_goal", "model.n_obs_steps=3", *SHORT, "run=none"]
    if name != "fql":
        with make_env("robopol/MultiGoal-v0") as env:
            spec = spec_for(parse(lookup("policy", "flow"), {"kind": "flow", **FLOW}), {}, env.spec)
        save_part(parse(lookup("policy", "flow"), {"kind": "flow", **FLOW}).build(spec), tmp_path)
        words.append(f"checkpoint={tmp_path}")
    else:
        words += ["policy.n_obs_steps=1", "policy.obs_normalization=identity", "policy.action_normalization=bounds"]
    with Trainer(parse(TrainConfig, configured(words))) as trainer:
        trainer.collector.begin()
        for choose in (trainer.algo.warm_up, trainer.algo.explore):
            for _ in range(3):
                trainer.collector.step(choose)
        assert trainer.env_steps == 6


def test_chunks_of_the_warm_up_end_with_it_wherever_that_is(tmp_path):
    """3 worlds, and a warm-up of 8 steps: the fourth step of each is already chosen by who learns."""
    words = ["algo=rlpd", "schedule=online", "collection.num_envs=3", "policy.horizon=4", "policy.n_action_steps=4"]
    words += ["model.n_action_steps=4", "phases.online.env_steps=30", "phases.online.warmup=8"]
    with Trainer(config(tmp_path / "run", *words)) as trainer:
        (phase,) = trainer.config.phases.values()
        trainer.collector.begin()
        asked, explore = [], trainer.algo.explore
        trainer.algo.explore = lambda obs, rng: (asked.append(trainer.step), explore(obs, rng))[1]
        trainer.algo.warm_up = lambda obs, rng: explore(obs, rng)
        while trainer.step < 18:
            trainer.advance(phase, 0)
        assert asked[0] == 9


def test_a_finished_run_is_evaluated_again_without_its_world_being_stepped(tmp_path, monkeypatch):
    run = tmp_path / "run"
    train(config(run, "algo=sac", *SHORT), [])
    (run / "summary.json").unlink()
    monkeypatch.setattr(Collector, "_strayed", lambda _: pytest.fail("its actions were taken again"))
    monkeypatch.setattr(Collector, "_shift", lambda *_: pytest.fail("its actions were taken again"))
    resume(run)
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 60


@pytest.mark.parametrize(("leader", "there"), [(True, True), (True, False), (False, True)])
def test_the_best_is_marked_again_by_one_process_and_where_it_still_is(tmp_path, monkeypatch, leader, there):
    run = tmp_path / "run"
    train(config(run, "algo=sac", *SHORT, "eval.every=20", "eval.episodes=2", "checkpoint.keep=9"), [])
    marked = []
    monkeypatch.setattr(RunFolder, "mark_best", lambda _, step: marked.append(step))
    monkeypatch.setattr(Team, "leader", leader)
    with Trainer(config(run, "algo=sac", *SHORT, "eval.every=20", "checkpoint.keep=9")) as trainer:
        folder = RunFolder(run)
        best = folder.latest().progress["best_step"]
        if not there:
            monkeypatch.setattr(RunFolder, "steps", lambda _: [60])
            best = None if best == 60 else best
        trainer.start(folder)
    assert marked == ([trainer.best_step] if leader and (there or best is None) else [])


def test_a_short_run_of_decisions_has_room_for_them(tmp_path):
    words = ["algo=rlpd", "schedule=online", "collection.num_envs=5", "policy.horizon=4", "policy.n_action_steps=4"]
    words += ["model.n_action_steps=4", "phases.online.env_steps=20", "phases.online.warmup=5"]
    with Trainer(config(tmp_path / "run", *words)) as trainer:
        assert trainer.replay.capacity == 5 * (4 + 4)


ONLINE = {
    "sac": ["algo=sac", *SHORT, "checkpoint.segment=7"],
    "td3, several environments": ["algo=td3", *SHORT, "collection.num_envs=3", "phases.online.updates_per_step=0.5"],
    "ddpg on a pendulum, several updates": [
        *("algo=ddpg", *SHORT, "phases.online.updates_per_step=2"),
        *("env=gym", "env.id=Pendulum-v1", "env.options.max_episode_steps=25"),
    ],
    "stopped in the warm-up": ["algo=td3", "phases.online.env_steps=60", "phases.online.warmup=50"],
    "rlpd": [
        *("algo=rlpd", "policy.horizon=2", "policy.n_action_steps=2", "model.n_action_steps=2"),
        *("phases.online.env_steps=24", "phases.online.warmup=20", "checkpoint.every=22"),
    ],
    "meow": ["algo=meow", *SHORT, "policy.dropout=0.5"],
    "cal_ql": [
        *("algo=cal_ql", "algo.candidates=2", "collection.capacity=25", "collection.num_envs=3"),
        *("algo.proposals=3", "policy.n_action_steps=2", "model.return_steps=3"),
    ],
    "a small replay": ["algo=td3", *SHORT, "collection.capacity=13", "checkpoint.segment=4"],
}


SLOW = ("td3, several environments", "ddpg on a pendulum, several updates", "stopped in the warm-up", "meow")


@pytest.mark.parametrize("name", cases([*ONLINE, "offline, then online"], SLOW))
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, demos, name):
    mixed = ["algo=sac", "schedule=offline_to_online", f"data.demos.uri={demos}", "phases.offline.updates=15"]
    words = ONLINE.get(name, [*mixed, "phases.online.env_steps=45", "phases.online.warmup=5"])
    if name == "cal_ql":
        words = [*words, *mixed[1:], "phases.online.env_steps=45", "checkpoint.segment=7"]
    if name == "rlpd":
        words = [*words, f"data.demos.uri={demos}"]
    whole, stopped = stop_and_resume(
        tmp_path,
        lambda run: train(config(run, *words), []),
        lambda step: 40 <= step < 45 or (name == "rlpd" and step == 22),
    )
    assert_same_bits(whole, stopped, "policy", *([] if name == "meow" else ["model"]))
    logs = [
        [{k: v for k, v in line.items() if not k.startswith("time")} for line in lines(run)] for run in (whole, stopped)
    ]
    assert logs[0] == logs[1]
    found = [json.loads((run / "evaluation.json").read_text()) for run in (whole, stopped)]
    assert found[0]["outcomes"] == found[1]["outcomes"]


def test_td3_bc_learns_from_records_alone(tmp_path, demos):
    run = tmp_path / "run"
    train(config(run, "algo=td3_bc", f"data.demos.uri={demos}", "phases.cloning.updates=20"), [])
    assert json.loads((run / "summary.json").read_text())["updates"] == 20
    policy = load_policy(run)
    assert policy.observation.normalizer.fitted
    assert policy.act({"state": torch.zeros(1, 1, 2)}).shape == (1, 1, 1, 2)


def test_updates_are_due_at_their_ratio_after_the_warm_up():
    phase = parse(PhaseConfig, {"env_steps": 20, "warmup": 5, "updates_per_step": 0.5, "sources": {"replay": 1.0}})
    assert [phase.due(done) for done in (0, 5, 6, 7, 8, 9, 20)] == [0, 0, 0, 1, 1, 2, 7]
    busy = parse(PhaseConfig, {"env_steps": 20, "updates_per_step": 20.0, "sources": {"replay": 1.0}})
    assert [busy.due(done) for done in (0, 1, 20)] == [0, 20, 400]


def test_the_clock_counts_updates_until_the_run_acts(tmp_path):
    words = ["algo=sac", "schedule=offline_to_online", "data.demos.uri=x", "phases.offline.updates=10"]
    made = config(tmp_path, *words, "phases.online.env_steps=30", "phases.online.warmup=10")
    assert made.length == 40
    assert [made.counts(step) for step in (0, 7, 10, 20, 25, 40)] == [
        (0, 0),
        (7, 0),
        (10, 0),
        (10, 10),
        (15, 15),
        (30, 30),
    ]


def test_every_batch_holds_its_share_of_the_replay(tmp_path, demos):
    words = ["algo=sac", "schedule=offline_to_online", f"data.demos.uri={demos}", "phases.offline.updates=1"]
    more = ["phases.online.env_steps=60", "phases.online.sources={demos: 3.0, replay: 1.0}"]
    with Trainer(config(tmp_path / "run", *words, *more)) as trainer:
        trainer.collector.begin()
        for _ in range(5):
            trainer.collector.step(None)
        # tag what was met in the world: a reward that no record has
        state = trainer.collector.replay.state()
        state["rows"] = state["rows"].clone()
        state["rows"][:, 4] = 1234.0
        trainer.collector.replay.load_state(state)
        for step in range(20):
            batch = trainer.sources.batch(trainer.config.phases["online"].sources, 16, step)
            assert (batch["reward"] == 1234).sum() == 4
            assert batch["obs"]["state"].shape == batch["next_obs"]["state"].shape == (16, 1, 2)
            assert batch["action"].shape == (16, 1, 2)
        alone = trainer.sources.batch({"replay": 1.0}, 16, 0)
    assert (alone["reward"] == 1234).all()
    assert alone.keys() - batch.keys() == {"trace"}  # which records have none of
    assert all(alone[key].dtype == batch[key].dtype for key in batch if not key.endswith("obs"))


def test_the_replay_tells_what_terminated_and_what_was_cut_off(tmp_path):
    with Trainer(config(tmp_path / "run", "algo=sac", *SHORT)) as trainer:
        replay, two = trainer.collector.replay, torch.zeros(2, 2)
        replay.add({"state": two}, two, torch.ones(2), torch.tensor([1, 0]), torch.tensor([0, 1]), {"state": two})
        batch = trainer.sources.batch({"replay": 1.0}, 64, 0)
        terminated = replay.sample(64, 0, trainer_seed(trainer))["terminated"]
    assert sorted(set(batch["discount"].tolist())) == pytest.approx([0, 0.99])
    assert torch.equal(batch["discount"] == 0, terminated == 1)
    assert batch["next_mask"].all()


def test_one_reward_holds_for_data_and_world_and_not_for_evaluations(tmp_path, demos):
    words = ["algo=sac", "schedule=offline_to_online", f"data.demos.uri={demos}", "phases.offline.updates=1"]
    more = ["phases.online.env_steps=60", "reward.of=success", "reward.shift=-1", "env.options.max_episode_steps=9"]
    with Trainer(config(tmp_path / "run", *words, *more)) as trainer:
        trainer.collector.begin()
        for _ in range(30):
            trainer.collector.step(None)
        batches = [trainer.sources.batch({name: 1.0}, 64, 0)["reward"] for name in ("demos", "replay")]
        assert set(batches[0].tolist()) == {-1.0, 0.0}
        assert -1.0 in batches[1]
        assert not trainer.env().spec.wrappers


def trainer_seed(trainer: Trainer) -> int:
    from robopol.training.seeding import seed_of

    return seed_of(trainer.config.seed, "order of replay")


def test_offline_is_a_phase_that_does_not_act(tmp_path, demos):
    """The same updates, whether or not acting follows."""
    words = ["algo=td3", "schedule=offline_to_online", f"data.demos.uri={demos}", "phases.offline.updates=20"]
    train(config(tmp_path / "both", *words, "phases.online.env_steps=20", "checkpoint.keep=5"), [])
    offline = ["schedule=offline", f"data.demos.uri={demos}", "phases.cloning.updates=20"]
    train(config(tmp_path / "alone", "algo=td3", *offline), [])
    place = Path("checkpoints") / "00000020" / "policy" / "model.safetensors"
    one, other = (load_file(tmp_path / run / place) for run in ("both", "alone"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


CRITICS = ["model.hidden=[64,64]", "model.discount=0.9", "algo.critic_lr=1e-3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["algo=td3", "phases.online.env_steps=1500", *CRITICS],
        ["algo=sac", "algo.alpha=0.02", "phases.online.env_steps=2500", *CRITICS],
        ["algo=meow", "policy.alpha=0.02", "phases.online.env_steps=2500", "algo.discount=0.9"],
    ],
)
def test_a_point_learns_to_reach_a_goal(tmp_path, words):
    size = ["policy.hidden=[64,64]", "batch_size=128"]
    rates = ["algo.lr=1e-3", "phases.online.warmup=300", "checkpoint.every=5000"]
    run = tmp_path / "run"
    train(config(run, *words, *size, *rates, "eval.final_episodes=20", "eval.num_envs=10"), [])
    assert json.loads((run / "evaluation.json").read_text())["success_rate"] >= 0.7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algo=sac", "phases.online.updates=5"], "either updates"),
        (["algo=sac", "phases.online.warmup=60", "phases.online.env_steps=60"], "come to no gradient step"),
        (["algo=sac", *SHORT, "collection.num_envs=7"], r"which 7 environments .* do not divide"),
        (["algo=sac", "schedule=offline", "data.demos.uri=x", "phases.cloning.sources={replay: 1.0}"], "to fill it"),
        (["algo=sac", "schedule=offline", "data.demos.uri=x", "phases.cloning.warmup=3"], "belong to a phase with"),
        (["algo=sac", *SHORT, "data.replay.uri=x"], "call the data otherwise"),
        (
            ["algo=sac", *SHORT, "phases.online.sources={demos: 1.0}"],
            "no data source is called demos; there are replay",
        ),
        (["algo=sac", *SHORT, "env=none"], "name an env, or data"),
        (["algo=sac", *SHORT, "policy.obs_normalization=minmax"], "policy are fitted to data, and this run has none"),
        (
            ["algo=sac", *SHORT, "policy.obs_normalization=running"],
            "policy.obs_normalization=running takes note of rollo",
        ),
        (["algo=sac", *SHORT, "algo.entropy_per_entry=-2", "algo.target_entropy=-1"], "say one of them only"),
        (["algo=td3", *SHORT, "algo.target_noise=0", "algo.noise_clip=0.1"], "target_noise=0 does not draw"),
        (["algo=sac", *SHORT, "data.demos.uri=nowhere.hdf5"], "no phase draws from data.demos"),
        (["algo=sac", *SHORT, "model.action_normalization=zscore"], "model are fitted to data, and this run has none"),
        (["algo=bc", "schedule=online", "policy=squashed_gaussian", *SHORT], "algo=bc learns from records only"),
        (["algo=sac", *SHORT, "policy.horizon=2"], "single transitions"),
        (["algo=iql", "policy=none", "schedule=online", *WITHOUT_DATA, *SHORT], "no policy to act"),
    ],
)
def test_what_cannot_run_is_refused_in_words(tmp_path, words, message):
    small = [word for word in SMALL if not (word.startswith("model") and "algo=bc" in words)]
    small = [word for word in small if not (word.startswith("policy") and "policy=none" in words)]
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=message):
        train(parse(TrainConfig, load_config("train", [*small, f"run={run}", *words])), [])
    assert not run.exists()
