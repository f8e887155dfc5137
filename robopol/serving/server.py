"""The server: websockets, one plan after the other, for whoever has the token."""

import hmac
import ipaddress
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from struct import pack
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from robopol.errors import ConfigError, MessageError, MissingExtraError, RemoteError, RobopolError
from robopol.policies.remote.message import MAX_BYTES, decode, encode
from robopol.policies.remote.protocol import Request
from robopol.policies.remote.token import HEADER, TOKEN, authorization
from robopol.serving.served import Served

PATIENCE = 60
"""Seconds that a client may take to read an answer, or to answer a ping."""
FAREWELL = 2.0
"""Seconds that clients have to take leave when the server ends."""
GLANCE = 0.5
"""Seconds after which who waits for a request looks up: a signal that came just before the wait is seen then."""
Result = TypeVar("Result")
ENDED = RemoteError("the server ends")
_QUIET = logging.Logger(__name__, logging.CRITICAL)  # who knocks and goes away again is no news


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer(served: Served, request: Request) -> bytes:
    begun = time.perf_counter()
    windows = served.plan(request).numpy()
    timing = {"server_timing": {"infer_ms": 1000 * (time.perf_counter() - begun)}}
    return encode(request.answer(windows, served.metadata.spec.n_obs_steps) | timing)


class Server:
    """Serves a policy.

    Messages are read in a thread for each client. The policy plans in the thread of `run`, one request after the other.
    A client has one request under way at a time, so that no more than ``clients`` of them ever wait. A request that
    makes no sense is answered by one text that says why, and the connection goes on.

    A connection is to one policy for as long as it lasts. Another one may take its place (`swap`) for those who come
    from then on, so nobody is ever answered by other weights than those that the first message named.

    Pages in a browser may open connections to this machine too. They say where they are from, and are refused.

    Attributes:
        served: What is served to those who come now.
    """

    def __init__(
        self, served: Served, host: str = "127.0.0.1", port: int = 0, *, token: str | None = None, clients: int = 16
    ) -> None:
        """Listen; clients are answered once it runs.

        Args:
            served: What is served.
            host: The address to listen at.
            port: The same; 0 is any free one.
            token: What clients must know; None is nothing.
            clients: Most that are connected at a time.

        Raises:
            ConfigError: If nothing can listen there, or others could reach it without a token.
            MissingExtraError: If websockets or msgpack is not installed.
        """
        if token is None and not is_loopback(host):
            raise ConfigError(
                f"whoever reaches {host} could use the policy: put a token of your choice into {TOKEN}, or into a file "
                "named by token_file, or listen at host=127.0.0.1 and come through a tunnel"
            )
        try:
            import websockets  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("websockets", "remote", "serving a policy") from error
        self.served, self._token, self._clients = served, token, clients
        self._asked: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._lock = threading.Condition()
        self._talking: set[Any] = set()
        self._answering = 0
        self._over = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigError(
                f"{host} port {port} cannot be listened at ({error.strerror}): say port=0 for any free one"
            ) from error

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self._socket.getsockname()[:2]
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        self._socket.close()

    def run(self) -> None:
        """Serve until `stop`; what was asked before is answered."""
        from websockets.sync.server import serve

        torch.get_num_threads()  # outside the main thread, products use every core until this was asked once
        with serve(
            self._talk,
            sock=self._socket,
            process_request=self._admit,
            origins=[None],
            compression=None,
            max_size=MAX_BYTES,
            max_queue=1,
            ping_timeout=PATIENCE,
            close_timeout=1,
            logger=_QUIET,
        ) as listener:
            listening = threading.Thread(target=listener.serve_forever)
            listening.start()
            try:
                while True:
                    try:
                        asked = self._asked.get(timeout=GLANCE)
                    except Empty:
                        continue
                    if asked is None:
                        break
                    job, answer = asked
                    try:
                        answer.set_result(job())
                    except BaseException as error:  # whoever asked is told
                        answer.set_exception(error if isinstance(error, Exception) else ENDED)
                        if not isinstance(error, Exception):
                            raise
            finally:
                self._end()
                listener.shutdown()
                listening.join()

    def stop(self) -> None:
        """Let `run` end once it has answered what was asked before; a signal's handler may call it."""
        self._asked.put(None)

    def do(self, job: Callable[[], Result]) -> Result:
        """Run something in the thread of `run`, when it is its turn, and return what it returns.

        Raises:
            RemoteError: If the server ends.
        """
        answer = Future[Result]()
        with self._lock:
            if self._over:
                raise ENDED
            self._asked.put((job, answer))
        return answer.result()

    def swap(self, served: Served) -> None:
        """Serve another policy to those who come from now on; those who are there go on with the one that they have."""
        self.served = served

    def _admit(self, connection: Any, request: Any) -> Any:
        """Refuse who does not have the token, and who is too many."""
        if self._token is not None:
            came = request.headers.get_all(HEADER)
            wanted = authorization(self._token).encode()
            given = came[0].encode("utf-8", "replace") if len(came) == 1 else b""
            if not hmac.compare_digest(given, wanted):
                return connection.respond(401, "the token is missing or wrong\n")
        if len(self._talking) >= self._clients:
            return connection.respond(503, f"{self._clients} clients are connected, and no more are served\n")
        return None

    def _talk(self, connection: Any) -> None:
        """Answer one client."""
        from websockets.exceptions import ConnectionClosed

        with self._lock:
            if self._over or len(self._talking) >= self._clients:
                return
            self._talking.add(connection)
        served = self.served
        try:
            # else one that reads nothing would hold this thread for ever
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, pack("ll", PATIENCE, 0))
            connection.send(encode(served.metadata.message()))
            for data in connection:
                self._respond(connection, data, served)
        except (ConnectionClosed, OSError):
            pass
        finally:
            with self._lock:
                self._talking.discard(connection)

    def _respond(self, connection: Any, data: bytes | str, served: Served) -> None:
        """Answer one message."""
        with self._lock:
            self._answering += 1
        try:
            reply: bytes | str = self._reply(data, served)
        except RobopolError as error:
            reply = str(error)
        except Exception as error:
            traceback.print_exc()
            reply = f"an error within robopol: {error!r}"
        try:
            connection.send(reply)
        finally:
            with self._lock:
                self._answering -= 1
                self._lock.notify_all()

    def _reply(self, data: bytes | str, served: Served) -> bytes:
        if isinstance(data, str):
            raise MessageError("a request is a binary message: docs/other-policies.md has the format")
        request = Request.read(decode(data), served.metadata)
        return self.do(lambda: _answer(served, request))

    def _end(self) -> None:
        """Answer what is under way, refuse what came too late, and close all connections."""
        with self._lock:
            self._over = True
        while not self._asked.empty():
            if (asked := self._asked.get()) is not None:
                asked[1].set_exception(ENDED)
        with self._lock:
            self._lock.wait_for(lambda: self._answering == 0, FAREWELL)
            talking = list(self._talking)
        leaving = [threading.Thread(target=connection.close, args=(1001, "the server ends")) for connection in talking]
        for thread in leaving:
            thread.start()
        for thread in leaving:
            thread.join(FAREWELL)
        for connection in talking:  # those that do not take leave
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
