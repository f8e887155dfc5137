"""A policy that is served elsewhere."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn, Self
from urllib.parse import urlsplit

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from robopol.config import Config, parse
from robopol.envs.spec import EnvSpec
from robopol.errors import ConfigError, MessageError, RemoteError, SeedWarning
from robopol.policies.part import PolicySpec
from robopol.policies.plan_only import PlanOnlyPolicy, box_units, contract, count, in_blocks, row_seeds
from robopol.policies.policy import Generators, Previous, check_noise, fingerprint, standard_normal
from robopol.policies.remote.connection import Connection
from robopol.policies.remote.protocol import DELAY, NOISE, PASSED, PREVIOUS, SEEDS, Metadata, Request, read_answer


class RemoteOptions(Config):
    """What may be said about a server. All but the first two is for servers that do not describe themselves.

    Attributes:
        timeout: Seconds to wait for the server to accept, and for each answer. A server may compile at its first one.
        token_file: File that holds the token; None takes it from the environment variable ROBOPOL_TOKEN, if it is set.
        horizon: Actions that the server answers with, from now on; None expects a server that describes itself.
        n_obs_steps: Observations that it is sent: 1 sends the present one, more a history with an axis for time.
        keys: Observation of the world -> its name at the server; None sends all under their own names.
        extra: What is sent with every request besides, e.g. ``{prompt: "push the disc"}``.
    """

    timeout: float = Field(60.0, gt=0)
    token_file: str | None = None
    horizon: int | None = Field(None, ge=1)
    n_obs_steps: int = Field(1, ge=1)
    keys: dict[str, str] | None = None
    extra: dict[str, bool | int | float | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [*(self.keys or {}).values(), *self.extra]
        if len(set(names)) < len(names):
            raise ValueError(f"remote.keys and remote.extra send two things under one name: {', '.join(sorted(names))}")
        if self.horizon is None and (self.n_obs_steps != 1 or self.keys is not None or self.extra):
            raise ValueError(
                "n_obs_steps, keys and extra are for a server that does not describe itself: say remote.horizon too"
            )
        return self


class RemoteConfig(RemoteOptions):
    """A policy that is served elsewhere; saved, it is an address.

    Attributes:
        url: Where: ``ws://host:port``, or ``wss://host:port`` with encryption.
    """

    kind: Literal["remote"] = "remote"
    url: str = "ws://127.0.0.1:8000"

    group: ClassVar[str] = "policy"

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            right = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            right = False
        if not right:
            raise ValueError("an address such as ws://127.0.0.1:8000 or wss://host:443 is needed")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an address is saved and shown, so it holds no secrets: a token goes into ROBOPOL_TOKEN")
        return url

    def build(self, spec: PolicySpec) -> "RemotePolicy":
        """Return the policy; the server is asked for when it first acts.

        Args:
            spec: The contract with the world.
        """
        return RemotePolicy(self, spec, self.connection())

    def connection(self) -> Connection:
        """Return a connection that is not yet open."""
        return Connection(self.url, self.timeout, self.token_file)


def connect(url: str, options: RemoteOptions, world: EnvSpec | None) -> "RemotePolicy":
    """Return a policy that is served elsewhere.

    Args:
        url: Where.
        options: What is said about the server.
        world: Where it will act; needed if the server does not describe itself.

    Raises:
        ConfigError: If the address is wrong, or too little or too much is said about the server.
        RemoteError: If the server cannot be asked.
    """
    config = parse(RemoteConfig, options.tree() | {"url": url})
    connection = config.connection()
    server = connection.metadata
    if server is not None:
        if config.horizon is not None:
            connection.close()
            raise ConfigError(f"the policy at {url} describes itself: leave out remote.horizon, keys and extra")
        return RemotePolicy(config, server.spec, connection)
    if config.horizon is None:
        connection.close()
        raise ConfigError(
            f"the policy at {url} does not describe itself: say how many actions it answers with (remote.horizon=50), "
            "and under which names it takes which observations (remote.keys={state: observation/state})"
        )
    spec = contract(world, f"the policy at {url}", config.keys, config.n_obs_steps, config.horizon)
    return RemotePolicy(config, spec, connection)


class RemotePolicy(PlanOnlyPolicy):
    """Plans by asking a server: one of robopol for all rows together, another one row after the other.

    With a server that takes noise, a plan is equal to the bit to that of the policy behind it, from equal generators
    and for as many rows, if both machines compute alike. With a server of robopol that takes seeds only, a plan depends
    on its generators alone. Any other server draws as it likes.
    """

    config: RemoteConfig  # type: ignore[assignment]
    refusal = "a policy that is served elsewhere plans and nothing else: train it where it is served"

    def __init__(self, config: RemoteConfig, spec: PolicySpec, connection: Connection) -> None:
        """See `connect` and `RemoteConfig.build`."""
        super().__init__(config, spec, box_units(spec))
        if self.rowwise:
            names = set(spec.obs_shapes if config.keys is None else config.keys)
            if names != spec.obs_shapes.keys() or (config.keys is None and names & config.extra.keys()):
                raise ConfigError(
                    f"the policy looks at {', '.join(spec.obs_shapes)}: remote.keys must name these, and remote.extra "
                    "others"
                )
        self._connection = connection
        self._weights: str | None = None  # of the policy that was agreed on, once the server has said it
        self._warned = False

    @property
    def rowwise(self) -> bool:
        """See `Policy.rowwise`."""
        return self.config.horizon is not None

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """See `Policy.noise_shape`; as the server says in its `Metadata`."""
        server = self._server()
        return None if server is None else server.noise_shape

    @property
    def goes_on(self) -> bool:
        """See `Policy.goes_on`; as the server says in its `Metadata`."""
        server = self._server()
        return server is not None and server.goes_on

    def fingerprint(self) -> bytes:
        """See `Policy.fingerprint`; of a server that does not describe itself, its address is all that is known."""
        server = self._server()
        return fingerprint(self.config, self.spec, {}, b"" if server is None else server.weights.encode())

    @torch.no_grad()
    def plan(
        self,
        obs: Mapping[str, Tensor],
        n: int = 1,
        generator: Generators = None,
        previous: Sequence[Previous | None] | None = None,
    ) -> Tensor:
        """See `Policy.plan`.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
            RemoteError: If the server cannot be asked, or does not answer as agreed.
        """
        inputs = self.histories(obs, generator)
        server, rows = self._server(), count(inputs)
        if server is None:
            return self._one_by_one(inputs, n, generator)
        inputs |= self._plans(server, previous)
        if server.noise_shape is not None:
            return self._together(server, inputs | {NOISE: _noise(rows, n, server.noise_shape, generator)}, n)
        return self._together(server, inputs | {SEEDS: row_seeds(rows, 1, generator)[:, 0]}, n)

    @torch.no_grad()
    def plan_from(
        self, obs: Mapping[str, Tensor], noise: Tensor, previous: Sequence[Previous | None] | None = None
    ) -> Tensor:
        """Propose windows made from given noise.

        Args:
            obs: As for `plan`.
            noise: (B, n, *noise_shape).
            previous: As for `plan`.

        Returns:
            (B, n, Tp, A) float32 in environment units.

        Raises:
            ConfigError: If the server takes no noise.
            ShapeError: If an observation or the noise is shaped wrongly.
            RemoteError: As for `plan`.
        """
        inputs, server = self.histories(obs), self._server()
        if server is None or server.noise_shape is None:
            raise ConfigError(
                f"the policy at {self.config.url} takes no noise from outside, so it cannot be steered by its noise: "
                "rank its proposals, or serve it by a server that takes noise"
            )
        check_noise(noise, count(inputs), server.noise_shape)
        return self._together(server, inputs | self._plans(server, previous) | {NOISE: noise.float()}, noise.shape[1])

    def close(self) -> None:
        """Close the connection; the next plan opens it again."""
        self._connection.close()

    def _server(self) -> Metadata | None:
        """Return what the server says about itself, after checking that it is the one that was agreed on."""
        server = self._connection.metadata
        if (server is None) != self.rowwise or (server is not None and server.spec != self.spec):
            self._refuse("is another one than was agreed on: load it anew from its address")
        if server is not None:
            self._weights = self._weights or server.weights
            if server.weights != self._weights:
                self._refuse(
                    f"has other weights than before ({server.weights[:8]}..., it had {self._weights[:8]}...): load it "
                    "anew from its address, or serve the policy that was agreed on"
                )
        return server

    def _together(self, server: Metadata, inputs: Mapping[str, Tensor], n: int) -> Tensor:
        """Ask for n proposals for all rows, by as few requests as the server takes."""

        def ask(block: Mapping[str, Tensor]) -> Tensor:
            obs = {key: value.cpu().numpy() for key, value in block.items()}
            noise, seeds = obs.pop(NOISE, None), obs.pop(SEEDS, None)
            previous, passed, delay = (obs.pop(key, None) for key in (PREVIOUS, PASSED, DELAY))
            request = Request(obs, n, noise, seeds, previous, passed, delay)
            return self._answer(request.message(), (count(block), n))

        return ask(inputs) if count(inputs) <= server.batch else in_blocks(inputs, server.batch, ask)

    def _plans(self, server: Metadata, previous: Sequence[Previous | None] | None) -> dict[str, Tensor]:
        """Return what a request says of the plans that there are, if the server asks; where there is none, zeros."""
        if previous is None or not server.goes_on:
            return {}
        nothing = Previous(torch.zeros(self.spec.horizon, self.spec.action_dim), -1)
        plans = [old or nothing for old in previous]
        told = {
            PREVIOUS: torch.stack([old.window.float().cpu() for old in plans]),
            PASSED: torch.tensor([old.passed for old in plans], dtype=torch.int64),
        }
        delays = [-1 if old.delay is None else min(old.delay, self.spec.horizon) for old in plans]
        return told | ({DELAY: torch.tensor(delays, dtype=torch.int64)} if max(delays) >= 0 else {})

    def _one_by_one(self, inputs: Mapping[str, Tensor], n: int, generator: Generators) -> Tensor:
        """Ask a server that knows nothing of rows, proposals and noise."""
        if generator is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"the policy at {self.config.url} takes neither noise nor seeds: it draws as it likes, and from the "
                "same seed it does not do the same again",
                SeedWarning,
                stacklevel=3,
            )
        names, now = self.config.keys or {key: key for key in inputs}, self.spec.n_obs_steps == 1
        found = []
        for row in range(count(inputs)):
            message: dict[str, Any] = dict(self.config.extra)
            for key, value in inputs.items():
                message[names[key]] = (value[row, 0] if now else value[row]).cpu().numpy()
            found.append(torch.stack([self._answer(message, ()) for _ in range(n)]))
        return torch.stack(found)

    def _answer(self, message: Mapping[str, Any], lead: tuple[int, ...]) -> Tensor:
        """Ask for windows, (*lead, Tp, A)."""
        spec = self.spec
        answer = self._connection.ask(message)
        try:
            windows = read_answer(answer, (*lead, spec.horizon, spec.action_dim), spec.n_obs_steps)
        except MessageError as error:
            self._refuse(f"does not answer as agreed: {error}", error)
        return torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)

    def _refuse(self, text: str, cause: Exception | None = None) -> NoReturn:
        self._connection.close()
        raise RemoteError(f"the policy at {self.config.url} {text}") from cause


def _noise(rows: int, n: int, shape: tuple[int, ...], generator: Generators) -> Tensor:
    """Draw noise (B, n, *shape) in the order in which a policy draws its own."""
    device = torch.device("cpu")
    if len(shape) == 2:
        return standard_normal((rows, n, *shape), generator, device)
    draws, *inner = shape
    return torch.stack([standard_normal((rows, n, *inner), generator, device) for _ in range(draws)], 2)
