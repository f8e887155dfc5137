"""How a window of actions becomes a path in metres: what the objectives that a user states are written about."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.config import Config
from robopol.envs.spec import EnvSpec
from robopol.errors import ConfigError
from robopol.policies import PolicySpec

Entry = int | str
"""An entry of an action or an observation: its number, or its name with or without the unit ("tool x [m]")."""


class Motion(Config):
    """What of an action moves, and how.

    With deltas and velocities the path begins at the observed start, and position k is where the action k + 1 steps
    from the start leads. The arm suite's ``ee_delta`` moves the commanded tool pose in the world frame by the action
    (`robopol.envs.control.ToolDelta`). The observation tells the measured pose, which lags the commanded one; at a
    steady speed the path is therefore that of the tool, not of its reference. What the world does not let happen
    (the speed limits, the workspace) is not foreseen.

    Attributes:
        actions: The entries of an action that move, one for each axis, D.
        means: What they are: the position commanded (``absolute``), its change in a control step (``delta``), or its
            change in a second (``velocity``).
        start: The entries of the newest observation that tell the position, one for each axis; none for ``absolute``.
        obs: Key of that observation.
    """

    actions: tuple[Entry, ...] = Bound(min_length=1)
    means: Literal["absolute", "delta", "velocity"]
    start: tuple[Entry, ...] = ()
    obs: str = "state"

    @model_validator(mode="after")
    def _begins(self) -> Self:
        needed = 0 if self.means == "absolute" else len(self.actions)
        if len(self.start) != needed:
            raise ValueError(
                f"start names {len(self.start)} entries of the observation, and {len(self.actions)} {self.means} "
                f"action entries need {needed}"
            )
        return self

    def build(self, spec: PolicySpec) -> "Track":
        """Return the path that a policy's windows mean.

        Args:
            spec: The policy's contract.

        Raises:
            ConfigError: If its actions or observations have no such entries.
        """
        actions = numbers(self.actions, spec.action_names, spec.action_dim, "the actions of the policy")
        start: tuple[int, ...] = ()
        shape: tuple[int, ...] = ()
        if self.means != "absolute":
            if self.means == "velocity" and spec.control_hz == 0:
                raise ConfigError(
                    "velocities become positions by the control rate, and the policy does not know its own"
                )
            shape = spec.obs_shapes.get(self.obs) or _world(spec, self.obs).obs_shapes.get(self.obs, ())
            if len(shape) != 1:
                raise ConfigError(
                    f"a path begins at entries of a row of numbers, and observation '{self.obs}' has shape {shape}"
                )
            named = any(isinstance(entry, str) for entry in self.start) and self.obs == "state"
            names = _world(spec, self.obs).state_names if named else ()
            start = numbers(self.start, names, shape[0], f"observation '{self.obs}'")
        return Track(self, spec, actions, start, shape)


class Track:
    """Turns the windows of a policy into paths.

    Attributes:
        motion: What it does, its entries numbered.
        obs_shapes: The observation that it looks at, key -> shape.
        axes: D.
        steps: H, the actions from now on.
    """

    def __init__(
        self, motion: Motion, spec: PolicySpec, actions: tuple[int, ...], start: tuple[int, ...], shape: tuple[int, ...]
    ) -> None:
        """Take over what `Motion.build` found: the numbers of the entries, and the shape of the observation."""
        self.motion = motion.model_copy(update={"actions": actions, "start": start})
        self.obs_shapes = {} if motion.means == "absolute" else {motion.obs: shape}
        self.axes, self.steps = len(actions), spec.chunk
        self._actions, self._begin = list(actions), list(start)
        self._now, self._period = spec.n_obs_steps - 1, 1.0
        if motion.means == "velocity":
            self._period = 1.0 / spec.control_hz

    def positions(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """Return where windows lead from now on; their steps before the newest observation are past.

        Args:
            obs: As for `robopol.steering.objectives.Objective.score`.
            windows: (B, K, Tp, A) in environment units.

        Returns:
            (B, K, H, D).
        """
        # entry by entry, which every engine of exports can write
        moved = torch.stack([windows[:, :, self._now :, entry] for entry in self._actions], -1)
        if self.motion.means == "absolute":
            return moved
        return self._start(obs, windows)[:, None, None] + (self._period * moved).cumsum(2)

    def windows(self, obs: Mapping[str, Tensor], positions: Tensor, windows: Tensor) -> Tensor:
        """Return windows that lead along a path from now on, the inverse of `positions`.

        Args:
            obs: As for `positions`.
            positions: (B, K, H, D).
            windows: (B, K, Tp, A), whose other entries stay; of the entries that move, the past ones are those of a
                tool that stands at the start (``absolute``: at the first position).

        Returns:
            (B, K, Tp, A).
        """
        windows = windows.clone()
        if self.motion.means == "absolute":
            past, moved = positions[:, :, :1], positions
        else:
            start = self._start(obs, windows)[:, None, None].expand(-1, positions.shape[1], 1, -1)
            moved = torch.cat([start, positions], 2).diff(dim=2) / self._period
            past = torch.zeros_like(moved[:, :, :1])
        windows[:, :, :, self._actions] = torch.cat([past.expand(-1, -1, self._now, -1), moved], 2)
        return windows

    def _start(self, obs: Mapping[str, Tensor], like: Tensor) -> Tensor:
        newest = obs[self.motion.obs][:, -1]
        return torch.stack([newest[:, entry] for entry in self._begin], -1).to(like)


def motion_of(spec: PolicySpec, axes: int) -> Motion:
    """Return the motion of what robopol's own worlds move, for policies that command it: the arm's tool, or a point.

    Args:
        spec: The policy's contract.
        axes: How many of x, y and z.

    Raises:
        ConfigError: If the policy commands neither.
    """
    from robopol.envs.multi_goal import STATE_NAMES
    from robopol.envs.task import ARM_STATE_NAMES  # brings MuJoCo

    for what, state in (("tool", ARM_STATE_NAMES), ("point", STATE_NAMES)):
        for means, prefix in (("delta", f"{what} d"), ("absolute", f"{what} ")):
            names = [f"{prefix}{axis} [m]" for axis in "xyz"[:axes]]
            if 1 <= axes <= 3 and set(names) <= set(spec.action_names):
                start = [state.index(f"{what} {axis} [m]") for axis in "xyz"[:axes]] if means == "delta" else []
                return Motion(actions=tuple(names), means=means, start=tuple(start))  # type: ignore[arg-type]
    raise ConfigError(
        f"nothing is known of how the actions {list(spec.action_names)} move along {axes} axes: say it by motion, e.g. "
        "{actions: [0, 1], means: delta, start: [0, 1]}"
    )


def _world(spec: PolicySpec, key: str) -> EnvSpec:
    """Return the contract of the world that a policy was trained for."""
    if spec.env is None:
        raise ConfigError(
            f"the policy does not look at '{key}' by name and does not say which world it is for: give the entries of "
            "start as numbers of an observation that it looks at"
        )
    with spec.env.checked().make(1) as env:
        return env.spec


def numbers(entries: Sequence[Entry], names: Sequence[str], count: int, what: str) -> tuple[int, ...]:
    """Return the numbers of entries that are given by number or name.

    Args:
        entries: What is given.
        names: Name of each entry; empty where they have none.
        count: How many there are.
        what: What they are entries of, for the error.

    Raises:
        ConfigError: If there is no such entry, or one is named twice.
    """
    known = {name: i for i, name in enumerate(names)} | {name.split(" [")[0]: i for i, name in enumerate(names)}
    found = []
    for entry in entries:
        number = known.get(entry) if isinstance(entry, str) else entry
        if number is None or not 0 <= number < count:
            listed = f": {', '.join(names)}" if names else ""
            raise ConfigError(f"{what} have {count} entries, and none is {entry!r}{listed}")
        found.append(number)
    if len(set(found)) < len(found):
        raise ConfigError(f"an entry of {what} is named twice: {list(entries)}")
    return tuple(found)
