"""Training runs: what they learn, what they leave, and that a killed one loses nothing."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training.resuming import stop_and_resume

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import load_episodes, save_episodes
from robopol.envs import make_env
from robopol.errors import CheckpointError, ConfigError, DataError, TrainingError
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect
from robopol.training.config import TrainConfig
from robopol.training.seeding import generator
from robopol.training.sources import Sources, split_exactly
from robopol.training.train import resume, train
from robopol.training.trainer import Trainer

SMALL = [
    "env=reach",
    "policy/net=mlp",
    "policy.net.width=32",
    "policy/sampler=ddim",
    "policy.sampler.steps=4",
    "policy.horizon=8",
    "policy.n_action_steps=4",
    "batch_size=32",
    "log_every=5",
    "validate_every=20",
    "phases.cloning.updates=60",
    "checkpoint.every=20",
    "algo.warmup=10",
    "algo.lr=3e-3",
    "eval.final_episodes=3",
    "eval.num_envs=3",
    "eval.videos=0",
    "env.options.max_episode_steps=8",
    "runtime.threads=1",
    "runtime.matmul=highest",
]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reach.hdf5"
    with make_env("robopol/Reach-v0", 4) as env:
        save_episodes(collect(ExpertActor(env), env, 12, 0, source="expert", only_success=True), path)
    return path


def overrides(demos: Path, run: Path, *more: str) -> list[str]:
    return [*SMALL, f"data.demos.uri={demos}", "data.demos.validation=0.2", f"run={run}", *more]


def config(demos: Path, run: Path, *more: str) -> TrainConfig:
    return parse(TrainConfig, load_config("train", overrides(demos, run, *more)))


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    last = run / "checkpoints" / "last"
    return load_file(last / "policy" / "model.safetensors") | load_file(last / "train" / "state.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    first, second = final_weights(one), final_weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    outcomes = [json.loads((run / "evaluation.json").read_text())["outcomes"] for run in (one, other)]
    assert outcomes[0] == outcomes[1]
    kept = [
        [
            {k: v for k, v in json.loads(line).items() if not k.startswith("time")}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (one, other)
    ]
    assert kept[0] == kept[1]


@pytest.fixture(scope="module")
def finished(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    train(config(demos, run, "eval.every=30", "eval.episodes=2", "phases.cloning.updates=160"), ["from", "a test"])
    return run


def test_a_run_leaves_everything_it_should(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "overrides.txt", "environment.json", "metrics.jsonl", "metrics.csv"} <= names
    assert {"curves.png", "README.md", "summary.json", "evaluation.json", "checkpoints"} <= names
    assert (finished / "checkpoints" / "last" / "policy" / "config.json").is_file()
    assert sorted(p.name for p in (finished / "checkpoints").glob("0*"))[-2:] == ["00000150", "00000160"]
    summary = json.loads((finished / "summary.json").read_text())
    assert {"success_rate", "success_ci95", "return_mean", "return_ci95", "episodes", "seeds"} <= summary.keys()
    losses = [
        line["train/loss"]
        for line in map(json.loads, (finished / "metrics.jsonl").read_text().splitlines())
        if "train/loss" in line
    ]
    assert losses[-1] < 0.7 * losses[0]


def test_what_is_saved_is_the_average_and_acts_without_the_training_code(finished, demos):
    code = (
        "import sys, torch; from robopol import load_policy\n"
        f"policy = load_policy({str(finished)!r})\n"
        "chunk = policy.act({'state': torch.zeros(1, 2, 14)}, generator=torch.Generator().manual_seed(0))\n"
        "print(chunk.shape, 'hydra' in sys.modules, 'robopol.training' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.Size([1, 1, 7, 5]) False False"
    state = load_file(finished / "checkpoints/last/train/state.safetensors")
    saved = load_file(finished / "checkpoints/last/policy/model.safetensors")
    assert all(torch.equal(state[f"ema.module.{name}"], value) for name, value in saved.items())
    assert any(not torch.equal(state[f"policy.{name}"], value) for name, value in saved.items())


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(demos, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(demos, tmp_path / name, f"seed={seed}"), [])
    assert_same_run(tmp_path / "a", tmp_path / "b")
    first, other = final_weights(tmp_path / "a"), final_weights(tmp_path / "c")
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_killed_runs_resume_to_the_same_bits():
    """Real processes, killed for good at random instants; the benchmark does it a hundred times."""
    script = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"
    done = subprocess.run([sys.executable, script, "--kills", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "same bits" in done.stdout


@pytest.mark.slow
def test_dropout_resumes_to_the_same_bits_too(demos, tmp_path):
    more = ["policy/net=transformer", "policy.net.layers=2", "policy.net.width=32", "policy.net.heads=2"]
    assert_same_run(
        *stop_and_resume(tmp_path, lambda run: train(config(demos, run, *more), []), lambda step: step == 40)
    )


def test_a_run_folder_is_never_overwritten(finished, demos):
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(config(demos, finished), [])


def test_nothing_is_left_behind_when_the_parts_do_not_fit(demos, tmp_path):
    with pytest.raises(DataError, match="observation 'state' is"):
        train(config(demos, tmp_path / "run", "env=push"), [])
    with pytest.raises(ConfigError, match="no data source is called robot"):
        train(config(demos, tmp_path / "run", "phases.cloning.sources={robot: 1.0}"), [])
    with pytest.raises(DataError, match="nowhere"):
        train(config(Path("nowhere.hdf5"), tmp_path / "run"), [])
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_stops_in_words_and_keeps_what_was_sound(demos, tmp_path):
    with pytest.raises(TrainingError, match=r"diverged before update .*algo\.clip_norm"):
        train(config(demos, tmp_path / "run", "algo.lr=1e30", "algo.warmup=40", "checkpoint.every=1"), [])
    load_policy(tmp_path / "run")


def test_the_best_checkpoint_is_kept(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    rates = {line["global_step"]: line["eval/success_rate"] for line in lines if "eval/success_rate" in line}
    assert sorted(rates) == [30, 60, 90, 120, 150]
    best = int((finished / "checkpoints" / "best").resolve().name)
    assert rates[best] == max(rates.values())
    load_policy(finished / "checkpoints" / "best")


def test_sources_are_mixed_exactly(demos, tmp_path):
    more = [f"data.others.uri={demos}", "phases.cloning.sources={demos: 3, others: 1}"]
    with Trainer(config(demos, tmp_path / "run", *more)) as trainer:
        assert split_exactly({"demos": 3, "others": 1}, 32) == {"demos": 24, "others": 8}
        batch = trainer.sources.batch({"demos": 3.0, "others": 1.0}, 32, 0)
        assert batch["action"].shape == (32, 8, 5)
        own = trainer.sources.windows["demos"]
        order = trainer.sources.batch({"demos": 1.0}, 24, 0)
        assert torch.equal(batch["action"][:24], order["action"])
        assert len(own) > 24


def older(episodes):
    return replace(episodes, meta=episodes.meta.model_copy(update={"versions": {"mujoco": "3.0"}}))


def without_states(episodes):
    return replace(episodes, states=None)


def with_more(episodes):
    def more(obs):
        return obs | {"more": torch.ones(len(next(iter(obs.values()))), 2) * episodes.has_final[0]}

    return replace(episodes, obs=more(episodes.obs), final_obs=more(episodes.final_obs))


@pytest.mark.parametrize("changed", [older, without_states, with_more])
def test_sources_need_only_have_what_is_looked_at_in_common(demos, tmp_path, changed):
    first = load_episodes(demos)
    save_episodes(changed(first), tmp_path / "other.hdf5")
    more = [f"data.others.uri={tmp_path / 'other.hdf5'}", "phases.cloning.sources={demos: 1, others: 1}"]
    more.append("data.others.validation=0.2")
    keys = f"policy.encoder.keys=[{','.join(first.obs)}]"
    with (
        Trainer(config(demos, tmp_path / "run", keys, *more)) as both,
        Trainer(config(demos, tmp_path / "one", keys)) as one,
    ):
        own = one.algo.policy.state_dict()
        found = {key: value for key, value in both.algo.policy.state_dict().items() if "normalizer" in key}
    assert found
    assert all(torch.equal(value, own[key]) for key, value in found.items()), "the same twice"


@pytest.mark.parametrize("seed", range(4))
def test_a_loss_is_measured_in_episodes_without_an_intervention_too(demos, tmp_path, seed):
    episodes = load_episodes(demos)
    overruled = (episodes.episode_index < 4) & (torch.arange(episodes.num_steps) % 2 == 0)
    save_episodes(replace(episodes, intervention=overruled), tmp_path / "some.hdf5")
    words = ["data.demos.sampling.kind=interventions", "data.demos.validation=0.05", f"seed={seed}"]
    with Trainer(config(tmp_path / "some.hdf5", tmp_path / "run", *words)) as trainer:
        assert len(trainer.held_out.batch({"demos": 1.0}, 8, 0)["action"]) == 8


@pytest.mark.parametrize(
    ("shares", "total", "counts"),
    [({"a": 1.0}, 7, [7]), ({"a": 1, "b": 1, "c": 1}, 8, [3, 3, 2]), ({"a": 1000, "b": 1}, 4, [3, 1])],
)
def test_shares_add_up(shares, total, counts):
    assert sorted(split_exactly(shares, total).values(), reverse=True) == counts
    with pytest.raises(ConfigError, match="cannot hold"):
        split_exactly(shares, len(shares) - 1) if len(shares) > 1 else split_exactly(shares, 0)


def test_updates_are_functions_of_seed_and_step(demos, tmp_path):
    with Trainer(config(demos, tmp_path / "run")) as trainer:
        one, two = (trainer.sources.batch({"demos": 1.0}, 16, 5) for _ in range(2))
        assert torch.equal(one["action"], two["action"])
        assert not torch.equal(one["action"], trainer.sources.batch({"demos": 1.0}, 16, 6)["action"])
        rng = [torch.rand(3, generator=generator(torch.device("cpu"), 0, "update", step)) for step in (5, 5, 6)]
        assert torch.equal(rng[0], rng[1])
        assert not torch.equal(rng[0], rng[2])


def drawn_from(sources: Sources) -> list[int]:
    """Seeds of the episodes that the windows of the source are cut from."""
    windows = sources.windows["demos"]
    return windows.episodes.seed[windows.episode].tolist()


def test_validation_episodes_are_never_trained_on(demos, tmp_path):
    with Trainer(config(demos, tmp_path / "run")) as trainer:
        trained = set(trainer.train_data["demos"].seed.tolist())
        held_out = set(drawn_from(trainer.held_out))
        assert set(drawn_from(trainer.sources)) == trained
    assert trained
    assert held_out
    assert not trained & held_out
    assert trained | held_out == set(load_episodes(demos).seed.tolist())


def break_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: (p / "config.json").write_text("{"), "not readable JSON"),
        (lambda p: (p / "model.safetensors").write_bytes(b"x" * 50), "cannot be read"),
        (
            lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:-40]),
            "cannot be read",
        ),
        (lambda p: (p / "config.json").unlink(), "has no policy"),
        (lambda p: break_config(p, schema_version=99), "schema_version 99"),
        (lambda p: break_config(p, policy={"kind": "subprocess.run"}), "unknown policy"),
        (lambda p: break_config(p, spec={}), "missing key: obs_shapes"),
    ],
)
def test_damaged_policies_are_refused_in_words(finished, tmp_path, damage, words):
    save_part(load_policy(finished), tmp_path)
    load_policy(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        load_policy(tmp_path)


def test_weights_that_do_not_fit_are_named(finished, tmp_path):
    policy = load_policy(finished)
    with torch.no_grad():
        next(policy.field.parameters()).fill_(float("nan"))
    save_part(policy, tmp_path)
    with pytest.raises(CheckpointError, match="is not finite"):
        load_policy(tmp_path)


def test_a_run_does_not_go_on_with_other_data(demos, tmp_path):
    data, run = tmp_path / "demos.hdf5", tmp_path / "run"
    shutil.copy(demos, data)
    train(config(data, run, "phases.cloning.updates=20"), [])
    episodes = load_episodes(data)
    told = json.loads((run / "data.json").read_text())
    assert told["demos"] == {"episodes": 12, "steps": episodes.num_steps, "sha256": episodes.fingerprint()}
    data.unlink()
    save_episodes(replace(episodes, reward=episodes.reward + 1), data)
    with pytest.raises(DataError, match=r"data.demos is not what .* was begun with \(episodes 12, .* checkpoint="):
        resume(run)
    data.unlink()
    save_episodes(episodes, data)  # another file, of the same
    resume(run)


def test_a_run_of_an_earlier_robopol_is_refused_in_words(finished, tmp_path):
    run = tmp_path / "old"
    shutil.copytree(finished, run, symlinks=True)
    for file in run.glob("checkpoints/*/train/progress.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"best": 0.5}))
    with pytest.raises(CheckpointError, match="begun by an earlier robopol"):
        resume(run)
