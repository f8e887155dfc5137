"""Runs that train a model: what they leave, that a stopped one loses nothing, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch
from training.resuming import assert_same_bits, cases, stop_and_resume

from robopol.checkpoint import load_part, load_policy
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import save_episodes
from robopol.errors import CheckpointError, ConfigError
from robopol.training.config import TrainConfig
from robopol.training.train import train
from tests.algos.bandit import bandit

SMALL = [
    "env=none",
    "batch_size=16",
    "log_every=5",
    "validate_every=10",
    "checkpoint.every=10",
    "phases.cloning.updates=30",
    "runtime.threads=1",
    "runtime.matmul=highest",
    "data.demos.validation=0.1",
    "model.hidden=[16]",
    "model.n_action_steps=2",
]
GAUSSIAN = [
    "policy=gaussian",
    "policy.hidden=[16]",
    "policy.n_obs_steps=2",
    "policy.horizon=4",
    "policy.n_action_steps=2",
    "algo.cloning.warmup=5",
]
RUNS = {
    "iql": ["algo=iql", "policy=none"],
    "fisor": ["algo=fisor", *GAUSSIAN, "algo.violations=[{kind: bound, key: state, high: 0.5}]"],
    "dynamics": ["algo=dynamics", "algo.warmup=5"],
    "a critic that sees more": ["algo=iql", *GAUSSIAN, "model.n_obs_steps=3", "model.n_action_steps=4"],
    "cal_ql": ["algo=cal_ql", *GAUSSIAN, "algo.candidates=2"],
}


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "bandit.hdf5"
    save_episodes(bandit(24, 5), path)
    return path


def config(uri: Path, run: Path, *more: str) -> TrainConfig:
    return parse(TrainConfig, load_config("train", [*SMALL, f"data.demos.uri={uri}", f"run={run}", *more]))


@pytest.mark.parametrize("name", cases(RUNS, ["iql", "fisor", "dynamics"]))
def test_a_stopped_run_resumes_to_the_same_bits(uri, tmp_path, name):
    whole, stopped = stop_and_resume(
        tmp_path, lambda run: train(config(uri, run, *RUNS[name]), []), lambda step: step == 20
    )
    assert_same_bits(whole, stopped, "model")


@pytest.mark.parametrize("name", ["iql", "cal_ql"])
def test_critics_learn_from_any_distribution_over_windows(uri, tmp_path, name):
    weights = {}
    for kind in ("uniform", "trajectory_weighted", "top_k"):
        run = tmp_path / kind
        train(config(uri, run, *RUNS[name], f"data.demos.sampling.kind={kind}"), [])
        weights[kind] = torch.cat([p.flatten() for p in load_part(run, "model").parameters()])
    uniform, *others = weights.values()
    assert not any(torch.equal(other, uniform) for other in others)


def test_a_run_of_a_model_alone_says_what_it_is_and_acts_not(uri, tmp_path, capsys):
    run = tmp_path / "run"
    train(config(uri, run, *RUNS["iql"]), [])
    assert sorted(path.name for path in (run / "checkpoints" / "last").iterdir()) == ["model", "train"]
    model = load_part(run, "model")
    assert model.v({"state": torch.zeros(3, 1, 1)}).shape == (3,)
    with pytest.raises(CheckpointError, match="has no policy in it"):
        load_policy(run)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["model"] == "value"
    assert "policy" not in summary
    assert "robopol eval" not in capsys.readouterr().out
    card = (run / "README.md").read_text()
    assert "A `value` model, trained with `iql`" in card
    assert "judges the next 2 actions" in card
    assert "load_part" in card
    assert not (run / "evaluation.json").exists()


def test_a_run_of_both_leaves_both(uri, tmp_path):
    run = tmp_path / "run"
    train(config(uri, run, "algo=iql", *GAUSSIAN), [])
    policy, model = load_policy(run), load_part(run, "model")
    assert policy.act({"state": torch.zeros(3, 2, 1)}).shape == (3, 1, 3, 1)
    assert model.q({"state": torch.zeros(3, 1, 1)}, torch.zeros(3, 2, 1)).shape == (2, 3)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = {key for line in lines for key in line}
    assert {"train/policy_loss", "train/q_loss", "train/v_loss", "train/effective_share", "val/loss"} <= logged
    card = (run / "README.md").read_text()
    assert "A `gaussian` policy and a `value` model" in card
    assert "## Inputs and outputs of the model" in card
    assert "## Evaluation" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algo=cal_ql", "policy=none"], "algo=cal_ql trains a policy, and none was named: set policy=KIND"),
        (["algo=bc", "model=value"], "algo=bc does not train a model, and value was named: leave it out"),
        (["algo=bc", "policy=none"], "algo=bc trains a policy"),
        (["algo=dynamics", "policy=gaussian"], "algo=dynamics does not train a policy, .* set policy=none"),
        (["algo.kind=iql", "policy=none"], "algo=iql trains a model, and none was named: set model=KIND"),
    ],
)
def test_what_an_algorithm_does_not_train_is_refused_in_words(uri, tmp_path, words, message):
    small = [word for word in SMALL if not word.startswith("model")]
    more = ["model.n_action_steps=2"] if "model=value" in words else []
    tree = load_config("train", [*small, *more, f"data.demos.uri={uri}", f"run={tmp_path / 'run'}", *words])
    with pytest.raises(ConfigError, match=message):
        train(parse(TrainConfig, tree), [])
    assert not (tmp_path / "run").exists()


def test_a_policy_that_is_to_be_safe_learns_what_earns_more_from_a_value(uri, tmp_path):
    value, words = tmp_path / "value", [*RUNS["fisor"], "phases.cloning.updates=5"]
    with pytest.raises(CheckpointError, match="is not a folder"):
        train(config(uri, tmp_path / "run", *words, f"algo.value={value}"), [])
    train(config(uri, value, *RUNS["iql"], "phases.cloning.updates=5"), [])
    train(config(uri, tmp_path / "run", *words, f"algo.value={value}"), [])
    assert load_part(tmp_path / "run", "model").q({"state": torch.zeros(3, 1, 1)}, torch.zeros(3, 2, 1)).shape == (3,)
    alone = ["algo=fisor", "policy=none"]
    for more, message in (
        (alone, "leave algo.value out"),
        ([*words, "model.n_action_steps=1"], r"set model.n_action_steps=2 and model.n_obs_steps=1"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(config(uri, tmp_path / "other", *more, f"algo.value={value}"), [])
    with pytest.raises(ConfigError, match="holds no value"):
        train(config(uri, tmp_path / "other", *words, f"algo.value={tmp_path / 'run'}"), [])


def test_critics_learn_from_goals_in_hindsight_and_not_from_returns_of_others(uri, tmp_path):
    hindsight = ["data.demos.sampling.kind=hindsight", "data.demos.sampling.of=state"]
    train(config(uri, tmp_path / "run", *RUNS["iql"], *hindsight), [])
    critic = load_part(tmp_path / "run", "model")
    told = {"state": torch.zeros(3, 1, 1), "goal": torch.zeros(3, 1, 1)}
    assert critic.spec.obs_shapes.keys() == {"state", "goal"}
    assert (critic.v(told) < 0).all()  # a step costs 1
    with pytest.raises(ConfigError, match=r"data\.demos\.sampling: what is trained reads return_bound"):
        train(config(uri, tmp_path / "other", *RUNS["cal_ql"], *hindsight), [])
