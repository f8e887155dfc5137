"""A connection to a policy's server."""

import socket
import struct
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NoReturn
from urllib.parse import urlsplit

from robopol.errors import MessageError, MissingExtraError, RemoteError
from robopol.policies.remote.message import MAX_BYTES, decode, encode
from robopol.policies.remote.protocol import Metadata
from robopol.policies.remote.token import HEADER, TOKEN, authorization, read_token

SHOWN = 300
"""Most characters that are shown of what a server says went wrong."""


class Connection:
    """Asks a server one thing after the other. It is opened when it is needed, also again after a fault.

    After any fault it is closed: an answer that comes too late would be taken for the next one.
    """

    def __init__(self, url: str, timeout: float, token_file: str | None) -> None:
        """Note where the server is; nothing is opened.

        Args:
            url: ``ws://host:port`` or ``wss://host:port``.
            timeout: Seconds to wait for it to accept, to take a message and to answer one.
            token_file: File that holds the token; None takes it from `TOKEN`, if that is set.
        """
        self.url, self.timeout, self.token_file = url, timeout, token_file
        self._socket: Any = None
        self._metadata: Metadata | None = None
        self._closing: weakref.finalize[Any, Any] | None = None

    @property
    def metadata(self) -> Metadata | None:
        """What the server says about itself; None if it is not one of robopol.

        Raises:
            ConfigError: If the token cannot be read.
            RemoteError: If there is no server, it refuses, or it says nothing that can be read.
        """
        if self._socket is None:
            self._open()
        return self._metadata

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer.

        Args:
            message: See `robopol.policies.remote.message`.

        Raises:
            MessageError: If the request cannot be sent.
            ConfigError: If the token cannot be read.
            RemoteError: If there is no answer in time, the connection breaks, or the answer is not a message.
        """
        data = encode(message)
        if self._socket is None:
            self._open()
        try:
            self._socket.send(data)
        except Exception as error:
            self._fail(error)
        return self._receive()

    def close(self) -> None:
        """Close, if it is open."""
        self._socket = None
        if self._closing is not None:
            self._closing()

    def _open(self) -> None:
        try:
            from websockets.sync.client import connect
        except ImportError as error:
            raise MissingExtraError("websockets", "remote", "a policy that is served elsewhere") from error
        token = read_token(self.token_file)
        where = urlsplit(self.url)
        port = where.port or (443 if where.scheme == "wss" else 80)
        opened = ExitStack()
        try:
            # A socket of our own: no proxy sees the token, and no redirection is followed.
            line = opened.enter_context(socket.create_connection((where.hostname or "", port), self.timeout))
            line.settimeout(None)
            seconds = int(self.timeout)
            wait = struct.pack("ll", seconds, int((self.timeout - seconds) * 1e6))
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)  # of sending, which websockets does not limit
            self._socket = opened.enter_context(
                connect(
                    self.url,
                    sock=line,
                    compression=None,
                    additional_headers=None if token is None else {HEADER: authorization(token)},
                    open_timeout=self.timeout,
                    close_timeout=1,
                    # A server that computes in its event loop answers no ping meanwhile.
                    ping_interval=None,
                    max_size=MAX_BYTES,
                )
            )
        except Exception as error:
            opened.close()
            self._fail(error)
        self._closing = weakref.finalize(self, opened.close)
        try:
            self._metadata = Metadata.read(self._receive())
        except MessageError as error:
            self._fail(error)

    def _receive(self) -> dict[str, Any]:
        try:
            came = self._socket.recv(self.timeout)
        except Exception as error:
            self._fail(error)
        if isinstance(came, str):  # by openpi's custom, the text of an error, and the server closes
            self.close()
            raise RemoteError(f"the policy at {self.url} failed: {_shown(came)}")
        try:
            return decode(came)
        except MessageError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """Close, and say in one sentence what went wrong."""
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

        self.close()
        cause = error.__cause__
        if isinstance(error, MessageError):
            text = f"sends what is not understood: {error}"
        elif isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
            text = f"refuses the token: put the right one into {TOKEN}, or into a file named by remote.token_file"
        elif isinstance(error, InvalidHandshake):
            text = f"speaks no websocket: {_shown(str(error))}"
        elif isinstance(error, TimeoutError | BlockingIOError) or isinstance(cause, TimeoutError | BlockingIOError):
            text = f"did not answer within {self.timeout:g} s: it may be busy, or want a longer remote.timeout"
        elif isinstance(error, ConnectionClosed):
            text = f"closed the connection: {_shown(str(cause or error))}"
        elif isinstance(error, OSError):
            text = f"cannot be reached: {error}. Is a server running there?"
        else:
            raise error
        raise RemoteError(f"the policy at {self.url} {text}") from error


def _shown(text: str) -> str:
    """Return the last line of what a server says, short and without what a terminal would obey."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(char if char.isprintable() else "?" for char in (lines or ["it does not say how"])[-1][:SHOWN])
