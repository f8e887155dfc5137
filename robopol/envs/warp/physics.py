"""One model simulated in many worlds by MuJoCo Warp, seen as torch tensors that share its memory."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from robopol.envs.engine import mujoco
from robopol.errors import EnvError, MissingExtraError

CONTACTS = 48
"""Room for contacts in a world, on average; the tasks have at most 20."""
CONSTRAINTS = 192
"""Room for the rows of constraints of each world; the tasks have at most 100."""

_STATE = {
    "TIME": "time",
    "QPOS": "qpos",
    "QVEL": "qvel",
    "ACT": "act",
    "WARMSTART": "qacc_warmstart",
    "CTRL": "ctrl",
    "QFRC_APPLIED": "qfrc_applied",
    "XFRC_APPLIED": "xfrc_applied",
    "EQ_ACTIVE": "eq_active",
    "MOCAP_POS": "mocap_pos",
    "MOCAP_QUAT": "mocap_quat",
}
"""The parts of MuJoCo's integration state that exist here -> the fields that hold them."""


def import_warp() -> tuple[Any, Any]:
    """Import warp and mujoco_warp.

    Raises:
        MissingExtraError: If they are not installed.
    """
    try:
        import mujoco_warp
        import warp
    except ImportError as error:
        raise MissingExtraError("mujoco-warp", "warp", "simulating many worlds as one") from error
    warp.config.log_level = warp.LOG_WARNING  # otherwise it tells of every kernel that it loads
    warp.init()
    return warp, mujoco_warp


class Physics:
    """Worlds of one model, stepped together.

    All tensors are on the device and share the simulator's memory; an operation on them takes effect in the
    order in which it was asked for, without the host waiting.

    Attributes:
        device: Where the tensors live.
        state_size: Length of MuJoCo's integration state.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        device: torch.device,
        steps: Sequence[int],
        finish: Sequence[str] = (),
        varied: Sequence[str] = (),
    ) -> None:
        """Copy the model to the device.

        Args:
            model: What is simulated. A solver that is not there is replaced by Newton's, which finds the
                same optimum.
            num_worlds: How many worlds.
            device: Where.
            steps: Physics steps under each of the successive controls of a call of `advance`.
            finish: Functions of mujoco_warp that are called after the steps.
            varied: Fields of the model that differ between the worlds.

        Raises:
            MissingExtraError: If MuJoCo Warp is not installed.
            EnvError: If it cannot simulate the model, or there is no such device.
        """
        self._warp, self._mjw = import_warp()
        try:
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", torch.cuda.current_device())
            self._place = self._warp.device_from_torch(device)
        except Exception as error:
            raise EnvError(f"there is no device '{device}' to simulate on: {error}") from error
        self.device = device
        solver, pgs = model.opt.solver, mujoco.mjtSolver.mjSOL_PGS
        try:
            model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON if solver == pgs else solver
            with self._warp.ScopedDevice(self._place):
                self._model = self._mjw.put_model(model, batch_sizes=dict.fromkeys(varied, num_worlds))
                self._data = self._mjw.make_data(model, num_worlds, nconmax=CONTACTS, njmax=CONSTRAINTS)
        except (NotImplementedError, ValueError) as error:
            raise EnvError(f"MuJoCo Warp cannot simulate this model: {error}; use backend='serial'") from error
        finally:
            model.opt.solver = solver
        limits = self._mjw.OverflowType.ITERATIONS | self._mjw.OverflowType.LS_ITERATIONS
        self._model.opt.warn_overflow = self._mjw.OverflowType.ALL & ~limits  # reaching those is no fault
        self._parts = self._state_parts(model, num_worlds)
        self.state_size = sum(part.shape[1] for part in self._parts)
        self._steps = tuple(steps)
        self._finish = [getattr(self._mjw, name) for name in finish]
        with self._warp.ScopedDevice(self._place):
            self._controls = self._warp.zeros((len(steps), num_worlds, model.nu), dtype=float)
        self._graph: Any = None

    def field(self, name: str) -> Tensor:
        """Return a field of ``mujoco.MjData`` by its name, (n, *its shape there) float32; matrices are (3, 3)."""
        tensor: Tensor = self._warp.to_torch(getattr(self._data, name))
        return tensor

    def model_field(self, name: str) -> Tensor:
        """Return a field of ``mujoco.MjModel`` that differs between the worlds, (n, *its shape there) float32."""
        tensor: Tensor = self._warp.to_torch(getattr(self._model, name))
        return tensor

    def read(self) -> Tensor:
        """Return MuJoCo's integration states, (n, state_size) float32, a copy."""
        return torch.cat([part.float() for part in self._parts], dim=1)

    def write(self, states: Tensor, where: Tensor) -> None:
        """Replace the states of some worlds.

        Args:
            states: (n, state_size).
            where: (n,) bool.
        """
        parts = states.split([part.shape[1] for part in self._parts], dim=1)
        for part, new in zip(self._parts, parts, strict=True):
            part.copy_(torch.where(where[:, None], new.to(part.dtype), part))

    def sane(self) -> Tensor:
        """Return which worlds have finite positions and velocities, (n,) bool."""
        return self.field("qpos").isfinite().all(1) & self.field("qvel").isfinite().all(1)

    def advance(self, controls: Tensor) -> None:
        """Step all worlds.

        Args:
            controls: The successive controls, (len(steps), n, nu).
        """
        self._warp.to_torch(self._controls).copy_(controls)
        with self.stream():
            if self._graph is not None:
                self._warp.capture_launch(self._graph)
                return
            self._run()
        # That loaded the kernels. From now on one launch replays them all, which on a CPU is some 50 times faster too.
        with self._warp.ScopedCapture(self._place) as capture:
            self._run()
        self._graph = capture.graph

    def call(self, name: str) -> None:
        """Call a function of mujoco_warp on all worlds, such as "kinematics"."""
        with self.stream():
            getattr(self._mjw, name)(self._model, self._data)

    def stream(self) -> AbstractContextManager[Any]:
        """Return the scope in which warp works in torch's order."""
        if self.device.type != "cuda":
            return nullcontext()
        scope: AbstractContextManager[Any] = self._warp.ScopedStream(
            self._warp.stream_from_torch(torch.cuda.current_stream(self.device))
        )
        return scope

    def _run(self) -> None:
        for piece, steps in enumerate(self._steps):
            self._warp.copy(self._data.ctrl, self._controls[piece])
            for _ in range(steps):
                self._mjw.step(self._model, self._data)
        for function in self._finish:
            function(self._model, self._data)

    def _state_parts(self, model: mujoco.MjModel, num_worlds: int) -> list[Tensor]:
        """Return the parts of the integration state in MuJoCo's order, (n, size) each."""
        whole: Callable[[str], int] = lambda name: int(getattr(mujoco.mjtState, f"mjSTATE_{name}"))  # noqa: E731
        parts, names = [], {whole(name): field for name, field in _STATE.items()}
        for bit in range(whole("INTEGRATION").bit_length()):
            kind = 1 << bit
            size = mujoco.mj_stateSize(model, kind) if kind & whole("INTEGRATION") else 0
            if size and kind not in names:
                raise EnvError(
                    f"the model keeps a state ({mujoco.mjtState(kind).name}) that MuJoCo Warp cannot restore"
                )
            if size:
                parts.append(self.field(names[kind]).view(num_worlds, size))
        return parts
