"""Every kind of policy learns from one file of demonstrations, from the words of a command line to a saved policy."""

import pytest
import torch

from robopol.checkpoint import load_policy
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import save_episodes
from robopol.envs import make_env
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect
from robopol.registry import KINDS
from robopol.training.config import TrainConfig
from robopol.training.train import train

WALKED = ["policy/net=mlp", "policy.net.width=16"]
LAYERS = ["policy.hidden=[16]"]
ONE = ["policy.horizon=1", "policy.n_action_steps=1"]
WORDS: dict[str, list[str]] = {
    "beso": [*WALKED, *ONE, "policy.n_obs_steps=1"],
    "consistency": WALKED,
    "decision_diffuser": [*WALKED, "policy.n_obs_steps=1", "policy.sampler.steps=2"],
    "deterministic": LAYERS,
    "diagonal_gaussian": LAYERS,
    "diffusion": [*WALKED, "policy.sampler.steps=2"],
    "ebt": [],
    "edm": WALKED,
    "flow": WALKED,
    "gaussian": LAYERS,
    "gmm": LAYERS,
    "meow": [*LAYERS, "policy.shift_hidden=[8]"],
    "squashed_gaussian": LAYERS,
}
ELSEWHERE = {"remote", "steered"}  # the one is trained where it is served, the other is made of a trained one


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = str(tmp_path_factory.mktemp("demos") / "reach.hdf5")
    with make_env("robopol/Reach-v0", 2) as env:
        save_episodes(collect(ExpertActor(env), env, 2, 0, source="expert", only_success=True), file)
    return file


def test_every_kind_of_policy_is_trained_here():
    assert WORDS.keys() | ELSEWHERE == KINDS["policy"].keys()


@pytest.mark.parametrize(
    "kind",
    [
        kind
        if kind in ("beso", "decision_diffuser", "squashed_gaussian")
        else pytest.param(kind, marks=pytest.mark.slow)
        for kind in WORDS
    ],
)
def test_two_updates_from_the_words_of_a_command_line(kind, demos, tmp_path):
    words = ["env=reach", f"policy={kind}", "policy.n_action_steps=2", "policy.horizon=4", *WORDS[kind]]
    words += [f"data.demos.uri={demos}", "data.demos.validation=0", "phases.cloning.updates=2", "batch_size=8"]
    words += ["eval.final_episodes=0", "runtime.threads=1", "runtime.matmul=highest", f"run={tmp_path / 'run'}"]
    train(parse(TrainConfig, load_config("train", words)), [])
    saved = load_policy(tmp_path / "run")
    steps = saved.spec.n_obs_steps
    obs = {key: torch.zeros(2, steps, *shape) for key, shape in saved.spec.obs_shapes.items()}
    found = saved.act(obs, generator=torch.Generator().manual_seed(0))
    assert found.shape == (2, 1, saved.spec.chunk, saved.spec.action_dim)
    assert found.isfinite().all()
