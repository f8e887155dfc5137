"""What is said to a controller of Universal Robots by hand, past ur-rtde: questions, a trial, a stop.

Formats: Universal Robots, "Real-Time Data Exchange (RTDE) Guide" and "Dashboard Server e-Series".
"""

import socket
import struct

from robopol.errors import RobotError

DASHBOARD, SCRIPT, RTDE = 29999, 30003, 30004
_SECONDS = 2.0


def ask(host: str, question: str) -> str:
    """Ask the dashboard.

    Raises:
        RobotError: If there is no controller, or no answer within 2 s.
    """
    try:
        with socket.create_connection((host, DASHBOARD), _SECONDS) as line:
            line.settimeout(_SECONDS)
            with line.makefile("rb") as heard:
                heard.readline()  # the greeting
                line.sendall(f"{question}\n".encode())
                answer = heard.readline().decode(errors="replace").strip()
    except OSError as error:
        raise RobotError(f"there is no controller at {host}: {error}") from error
    if not answer:
        raise RobotError(f"the dashboard of {host} does not answer '{question}'")
    return answer


def try_stream(host: str) -> None:
    """See that the controller streams its state: ur-rtde would wait for the first one without an end.

    Raises:
        RobotError: If no state came within 2 s of the last message before it.
    """
    try:
        with socket.create_connection((host, RTDE), _SECONDS) as line:
            line.settimeout(_SECONDS)
            for kind, body in ((b"V", b"\0\2"), (b"O", struct.pack(">d", 125.0) + b"timestamp"), (b"S", b"")):
                line.sendall(struct.pack(">H", len(body) + 3) + kind + body)
            while _message(line) != b"U":
                pass
    except OSError as error:
        raise RobotError(f"the controller at {host} sends no states: {error!r}") from error


def stop(host: str, deceleration: float, timeout: float) -> None:
    """Replace whatever program runs by one that brakes.

    Args:
        host: The controller.
        deceleration: rad/s^2.
        timeout: Longest time that it takes, s.

    Raises:
        RobotError: If the controller cannot be told.
    """
    try:
        with socket.create_connection((host, SCRIPT), timeout) as line:
            line.sendall(f"def robopol_stop():\n  stopj({deceleration})\nend\n".encode())
    except OSError as error:
        raise RobotError(f"the arm at {host} cannot be told to stop: {error}") from error


def _message(line: socket.socket) -> bytes:
    """Receive one RTDE message and return its kind."""
    head = _exactly(line, 3)
    _exactly(line, struct.unpack(">H", head[:2])[0] - 3)
    return head[2:]


def _exactly(line: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = line.recv(n - len(data))
        if not part:
            raise OSError("it closed the connection")
        data += part
    return data
