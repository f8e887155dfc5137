"""Several processes that train one policy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from algos.learners import OFFLINE as OFFLINE_KINDS
from algos.learners import learner
from algos.test_trained import step_of
from safetensors.torch import load_file

from robopol.cli import run
from robopol.errors import ConfigError
from robopol.training.team import Team

TRAIN = ["env=multi_goal", "policy=gaussian", "policy.hidden=[32]", "policy.n_obs_steps=1", "batch_size=64"]
TRAIN += ["phases.cloning.updates=6", "checkpoint.every=3", "log_every=1", "eval.final_episodes=4", "eval.videos=0"]
TRAIN += ["eval.num_envs=2", "runtime.threads=1", "runtime.matmul=highest", "algo.warmup=0"]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    out = tmp_path_factory.mktemp("team") / "demos.hdf5"
    assert run(["collect", "env=multi_goal", "episodes=10", f"out={out}"]) == 0
    return f"data.demos.uri={out}"


def in_two(*words):
    """Start two processes that know each other; return what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def together(*words):
    """Train in two processes; return what they printed."""
    return in_two("-m", "robopol.cli", "train", *words)


def weights(folder, step):
    return load_file(folder / f"checkpoints/{step:08d}/policy/model.safetensors")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_go_on_to_the_same_bits(tmp_path, demos):
    # a Gaussian's loss draws nothing, so that shares of a batch and the whole of it have the same gradient
    assert run(["train", *TRAIN, demos, f"run={tmp_path / 'one'}"]) == 0
    printed = together(*TRAIN, demos, f"run={tmp_path / 'two'}")
    assert printed.count("summary: ") == 1  # one of them speaks
    one, two = ([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("one", "two"))
    assert [line["global_step"] for line in one] == [line["global_step"] for line in two]
    for mine, theirs in zip(one, two, strict=True):
        for name in ("train/loss", "train/grad_norm"):
            if name in mine:
                assert theirs[name] == pytest.approx(mine[name], rel=2e-5)
    for name, value in weights(tmp_path / "one", 6).items():
        torch.testing.assert_close(weights(tmp_path / "two", 6)[name], value, rtol=1e-4, atol=1e-5)
    whole = weights(tmp_path / "two", 6)
    shutil.rmtree(tmp_path / "two/checkpoints/00000006")
    together(f"resume={tmp_path / 'two'}")
    assert all(torch.equal(value, whole[name]) for name, value in weights(tmp_path / "two", 6).items())


OFFLINE = ["schedule=offline", "env=multi_goal", "batch_size=32", "phases.cloning.updates=6", "model.hidden=[16]"]
OFFLINE += ["checkpoint.every=3", "log_every=1", "eval.final_episodes=0", "runtime.threads=1", "runtime.matmul=highest"]
LEARNERS = {
    "sac": ["algo=sac", "policy.hidden=[16]"],
    "fql": ["algo=fql", "policy/net=mlp", "policy.net.width=16", "algo.steps=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEARNERS)
def test_what_algorithms_make_themselves_goes_on_to_the_same_bits_too(tmp_path, demos, kind):
    """The leader saves its own alone: the others must hold the same, temperature and critics included."""
    run_ = tmp_path / "two"
    together(*OFFLINE, *LEARNERS[kind], demos, f"run={run_}")

    def state():
        return load_file(run_ / "checkpoints/00000006/train/state.safetensors")

    whole = state()
    shutil.rmtree(run_ / "checkpoints/00000006")
    together(f"resume={run_}")
    assert all(torch.equal(value, whole[name]) for name, value in state().items())


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one_whatever_the_algorithm(tmp_path, monkeypatch):
    learner("distill", tmp_path)  # makes the teacher
    in_two(str(Path(__file__).with_name("teammate.py")), str(tmp_path))
    for kind in OFFLINE_KINDS:
        noted = step_of(learner(kind, tmp_path), Team(), monkeypatch)
        for rank in range(2):
            found = load_file(tmp_path / f"{kind}-{rank}.safetensors")
            assert len(found) == len(noted)
            for i, whole in enumerate(noted):
                torch.testing.assert_close(found[str(i)], whole, rtol=1e-3, atol=1e-5, msg=kind)


def test_every_process_gets_its_rows():
    batch = {"action": torch.arange(12).reshape(6, 2), "obs": {"state": torch.arange(6)}}
    shares = [Team(rank, 3).share(batch) for rank in range(3)]
    assert [share["obs"]["state"].tolist() for share in shares] == [[0, 3], [1, 4], [2, 5]]
    assert shares[1]["action"].tolist() == [[2, 3], [8, 9]]
    assert Team().share(batch) is batch


def test_what_a_team_cannot_do_is_said(monkeypatch, capsys):
    with pytest.raises(ConfigError, match="3 processes cannot share a batch of 64 evenly"):
        Team(0, 3).check(64)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["train", *TRAIN, "data.demos.uri=none.hdf5"]) == 1
    assert "name it by run=" in capsys.readouterr().err
