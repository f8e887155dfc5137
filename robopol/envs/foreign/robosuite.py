"""robosuite's tasks (Zhu et al., arXiv:2009.12293), also as robomimic's datasets name them: ``robosuite/<task>``.

Options are the arguments of ``robosuite.make``, so that ``env_name`` and ``env_kwargs`` of a robomimic file are an id
and options as they are; ``robots`` is "Panda" unless said otherwise. Observation keys are robomimic's: ``object``,
``robot0_eef_pos``, ..., and ``images.<camera>``, right way up. Nothing terminates; an episode has succeeded if the
task's own check held once, and is truncated after ``max_episode_steps`` or ``horizon``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from robopol.envs.foreign.recorded_model import checked
from robopol.envs.foreign.world import GlobalStream, World
from robopol.envs.rendering import Renderer, load_triton, offer_backend
from robopol.errors import EnvError
from robopol.registry import nearest

HORIZON = 1000
"""Steps of an episode unless the options say otherwise; robosuite's own default."""


class Upstream(gymnasium.Env[dict[str, Any], NDArray[Any]]):
    """A robosuite environment with gymnasium's methods; it never ends by itself."""

    def __init__(self, suite: Any) -> None:
        """Wrap ``suite``, what ``robosuite.make`` returned."""
        self.suite = suite
        low, high = suite.action_spec
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))
        self.observation_space = spaces.Dict(
            {
                key: spaces.Box(0, 255, value.shape, np.uint8)
                if value.dtype == np.uint8
                else spaces.Box(-np.inf, np.inf, value.shape, np.float64)
                for key, value in self.translate(suite.reset()).items()
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reload the model, so that all that is drawn is drawn from the seed."""
        if seed is not None:
            self.suite.seed, self.suite.rng = seed, np.random.default_rng(seed)
            for sampler in _samplers(getattr(self.suite, "placement_initializer", None)):
                sampler.rng = self.suite.rng  # upstream keeps the one of the first reset
        return self.translate(self.suite.reset()), {}

    def step(self, action: NDArray[Any]) -> Any:
        """Execute one action."""
        observation, reward, _, info = self.suite.step(np.asarray(action, dtype=np.float64))
        return self.translate(observation), reward, False, False, {**info, "success": self.suite._check_success()}

    def translate(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Choose and name the entries as robomimic does."""
        found = {}
        for key, value in observation.items():
            if key.endswith("_image"):
                found[key.removesuffix("_image")] = np.ascontiguousarray(value[::-1])  # OpenGL's rows go upwards
            elif key == "object-state":
                found["object"] = np.asarray(value)
            elif key.startswith("robot") and not key.endswith("-state"):
                found[key] = np.atleast_1d(np.asarray(value))
        return found

    def close(self) -> None:
        """Free the simulation."""
        self.suite.close()


class Robosuite(World):
    """One task."""

    packages = ("robosuite",)
    size = (256, 256)
    """Height and width of a picture that `render` draws, pixels."""

    _renderer: tuple[Any, Renderer] | None = None

    def __init__(self, *args: Any) -> None:
        """See `World`."""
        self._stream = GlobalStream()
        super().__init__(*args)

    def scope(self) -> Any:
        """Lend upstream a stream: noise on its sensors comes from numpy's global generator."""
        return self._stream.lent()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See `World.reset`."""
        if seed is not None:
            self._stream.seed(seed)
        return super().reset(seed=seed, options=options)

    @property
    def suite(self) -> Any:
        """What ``robosuite.make`` returned."""
        return self.unwrapped.suite  # type: ignore[attr-defined]

    @property
    def physics(self) -> tuple[Any, Any]:
        """The structures inside robosuite's own."""
        return self.suite.sim.model._model, self.suite.sim.data._data

    @property
    def mjcf(self) -> str:
        """The model of the present episode, as robomimic stores it."""
        text: str = self.suite.sim.model.get_xml()
        return text

    def load_model(self, text: str) -> None:
        """Go on in a recorded model, with the sizes, colours and places that were drawn then; not in its state.

        Args:
            text: MJCF, not trusted.

        Raises:
            EnvError: If it may do more than a model should, or is that of another task.
        """
        import robosuite

        model = checked(text, Path(robosuite.__file__).parent / "models/assets")
        size = self.physics[0].nq, self.physics[0].nv, self.physics[0].nu
        try:
            with self.scope():
                self.suite.reset_from_xml_string(model)
                self.suite.sim.reset()
                self.suite.sim.forward()
            found = self.physics[0].nq, self.physics[0].nv, self.physics[0].nu
            if found != size:
                raise EnvError(f"it has {found} positions, velocities and controls, needed {size}")
        except Exception as error:  # robosuite and MuJoCo raise anything
            raise EnvError(f"{self.id} cannot go on in the recorded model: {error}") from error
        finally:
            self.suite.deterministic_reset = False  # upstream leaves it set when it fails

    def look(self) -> Any:
        """Observe the present state."""
        self.suite.timestep = int(self._episode[0])
        return self.unwrapped.translate(self.suite._get_observations(force_update=True))  # type: ignore[attr-defined]

    def picture(self) -> Any:
        """Draw the first of the cameras that the options name, or the front view."""
        model, data = self.physics
        if self._renderer is None or self._renderer[0] is not model:  # a reset reloads the model
            self._free()
            self._renderer = model, Renderer(model, *self.size)
        wished = self.options.get("render_camera", "frontview")
        return self._renderer[1].render(data, wished if isinstance(wished, str) else wished[0])

    @property
    def control_hz(self) -> float:
        """Actions a second."""
        return float(self.suite.control_freq)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Numbered: what they mean is up to the controller."""
        return tuple(f"action {index}" for index in range(len(self.action_space.low)))  # type: ignore[attr-defined]

    def close(self) -> None:
        """Free what rendering holds."""
        self._free()
        super().close()

    def _free(self) -> None:
        if self._renderer is not None:
            self._renderer[1].close()
            self._renderer = None


def make(id: str, options: dict[str, Any]) -> World:
    """Make one task; options are those of ``robosuite.make`` and ``max_episode_steps``."""
    offscreen = bool(options.get("use_camera_obs", False))
    if offscreen:
        offer_backend()  # robosuite reads it when it is imported
    load_triton()  # its import may load Mesa
    import robosuite

    name = id.removeprefix("robosuite/")
    if name not in robosuite.ALL_ENVIRONMENTS:
        raise EnvError(f"robosuite has no task '{name}'{nearest(name, robosuite.ALL_ENVIRONMENTS)}")
    given = {"robots": "Panda", **options}
    limit = given.pop("max_episode_steps", given.get("horizon", HORIZON))
    fixed = {
        "has_renderer": False,
        "has_offscreen_renderer": offscreen,
        "use_camera_obs": offscreen,
        "ignore_done": True,
        "hard_reset": True,
    }
    try:
        suite = robosuite.make(name, **given | fixed)
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise EnvError(f"robosuite cannot make '{name}' with {options}: {error}") from error
    return Robosuite(Upstream(suite), id, options, max(int(limit), 0))


def _samplers(placement: Any) -> Iterator[Any]:
    """Walk through what places the objects; a composite holds others."""
    if placement is not None:
        yield placement
        for inner in getattr(placement, "samplers", {}).values():
            yield from _samplers(inner)
