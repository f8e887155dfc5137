"""Off-screen pictures, with whichever OpenGL backend works on this machine."""

import functools
import importlib
import importlib.util
import os
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.engine import mujoco
from robopol.errors import EnvError

BACKENDS = ("egl", "osmesa", "glfw")
"""The OpenGL backends in the order in which they are tried."""

SHADOW_DETAIL = 8
"""The shadow map has at most so many times the pixels of a picture's longer side; with a finer one, most of the time
for a small picture goes into shadows that it cannot show."""

NO_BACKEND = (
    "no OpenGL backend works on this machine (tried {tried}), so nothing can be rendered; "
    "install EGL drivers, or software rendering: apt-get install libosmesa6"
)

_TRIAL = """
import importlib, mujoco
context = importlib.import_module("mujoco.{backend}").GLContext(64, 64)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
"""


@functools.cache
def gl_backend() -> str | None:
    """Find the OpenGL backend that works, once per process.

    The environment variable ``MUJOCO_GL`` limits the search to the backend that it names. Each backend is
    tried in a process of its own, because a broken driver may crash it; what was found is left in
    ``MUJOCO_GL``, so that processes started from this one try it first and only.

    Returns:
        "egl", "osmesa" or "glfw"; None if none works.
    """
    for backend in _candidates():
        environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | {"MUJOCO_GL": backend}
        command = [sys.executable, "-c", _TRIAL.format(backend=backend)]
        try:
            trial = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            continue
        if trial.returncode == 0:
            os.environ["MUJOCO_GL"] = backend
            return backend
    return None


def why_not() -> str | None:
    """Say why nothing can be rendered on this machine and what to do, or return None if rendering works."""
    return None if gl_backend() else NO_BACKEND.format(tried=", ".join(_candidates()))


def offer_backend() -> None:
    """Let code that is not robopol's, and renders by MuJoCo's own renderers, use the backend that works here.

    They read ``MUJOCO_GL`` when they are imported; MuJoCo's has been by then, so it is told.

    Raises:
        EnvError: If no backend works.
    """
    backend = gl_backend()
    if backend is None:
        raise EnvError(why_not())
    load_triton()
    context = importlib.import_module(f"mujoco.{backend}").GLContext
    for name in ("mujoco.gl_context", "mujoco.rendering.classic.gl_context"):  # before 3.10, and since
        if name in sys.modules:
            sys.modules[name].GLContext = context  # type: ignore[attr-defined]


def _candidates() -> tuple[str, ...]:
    wished = os.environ.get("MUJOCO_GL", "").lower()
    return (wished,) if wished in BACKENDS else BACKENDS


def load_triton() -> None:
    """Load triton, where torch came with it, before Mesa: each brings an LLVM, and the other order crashes later."""
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")


def _context(model: Any, shadows: int) -> Any:
    """Upload a model for rendering, with a shadow map of at most ``shadows`` pixels along each side."""
    quality, wanted = model.vis.quality, model.vis.quality.shadowsize
    quality.shadowsize = min(wanted, shadows)
    try:
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    finally:
        quality.shadowsize = wanted  # the model goes on to whoever saves or renders it


class Renderer:
    """Pictures of one size of one model."""

    def __init__(self, model: Any, height: int, width: int) -> None:
        """Open an off-screen OpenGL context.

        Args:
            model: A ``mujoco.MjModel``.
            height: Pixels.
            width: Pixels.

        Raises:
            EnvError: If no OpenGL backend works.
        """
        backend = gl_backend()
        if backend is None:
            raise EnvError(why_not())
        load_triton()
        self._model = model
        # The context class is taken from the backend's own module: mujoco's own choice is made at its import.
        self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        self._gl.make_current()
        self._context = _context(model, SHADOW_DETAIL * max(height, width))
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=500)
        self._view = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), dtype=np.uint8)

    def render(self, data: Any, camera: str) -> NDArray[np.uint8]:
        """Take one picture.

        Args:
            data: The ``mujoco.MjData`` to show; its poses of bodies, cameras and lights must be up to date.
            camera: Name of a camera of the model.

        Returns:
            RGB, (H, W, 3) uint8, a new array.
        """
        self._gl.make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._view, None, self._camera, everything, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return np.ascontiguousarray(self._pixels[::-1])

    def close(self) -> None:
        """Free the OpenGL context; closing twice is harmless."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None
