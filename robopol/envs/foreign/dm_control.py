"""dm_control's suite by its gymnasium bridge, shimmy: ``dm_control/<domain>-<task>-v0``.

The suite knows rewards only, in [0, 1] a step; no episode succeeds unless the wrapper ``success`` says when. Episodes
end by the suite's own time limit, as a truncation.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.foreign.plain import upstream
from robopol.envs.foreign.world import World
from robopol.envs.rendering import Renderer, load_triton
from robopol.errors import EnvError


class DmControl(World):
    """One task of the suite; its observation keys keep their names."""

    packages = ("dm-control", "shimmy")
    size = (240, 320)
    """Height and width of a picture, pixels."""

    _renderer: tuple[Any, Renderer] | None = None

    @property
    def physics(self) -> tuple[Any, Any]:
        """The structures inside dm_control's own."""
        physics = self.unwrapped._env.physics  # type: ignore[attr-defined]
        return physics.model.ptr, physics.data.ptr

    def memory(self) -> list[NDArray[Any]]:
        """Where the model holds what a reset places in it: targets are bodies, geoms or sites of some task."""
        model = self.physics[0]
        return [model.body_pos, model.body_quat, model.geom_pos, model.site_pos]

    def look(self) -> Any:
        """Let the task observe."""
        env = self.unwrapped._env  # type: ignore[attr-defined]
        return env.task.get_observation(env.physics)

    def restore_state(self, state: Any) -> dict[str, Any]:
        """See `World.restore_state`; dm_control counts its steps itself."""
        observation = super().restore_state(state)
        self.unwrapped._env._step_count = int(self._episode[0])  # type: ignore[attr-defined]
        return observation

    def picture(self) -> Any:
        """Draw the first camera; dm_control's own renderer is bound to a backend when it is imported."""
        model, data = self.physics
        if not model.ncam:
            raise EnvError(f"{self.id} has no camera to render with")
        if self._renderer is None or self._renderer[0] is not model:  # some tasks compile a model at every reset
            self._free()
            self._renderer = model, Renderer(model, *self.size)
        return self._renderer[1].render(data, model.camera(0).name)

    def close(self) -> None:
        """Free what rendering holds."""
        self._free()
        super().close()

    def _free(self) -> None:
        if self._renderer is not None:
            self._renderer[1].close()
            self._renderer = None


def make(id: str, options: dict[str, Any]) -> World:
    """Make one environment; options are the suite's ``task_kwargs`` and ``environment_kwargs``."""
    load_triton()  # its import may load Mesa
    import shimmy  # noqa: F401 - registers its ids

    env, limit = upstream(id, options)
    steps = env.unwrapped._env._step_limit  # type: ignore[attr-defined]
    own = int(np.ceil(steps)) if math.isfinite(steps) else 0
    return DmControl(env, id, options, min(limit, own) if limit and own else limit or own)
