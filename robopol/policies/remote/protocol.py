"""What the messages between a server and its client say.

The base is openpi's format: the server first sends a map about itself; then the client sends a map of observations, and
the server answers a map with ``actions`` (H, A), beginning now. A server of robopol writes `Metadata` under the key
``robopol`` of its first message; it then takes several rows at once, several proposals, and the noise or the seeds they
are drawn from, so that a plan is a function of its request. It answers openpi's clients too. docs/other-policies.md
has the whole format.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from robopol.config import Config, parse
from robopol.data.episodes import is_image
from robopol.errors import ConfigError, MessageError
from robopol.policies.part import PolicySpec

VERSION = 1
"""Of robopol's additions to the format."""
KEY = "robopol"
"""Where a server of robopol describes itself in its first message."""
ACTIONS, PAST = "actions", "past"
"""The answer: actions from now on, and those that a window has before now."""
N, NOISE, SEEDS, PREVIOUS, PASSED, DELAY = "n", "noise", "seeds", "previous", "passed", "delay"
"""What a request may hold beside observations, whose names these cannot be."""
MAX_PROPOSALS = 1024
"""Most proposals for a row in one request."""


class Metadata(Config):
    """What a server of robopol says about itself.

    Attributes:
        version: `VERSION`.
        spec: The contract of its policy.
        weights: What tells its policy from others with this contract, `Policy.fingerprint` in hexadecimal digits: a
            client that goes on after a break knows by it whether it is still the same one.
        noise_shape: Shape of the standard normal noise that one proposal is made from: (Tp, A), or (draws, Tp, A) where
            the walk draws several times, in that order; None where it takes seeds only.
        batch: Most rows of a request.
        proposals: Most proposals for a row.
        goes_on: Whether a plan depends on the one before, which a request then tells.
    """

    version: int
    spec: PolicySpec
    weights: str = Field(min_length=1, max_length=128)
    noise_shape: tuple[int, ...] | None
    batch: int = Field(ge=1)
    proposals: int = Field(MAX_PROPOSALS, ge=1, le=MAX_PROPOSALS)
    goes_on: bool = False

    @model_validator(mode="after")
    def _servable(self) -> Self:
        shape, taken = self.noise_shape, {N, NOISE, SEEDS, PREVIOUS, PASSED, DELAY} & self.spec.obs_shapes.keys()
        if taken:
            raise ValueError(f"an observation cannot be called {', '.join(sorted(taken))}: a request needs the name")
        if shape is not None and (len(shape) not in (2, 3) or min(shape) < 1):
            raise ValueError(f"the noise of a proposal has the shape (Tp, A) or (draws, Tp, A), not {shape}")
        return self

    def message(self) -> dict[str, Any]:
        """Return the first message of a server; it may hold other keys too."""
        return {KEY: self.tree()}

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> "Metadata | None":
        """Read the first message of a server; None if it does not describe itself.

        Raises:
            MessageError: If the description is wrong, or of another version.
        """
        tree = message.get(KEY)
        if tree is None:
            return None
        if isinstance(tree, Mapping) and tree.get("version") != VERSION:
            raise MessageError(
                f"the server speaks version {tree.get('version')!r:.20}, this robopol {VERSION}: update the older one"
            )
        try:
            return parse(cls, tree)
        except (ConfigError, TypeError) as error:  # of what is not JSON
            raise MessageError(f"the server does not describe itself as agreed: {error}") from error


class Request(NamedTuple):
    """What a client asks.

    Attributes:
        obs: Key -> observation histories (B, To, ...), oldest first.
        n: Proposals for each row.
        noise: Standard normal, (B, n, ...) float32, to make the proposals from.
        seeds: (B,) int64, at least 0: each seeds the generator that a row's proposals are drawn with. Without noise and
            seeds the server draws as it likes.
        previous: The plan that the episode of each row has, (B, Tp, A) in environment units.
        passed: (B,) int64: control steps since the observation that it was asked for with; -1 where there is none.
        delay: (B,) int64: how many of its actions will be over before the answer can be executed; -1, and without it
            all, where that is what the policy was told once and for all.
        rows: Whether the observations came with the axis B, which the answer then has too.
        proposals: The same of the axis n.
    """

    obs: dict[str, NDArray[Any]]
    n: int = 1
    noise: NDArray[np.float32] | None = None
    seeds: NDArray[np.int64] | None = None
    previous: NDArray[np.float32] | None = None
    passed: NDArray[np.int64] | None = None
    delay: NDArray[np.int64] | None = None
    rows: bool = True
    proposals: bool = True

    def message(self) -> dict[str, Any]:
        """Return the message of a request with rows and proposals."""
        more = (self.noise, self.seeds, self.previous, self.passed, self.delay)
        told = zip((NOISE, SEEDS, PREVIOUS, PASSED, DELAY), more, strict=True)
        return {**self.obs, N: self.n, **{key: value for key, value in told if value is not None}}

    @classmethod
    def read(cls, message: Mapping[str, Any], metadata: Metadata) -> "Request":
        """Read a request, of robopol's clients and of openpi's.

        An observation may be the present one (...), which then stands for the whole history; a history (To, ...); or
        several histories (B, To, ...). Entries of other names are not looked at.

        Args:
            message: The request.
            metadata: What the server told the client.

        Raises:
            MessageError: Names what does not fit.
        """
        spec = metadata.spec
        obs, extra = {}, set()
        for key, shape in spec.obs_shapes.items():
            array = _real(message, key, image=is_image(key))
            extra.add(array.ndim - len(shape))
            whole = (spec.n_obs_steps, *shape)
            if array.shape == shape:
                array = np.repeat(array[None], spec.n_obs_steps, 0)
            if array.ndim == len(whole):
                array = array[None]
            if array.shape[1:] != whole or not 1 <= len(array) <= metadata.batch:
                raise MessageError(
                    f"observation '{key}' has shape {np.shape(message[key])}, needed {shape} or {whole}, or at most "
                    f"{metadata.batch} rows of these"
                )
            obs[key] = array
        if len(extra) > 1 or len({len(array) for array in obs.values()}) > 1:
            raise MessageError("some observations have a history or rows, and others have not, or not as many")
        rows = len(next(iter(obs.values())))
        n = message.get(N, 1)
        if type(n) is not int or not 1 <= n <= metadata.proposals:
            raise MessageError(f"n is a number of proposals from 1 to {metadata.proposals}, not {n!r:.80}")
        made = cls(obs, n, rows=extra == {2}, proposals=N in message)
        noise, seeds = made._noise(message, metadata, rows), made._seeds(message, rows)
        return made._replace(noise=noise, seeds=seeds)._with_plans(message, metadata, rows)

    def _noise(self, message: Mapping[str, Any], metadata: Metadata, rows: int) -> NDArray[np.float32] | None:
        if NOISE not in message:
            return None
        if metadata.noise_shape is None:
            raise MessageError("this policy takes no noise from outside: send seeds")
        noise = self._aligned(_real(message, NOISE), len(metadata.noise_shape), "noise")
        shape = (rows, self.n, *metadata.noise_shape)
        if noise.shape != shape or noise.dtype != np.float32 or not np.isfinite(noise).all():
            raise MessageError(f"the noise is {noise.dtype} {noise.shape}, needed float32 {shape}, all of it finite")
        return noise

    def _seeds(self, message: Mapping[str, Any], rows: int) -> NDArray[np.int64] | None:
        if SEEDS not in message:
            return None
        seeds = np.atleast_1d(_array(message, SEEDS))
        if seeds.shape != (rows,) or seeds.dtype != np.int64 or seeds.min() < 0:
            raise MessageError(f"the seeds are {seeds.dtype} {seeds.shape}, needed int64 ({rows},), at least 0")
        return seeds

    def _with_plans(self, message: Mapping[str, Any], metadata: Metadata, rows: int) -> "Request":
        """Return the request with the plans that there are and what is said of them, if the policy looks at them."""
        if PREVIOUS not in message or not metadata.goes_on:
            return self
        windows = _real(message, PREVIOUS)
        if not self.rows:
            windows = windows[None]
        shape = (rows, metadata.spec.horizon, metadata.spec.action_dim)
        if windows.shape != shape or not np.isfinite(windows).all():
            raise MessageError(f"the previous plans are {windows.shape}, needed {shape}, all of it finite")
        passed = _steps(message, PASSED, rows, metadata.spec.horizon - 1)
        delay = _steps(message, DELAY, rows, metadata.spec.horizon) if DELAY in message else None
        return self._replace(previous=windows, passed=passed, delay=delay)

    def _aligned(self, array: NDArray[Any], inner: int, name: str) -> NDArray[Any]:
        """Give an array the axes B and n that it came without."""
        if array.ndim != inner + self.rows + self.proposals:
            raise MessageError(f"{name} has shape {array.shape}: the axes B and n belong there as in the request")
        if not self.proposals:
            array = np.expand_dims(array, int(self.rows))
        return array if self.rows else array[None]

    def answer(self, windows: NDArray[np.float32], n_obs_steps: int) -> dict[str, Any]:
        """Return the answer.

        Args:
            windows: (B, n, Tp, A) in environment units, from the time of the oldest observation on.
            n_obs_steps: To.
        """
        if not self.proposals:
            windows = windows[:, 0]
        if not self.rows:
            windows = windows[0]
        now = n_obs_steps - 1
        return {ACTIONS: windows[..., now:, :]} | ({PAST: windows[..., :now, :]} if now else {})


def read_answer(message: Mapping[str, Any], shape: tuple[int, ...], n_obs_steps: int) -> NDArray[np.float32]:
    """Read the windows from an answer.

    Args:
        message: The answer; other entries, such as timings, are not looked at.
        shape: What is expected, (..., Tp, A).
        n_obs_steps: To. The first To - 1 actions of a window lie in the past; where the server does not tell them, they
            repeat the action of now.

    Returns:
        (..., Tp, A) float32, all of it finite.

    Raises:
        MessageError: If there are no such actions.
    """
    *lead, horizon, size = shape
    now = n_obs_steps - 1
    actions = _actions(message, ACTIONS, (*lead, horizon - now, size))
    if not now:
        return actions
    if PAST in message:
        return np.concatenate([_actions(message, PAST, (*lead, now, size)), actions], -2)
    return np.concatenate([np.repeat(actions[..., :1, :], now, -2), actions], -2)


def _actions(message: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = _array(message, name)
    if array.shape != shape or array.dtype.kind != "f":
        raise MessageError(f"'{name}' is {array.dtype} {array.shape}, needed floats {shape}: ..., actions, entries")
    with np.errstate(over="ignore"):
        found = array.astype(np.float32)
    if not np.isfinite(found).all():
        raise MessageError(f"'{name}' has numbers that are not finite")
    return found


def _real(message: Mapping[str, Any], name: str, image: bool = False) -> NDArray[Any]:
    """Return an array of numbers: of bytes if it is a picture, else float32."""
    array = _array(message, name)
    if image and array.dtype != np.uint8:
        raise MessageError(f"'{name}' is a picture and needs bytes (uint8), not {array.dtype}")
    return array if image else array.astype(np.float32)


def _steps(message: Mapping[str, Any], name: str, rows: int, most: int) -> NDArray[np.int64]:
    """Return numbers of control steps, one for each row, -1 where there is none."""
    told = message.get(name)
    steps: NDArray[Any] = np.atleast_1d(told if isinstance(told, np.ndarray | int) else "")
    if steps.shape != (rows,) or steps.dtype != np.int64 or steps.min() < -1 or steps.max() > most:
        raise MessageError(f"'{name}' is {steps.dtype} {steps.shape}, needed int64 ({rows},), -1 to {most}")
    return steps


def _array(message: Mapping[str, Any], name: str) -> NDArray[Any]:
    array = message.get(name)
    if not isinstance(array, np.ndarray):
        came = "has none" if name not in message else f"has {type(array).__name__}"
        raise MessageError(
            f"an array '{name}' is needed, the message {came}; it holds {', '.join(sorted(message)[:8])}"
        )
    return array
