"""Simulated worlds that are advanced together, by threads."""

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.native.library import mujoco_library, pool_library
from robopol.errors import EnvError
from robopol.networks.precision import usable_cores


class _Plan(ctypes.Structure):
    """``struct plan`` of pool.c."""

    _fields_ = (
        ("step", ctypes.c_void_p),
        ("finish", ctypes.c_void_p),
        ("nu", ctypes.c_int64),
        ("segments", ctypes.c_int64),
        ("sources", ctypes.c_int64),
        ("repeats", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("worlds", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("control", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
    )


def copy_data(model: Any, source: Any, target: Any) -> None:
    """Copy a ``mujoco.MjData`` into another of the same model; MuJoCo's Python package cannot in every version."""
    mujoco_library().mj_copyData(*(ctypes.c_void_p(part._address) for part in (target, model, source)))


class Worlds:
    """Worlds of equal sizes and the threads that step them; the calling thread is one of these.

    Attributes:
        control: (worlds, segments, nu) float64: what the next call applies, one entry per slot that is
            advanced, in their order.
        rows: (worlds, W) float64: what the last call copied out, in the same order.
    """

    def __init__(
        self,
        worlds: Sequence[tuple[Any, Any]],
        repeats: Sequence[int],
        fields: Sequence[str] = (),
        finish: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Start the threads.

        Args:
            worlds: A ``mujoco.MjModel`` and a ``mujoco.MjData`` each; models may be shared, data not.
            repeats: Steps under each of the successive controls of a call.
            fields: Fields of the data to be copied out after a call, such as "qpos".
            finish: Function of MuJoCo that is called after the steps, such as "mj_kinematics".
            threads: How many; None is one per usable core, at most one per world.

        Raises:
            EnvError: If there are no native threads here; see `robopol.envs.native.why_not`.
        """
        library, physics = pool_library(), mujoco_library()
        self._data = [data for _, data in worlds]
        self._fields = tuple(fields)
        views = [[getattr(data, field) for field in self._fields] for data in self._data]
        nu = self._data[0].ctrl.size
        self.control = np.zeros((len(worlds), len(repeats), nu))
        ends = np.cumsum([0, *(view.size for view in views[0])]).tolist()
        self._columns = [
            (field, slice(start, end), view.shape)
            for field, start, end, view in zip(self._fields, ends, ends[1:], views[0], strict=False)
        ]
        self.rows = np.zeros((len(worlds), ends[-1]))
        self._slots = np.zeros(len(worlds), dtype=np.int64)
        # the plan holds addresses: whatever is there must live as long as it does
        self._held = (
            list(worlds),
            np.array(repeats, dtype=np.int64),
            np.array([view.size for view in views[0]], dtype=np.int64),
            np.array(
                [
                    [model._address, data._address, *(view.ctypes.data for view in (data.ctrl, *copied))]
                    for (model, data), copied in zip(worlds, views, strict=True)
                ],
                dtype=np.uintp,
            ),
        )
        _, counts, sizes, addresses = self._held
        self._plan = _Plan(
            ctypes.cast(physics.mj_step, ctypes.c_void_p),
            ctypes.cast(physics[finish], ctypes.c_void_p) if finish else None,
            nu,
            len(repeats),
            len(self._fields),
            *(a.ctypes.data for a in (counts, sizes, addresses, self._slots, self.control, self.rows)),
        )
        self._reference = ctypes.addressof(self._plan)
        self._advance = library.robopol_advance
        if threads is None:
            threads = usable_cores()
        self._pool = library.robopol_pool_new(len(worlds), min(threads, len(worlds)) - 1)
        if not self._pool:
            raise EnvError("no memory for native threads")
        # runs at the latest when the interpreter ends
        self._end = weakref.finalize(self, library.robopol_pool_free, self._pool)

    def advance(self, slots: Sequence[int]) -> NDArray[np.float64]:
        """Apply `control` to some worlds and step them.

        Args:
            slots: Distinct worlds, checked by the caller.

        Returns:
            The fields afterwards, (len(slots), W): a view of `rows`, valid until the next call.

        Raises:
            EnvError: If MuJoCo could not go on with one of them, or this was closed.
        """
        if not self._end.alive:
            raise EnvError("these environments were closed")
        count = len(slots)
        self._slots[:count] = slots
        complaint = self._advance(self._pool, self._reference, count)
        if complaint:
            raise EnvError(f"MuJoCo gave up: {complaint.decode(errors='replace')}")
        return self.rows[:count]

    def read(self, slot: int) -> NDArray[np.float64]:
        """Return the fields of a world as they are, (W,)."""
        data = self._data[slot]
        return np.concatenate([getattr(data, field).ravel() for field in self._fields])

    def fields(self, rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Split rows (n, W) into the fields that they are made of, (n, *shape) each: views."""
        return {field: rows[:, columns].reshape(len(rows), *shape) for field, columns, shape in self._columns}

    def close(self) -> None:
        """End the threads; closing twice is harmless."""
        self._end()
