"""The page and its server: HTTP on the loopback, JSON only, for whoever has the token."""

import hmac
import json
import secrets
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from queue import SimpleQueue
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from pydantic import Field

from robopol.config import Config, parse
from robopol.errors import ConfigError, RobopolError
from robopol.studio.session import Session, Which
from robopol.studio.wish import Wish

HOST = "127.0.0.1"
MAX_BYTES = 1 << 16
"""Longest request that is read."""
SCHEME = "Bearer "
"""What stands before the token in the header ``Authorization``."""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: itself, pictures in answers, and answers."""


class Nothing(Config):
    """A request that says nothing."""


class PlanRequest(Config):
    """What would the policy do?

    Attributes:
        wish: What steers it.
    """

    wish: Wish


class ExecuteRequest(PlanRequest):
    """Execute the beginning of a plan.

    Attributes:
        which: Whose.
    """

    which: Which = "steered"


class ResetRequest(Config):
    """Begin an episode.

    Attributes:
        seed: Of it; None is the next one.
    """

    seed: int | None = Field(None, ge=0, lt=1 << 31)


Route = tuple[type[Config], Callable[[Session, Any], Config]]
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/facts"): (Nothing, lambda session, asked: session.facts),
    ("GET", "/scene"): (Nothing, lambda session, asked: session.scene()),
    ("POST", "/plan"): (PlanRequest, lambda session, asked: session.plan(asked.wish)),
    ("POST", "/execute"): (ExecuteRequest, lambda session, asked: session.execute(asked.wish, asked.which)),
    ("POST", "/reset"): (ResetRequest, lambda session, asked: session.reset(asked.seed)),
}
"""Method and path -> what is asked, and who answers."""


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        """Say why, and with which status."""
        super().__init__(text)
        self.status = status


class Studio(ThreadingHTTPServer):
    """Serves a session.

    Requests are read in threads of their own. Everything that the session does happens in the thread of `run`, one
    thing after the other: an episode has one order, and OpenGL draws only where its context is.

    Attributes:
        session: The session.
        token: What every request must carry: in the URL of the page, else in the header ``Authorization``.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        """Listen.

        Args:
            session: What is served.
            port: Where; 0 is any free one.

        Raises:
            ConfigError: If nothing can listen there.
        """
        self.session, self.token = session, secrets.token_urlsafe(16)
        self._asked: SimpleQueue[tuple[Callable[[Session], Config], Future[Config]] | None] = SimpleQueue()
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be listened at ({error.strerror}): say port=0 for any free one"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/?token={self.token}"

    def run(self) -> None:
        """Serve until `stop`, or until this thread is interrupted."""
        listening = threading.Thread(target=self.serve_forever, args=(0.05,))
        listening.start()
        try:
            while (asked := self._asked.get()) is not None:
                what, answer = asked
                try:
                    answer.set_result(what(self.session))
                except Exception as error:  # whoever asked is told
                    answer.set_exception(error)
        finally:
            self.shutdown()
            listening.join()

    def stop(self) -> None:
        """Let `run` end once it has done what was asked before."""
        self._asked.put(None)

    def answer(self, what: Callable[[Session], Config]) -> Config:
        """Let the session do something in the thread of `run`, and wait for the answer."""
        answer: Future[Config] = Future()
        self._asked.put((what, answer))
        return answer.result()


class Handler(BaseHTTPRequestHandler):
    """Answers one request; see `ROUTES`."""

    server: Studio
    timeout: ClassVar[float] = 60.0  # s, for a client that says nothing

    def do_GET(self) -> None:
        """Answer."""
        self._respond()

    def do_POST(self) -> None:
        """Answer."""
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a line for each request would show the token."""

    def _respond(self) -> None:
        try:
            status, kind, body = 200, *self._answer()
        except Refusal as refusal:
            status, kind, body = refusal.status, "application/json", _fault(refusal)
        except RobopolError as error:
            status, kind, body = 400, "application/json", _fault(error)
        except (ConnectionError, TimeoutError):
            return  # the client is gone
        except Exception as error:
            traceback.print_exc()
            status, kind, body = 500, "application/json", _fault(f"an error within robopol: {error!r}")
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # a page that was left does not listen any more
            self.end_headers()
            self.wfile.write(body)

    def _answer(self) -> tuple[str, bytes]:
        """Return the kind of the answer, and the answer."""
        body = self._body()
        address = urlsplit(self.path)
        page = (self.command, address.path) == ("GET", "/")
        given = self.headers.get("Authorization", "").removeprefix(SCHEME)
        if page:
            given = parse_qs(address.query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            raise Refusal(403, "the token is missing or wrong: open the address that robopol steer printed")
        if page:
            return "text/html; charset=utf-8", files("robopol.studio").joinpath("page.html").read_bytes()
        if (self.command, address.path) not in ROUTES:
            raise Refusal(404, f"there is no {self.command} {address.path}")
        request, act = ROUTES[self.command, address.path]
        asked = parse(request, self._tree(body) if self.command == "POST" else {})
        answer = self.server.answer(lambda session: act(session, asked))
        return "application/json", answer.model_dump_json().encode()  # what is not finite becomes null

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise Refusal(411, "a request says how long it is by Content-Length")
        if int(length) > MAX_BYTES:
            self.rfile.read(min(int(length), 16 * MAX_BYTES))  # else the client would be cut off before it can read
            raise Refusal(413, f"the request has {length} bytes, and {MAX_BYTES} are the most that is read")
        return self.rfile.read(int(length))

    def _tree(self, body: bytes) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise Refusal(415, f"requests are application/json, got {self.headers.get_content_type()}")
        try:
            tree = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"the request is no JSON: {error}") from error
        if not isinstance(tree, dict):
            raise Refusal(400, f"a request is an object, got {type(tree).__name__}")
        return tree


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _fault(what: Any) -> bytes:
    return json.dumps({"error": str(what)}).encode()
