"""Worlds on a Ray cluster of several nodes, some of which die."""

import time

import pytest
import torch
from safetensors.torch import load_file

from robopol.checkpoint import load_policy
from robopol.cli import run
from robopol.envs import make_env
from robopol.envs.ray import RayVectorEnv
from robopol.errors import EnvError

ray = pytest.importorskip("ray")
ID = "robopol/MultiGoal-v0"
WORDS = ["train", "algo=td3", "env=multi_goal", "schedule=online", "phases.online.env_steps=80"]
WORDS += ["phases.online.warmup=40", "collection.num_envs=2", "batch_size=8", "eval.final_episodes=0", "eval.every=0"]
WORDS += ["policy.hidden=[16]", "model.hidden=[16]", "runtime.threads=1", "runtime.matmul=highest"]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.one, nodes.other = nodes.add_node(num_cpus=1), nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_lost_worker_and_a_lost_node_change_nothing_of_what_is_learned(cluster, tmp_path, monkeypatch):
    step, taken, lost = RayVectorEnv.step, 0, []

    def harmed(self, slots, actions):
        nonlocal taken
        taken += 1
        if taken == 7:  # in the middle of the first episodes
            ray.kill(self._actors[1])
        if taken == 25:
            cluster.add_node(num_cpus=1)
            cluster.remove_node(cluster.other, allow_graceful=False)
            while sum(node["Alive"] for node in ray.nodes()) > 3:  # the head, one, and the new one
                time.sleep(0.1)
        result = step(self, slots, actions)
        lost.append(self.lost)
        return result

    monkeypatch.setattr(RayVectorEnv, "step", harmed)
    assert run([*WORDS, f"run={tmp_path / 'here'}"]) == 0
    assert taken == 0
    assert run([*WORDS, f"run={tmp_path / 'there'}", "env.workers=2", f"env.cluster='{cluster.address}'"]) == 0
    assert taken == 40
    assert lost[6] >= 1
    assert lost[-1] > lost[6]
    here, there = (load_policy(tmp_path / name).state_dict() for name in ("here", "there"))
    assert all(torch.equal(value, there[name]) for name, value in here.items())
    states = [load_file(tmp_path / f"{name}/checkpoints/last/train/state.safetensors") for name in ("here", "there")]
    met = [state["replay.newest"] for state in states]
    assert len(met[0]) == 80
    assert torch.equal(*met)  # no step is missing, or there twice


def test_a_new_worker_is_where_the_lost_one_was(cluster):
    with make_env(ID, 1) as alone, make_env(ID, 1, workers=1, cluster=cluster.address) as env:
        for world in (alone, env):
            world.reset([0], [3])
            for _ in range(5):
                world.step([0], torch.tensor([[0.05, 0.01]]))
        state = alone.save_state(0)
        ray.kill(env._actors[0])
        assert torch.equal(env.save_state(0), state)
        assert env.render(0).shape[-1] == 3
        with pytest.raises(EnvError, match="not finite"):  # what the world itself refuses is no loss
            env.step([0], torch.tensor([[torch.nan, 0.0]]))
        assert env.lost == 1
    with pytest.raises(EnvError, match="at least 1 worker"):
        make_env(ID, 2, cluster=cluster.address)
