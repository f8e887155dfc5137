"""What a policy sees by cameras: of each the picture of a time, and whether that is recent enough to act on."""

from collections.abc import Callable, Mapping
from typing import Protocol

from robopol.data.episodes import is_image
from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.real_robot.camera import CameraConfig, Frame
from robopol.real_robot.events import Code, Event, Severity
from robopol.real_robot.film import SECONDS, Pulse

PREFIX = "images."
"""Of the observations that are pictures; the camera's name follows."""


class Pictures(Protocol):
    """The pictures of one camera; see `robopol.real_robot.film.Film`."""

    @property
    def pulse(self) -> Pulse:
        """How it went last."""

    def newest(self) -> int | None:
        """Return when the newest picture was taken, ns."""

    def at(self, t: int) -> Frame | None:
        """Return the picture nearest to a time."""


class Sight:
    """Looks by all the cameras of a policy."""

    def __init__(
        self,
        films: Mapping[str, Pictures],
        places: Mapping[str, int],
        max_age: float,
        report: Callable[[Event], None],
    ) -> None:
        """Look by cameras.

        Args:
            films: Name -> pictures.
            places: Name -> place in the configuration, for events.
            max_age: Age of the newest picture, s, from which on a camera is stale.
            report: Told when a camera becomes stale, and when it is back.
        """
        self._films, self._places, self._report = films, places, report
        self._max_age = round(max_age * 1e9)
        self._away: dict[str, int] = {}
        self._begin = -1

    def newest(self, now: int) -> int | None:
        """Return the time, ns, up to which every camera has seen; None while there is none that is recent enough.

        It is the time of the newest picture; of several cameras that of the one which is most behind, so that what all
        of them saw then is known.
        """
        self._begin = now if self._begin < 0 else self._begin
        times = {name: film.newest() for name, film in self._films.items()}
        for name, t in times.items():
            self._judge(name, self._begin if t is None else t, now)
        known = [t for t in times.values() if t is not None]
        return min(known) if len(known) == len(times) and not self._away else None

    def at(self, t: int) -> dict[str, Frame] | None:
        """Return of each camera, by the observation's key, the picture nearest to time ``t``; None if one has none."""
        found = {f"{PREFIX}{name}": film.at(t) for name, film in self._films.items()}
        there = {key: frame for key, frame in found.items() if frame is not None}
        return there if len(there) == len(found) else None

    def _judge(self, name: str, t: int, now: int) -> None:
        place, age = self._places[name], (now - t) * 1e-9
        if now - t > self._max_age:
            if name not in self._away:
                self._away[name] = t
                again = self._films[name].pulse.repeated
                code, more = (Code.CAMERA_FROZEN, (again,)) if again else (Code.CAMERA_STALE, ())
                self._report(Event(now, code, Severity.WARNING, (place, age, *more)))
        elif name in self._away:
            away = (t - self._away.pop(name)) * 1e-9
            self._report(Event(now, Code.CAMERA_BACK, Severity.INFO, (place, away)))


def seen_by(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Return name -> shape (H, W, 3) of the cameras that a policy looks by."""
    return {key.removeprefix(PREFIX): tuple(shape) for key, shape in spec.obs_shapes.items() if is_image(key)}


def check_cameras(spec: PolicySpec, cameras: Mapping[str, CameraConfig], recorded: bool) -> None:
    """Refuse, in words, to let a policy look by cameras that it was not made for.

    Args:
        spec: The policy's.
        cameras: Name -> camera.
        recorded: Whether pictures that the policy does not look at are wanted.

    Raises:
        ConfigError: Names every difference.
    """
    wanted, faults = seen_by(spec), []
    for name, shape in wanted.items():
        there = ", ".join(cameras) or "none"
        if name not in cameras:
            faults.append(f"it looks by the camera '{name}', say robot.cameras.{name}.kind=...; there are: {there}")
        elif (*cameras[name].size, 3) != shape:
            size = list(cameras[name].size)
            faults.append(
                f"it looks at pictures {list(shape)} of '{name}', which are made {size}: say "
                f"robot.cameras.{name}.size={list(shape[:2])}".replace(", ", ",")
            )
    for name in cameras:
        if name not in wanted and not recorded:
            faults.append(f"it does not look by the camera '{name}': say ~robot.cameras.{name}, or record=FOLDER")
    back = (spec.n_obs_steps - 1) / spec.control_hz if spec.control_hz else 0.0
    if wanted and back > SECONDS:
        faults.append(f"it looks back {back:.1f} s, and pictures are kept for {SECONDS:.0f} s")
    if faults:
        raise ConfigError("policy and cameras do not fit: " + "; ".join(faults))
