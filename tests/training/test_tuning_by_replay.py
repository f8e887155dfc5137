"""DSRL and EXPO under the trainer: from a saved policy, in chunks; a stopped run loses nothing."""

import json
from pathlib import Path

import pytest
import torch
from training.resuming import assert_same_bits, cases, stop_and_resume
from training.test_online import SMALL

from robopol.checkpoint import load_policy
from robopol.config import parse
from robopol.data import save_episodes
from robopol.envs import make_env
from robopol.errors import ConfigError
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect
from robopol.training.config import TrainConfig
from robopol.training.train import train
from robopol.training.words import configured

FLOW = ["policy=flow", "policy/net=mlp", "policy.net.width=16", "policy.n_obs_steps=2", "policy.horizon=4"]
FLOW += ["policy.n_action_steps=2", "policy.sampler.steps=2", "data.demos.validation=0"]
WORLD = [word for word in SMALL if not word.startswith("policy.")]
ACTING = ["phases.online.env_steps=48", "phases.online.warmup=24", "collection.num_envs=2", "checkpoint.every=12"]
EDITOR = "algo.editor={kind: squashed_gaussian, hidden: [16], deterministic: false}"
WAYS = {
    "dsrl": ["algo=dsrl", "algo.actor={kind: squashed_gaussian, hidden: [16], deterministic: false}"],
    "dsrl_sac": ["algo=dsrl_sac", "algo.actor={kind: squashed_gaussian, hidden: [16], deterministic: false}"],
    "expo": ["algo=expo", EDITOR, "algo.proposals=2"],
    "fql": [
        *("algo=fql", "schedule=online", "policy.net.width=16", "policy.horizon=4", "policy.n_action_steps=2"),
        *("policy.obs_normalization=identity", "policy.action_normalization=bounds"),
    ],
    "expo beside records": ["algo=expo", EDITOR, "algo.proposals=2", "phases.online.sources={demos: 1.0, replay: 1.0}"],
}


def config(*words: str) -> TrainConfig:
    return parse(TrainConfig, configured(list(words)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    with make_env("robopol/MultiGoal-v0", 2) as env:
        save_episodes(collect(ExpertActor(env), env, 4, 0, source="expert", only_success=True), folder / "goals.hdf5")
    plain = [word for word in WORLD if not word.startswith("model.")]
    words = [*plain, *FLOW, f"data.demos.uri={folder / 'goals.hdf5'}", "phases.cloning.updates=20"]
    train(config(*words, f"run={folder / 'run'}"), [])
    return folder


@pytest.mark.parametrize("way", cases(WAYS, ["dsrl_sac", "expo beside records", "fql"]))
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, base, way):
    words = [*WAYS[way], *WORLD, *ACTING] + ([] if way == "fql" else [f"checkpoint={base / 'run'}"])
    if "beside" in way:
        words += [f"data.demos.uri={base / 'goals.hdf5'}", "data.demos.validation=0"]
    whole, stopped = stop_and_resume(
        tmp_path, lambda run: train(config(*words, f"run={run}"), []), lambda step: step == 36
    )
    assert_same_bits(whole, stopped, "policy", "model")
    assert json.loads((whole / "summary.json").read_text())["updates"] == 24
    before, after = load_policy(base / "run"), load_policy(whole)
    obs = {"state": torch.zeros(2, 2, 2)}
    shape = before.act(obs).shape
    assert after.act(obs, generator=torch.Generator().manual_seed(0)).shape == shape
    frozen = {name: value for name, value in after.state_dict().items() if name.startswith("base.")}
    kept = bool(frozen) and all(
        torch.equal(value, frozen[f"base.{name}"]) for name, value in before.state_dict().items()
    )
    assert kept == way.startswith("dsrl")


def test_who_learns_from_its_own_decisions_takes_no_records(tmp_path, base):
    words = [*WAYS["dsrl_sac"], *WORLD, *ACTING, f"checkpoint={base / 'run'}", f"run={tmp_path / 'run'}"]
    words += ["phases.online.sources={demos: 1.0, replay: 1.0}"]
    with pytest.raises(ConfigError, match="its own decisions, of which demos knows no noise: leave data out"):
        train(config(*words, f"data.demos.uri={base / 'goals.hdf5'}", "data.demos.validation=0"), [])


def test_plans_are_repaired_in_recorded_states_and_a_stopped_run_resumes_to_the_same_bits(tmp_path, base):
    plain = [word for word in WORLD if not word.startswith("model.")]
    rule = 'algo.objective={kind: stl, formula: "always x >= 0"}'
    words = ["algo=repair", rule, "algo.editor.hidden=[16]", "algo.proposals=2", f"checkpoint={base / 'run'}", *plain]
    words += [f"data.demos.uri={base / 'goals.hdf5'}", "data.demos.validation=0.3", "phases.cloning.updates=20"]
    words += ["checkpoint.every=10", "validate_every=10"]
    whole, stopped = stop_and_resume(
        tmp_path, lambda run: train(config(*words, f"run={run}"), []), lambda step: step == 10
    )
    assert_same_bits(whole, stopped, "policy")
    before, after = load_policy(base / "run"), load_policy(whole)
    obs = {"state": torch.zeros(2, 2, 2)}
    plain_plan, repaired = (one.plan(obs, 8, torch.Generator().manual_seed(0)) for one in (before, after))
    assert ((plain_plan == repaired).flatten(2).all(-1) | (plain_plan[..., 0].cumsum(-1) < 0).any(-1)).all()
    assert not torch.equal(plain_plan, repaired)


def test_a_repair_may_look_at_what_the_policy_does_not_see(tmp_path):
    plain = [word for word in WORLD if not word.startswith("model.")] + ["env.options.target=shown"]
    with make_env("robopol/MultiGoal-v0", 2, target="shown") as env:
        save_episodes(collect(ExpertActor(env), env, 4, 0, source="expert", only_success=True), tmp_path / "goals.hdf5")
    words = [*plain, f"data.demos.uri={tmp_path / 'goals.hdf5'}", "phases.cloning.updates=5"]
    train(config(*words, *FLOW, "policy.encoder.keys=[target]", f"run={tmp_path / 'blind'}"), [])
    rule = 'algo.objective={kind: stl, formula: "always x >= 0"}'
    words += ["algo=repair", rule, "algo.editor.hidden=[16]", "algo.proposals=2", f"checkpoint={tmp_path / 'blind'}"]
    train(config(*words, f"run={tmp_path / 'repaired'}"), [])
    assert set(load_policy(tmp_path / "repaired").spec.obs_shapes) == {"target", "state"}
