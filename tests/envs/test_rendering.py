"""Pictures, where the machine can make them; a clear refusal where it cannot."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from robopol.envs import make_env, rendering
from robopol.envs.push import Push
from robopol.errors import EnvError

can_render = pytest.mark.skipif(rendering.why_not() is not None, reason=str(rendering.why_not()))


@can_render
def test_camera_observations_and_render():
    with make_env("robopol/Push-v0", cameras=("front", "wrist"), image_size=(48, 64)) as env:
        obs = env.reset([0], [0])
        assert env.spec.obs_shapes["images.wrist"] == (48, 64, 3)
        for camera in ("front", "wrist"):
            picture = obs[f"images.{camera}"][0].numpy()
            assert picture.shape == (48, 64, 3)
            assert picture.dtype == np.uint8
            assert picture.std() > 10
        assert env.render(0).shape == (480, 640, 3)


@can_render
def test_the_picture_shows_the_disc_where_it_is():
    env = Push(render_size=(120, 160))
    env.reset(seed=0)
    joint = env.model.joint("disc").qposadr[0]
    columns = []
    for side in (0.15, -0.15):
        env.data.qpos[joint : joint + 3] = [0.6, side, 0.02]
        env.step(env.control.hold())
        red = env.render().astype(int)
        columns.append(np.mean(np.nonzero(red[..., 0] - red[..., 1:].max(axis=-1) > 60)[1]))
    # The camera looks at the arm, so the arm's left is on the right of the picture.
    assert columns[0] > 100
    assert columns[1] < 60
    env.close()


@can_render
def test_pictures_do_not_change_the_physics():
    seen, blind = Push(cameras=("front",), image_size=(16, 16)), Push()
    for env in (seen, blind):
        env.reset(seed=0)
        for _ in range(5):
            env.step(np.array([0.02, 0.0, 0.0, 0.0, 0.85]))
    np.testing.assert_array_equal(seen.save_state(), blind.save_state())
    seen.close()


def test_no_backend_is_said_in_words(monkeypatch):
    monkeypatch.setattr(rendering, "gl_backend", lambda: None)
    env = Push()
    env.reset(seed=0)
    assert "libosmesa6" in rendering.why_not()
    with pytest.raises(EnvError, match="apt-get install libosmesa6"):
        env.render()


def test_the_backend_asked_for_is_the_only_one_tried(monkeypatch):
    tried = []

    def run(command, env, **_):
        tried.append(env["MUJOCO_GL"])
        return type("Trial", (), {"returncode": 1})

    monkeypatch.setattr(rendering.subprocess, "run", run)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.gl_backend.__wrapped__() is None
    monkeypatch.delenv("MUJOCO_GL")
    assert rendering.gl_backend.__wrapped__() is None
    assert tried == ["osmesa", "egl", "osmesa", "glfw"]


def test_a_mujoco_that_cannot_be_imported_for_want_of_opengl_is_said_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)  # importing it raises
    monkeypatch.delitem(sys.modules, "robopol.envs.engine", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(EnvError, match=r"cannot be imported with MUJOCO_GL=osmesa .*libosmesa6; .* or unset MUJOCO_GL"):
        importlib.import_module("robopol.envs.engine")
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(ImportError):
        importlib.import_module("robopol.envs.engine")


@pytest.mark.slow
def test_torchs_compiler_can_be_loaded_after_a_picture():
    """Mesa and triton each bring an LLVM; loaded in the wrong order the process dies."""
    code = (
        "from robopol.envs import make_env\n"
        "with make_env('robopol/Reach-v0') as env:\n"
        "    env.reset([0], [0])\n"
        "    env.render(0)\n"
        "    import torch._dynamo\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "no OpenGL backend works" in done.stderr, done.stderr
