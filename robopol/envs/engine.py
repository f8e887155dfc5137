"""MuJoCo, imported in one place: at once it loads the OpenGL that MUJOCO_GL names, and fails in many ways without."""

import os

from robopol.errors import EnvError

try:
    import mujoco
except Exception as error:  # PyOpenGL raises whatever happens to it
    wished = os.environ.get("MUJOCO_GL")
    if not wished:
        raise
    raise EnvError(
        f"MuJoCo cannot be imported with MUJOCO_GL={wished} ({type(error).__name__}: {error}): install what that needs "
        "(osmesa: apt-get install libosmesa6; egl: the graphics driver), or unset MUJOCO_GL, and what works is found"
    ) from error

__all__ = ["mujoco"]
