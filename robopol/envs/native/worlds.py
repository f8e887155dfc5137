"""Simulated worlds that are advanced together, by threads."""

import ctypes
import math
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
        ("begin", ctypes.c_void_p),
        ("step", ctypes.c_void_p),
        ("finish", ctypes.c_void_p),
        ("segments", ctypes.c_int64),
        ("targets", ctypes.c_int64),
        ("sources", ctypes.c_int64),
        ("repeats", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("worlds", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("given", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
    )


def copy_data(model: Any, source: Any, target: Any) -> None:
    """Copy a ``mujoco.MjData`` into another of the same model; MuJoCo's Python package cannot in every version."""
    mujoco_library().mj_copyData(*(ctypes.c_void_p(part._address) for part in (target, model, source)))


class Worlds:
    """Worlds of equal sizes and the threads that step them; the calling thread is one of these.

    Attributes:
        control: (worlds, segments, nu) float64: what the next `advance` applies, one entry per slot that is
            advanced, in their order.
        start: (worlds, S) float64: the fields of a start side by side, for the next `restart`; in the same order.
        rows: (worlds, W) float64: what the last call copied out, in the same order.
    """

    def __init__(
        self,
        worlds: Sequence[tuple[Any, Any]],
        repeats: Sequence[int],
        fields: Sequence[str] = (),
        finish: str | None = None,
        threads: int | None = None,
        starts: Sequence[str] = (),
    ) -> None:
        """Start the threads.

        Args:
            worlds: A ``mujoco.MjModel`` and a ``mujoco.MjData`` each; models may be shared, data not.
            repeats: Steps under each of the successive controls of a call.
            fields: Fields of the data to be copied out after a call, such as "qpos".
            finish: Function of MuJoCo that is called after the steps, such as "mj_kinematics".
            threads: How many; None is one per usable core, at most one per world.
            starts: Fields that say where a world starts; the others are as MuJoCo resets them.

        Raises:
            EnvError: If there are no native threads here; see `robopol.envs.native.why_not`.
        """
        library = pool_library()
        self._worlds = list(worlds)
        self._fields = tuple(fields)
        self._columns = []
        end = 0
        for field in self._fields:
            shape = getattr(worlds[0][1], field).shape
            begin, end = end, end + math.prod(shape)
            self._columns.append((field, slice(begin, end), shape))
        self.rows = np.zeros((len(worlds), end))
        self._slots = np.zeros(len(worlds), dtype=np.int64)
        self._held: list[Any] = []
        self.control, self._steps = self._plan(repeats, ("ctrl",), None, "mj_step", finish)
        start, self._starts = self._plan([1], starts, "mj_resetData", "mj_forward", None)
        self.start = start[:, 0]
        self._advance = library.robopol_advance
        if threads is None:
            threads = usable_cores()
        self._pool = library.robopol_pool_new(len(worlds), min(threads, len(worlds)) - 1)
        if not self._pool:
            raise EnvError("no memory for native threads")
        # runs at the latest when the interpreter ends
        self._end = weakref.finalize(self, library.robopol_pool_free, self._pool)

    def _plan(
        self, repeats: Sequence[int], targets: Sequence[str], begin: str | None, step: str, finish: str | None
    ) -> tuple[NDArray[np.float64], int]:
        """Return an array (worlds, segments, sum of the targets' sizes) and the address of the plan that reads it."""
        physics = mujoco_library()
        views = [[np.asarray(getattr(data, field)) for field in (*targets, *self._fields)] for _, data in self._worlds]
        sizes = np.array([view.size for view in views[0]], dtype=np.int64)
        counts = np.array(repeats, dtype=np.int64)
        addresses = np.array(
            [
                [model._address, data._address, *(view.ctypes.data for view in seen)]
                for (model, data), seen in zip(self._worlds, views, strict=True)
            ],
            dtype=np.uintp,
        )
        given = np.zeros((len(views), len(counts), int(sizes[: len(targets)].sum())))
        functions = [ctypes.cast(physics[name], ctypes.c_void_p) if name else None for name in (begin, step, finish)]
        plan = _Plan(
            *functions,
            len(counts),
            len(targets),
            len(self._fields),
            *(a.ctypes.data for a in (counts, sizes, addresses, self._slots, given, self.rows)),
        )
        self._held += [plan, counts, sizes, addresses]  # addresses are held: what is there must live as long as this
        return given, ctypes.addressof(plan)

    def advance(self, slots: Sequence[int]) -> NDArray[np.float64]:
        """Apply `control` to some worlds and step them.

        Args:
            slots: Distinct worlds, checked by the caller.

        Returns:
            The fields afterwards, (len(slots), W): a view of `rows`, valid until the next call.

        Raises:
            EnvError: If MuJoCo could not go on with one of them, or this was closed.
        """
        return self._call(self._steps, slots)

    def restart(self, slots: Sequence[int]) -> NDArray[np.float64]:
        """Reset some worlds, put them at `start` and let MuJoCo derive the rest (``mj_forward``).

        Args:
            slots: As in `advance`.

        Returns:
            As `advance`.

        Raises:
            EnvError: As in `advance`.
        """
        return self._call(self._starts, slots)

    def _call(self, plan: int, slots: Sequence[int]) -> NDArray[np.float64]:
        if not self._end.alive:
            raise EnvError("these environments were closed")
        count = len(slots)
        self._slots[:count] = slots
        complaint = self._advance(self._pool, plan, count)
        if complaint:
            raise EnvError(f"MuJoCo gave up: {complaint.decode(errors='replace')}")
        return self.rows[:count]

    def read(self, slot: int) -> NDArray[np.float64]:
        """Return the fields of a world as they are, (W,)."""
        _, data = self._worlds[slot]
        return np.concatenate([getattr(data, field).ravel() for field in self._fields])

    def fields(self, rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Split rows (n, W) into the fields that they are made of, (n, *shape) each: views."""
        return {field: rows[:, columns].reshape(len(rows), *shape) for field, columns, shape in self._columns}

    def close(self) -> None:
        """End the threads; closing twice is harmless."""
        self._end()
