"""Servers of policies, robopol's own and stand-ins for others, in a thread, on the loopback."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from robopol.policies import Policy
from robopol.policies.remote.message import MAX_BYTES, decode, encode
from robopol.policies.remote.protocol import Request
from robopol.serving import Served, Server


@contextmanager
def serving(handle: Callable[[Any], None]) -> Iterator[str]:
    """Yield the address of a server that treats each connection by ``handle``."""

    def quietly(connection):
        with suppress(ConnectionClosed):
            handle(connection)

    options = {"compression": None, "max_size": MAX_BYTES, "close_timeout": 0.2}
    with serve(quietly, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def served(
    policy: Policy, batch: int = 16, proposals: int = 1024, asked: list[Request] | None = None, **options: Any
) -> Iterator[str]:
    """Yield the address of robopol's own server of a policy; what it is asked is put into a list."""
    found = Served(policy, batch, proposals)
    plan = found.plan

    def watched(request: Request) -> Tensor:
        if asked is not None:
            asked.append(request)
        return plan(request)

    found.plan = watched  # type: ignore[method-assign]
    with Server(found, **options) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server.url
        finally:
            server.stop()
            thread.join()


@torch.no_grad()
def from_noise(policy: Any, obs: dict[str, Tensor], noise: Tensor) -> Tensor:
    """Let a generative policy walk from noise (B, n, Tp, A), or with several draws (B, n, draws, Tp, A)."""
    rows, n = noise.shape[:2]
    drawn = iter([noise] if noise.dim() == 4 else noise.unbind(2))

    def draw() -> Tensor:
        return next(drawn).flatten(0, 1)

    cond = policy.observation(obs, policy.spec.n_obs_steps).repeat_interleave(n, 0)
    chunks = policy.sampler.sample(policy.walked, draw(), cond, draw)
    return policy.action_normalizer.unnormalize(chunks.unflatten(0, (rows, n)))


class PlainServer:
    """Serves a function as openpi's servers do.

    Attributes:
        asked: Every request that came.
    """

    def __init__(
        self, infer: Callable[[dict[str, Any]], dict[str, Any]], metadata: dict[str, Any] | None = None
    ) -> None:
        self.infer, self.metadata = infer, metadata or {}
        self.asked: list[dict[str, Any]] = []

    def __call__(self, connection: Any) -> None:
        connection.send(encode(self.metadata))
        for data in connection:
            self.asked.append(decode(data))
            connection.send(encode(self.infer(self.asked[-1])))


class Script:
    """Says prepared things, the first at once and each further one after a request, and closes."""

    def __init__(self, *lines: bytes | str) -> None:
        self.lines = lines

    def __call__(self, connection: Any) -> None:
        for index, line in enumerate(self.lines):
            if index:
                connection.recv()
            connection.send(line)


class Slow(Script):
    """The same, but instead of closing it waits until it is `over`."""

    def __init__(self, *lines: bytes | str) -> None:
        super().__init__(*lines)
        self.over = threading.Event()

    def __call__(self, connection: Any) -> None:
        super().__call__(connection)
        self.over.wait()
