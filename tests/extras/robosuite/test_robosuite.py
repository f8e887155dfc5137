"""robosuite, and the tasks that robomimic's files name; run by `make test-extras`."""

import json

import h5py
import numpy as np
import pytest
import torch

from robopol.config import parse
from robopol.data import load_episodes
from robopol.envs import make_env
from robopol.envs.config import EnvConfig
from robopol.envs.rendering import why_not
from robopol.errors import EnvError

pytest.importorskip("robosuite")

LIFT = {"robots": "Panda", "control_freq": 20, "max_episode_steps": 30}


def plan_for(env, steps):
    low, high = np.array(env.spec.action_low), np.array(env.spec.action_high)
    return torch.from_numpy(np.random.default_rng(0).uniform(low, high, (steps, 1, len(low))).astype(np.float32))


def episode(env, slot, seed, plan):
    rows = [env.reset([slot], [seed])]
    return rows + [env.step([slot], action).obs for action in plan]


@pytest.mark.parametrize("task", ["Lift", "NutAssemblySquare"])
def test_an_episode_is_its_seed_and_its_actions(task):
    with make_env(f"robosuite/{task}", 2, **LIFT) as env:
        plan = plan_for(env, 5)
        first = episode(env, 0, 7, plan)
        episode(env, 0, 8, plan)
        for slot in (0, 1):
            again = episode(env, slot, 7, plan)
            assert all(torch.equal(x[key], y[key]) for x, y in zip(first, again, strict=True) for key in x)
        assert not torch.equal(first[0]["object"], env.reset([0], [8])["object"])
        assert env.spec.control_hz == 20
        assert env.spec.max_episode_steps == 30


def robomimic_file(path, steps=6):
    """Write, as robomimic's tools do, one episode of a task recorded with robosuite itself."""
    import robosuite

    kwargs = {"robots": "Panda", "control_freq": 20, "horizon": 100, "use_object_obs": True, "ignore_done": True}
    suite = robosuite.make(
        "Lift", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False, seed=3, **kwargs
    )
    observation, rows = suite.reset(), []
    model, low, high = suite.sim.model.get_xml(), *suite.action_spec
    rng = np.random.default_rng(0)
    for _ in range(steps):
        action = rng.uniform(low, high)
        state = suite.sim.get_state().flatten()
        following, reward, _, _ = suite.step(action)
        rows.append((observation, action, reward, state, following))
        observation = following
    names = {"object": "object-state", "robot0_eef_pos": "robot0_eef_pos", "robot0_joint_pos": "robot0_joint_pos"}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "type": 1, "env_version": "1.5.2", "env_kwargs": kwargs}
        )
        data.attrs["total"] = steps
        demo = data.create_group("demo_0")
        demo.attrs["num_samples"], demo.attrs["model_file"] = steps, model
        demo["actions"] = np.array([row[1] for row in rows])
        demo["rewards"] = np.array([row[2] for row in rows])
        demo["dones"] = np.array([0] * (steps - 1) + [1])
        demo["states"] = np.array([row[3] for row in rows])
        for key, name in names.items():
            demo[f"obs/{key}"] = np.array([row[0][name] for row in rows])
            demo[f"next_obs/{key}"] = np.array([row[4][name] for row in rows])
    suite.close()


def test_the_world_of_a_robomimic_file(tmp_path):
    path = tmp_path / "lift.hdf5"
    robomimic_file(path)
    episodes = load_episodes(f"{path}?dones=end")
    meta = episodes.meta
    assert meta.env_id == "robosuite/Lift"
    with parse(EnvConfig, {"id": meta.env_id, "options": meta.env_options}).make() as env:
        assert env.spec.max_episode_steps == 100
        assert env.spec.control_hz == meta.control_hz == 20
        for key, column in episodes.obs.items():
            assert env.spec.obs_shapes[key] == tuple(column.shape[1:])
        env.reset([0], [0])
        # time, qpos, qvel as robomimic stores them; the size of the cube is the model's, and not in the state
        seen = env.restore_state(0, episodes.states[4])
        torch.testing.assert_close(seen["robot0_joint_pos"][0], episodes.obs["robot0_joint_pos"][4], atol=1e-5, rtol=0)
        torch.testing.assert_close(seen["object"][0, :3], episodes.obs["object"][4, :3], atol=0.01, rtol=0)


def test_success_is_the_tasks_own():
    with make_env("robosuite/Lift", **LIFT) as env:
        env.reset([0], [0])
        still = torch.zeros(1, len(env.spec.action_low))
        assert not env.step([0], still).success
        suite = env.envs[0].suite
        address = suite.sim.model.get_joint_qpos_addr(suite.cube.joints[0])[0]
        suite.sim.data.qpos[address + 2] += 0.3
        assert env.step([0], still).success
        assert env.model.startswith("<mujoco")


@pytest.mark.skipif(why_not() is not None, reason="nothing can be rendered here")
def test_cameras_are_the_right_way_up():
    options = LIFT | {"use_camera_obs": True, "camera_names": ["frontview"], "camera_heights": 64, "camera_widths": 64}
    with make_env("robosuite/Lift", **options) as env:
        seen = env.reset([0], [0])["images.frontview"][0].float()
        assert env.spec.obs_shapes["images.frontview"] == (64, 64, 3)
        drawn = torch.from_numpy(env.render(0).copy()).permute(2, 0, 1).float()
        small = torch.nn.functional.interpolate(drawn[None], (64, 64), mode="area")[0].permute(1, 2, 0)
        assert (seen - small).abs().mean() < (seen.flip(0) - small).abs().mean() / 2


def test_wrong_names_are_refused():
    with pytest.raises(EnvError, match="did you mean Lift"):
        make_env("robosuite/Lifft")
    with pytest.raises(EnvError, match="robosuite cannot make 'Lift'"):
        make_env("robosuite/Lift", colour="red")
