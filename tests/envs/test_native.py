"""Native threads against stepping one world after the other, and against gymnasium."""

import os
import subprocess
import sys

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from robopol.envs import make_env
from robopol.envs.config import EnvConfig
from robopol.envs.locomotion import list_tasks
from robopol.envs.make import TASKS
from robopol.envs.native import library, why_not
from robopol.envs.native.arm import NativeTasks
from robopol.envs.native.locomotion import NativeLocomotion
from robopol.envs.native.worlds import Worlds
from robopol.envs.serial import SerialVectorEnv
from robopol.errors import EnvError

if sys.platform.startswith("linux") and library._compiler():
    assert why_not() is None, why_not()
needs_threads = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def random_actions(env, count, generator):
    low, high = torch.tensor(env.spec.action_low), torch.tensor(env.spec.action_high)
    return low + (high - low) * torch.rand(count, len(low), generator=generator)


def same(one, other):
    assert list(one.obs) == list(other.obs)
    for key in one.obs:
        assert torch.equal(one.obs[key], other.obs[key])
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def play_alike(one, other, steps):
    """Play the same random episodes, in slots chosen at random; every number must agree, to the bit."""
    generator = torch.Generator().manual_seed(0)
    seed, idle, ended = 0, list(range(one.num_envs)), 0
    for _ in range(steps):
        if idle:
            seeds = list(range(seed, seed + len(idle)))
            seed += len(idle)
            first, second = one.reset(idle, seeds), other.reset(idle, seeds)
            assert all(torch.equal(first[key], second[key]) for key in first)
        some = torch.randperm(one.num_envs, generator=generator)
        slots = some[: 1 + int(torch.randint(one.num_envs, (), generator=generator))].tolist()
        actions = random_actions(one, len(slots), generator)
        result, expected = one.step(slots, actions), other.step(slots, actions)
        same(result, expected)
        over = result.terminated | result.truncated
        idle = [slot for slot, ended in zip(slots, over.tolist(), strict=True) if ended]
        ended += len(idle)
    return ended


@needs_threads
@pytest.mark.parametrize("id", list_tasks())
def test_gymnasiums_tasks_step_as_alone(id):
    with (
        make_env(id, 4, backend="native", threads=3, max_episode_steps=25) as native,
        make_env(id, 4, backend="serial", max_episode_steps=25) as serial,
    ):
        assert isinstance(native, NativeLocomotion)
        assert isinstance(serial, SerialVectorEnv)
        assert native.spec == serial.spec
        assert play_alike(native, serial, 120) > 4


@needs_threads
@pytest.mark.parametrize("id", sorted(TASKS))
def test_tasks_of_the_arm_step_as_alone(id):
    options = {"max_episode_steps": 5, "control_hz": 40, "domain": {"mass": (0.5, 2.0), "latency": (0, 2)}}
    with (
        make_env(id, 3, backend="native", threads=2, **options) as native,
        make_env(id, 3, backend="serial", **options) as serial,
    ):
        assert isinstance(native, NativeTasks)
        assert native.spec == serial.spec
        assert native.model == serial.model
        assert play_alike(native, serial, 15) > 2
        assert all(torch.equal(native.save_state(slot), serial.save_state(slot)) for slot in range(3))


@needs_threads
def test_rewards_and_ends_are_those_of_gymnasium():
    gym = gymnasium.make("Hopper-v5")
    with make_env("Hopper-v5", 1, backend="native") as env:
        for seed in (3, 100_000):
            observation, _ = gym.reset(seed=seed)
            np.testing.assert_array_equal(env.reset([0], [seed])["state"][0], observation.astype(np.float32))
            generator, over = torch.Generator().manual_seed(seed), False
            while not over:
                action = random_actions(env, 1, generator)
                observation, reward, terminated, truncated, _ = gym.step(action[0].numpy())
                result = env.step([0], action)
                np.testing.assert_array_equal(result.obs["state"][0], observation.astype(np.float32))
                assert result.reward[0] == np.float32(reward)
                assert (result.terminated[0], result.truncated[0]) == (terminated, truncated)
                assert (result.success[0], result.way[0]) == (False, -1)
                over = terminated or truncated


@needs_threads
def test_actions_are_clipped_and_nothing_resets_itself():
    with make_env("HalfCheetah-v5", 2, backend="native", max_episode_steps=2) as env:
        with pytest.raises(EnvError, match=r"slots \[1\] were never reset"):
            env.step([1], torch.zeros(1, 6))
        env.reset([0, 1], [5, 5])
        result = env.step([0, 1], torch.tensor([[9.0] * 6, [1.0] * 6]))
        assert torch.equal(result.obs["state"][0], result.obs["state"][1])
        assert env.step([0], torch.zeros(1, 6)).truncated.tolist() == [True]
        with pytest.raises(EnvError, match=r"slots \[0\].*reset them first"):
            env.step([0, 1], torch.zeros(2, 6))
        with pytest.raises(EnvError, match=r"slot 1 is not finite"):
            env.step([1], torch.full((1, 6), torch.nan))


@needs_threads
@pytest.mark.parametrize("id", [*list_tasks(), "robopol/Push-v0"])
def test_no_slots_are_no_worlds(id):
    with make_env(id, 2, backend="native") as env:
        assert env.reset([], [])["state"].shape == (0, *env.spec.obs_shapes["state"])
        empty = env.step([], torch.zeros(0, len(env.spec.action_low)))
        assert empty.obs["state"].shape == (0, *env.spec.obs_shapes["state"])
        assert [x.shape for x in empty[1:]] == [(0,)] * 5


@needs_threads
@pytest.mark.parametrize("id", ["Humanoid-v5", "Ant-v5", "Hopper-v5"])
def test_states_go_from_one_backend_to_the_other(id):
    generator = torch.Generator().manual_seed(1)
    with (
        make_env(id, 2, backend="native", max_episode_steps=12) as native,
        make_env(id, 2, backend="serial", max_episode_steps=12) as serial,
    ):
        for env in (native, serial):
            env.reset([0, 1], [8, 9])
        actions = [random_actions(native, 1, generator) for _ in range(7)]
        for action in actions[:4]:
            native.step([0], action)
        state = native.save_state(0)
        assert torch.equal(native.restore_state(1, state)["state"], serial.restore_state(1, state)["state"])
        for action in actions[4:]:
            same(native.step([1], action), serial.step([1], action))
            assert torch.equal(native.save_state(1), serial.save_state(1))
        after = native.save_state(1)
        native.restore_state(0, state)
        for action in actions[4:]:
            native.step([0], action)
        assert torch.equal(native.save_state(0), after)
        with pytest.raises(EnvError, match="state has shape"):
            native.restore_state(0, state[1:])
        short = torch.from_numpy(np.concatenate((native._data[1].qpos, native._data[1].qvel)))
        assert torch.equal(native.restore_state(1, short)["state"], serial.restore_state(1, short)["state"])


@needs_threads
def test_pictures_are_those_of_gymnasium():
    from robopol.envs.rendering import gl_backend

    if gl_backend() is None:
        pytest.skip("no OpenGL here")
    with (
        make_env("Ant-v5", 2, backend="native", width=64, height=64) as native,
        make_env("Ant-v5", 2, backend="serial", width=64, height=64) as serial,
    ):
        pictures = []
        for env in (native, serial):
            env.reset([1, 0], [1, 2])
            for _ in range(3):
                env.step([0, 1], torch.tensor([[0.5] * 8, [-0.5] * 8]))
            pictures.append(env.render(1))
        assert pictures[0].std() > 0
        np.testing.assert_array_equal(*pictures)


def test_the_backend_can_be_chosen(monkeypatch):
    with make_env("Pendulum-v1", 2) as env:
        assert type(env) is SerialVectorEnv
    with pytest.raises(EnvError, match=r"'Pendulum-v1' cannot be stepped natively .* backend='serial'"):
        make_env("Pendulum-v1", backend="native")
    with pytest.raises(EnvError, match=r"no backend 'nativ' .did you mean native"):
        make_env("Hopper-v5", backend="nativ")
    with pytest.raises(EnvError, match="threads must be at least 1"):
        make_env("Hopper-v5", threads=0)
    with EnvConfig(id="Hopper-v5", backend="serial").make(2) as env:
        assert type(env) is SerialVectorEnv


def test_without_a_compiler_worlds_are_stepped_one_after_the_other(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    library.pool_library.cache_clear()
    try:
        assert "need a C compiler" in why_not()
        with make_env("Hopper-v5", 2) as env:
            assert type(env) is SerialVectorEnv
        with pytest.raises(EnvError, match="need a C compiler once"):
            make_env("Hopper-v5", 2, backend="native")
        monkeypatch.setenv("CC", "false")
        assert "could not be compiled by false: exit status 1" in why_not()
    finally:
        library.pool_library.cache_clear()


@needs_threads
def test_the_compiled_part_is_kept_where_only_its_owner_writes(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        for folder, mode, kept in (("robopol", 0o700, True), ("robopol", 0o777, False)):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder).chmod(mode)
            for file in (tmp_path / folder).iterdir():
                file.unlink()
            library.pool_library.cache_clear()
            if why_not() is not None:
                pytest.skip("compiled before, but there is no compiler now")
            assert len(list((tmp_path / folder).iterdir())) == kept
        library.pool_library.cache_clear()
        (tmp_path / "robopol").chmod(0o700)
        assert why_not() is None
        monkeypatch.setenv("CC", "no-such-compiler")
        library.pool_library.cache_clear()
        assert why_not() is None  # compiled before
    finally:
        library.pool_library.cache_clear()


BALLS = """
<mujoco><size memory="{memory}"/><worldbody><geom type="plane" size="1 1 1"/>
""" + "".join(f'<body pos="0 0 {0.1 * i}"><freejoint/><geom size=".2"/></body>' for i in range(12)) + (
    "</worldbody></mujoco>"
)  # fmt: skip


def worlds_of(memory, count=3, **options):
    model = mujoco.MjModel.from_xml_string(BALLS.format(memory=memory))
    data = [mujoco.MjData(model) for _ in range(count)]
    return data, Worlds([(model, one) for one in data], [2], ("qpos", "qvel"), **options)


@needs_threads
def test_an_error_of_mujoco_is_an_exception_and_its_python_package_keeps_its_own():
    _, worlds = worlds_of("12K", threads=2)
    for _ in range(2):
        with pytest.raises(EnvError, match=r"MuJoCo gave up: .*out of memory"):
            worlds.advance([0, 1, 2])
    model = mujoco.MjModel.from_xml_string(BALLS.format(memory="12K"))
    with pytest.raises(mujoco.FatalError, match="out of memory"):
        mujoco.mj_step(model, mujoco.MjData(model))


@needs_threads
def test_threads_end_with_their_worlds_and_no_more_are_started_than_there_are_worlds():
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("counts threads in /proc")

    def count():
        return len(os.listdir("/proc/self/task"))

    before = count()
    _, worlds = worlds_of("1M", threads=7)
    assert count() == before + 2
    worlds.close()
    worlds.close()
    assert count() == before
    with pytest.raises(EnvError, match="were closed"):
        worlds.advance([0])
    _, worlds = worlds_of("1M", threads=2)
    del worlds
    assert count() == before


@needs_threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, sys
sys.path.insert(0, {folder!r})
from test_native import worlds_of
data, worlds = worlds_of("1M", threads=3)
worlds.advance([0, 1, 2])
child = os.fork()
if child == 0:
    for _ in range(50):
        worlds.advance([2, 1, 0])
    ok = data[0].time == data[2].time == data[0].model.opt.timestep * 102
    assert len(os.listdir("/proc/self/task")) == 3
    worlds.close()
    os._exit(0 if abs(data[0].time - 102 * 0.002) < 1e-9 else 1)
assert os.waitpid(child, 0)[1] == 0
worlds.advance([0, 1, 2])
"""
    run = subprocess.run(
        [sys.executable, "-c", code.format(folder=os.path.dirname(__file__))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr


@needs_threads
def test_the_arithmetic_of_the_caller_holds_in_every_thread():
    """Denormals flushed in the calling thread are flushed in all, or a world would depend on its thread."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><option gravity="0 0 0"/><worldbody><body><freejoint/><geom size="1"/></body></worldbody></mujoco>'
    )
    data = [mujoco.MjData(model) for _ in range(64)]
    # before denormals are flushed, for a thread begins with the arithmetic of its maker
    worlds = Worlds([(model, one) for one in data], [200], ("qpos",), threads=4)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    for one in data:
        one.qvel[:3] = 1e-306  # times the time step, a denormal
    rows = worlds.advance(range(64))
    torch.set_flush_denormal(False)
    worlds.close()
    assert (rows[:, :3] == 0).all()
