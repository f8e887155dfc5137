"""Worlds on MuJoCo Warp against the single worlds on the CPU.

Warp computes in float32 and its solver takes other roundings, so physics agrees to some 1e-6 while nothing
touches and to some 1e-4 where things push each other; what starts, commands and judges agrees exactly.
Kernels are compiled at their first use, which takes a minute or two; they are kept in warp's cache.
"""

import numpy as np
import pytest
import torch
from conformance import Conformance, drawn

from robopol.envs import make_env, make_expert
from robopol.envs.kinematics import HOME, ToolKinematics
from robopol.envs.locomotion import list_tasks
from robopol.envs.make import TASKS
from robopol.errors import EnvError

pytest.importorskip("mujoco_warp")

REACH = "robopol/Reach-v0"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FAST = {"control_hz": 40}  # 10 physics steps an action instead of 40


def warp(id, num_envs, **options):
    return make_env(id, num_envs, backend="warp", device=DEVICE, **options)


class TestWarpReach(Conformance):
    @classmethod
    def make(cls, num_envs, short=False):
        return warp(REACH, num_envs, max_episode_steps=2 if short else None, **FAST)


class TestWarpLocomotion(Conformance):
    @classmethod
    def make(cls, num_envs, short=False):
        return warp("HalfCheetah-v5", num_envs, max_episode_steps=2 if short else 50)


class TestWarpThatDoesNotWait(TestWarpReach):
    """As on a GPU, where wrong calls are told later."""

    @classmethod
    def make(cls, num_envs, short=False):
        made = super().make(num_envs, short)
        made._waits = False
        return made


def pair(id, num_envs, **options):
    """Return the same worlds, simulated by warp and one after the other."""
    return warp(id, num_envs, **options), make_env(id, num_envs, backend="serial", **options)


def close(one, other, atol):
    torch.testing.assert_close(one.cpu(), other, rtol=0, atol=atol)


@pytest.mark.parametrize("id", sorted(TASKS))
@pytest.mark.parametrize("kind", ["ee_delta", "joint_pos"])
def test_a_task_starts_alike_and_goes_on_alike(id, kind):
    fast, single = pair(id, 2, action_space=kind, **FAST)
    assert fast.spec == single.spec
    assert torch.equal(fast.reset([0, 1], [3, 4])["state"].cpu(), single.reset([0, 1], [3, 4])["state"])
    hold = torch.stack([torch.tensor(env.control.hold(), dtype=torch.float32) for env in single.envs])
    for t in range(3):
        actions = hold + 0.02 * (drawn(single, 0, t) - hold) / (torch.tensor(single.spec.action_high) - hold + 1.0)
        one, other = fast.step([0, 1], actions), single.step([0, 1], actions)
        close(one.obs["state"], other.obs["state"], 1e-4)
        close(one.reward, other.reward, 1e-3)
        for name in ("terminated", "truncated", "success", "way"):
            assert torch.equal(getattr(one, name).cpu(), getattr(other, name))
    saved, expected = fast.save_state(0), single.save_state(0)
    assert saved.shape == expected.shape
    commanded = slice(fast.physics.state_size, fast.physics.state_size + 18)
    close(saved[commanded], expected[commanded], 1e-9)  # the reference is kept in float64 here too


@pytest.mark.parametrize("id", [id for id in list_tasks() if id not in ("Ant-v5", "HumanoidStandup-v5")])
def test_a_locomotion_task_starts_alike_and_goes_on_alike(id):
    fast, single = pair(id, 2)
    assert fast.spec == single.spec
    assert torch.equal(fast.reset([0, 1], [3, 4])["state"].cpu(), single.reset([0, 1], [3, 4])["state"])
    for t in range(2):
        actions = torch.stack([drawn(single, 0, t), drawn(single, 1, t)])
        one, other = fast.step([0, 1], actions), single.step([0, 1], actions)
        close(one.obs["state"], other.obs["state"], 1e-3)
        close(one.reward, other.reward, 1e-3)
        assert torch.equal(one.terminated.cpu(), other.terminated)


@pytest.mark.parametrize(("id", "atol"), [("Ant-v5", 0.0), ("HumanoidStandup-v5", 0.02)])
def test_contacts_differ_where_friction_is_approximated(id, atol):
    """Ant's feet: warp turns the pyramid of friction differently about the normal, so only the flight is compared."""
    fast, single = pair(id, 1)
    assert torch.equal(fast.reset([0], [3])["state"].cpu(), single.reset([0], [3])["state"])
    action = drawn(single, 0, 0)[None]
    close(fast.step([0], action).obs["state"], single.step([0], action).obs["state"], atol or 1e-4)


@pytest.mark.parametrize("id", sorted(TASKS))
def test_the_expert_succeeds(id):
    """What acts well in the CPU's world acts well in warp's; the expert reads a single world put where warp's is."""
    env, task = warp(id, 1), make_env(id, backend="serial").envs[0]
    for way in task.way_names or (None,):
        expert = make_expert(id, way=way, noise=0.0)
        task.reset(seed=5)
        expert.reset(task, np.random.default_rng(0))
        env.reset([0], [5])
        rewards = []
        for _ in range(env.spec.max_episode_steps):
            task.restore_state(env.save_state(0).numpy())
            result = env.step([0], torch.tensor(expert.act(task))[None])
            rewards.append(result.reward.item())
            if result.terminated or result.truncated:
                break
        assert result.success
        assert not result.truncated
        assert result.way.item() == (task.way_names.index(way) if way else -1)
        assert 1.5 < sum(rewards) <= 2.0 + 1e-5


def test_recorded_actions_push_the_disc_as_far_as_on_the_cpu():
    options = {"max_episode_steps": 14}
    env, single = pair("robopol/Push-v0", 1, **options)
    task, expert = single.envs[0], make_expert("robopol/Push-v0", way="left", noise=0.0)
    env.reset([0], [0])
    single.reset([0], [0])
    expert.reset(task, np.random.default_rng(0))
    total = torch.zeros(2)
    for _ in range(options["max_episode_steps"]):
        action = torch.tensor(expert.act(task))[None]
        one, other = env.step([0], action), single.step([0], action)
        total += torch.stack([one.reward.cpu()[0], other.reward[0]])
    assert total[1] > 0.1  # it did push
    close(total[:1], total[1:], 0.01)
    close(one.obs["state"], other.obs["state"], 2e-3)


def test_masses_friction_and_latency_are_those_of_the_seed():
    domain = {"mass": [0.5, 2.0], "friction": [0.5, 1.5], "latency": [0, 2]}
    env, single = pair("robopol/Push-v0", 2, domain=domain, **FAST)
    env.reset([0, 1], [1, 2])
    single.reset([0, 1], [1, 2])
    for field in ("body_mass", "body_inertia", "geom_friction", "dof_invweight0"):
        wanted = np.stack([getattr(task.model, field) for task in single.envs])
        np.testing.assert_allclose(env.physics.model_field(field).cpu().numpy(), wanted, rtol=1e-6)
    assert single.envs[0].model.body_mass.sum() != single.envs[1].model.body_mass.sum()
    for t in range(3):
        actions = torch.stack([drawn(single, s, t) for s in range(2)])
        one, other = env.step([0, 1], actions), single.step([0, 1], actions)
        close(one.obs["state"], other.obs["state"], 1e-4)
    env.restore_state(0, env.save_state(1))
    masses = env.physics.model_field("body_mass")
    assert torch.equal(masses[0], masses[1])


def test_noise_has_its_size_and_follows_from_the_seed_alone():
    env = warp(REACH, 3, domain={"observation_noise": 0.05}, **FAST)
    clean = warp(REACH, 3, **FAST)
    for world in (env, clean):
        world.reset([0, 1, 2], [7, 8, 7])
    action = torch.zeros(3, 5)
    noises = [env.step([0, 1, 2], action).obs["state"] - clean.step([0, 1, 2], action).obs["state"] for _ in range(6)]
    noise = torch.stack(noises)
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert not torch.equal(noise[:, 0], noise[:, 1])
    assert not torch.equal(noise[0, 0], noise[1, 0])
    assert noise[:, :2].std().item() == pytest.approx(0.05, rel=0.15)
    assert abs(noise[:, :2].mean().item()) < 0.02


def test_a_world_that_diverges_is_truncated_and_stays_where_it_was():
    env = warp(REACH, 2, **FAST)
    env.reset([0, 1], [0, 1])
    before = env.step([0, 1], torch.zeros(2, 5)).obs["state"]
    env.physics.field("qvel")[0, 0] = 1e30
    result = env.step([0, 1], torch.zeros(2, 5))
    assert result.truncated.tolist() == [True, False]
    assert result.obs["state"].isfinite().all()
    assert torch.equal(result.obs["state"][0, 6:10], before[0, 6:10])
    env.reset([0], [0])
    assert torch.equal(env.step([0], torch.zeros(1, 5)).obs["state"], before[:1])


def test_inverse_kinematics_equals_that_of_one_arm():
    from robopol.envs.warp.kinematics import WarpKinematics

    env = warp(REACH, 1)
    many, one = WarpKinematics(env.device, env.physics.stream), ToolKinematics()
    rng = np.random.default_rng(0)
    start = HOME + rng.uniform(-0.3, 0.3, (40, 6))
    poses = np.array([0.47, 0.0, 0.18, 0.0]) + rng.uniform(-1, 1, (40, 4)) * np.array([0.25, 0.3, 0.17, 1.5])
    poses[-1, 0] = 2.0  # out of reach: nothing says where the search ends, but no nearer than it can
    found, errors = many.inverse(*(torch.tensor(x, device=env.device) for x in (poses, start)))
    for i in range(39):
        q, error = one.inverse(poses[i], start[i])
        np.testing.assert_allclose(found[i].cpu(), q, atol=1e-7)
        assert errors[i].item() == pytest.approx(error, abs=1e-9)
    assert errors[39].item() == pytest.approx(one.inverse(poses[39], start[39])[1], rel=1e-3)
    np.testing.assert_allclose(many.pose(found)[0].cpu(), one.pose(found[0].cpu().numpy()), atol=1e-9)


def test_wrong_calls_are_kept_for_a_check():
    env = warp(REACH, 3, **FAST)
    env._waits = False
    env.reset([0, 1], [0, 1])
    env.step([0, 2], torch.tensor([[float("inf"), 0, 0, 0, 0], [0.0] * 5]))
    with pytest.raises(EnvError, match=r"slots \[2\].*reset.*slots \[0\].*not finite"):
        env.check()
    env.check()  # a fault is told once
    env.step([1, 0], torch.tensor([[0.0] * 5, [float("nan")] * 5]))
    with pytest.raises(EnvError, match=r"slots \[0\].*not finite"):
        env.reset([2], [2])
    env.step([0, 1], torch.zeros(2, 5))
    env.check()


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(EnvError, match=r"not .*images\.front.*backend='serial'"):
        warp(REACH, 1, cameras=["front"])
    with pytest.raises(EnvError, match=r"Pendulum-v1.*MuJoCo Warp"):
        warp("Pendulum-v1", 1)
    with pytest.raises(EnvError, match="leave out threads"):
        warp(REACH, 1, threads=2)
    with pytest.raises(EnvError, match="backend='warp'"):
        make_env(REACH, device="cuda")
    with pytest.raises(EnvError, match="nowhere"):
        make_env(REACH, backend="warp", device="nowhere")
    if not torch.cuda.is_available():
        with pytest.raises(EnvError, match="no device 'cuda'"):
            make_env(REACH, backend="warp", device="cuda")


def test_a_picture_is_that_of_the_world():
    from robopol.envs.rendering import why_not

    if why_not():
        pytest.skip(why_not())
    env, single = pair(REACH, 2, render_size=(60, 80))
    env.reset([0, 1], [0, 1])
    single.reset([0, 1], [0, 1])
    assert np.abs(env.render(1).astype(int) - single.render(1)).max() <= 2
    assert np.abs(env.render(1).astype(int) - env.render(0)).max() > 20
