"""Meta-World; run by `make test-extras`."""

import numpy as np
import pytest
import torch

from robopol.cli import run
from robopol.data import load_episodes
from robopol.envs import make_env
from robopol.envs.rendering import why_not
from robopol.errors import EnvError
from robopol.evaluation import ExpertActor, rollout

pytest.importorskip("metaworld")

TASKS = ("metaworld/reach-v3", "metaworld/door-open-v3", "metaworld/peg-insert-side-v3")


def episode(env, slot, seed, plan):
    rows = [env.reset([slot], [seed])["state"]]
    for action in plan:
        result = env.step([slot], action)
        rows += [result.obs["state"], result.reward]
    return rows


@pytest.mark.parametrize("id", TASKS)
def test_an_episode_is_its_seed_and_its_actions(id):
    plan = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (10, 1, 4)).astype(np.float32))
    with make_env(id, 2) as env:
        assert env.spec.obs_shapes == {"state": (39,)}
        assert env.spec.control_hz == pytest.approx(80)
        first = episode(env, 0, 7, plan)
        episode(env, 0, 8, plan)
        for slot in (0, 1):
            assert all(torch.equal(x, y) for x, y in zip(first, episode(env, slot, 7, plan), strict=True))
        assert not torch.equal(first[0], env.reset([0], [8])["state"])


@pytest.mark.parametrize("id", TASKS)
def test_episodes_go_on_from_saved_states(id):
    plan = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (10, 1, 4)).astype(np.float32))
    with make_env(id, 2) as env:
        env.reset([0, 1], [7, 9])
        for action in plan[:5]:
            env.step([0], action)
        env.restore_state(1, env.save_state(0))
        for action in plan[5:]:
            left, right = env.step([0], action), env.step([1], action)
            assert torch.equal(left.obs["state"], right.obs["state"])


def test_the_goal_may_be_hidden():
    with make_env("metaworld/reach-v3", partially_observable=True) as env:
        assert env.reset([0], [0])["state"][0, -3:].tolist() == [0, 0, 0]
        with pytest.raises(EnvError, match="hides the goal"):
            rollout(ExpertActor(env), env, [0])
    with make_env("metaworld/reach-v3") as env:
        assert env.reset([0], [0])["state"][0, -3:].abs().min() > 0


def test_experts_demonstrate(tmp_path):
    out = tmp_path / "demos.hdf5"
    words = ["env=metaworld", "episodes=2", "num_envs=1", "env.wrappers=[{kind: success, terminate: true}]"]
    assert run(["collect", f"out={out}", *words]) == 0
    episodes = load_episodes(str(out))
    assert bool(episodes.success.all())
    assert episodes.lengths.max() < 500
    assert episodes.meta.versions["metaworld"]


def test_a_world_goes_on_after_success_and_stops_at_its_limit():
    with make_env("metaworld/reach-v3", max_episode_steps=150) as env:
        (outcome,) = rollout(ExpertActor(env), env, [0])
    assert (outcome.success, outcome.length) == (True, 150)
    with pytest.raises(EnvError, match="1 to 500"):
        make_env("metaworld/reach-v3", max_episode_steps=501)
    with pytest.raises(EnvError, match="did you mean reach-v3"):
        make_env("metaworld/reech-v3")


@pytest.mark.skipif(why_not() is not None, reason="nothing can be rendered here")
def test_pictures():
    with make_env("metaworld/reach-v3", width=64, height=48) as env:
        env.reset([0], [0])
        assert env.render(0).shape == (48, 64, 3)
