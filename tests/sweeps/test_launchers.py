"""Sweeps beyond this process: a Ray cluster that loses a node, and what Slurm is told."""

import os
import stat
import threading
import time

import pytest
from policies.test_policies import POLICIES, make

from robopol.checkpoint import save_part
from robopol.cli import run
from robopol.errors import ConfigError
from robopol.sweeps.grid import Point, grid
from robopol.sweeps.launchers.ray import RayConfig, attempt
from robopol.sweeps.launchers.slurm import Attempt, SlurmConfig

TRAIN = ["env=multi_goal", "experiment=demo", "policy.net.width=16", "policy.n_obs_steps=1", "batch_size=16"]
TRAIN += ["eval.videos=0", "eval.final_episodes=2", "eval.num_envs=2"]
TRAIN += ["checkpoint.every=20", "log_every=20"]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    out = tmp_path_factory.mktemp("launchers") / "demos.hdf5"
    assert run(["collect", "env=multi_goal", "episodes=6", f"out={out}"]) == 0
    return f"data.demos.uri={out}"


def test_a_run_goes_on_where_its_node_died(tmp_path, demos):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    (point,) = grid([*TRAIN, demos, "seed=0", "phases.cloning.updates=400"], tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ended, faults = [], []
    try:
        first = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        launcher = RayConfig().build()

        def launch():
            try:
                launcher.launch([point], lambda one, well: ended.append((one, well)))
            except BaseException as error:
                faults.append(error)

        thread = threading.Thread(target=launch, daemon=True)
        thread.start()
        while not list(point.folder.glob("checkpoints/0*")):
            assert thread.is_alive(), faults
            time.sleep(0.1)
        cluster.remove_node(first, allow_graceful=False)
        assert not point.finished
        cluster.add_node(num_cpus=1)
        thread.join(timeout=240)
        assert not thread.is_alive()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not faults
    assert ended == [(point, True)]
    printed = (tmp_path / f"{point.folder.name}.log.txt").read_text()
    assert printed.count("summary: ") == 1


def test_what_slurm_is_told(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    for name, text in {
        "sbatch": 'cp "$1" "$(dirname "$0")/batch.sh"; echo Submitted batch job 77',
        "srun": "exit 1",
    }.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    config = SlurmConfig(partition="arms", minutes=90, cpus=3, gpus=1, jobs=5, options={"account": "robots"})
    jobs = config.build().submit(grid(["env=push", "seed=range(7)"], tmp_path / "sweep"))
    assert [job.job_id for job in jobs] == [f"77_{k}" for k in range(7)]
    asked = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in (tmp_path / "bin/batch.sh").read_text().splitlines()
        if line.startswith("#SBATCH")
    )
    wanted = {"array": "0-6%5", "partition": "arms", "time": "90", "cpus-per-task": "3", "account": "robots"}
    assert wanted.items() <= asked.items()
    assert "1" in asked["gpus-per-node"]


@pytest.mark.slow
def test_jobs_of_slurm_are_done_here_when_they_are_tried(tmp_path, demos):
    pytest.importorskip("submitit")
    points = grid([*TRAIN, demos, "phases.cloning.updates=6", "seed=0", "policy.n_action_steps=8,99"], tmp_path)
    ended = {}
    SlurmConfig(cluster="local", cpus=1, poll=0.2).build().launch(
        points, lambda p, well: ended.update({p.folder: well})
    )
    assert ended == {points[0].folder: True, points[1].folder: False}
    assert points[0].finished
    again = Attempt(points[0], 1).checkpoint()
    assert again.function.point == points[0]  # what is submitted in its place is the same run


def test_slurm_is_missed_in_words(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no Slurm on this machine"):
        SlurmConfig().build().submit(grid(["seed=0"], tmp_path))


def test_a_run_on_ray_is_told_what_it_would_be_told_here(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    save_part(make(POLICIES["diffusion-mlp"]), tmp_path / "base")
    told = []
    monkeypatch.setattr("robopol.training.train.train", lambda config, words: told.append(config))
    words = (f"checkpoint={tmp_path / 'base'}", "algo=dppo", "env=push", "checkpoint.every=100", "seed=3")
    attempt(Point({}, words, tmp_path / "run"), ["runtime.threads=1"])
    (config,) = told
    assert (config.start, config.checkpoint.every, config.seed) == (str(tmp_path / "base"), 100, 3)
    assert config.policy.tree() == make(POLICIES["diffusion-mlp"]).config.tree()
