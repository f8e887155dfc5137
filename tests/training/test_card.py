import json

import pytest
import torch
import yaml

from robopol.checkpoint import load_policy, save_part
from robopol.data import EpisodeBuilder, EpisodesMeta, describe
from robopol.envs.config import EnvConfig
from robopol.errors import CheckpointError
from robopol.evaluation import Evaluation, Outcome
from robopol.policies import PolicySpec
from robopol.policies.gaussian import GaussianConfig
from robopol.training.card import model_card
from robopol.training.run import RunFolder

SPEC = PolicySpec(
    obs_shapes={"state": (7,), "object": (4,)},
    action_names=("dx [m]", "dy [m]", "grip|per [1]"),
    action_low=(-0.05, -0.05, 0.0),
    action_high=(0.05, 0.05, 1.0),
    action_space="ee_delta",
    control_hz=12.5,
    n_obs_steps=2,
    horizon=16,
    n_action_steps=8,
)
WORLD = EnvConfig(id="robopol/Push-v0", options={"cameras": [], "domain": {"noise": True}})
OUTCOMES = tuple(
    Outcome(seed=100_000 + i, success=i > 0, total_reward=1.5, length=30, way="left" if i else None) for i in range(4)
)
EVALUATION = Evaluation(
    env=WORLD,
    episodes=4,
    seeds=(100_000, 100_003),
    success_rate=0.75,
    success_ci95=(0.3006, 0.9544),
    return_mean=1.5,
    return_ci95=(1.25, 1.75),
    length_mean=30.0,
    ways={"left": 3, "right": 0},
    outcomes=OUTCOMES,
)
CONFIG = {"seed": 11, "algo": {"kind": "bc", "lr": 1e-4}}


def demonstration():
    """One episode of 9 steps."""
    builder = EpisodeBuilder()
    rng = torch.Generator().manual_seed(0)
    for i in range(10):
        obs = {"state": torch.randn(7, generator=rng), "object": torch.randn(4, generator=rng)}
        if i < 9:
            action = torch.randn(3, generator=rng)
            builder.add(obs=obs, action=action, reward=0.0, terminated=i == 8, truncated=False)
    builder.finish(final_obs=obs, success=True, way=1, seed=0)
    return builder.build(EpisodesMeta(way_names=("left", "right")))


def trained(folder, name="push", env=WORLD):
    """A run with one checkpoint of an untrained policy."""
    run = RunFolder.create(folder / name, CONFIG)
    policy = GaussianConfig(hidden=(8,)).build(SPEC.model_copy(update={"env": env}))
    policy.fit_normalizers(demonstration())
    run.save(5000, {"policy": lambda path: save_part(policy, path)}, {}, {}, 1)
    return run


@pytest.fixture
def run(tmp_path):
    return trained(tmp_path)


def front_matter(card):
    begin, block, body = card.split("---\n", 2)
    assert begin == ""
    return yaml.safe_load(block), body


def code(body, language):
    return body.split(f"```{language}\n")[1].split("```")[0]


def test_model_hubs_can_read_the_result(tmp_path):
    card = model_card(trained(tmp_path, 'push: "best" #1'), EVALUATION, license="cc-by-4.0")
    told, _ = front_matter(card)
    assert told["library_name"] == "robopol"
    assert told["pipeline_tag"] == "robotics"
    assert told["license"] == "cc-by-4.0"
    assert told["tags"] == ["robotics", "robopol", "gaussian", "bc", "robopol/Push-v0"]
    (model,) = told["model-index"]
    assert model["name"] == 'push: "best" #1'
    (result,) = model["results"]
    assert result["dataset"]["type"] == "robopol/Push-v0"
    (metric,) = result["metrics"]
    assert metric["type"] == "success_rate"
    assert metric["value"] == 0.75
    assert metric["name"] == "success rate (95 % interval 0.301 to 0.954, 4 episodes)"


def test_the_body_says_what_goes_in_what_comes_out_and_how_good_it_was(run):
    _, body = front_matter(model_card(run, EVALUATION))
    size = sum(p.numel() for p in load_policy(run.path).parameters())
    for line in (
        "`gaussian` policy for `robopol/Push-v0`, trained with `bc` for 5,000 updates by robopol",
        f"It has {size:,} parameters",
        "the last 2 observations",
        "| `state` | 7 | float32 |",
        "| `object` | 4 | float32 |",
        "15 actions (`ee_delta`, in environment units) at 12.5 Hz, of which 8",
        "| `dx [m]` | -0.05 | 0.05 |",
        "| `grip\\|per [1]` | 0 | 1 |",
        "4 episodes in `robopol/Push-v0`, reset with the seeds 100000..100003",
        "| success rate | 75.0 % | 30.1 % to 95.4 % |",
        "| return | 1.500 | 1.250 to 1.750 |",
        "| steps | 30.0 |",
        "left 3, right 0",
        "robopol eval checkpoint=",
        "## Safety",
    ):
        assert line in body
    assert json.loads(code(body, "json")) == CONFIG


def test_the_training_data_are_described(run):
    told = describe(demonstration())
    body = model_card(run, data={"demos": told})
    assert "| `demos` | 1 | 9 | 100.0 % | right 1 |" in body


def test_without_an_evaluation_or_a_licence_the_card_claims_neither(run):
    told, body = front_matter(model_card(run))
    assert "model-index" not in told
    assert "license" not in told
    assert "was not evaluated" in body
    assert " %" not in body


@pytest.mark.parametrize("evaluation", [EVALUATION, None])
@pytest.mark.parametrize("env", [WORLD, None])
def test_the_python_lines_are_python(tmp_path, evaluation, env):
    lines = code(model_card(trained(tmp_path, env=env), evaluation), "python")
    compile(lines, "card", "exec")
    assert ("make_env" in lines) == (evaluation is not None or env is not None)


def test_a_run_without_a_checkpoint_has_no_card(tmp_path):
    with pytest.raises(CheckpointError, match="has no policy"):
        model_card(RunFolder.create(tmp_path / "empty", CONFIG))
