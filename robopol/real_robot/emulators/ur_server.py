"""The outside of a Universal Robots controller: its dashboard, script and RTDE servers, on loopback addresses.

Formats: Universal Robots, "Real-Time Data Exchange (RTDE) Guide" and "Dashboard Server e-Series". The ports are fixed
in the vendors' clients, so several controllers on one machine have an address each, 127.0.0.N.
"""

import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from robopol.real_robot.emulators.ur import PERIOD, PLAYING, Controller

DASHBOARD, SCRIPT, RTDE = 29999, 30003, 30004
VERSION = (5, 12, 0, 1101319)
SERIAL = "20195500001"
_VECTORS = frozenset(
    (
        *("target_q", "target_qd", "actual_q", "actual_qd", "actual_current"),
        *("actual_TCP_force", "actual_TCP_pose", "actual_TCP_speed"),
    )
)
_DOUBLES = frozenset(("timestamp", "speed_scaling", "target_speed_fraction"))
_UNSIGNED = frozenset(("runtime_state", "robot_status_bits", "safety_status_bits"))
_PACKED = {"DOUBLE": ">d", "VECTOR6D": ">6d", "UINT32": ">I", "INT32": ">i"}
_SAFETY = {1: "NORMAL", 3: "PROTECTIVE_STOP", 7: "ROBOT_EMERGENCY_STOP", 9: "FAULT"}


def kind_of(name: str, controller: Controller) -> str:
    """Return the type of an RTDE field, or NOT_FOUND."""
    if name in _VECTORS:
        return "VECTOR6D"
    if name in _DOUBLES or name.startswith(("output_double_register_", "input_double_register_")):
        return "DOUBLE" if name in _DOUBLES or name in controller.outputs | controller.inputs else "NOT_FOUND"
    if name in _UNSIGNED:
        return "UINT32"
    known = name in controller.outputs or name in controller.inputs or name in ("robot_mode", "safety_mode")
    return "INT32" if known else "NOT_FOUND"


class Session:
    """One client of one of the servers."""

    def __init__(self, line: socket.socket, port: int) -> None:
        """Begin it."""
        self.line, self.port = line, port
        self.heard = bytearray()
        self.outputs: list[str] = []
        self.kinds: list[str] = []
        self.every, self.due, self.started = PERIOD, 0, False
        self.recipes: list[list[str]] = []
        self.told = b""


class URServer:
    """Serves one controller.

    Attributes:
        controller: What it serves.
        host: Its address.
        told: Of when the newest state is that was sent, ns.
    """

    def __init__(self, controller: Controller, host: str = "127.0.0.1") -> None:
        """Open its ports.

        Raises:
            OSError: If one of them is taken, or the address is none of this machine.
        """
        self.controller, self.host, self.told = controller, host, 0
        self._drawn, self._lost = -1, False
        self._listeners = {socket.create_server((host, port)): port for port in (DASHBOARD, SCRIPT, RTDE)}
        self._sessions: list[Session] = []
        self._handlers: dict[int, Callable[[Session], None]] = {
            DASHBOARD: self._dashboard,
            SCRIPT: self._script,
            RTDE: self._rtde,
        }

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until a client says something."""
        with suppress(ValueError):  # one that has just been closed by another thread
            select.select([*self._listeners, *(s.line for s in self._sessions)], [], [], seconds)

    def cycle(self, t: int) -> None:
        """Hear what clients have said, run up to ``t``, ns, and send what is due."""
        if self.controller.faults.deaf(t):
            return
        for listener, port in self._listeners.items():
            while select.select([listener], [], [], 0)[0]:
                line, _ = listener.accept()
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line.setblocking(False)
                self._sessions.append(session := Session(line, port))
                if port == DASHBOARD:
                    self._send(session, b"Connected: Universal Robots Dashboard Server\n")
        self.controller.advance(t)
        for session in list(self._sessions):
            self._hear(session)
        if due := [session for session in self._sessions if session.started and t >= session.due]:
            if t > self._drawn:  # while time stands still a state that is lost stays so
                self._drawn, self._lost = t, self.controller.faults.chance(self.controller.faults.drop)
            for session in due:
                session.due = max(session.due + session.every, t - session.every)
                if not self._lost:
                    self._tell(session)
        self._sessions = [s for s in self._sessions if s.line.fileno() >= 0]

    def repeat(self) -> None:
        """Say the last state once more: a client that hears nothing for long takes its line for lost."""
        if self.controller.faults.deaf(self.controller.t):
            return
        for session in self._sessions:
            if session.started:
                self._send(session, session.told)

    def close(self) -> None:
        """Close all connections and ports."""
        for session in self._sessions:
            session.line.close()
        for listener in self._listeners:
            listener.close()
        self._sessions = []

    def _hear(self, session: Session) -> None:
        try:
            while data := session.line.recv(65536):
                session.heard += data
            session.line.close()
        except BlockingIOError:
            pass
        except OSError:
            session.line.close()
        self._handlers[session.port](session)

    def _send(self, session: Session, data: bytes) -> None:
        with suppress(OSError):  # one that reads too slowly, or has gone, misses it
            session.line.send(data)

    def _dashboard(self, session: Session) -> None:
        while b"\n" in session.heard:
            line, _, rest = bytes(session.heard).partition(b"\n")
            session.heard[:] = rest
            self._send(session, (self._say(line.decode(errors="replace").strip()) + "\n").encode())

    def _say(self, words: str) -> str:
        state = self.controller.state()
        playing = self.controller.runtime == PLAYING
        if words == "stop":
            self.controller.end()
            return "Stopped"
        if words == "unlock protective stop":
            self.controller.unlock()
            return "Protective stop releasing"
        answers = {
            "PolyscopeVersion": "URSoftware {}.{}.{}.{} (Mar 22 2022)".format(*VERSION),
            "get serial number": SERIAL,
            "get robot model": "UR5",
            "is in remote control": "true",
            "robotmode": f"Robotmode: {'RUNNING' if state['robot_mode'] == 7 else 'POWER_OFF'}",
            "safetystatus": f"Safetystatus: {_SAFETY[state['safety_mode']]}",
            "running": f"Program running: {str(playing).lower()}",
            "programState": "PLAYING rtde_control" if playing else "STOPPED <unnamed>",
            "close safety popup": "closing safety popup",
            "quit": "Disconnected",
        }
        return answers.get(words, f"could not understand: '{words}'")

    def _script(self, session: Session) -> None:
        """Take a program, which is all lines up to the "end" of its "def", or one line alone."""
        text = session.heard.decode(errors="replace")
        whole = text.rstrip().endswith("\nend") if "def " in text else text.endswith("\n") and text.strip()
        if whole:
            session.heard.clear()
            self.controller.upload(text)

    def _rtde(self, session: Session) -> None:
        heard = session.heard
        while len(heard) >= 3 and len(heard) >= (size := struct.unpack(">H", heard[:2])[0]):
            kind, body = chr(heard[2]), bytes(heard[3:size])
            del heard[: max(size, 3)]
            answer = self._answer(session, kind, body)
            if answer is not None:
                self._send(session, packet(kind, answer))

    def _answer(self, session: Session, kind: str, body: bytes) -> bytes | None:
        if kind == "V":
            return bytes([struct.unpack(">H", body)[0] == 2])
        if kind == "v":
            return struct.pack(">4I", *VERSION)
        if kind == "O":
            session.outputs = body[8:].decode().strip(",").split(",")
            session.kinds = [kind_of(name, self.controller) for name in session.outputs]
            session.every = max(PERIOD, round(1e9 / struct.unpack(">d", body[:8])[0]))
            return bytes([1]) + ",".join(session.kinds).encode()
        if kind == "I":
            names = body.decode().strip(",").split(",")
            taken = {n for s in self._sessions if s is not session for recipe in s.recipes for n in recipe}
            kinds = ["IN_USE" if name in taken else kind_of(name, self.controller) for name in names]
            kinds = [kind if n in self.controller.inputs else "NOT_FOUND" for n, kind in zip(names, kinds, strict=True)]
            session.recipes.append([] if {"IN_USE", "NOT_FOUND"} & set(kinds) else names)
            return bytes([len(session.recipes)]) + ",".join(kinds).encode()
        if kind in "SP":
            session.started, session.due = kind == "S" and "NOT_FOUND" not in session.kinds, self.controller.t
            return bytes([kind == "P" or session.started])
        if kind == "U" and 0 < body[0] <= len(session.recipes):
            at, names = 1, session.recipes[body[0] - 1]
            for name in names:
                layout = _PACKED[kind_of(name, self.controller)]
                (self.controller.inputs[name],) = struct.unpack_from(layout, body, at)
                at += struct.calcsize(layout)
            self.controller.written(names)
        return None

    def _tell(self, session: Session) -> None:
        """Send the state."""
        state, body = self.controller.state(), bytes([1])
        for name, kind in zip(session.outputs, session.kinds, strict=True):
            value = state[name]
            body += struct.pack(_PACKED[kind], *(value if isinstance(value, np.ndarray) else (value,)))
        session.told, self.told = packet("U", body), round(state["timestamp"] * 1e9)
        self._send(session, session.told)


def packet(kind: str, body: bytes) -> bytes:
    """Make an RTDE message: its size, its kind, its body."""
    return struct.pack(">HB", len(body) + 3, ord(kind)) + body
