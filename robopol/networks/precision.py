"""Which arithmetic a run uses: precision, matrix-product kernels, threads; measured once, at the start.

On some CPUs ``torch.set_float32_matmul_precision("medium")`` only selects faster float32 kernels; on others
it computes in bfloat16. A second thread nearly doubles a large network's speed, and slows a small network or
a busy machine down. Neither can be known beforehand, so `RuntimeConfig.build` tries the settings that are not
pinned on a small training step. The choice changes the last bits of every result: a run records it
(`Runtime.pins`), and a resumed run passes the record back as its config.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.networks.allocator import keep_freed_memory

Matmul = Literal["highest", "medium"]
Precision = Literal["fp32", "bf16"]

ERROR_RATIO = 2.0
"""float32 kernels are accepted up to this multiple of the default kernels' rms error against float64."""
THREADS_GAIN = 1.4
"""Several threads are used only if they are this much faster than one; a busy neighbour undoes their gain."""
KERNEL_GAIN = 1.05
"""Other than the default kernels are used only if they are this much faster."""
BF16_GAIN = 1.3
"""With precision "auto", bfloat16 is used only if it is this much faster than float32."""
_BUDGET = 0.2  # seconds for all timed steps together


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        precision: Precision of the matrix products.
        matmul: Kernels for float32 matrix products.
        threads: Threads within an operation.
        step_ms: Median time of the training step, milliseconds.
        rms_error: Root mean square error of a product of standard normal matrices against float64.
        max_error: Largest error of that product.
    """

    precision: Precision
    matmul: Matmul
    threads: int
    step_ms: float
    rms_error: float
    max_error: float


@dataclass(frozen=True)
class Runtime:
    """The arithmetic of a run.

    Attributes:
        device: Where networks and data live, e.g. ``"cpu"`` or ``"cuda"``.
        precision: ``"bf16"`` runs matrix products in bfloat16 with float32 parameters.
        matmul: Kernels for float32 matrix products, see ``torch.set_float32_matmul_precision``.
        threads: Threads within an operation.
        trials: What was measured; empty where everything was pinned.
    """

    device: str
    precision: Precision
    matmul: Matmul
    threads: int
    trials: tuple[Trial, ...] = ()

    def apply(self) -> None:
        """Set torch's matmul kernels and threads, and let a CPU process keep the memory it frees.

        NumPy, which multiplies small matrices here, gets one thread: two pools of threads that wait busily for work
        keep each other from doing it.
        """
        torch.set_float32_matmul_precision(self.matmul)
        torch.set_num_threads(self.threads)
        threadpool_limits(1, "blas")
        if self.device == "cpu":
            keep_freed_memory()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a loss is computed; does nothing for ``"fp32"``."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)

    def pins(self) -> "RuntimeConfig":
        """Return the config that makes exactly this choice again, without measuring."""
        return RuntimeConfig(device=self.device, precision=self.precision, matmul=self.matmul, threads=self.threads)


class RuntimeConfig(Config):
    """What of a run's arithmetic is pinned, and what is measured (`"auto"`).

    Attributes:
        device: A torch device, or ``"auto"``: CUDA if there is one.
        precision: ``"fp32"``; ``"bf16"``: mixed precision; ``"auto"``: mixed precision where it is faster.
        matmul: Kernels for float32 products; ``"auto"``: the fastest with an error like the default kernels'.
        threads: Threads within an operation; ``"auto"``: one, unless all are clearly faster.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    matmul: Literal["auto", "highest", "medium"] = "auto"
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"

    def build(self, width: int = 512, batch: int = 256) -> Runtime:
        """Choose, measuring for some 0.3 s if something on a CPU is ``"auto"``.

        Args:
            width: Typical size of the network's hidden layers; above 512 counts as 512.
            batch: Typical batch size.

        Returns:
            The choice with all measurements. Torch's settings are as before; `Runtime.apply` changes them.

        Raises:
            ConfigError: If the device does not exist here.
        """
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        _check_device(device)
        if torch.device(device).type != "cpu":
            return Runtime(
                device,
                "bf16" if self.precision == "auto" else self.precision,
                "highest" if self.matmul == "auto" else self.matmul,
                torch.get_num_threads() if self.threads == "auto" else self.threads,
            )
        candidates = self._candidates()
        if len(candidates) == 1:
            return Runtime(device, *candidates[0])
        with _settings_kept():
            trials = _measure(candidates, width, batch)
        best = _choose(trials)
        return Runtime(device, best.precision, best.matmul, best.threads, tuple(trials))

    def _candidates(self) -> list[tuple[Precision, Matmul, int]]:
        """List the settings that the pins allow, the most conservative first."""
        precisions: list[Precision] = ["fp32", "bf16"] if self.precision == "auto" else [self.precision]
        threads = sorted({1, usable_cores()}) if self.threads == "auto" else [self.threads]
        candidates: list[tuple[Precision, Matmul, int]] = []
        for precision in precisions:
            matmuls: list[Matmul] = ["highest", "medium"] if self.matmul == "auto" else [self.matmul]
            if precision == "bf16":  # has one set of kernels
                matmuls = matmuls[:1]
            candidates += [(precision, m, n) for m in matmuls for n in threads]
        return candidates


def usable_cores() -> int:
    """Count the cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_device(device: str) -> None:
    """Raise a ConfigError unless a tensor can be made on the device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{device}' cannot be used here ({error}); use 'cpu' or 'auto'") from error


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Restore torch's matmul precision, threads and random state afterwards."""
    matmul, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.set_num_threads(threads)


def _measure(candidates: list[tuple[Precision, Matmul, int]], width: int, batch: int) -> list[Trial]:
    """Time every setting in turn, several rounds; measure the error of every kind of product."""
    width = min(width, 512)  # larger products behave alike and take longer
    torch.manual_seed(0)
    first = nn.Linear(width, width)
    network = nn.Sequential(first, nn.ReLU(), nn.Linear(width, width))
    data = torch.randn(batch, width)
    times: dict[tuple[Precision, Matmul, int], list[float]] = {c: [] for c in candidates}
    start = time.perf_counter()
    rounds = 0
    while rounds < 3 or (rounds < 20 and time.perf_counter() - start < _BUDGET):
        for candidate in candidates:
            _set(candidate)
            begin = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=candidate[0] == "bf16"):
                loss = network(data).sum()
            loss.backward()
            times[candidate].append(time.perf_counter() - begin)
        rounds += 1
    trials = []
    for candidate in candidates:
        _set(candidate)
        rms, largest = _product_error(candidate[0], data, first.weight.detach())
        kept = sorted(times[candidate][1:])  # the first round warms up
        trials.append(Trial(*candidate, 1e3 * kept[len(kept) // 2], rms, largest))
    return trials


def _set(candidate: tuple[Precision, Matmul, int]) -> None:
    """Set torch to one setting."""
    torch.set_float32_matmul_precision(candidate[1])
    torch.set_num_threads(candidate[2])


def _product_error(precision: Precision, left: Tensor, right: Tensor) -> tuple[float, float]:
    """Return rms and largest error of ``left @ right`` against float64; right is scaled to unit variance."""
    right = right / right.std()
    exact = left.double() @ right.double()
    if precision == "bf16":
        left, right = left.bfloat16(), right.bfloat16()
    error = (left @ right).double() - exact
    return error.square().mean().sqrt().item(), error.abs().max().item()


def _choose(trials: list[Trial]) -> Trial:
    """Pick the fastest setting whose float32 error is like the default kernels', each change handicapped."""
    exact = [t.rms_error for t in trials if (t.precision, t.matmul) == ("fp32", trials[0].matmul)]
    accurate = [t for t in trials if t.precision == "bf16" or t.rms_error <= ERROR_RATIO * min(exact)]

    def handicapped(trial: Trial) -> float:
        return (
            trial.step_ms
            * (THREADS_GAIN if trial.threads > 1 else 1)
            * (KERNEL_GAIN if trial.matmul == "medium" else 1)
            * (BF16_GAIN if trial.precision == "bf16" else 1)
        )

    return min(accurate, key=handicapped)
