"""A sampler whose walks a GPU repeats by itself: each is captured in a CUDA graph once, and replayed from then on.

A small network's kernels are done before Python has launched the next one. A graph launches all of them in one call.
What it repeats is a fixed list of kernels on fixed memory: noise is drawn before it, observations and noise are copied
into the memory that it reads, and the chunks out of the one that it writes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from robopol.errors import ConfigError, RobopolError
from robopol.networks.denoiser import Denoiser
from robopol.policies.field import Field
from robopol.policies.guidance import GuidedField
from robopol.policies.paths import Level, Path
from robopol.policies.samplers.sampler import Draw, Hook, Kernel, Sampler, Stepper, Table, Visit

KEPT = 8
"""Numbers of rows whose graphs are kept, each with the memory of a walk."""

WARM_UPS = 3
"""Walks before a capture, in which libraries choose their kernels and allocate what they keep."""


class Recording(NamedTuple):
    """A walk that can be repeated.

    Attributes:
        cond: The observations that it reads, (B, To, D).
        noises: The noise that it reads, start first, (draws, B, Tp, A).
        chunks: Where it leaves the chunks, (B, Tp, A).
        replay: Repeats it.
    """

    cond: Tensor
    noises: Tensor
    chunks: Tensor
    replay: Callable[[], None]


class Captured(Sampler[Any]):
    """Walks as another sampler does, equal to it up to rounding, for one policy that is only to act."""

    repeats = False  # a graph has no place for what happens between two steps

    def __init__(self, sampler: Sampler[Any], device: torch.device) -> None:
        """Prepare to capture.

        Args:
            sampler: What walks.
            device: Where the policy is.

        Raises:
            ConfigError: If there is no CUDA, or the sampler's walks are not fixed lists of kernels.
        """
        super().__init__(sampler.config)
        if device.type != "cuda":
            raise ConfigError(
                f"a CUDA graph needs a policy on a CUDA device, and this one is on {device}: say device=cuda where "
                "there is one; elsewhere policy.backend=packed or policy.backend=compile"
            )
        if sampler.config.kind == "diffusers":
            raise ConfigError(
                "a scheduler of diffusers reads values on its way and draws its noise itself, which a CUDA graph "
                "cannot repeat: choose another policy.sampler, e.g. ddim or dpm_solver"
            )
        self._sampler = sampler
        self._recordings: dict[Any, Recording] = {}
        self._draws: int | None = None

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Raise a RobopolError, for ``pickle`` and ``copy``."""
        raise RobopolError("captured walks cannot be copied or pickled: load the policy anew for that")

    def sample(
        self,
        field: Field,
        noise: Tensor,
        cond: Tensor,
        draw: Draw,
        *,
        hook: Hook | None = None,
        kernel: Kernel | None = None,
    ) -> Tensor:
        """See `Sampler.sample`; the first walk for a number of rows captures it, which takes some walks' time.

        Raises:
            ConfigError: If something would look at the steps or change them, or the field is a steered one.
            RobopolError: If a gradient would be wanted, which a graph does not record.
        """
        if hook is not None or kernel is not None or type(field) not in (Field, GuidedField):
            self._refuse()
        if torch.is_grad_enabled() and (noise.requires_grad or cond.requires_grad):
            raise RobopolError("captured walks cannot be differentiated: load the policy anew for that")
        with torch.no_grad():
            if self._draws is None:
                self._draws = count_draws(self._sampler, field, noise)
            noises = torch.stack([noise, *(draw() for _ in range(self._draws - 1))])
            recording = self._recorded(field, cond, noises)
            recording.cond.copy_(cond)
            recording.noises.copy_(noises)
            recording.replay()
            return recording.chunks.clone()  # the next walk writes there again

    def _recorded(self, field: Field, cond: Tensor, noises: Tensor) -> Recording:
        """Return the walk of a field for these shapes, recorded now if it is the first."""
        pull = field.weight if isinstance(field, GuidedField) else None
        key = (field.net, pull, noises.shape, cond.shape)  # the network itself, so that its weights stay where they are
        if key not in self._recordings:
            while len(self._recordings) >= KEPT:
                del self._recordings[next(iter(self._recordings))]  # the oldest one
            self._recordings[key] = self._record(field, cond, noises)
        return self._recordings[key]

    def _record(self, field: Field, cond: Tensor, noises: Tensor) -> Recording:
        """Make a walk of these shapes that can be repeated."""
        with torch.inference_mode(False):  # what is written into again and again, in whatever mode
            mine, drawn = torch.empty_like(cond), torch.empty_like(noises)
        mine.copy_(cond)
        drawn.copy_(noises)

        def walk() -> Tensor:
            rest = iter(drawn[1:].unbind())
            return self._sampler.sample(field, drawn[0], mine, lambda: next(rest))

        return Recording(mine, drawn, *capture(walk, cond.device))

    def walk(
        self,
        field: Field,
        x: Tensor,
        cond: Tensor,
        draw: Draw,
        *,
        first: int = 0,
        hook: Hook | None = None,
        kernel: Kernel | None = None,
    ) -> Tensor:
        """Refuse: a graph is of a whole walk.

        Raises:
            ConfigError: Always.
        """
        self._refuse()

    def table(self, field: Field) -> Table[Any]:
        """See `Sampler.table`."""
        return self._sampler.table(field)

    def times(self, path: Path) -> Tensor:
        """See `Sampler.times`."""
        return self._sampler.times(path)

    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        self._refuse()

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Any]:
        return self._sampler._rows(field, visits, levels)

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "a CUDA graph repeats a whole walk of the policy's own field, and nothing can look at its steps, change "
            "them or begin in the middle: leave policy.backend=cuda_graph out, or use policy.backend=compile"
        )


def capture(walk: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Callable[[], None]]:
    """Capture what a function does to fixed memory, by torch's recipe: warm up on a stream beside, then record.

    Args:
        walk: It allocates nothing but what it returns or forgets, and waits for no value.
        device: A CUDA device.

    Returns:
        Where its result lies, and what computes it anew.

    Raises:
        ConfigError: If it cannot be captured.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                walk()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                result = walk()
        except RuntimeError as error:
            raise ConfigError(
                f"the policy's walk cannot be captured in a CUDA graph: {error}; policy.backend=compile can take what "
                "waits for values on its way"
            ) from error
    return result, graph.replay


class _Silent(Denoiser):
    """Says nothing, for walks of which only the draws count."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Return zeros like ``x``."""
        return torch.zeros_like(x)


def count_draws(sampler: Sampler[Any], field: Field, noise: Tensor) -> int:
    """Return how many tensors of noise a walk takes, the one that it begins from included.

    Args:
        sampler: What walks.
        field: The field; it is not asked.
        noise: Noise for some rows, (B, Tp, A).
    """
    draws, still = 1, torch.zeros(1, *noise.shape[1:])

    def draw() -> Tensor:
        nonlocal draws
        draws += 1
        return still

    sampler.sample(Field(_Silent(), field.path, field.prediction), still, still, draw)
    return draws
