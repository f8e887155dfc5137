"""A headless Chromium, spoken to by its DevTools protocol over a websocket."""

import base64
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
PATIENCE = 60  # s until what should happen has happened; on failure only


class Tab:
    """One page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count()
        self.faults: list[str] = []  # of the page's script
        self.ask("Runtime.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(PATIENCE))
            if told.get("method") == "Runtime.exceptionThrown":
                self.faults.append(told["params"]["exceptionDetails"]["exception"]["description"])
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    def value(self, script: str) -> Any:
        """Return the value of an expression, of JSON's kinds; a promise is waited for."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.value(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)

    def mouse(self, kind: str, at: list[float]) -> None:
        button = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": 1}
        self.ask("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **button)

    def drag(self, *places: list[float]) -> None:
        """Press the mouse at the first place, lead it over the others, and let it go at the last; pixels."""
        self.mouse("mousePressed", places[0])
        for place in places[1:]:
            self.mouse("mouseMoved", place)
        self.mouse("mouseReleased", places[-1])

    def click(self, selector: str) -> None:
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        self.drag(self.value(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})"))

    def picture(self) -> bytes:
        return base64.b64decode(self.ask("Page.captureScreenshot")["data"])


@contextmanager
def browsing(chromium: str, url: str, folder: Path, size: tuple[int, int] = (1180, 860)) -> Iterator[Tab]:
    """Yield a page that was opened at an address; ``folder`` takes the browser's own files."""
    words = [chromium, *FLAGS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}", "about:blank"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told, end = folder / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text().strip()):
            assert process.poll() is None, "chromium ended at once"
            assert time.monotonic() < end, "chromium says no port"
            time.sleep(0.05)
        with urlopen(f"http://127.0.0.1:{told.read_text().split()[0]}/json") as answer:
            target = next(tab for tab in json.load(answer) if tab["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            tab = Tab(socket)
            tab.ask("Page.navigate", url=url)
            yield tab
    finally:
        process.terminate()
        process.wait()
