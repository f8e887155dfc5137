"""A denoiser whose step torch.compile has made of a few kernels.

What is compiled is what is left of a network at one time of a walk (`Denoiser.step`): the same code for all times.
Compiling takes as long for a hundred steps as for one, and whatever walks or steers the network finds it as before.
"""

from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from robopol.errors import ConfigError
from robopol.networks.acting import ActingDenoiser
from robopol.networks.denoiser import Denoiser, Walk
from robopol.networks.fine_tuned import FineTunedDenoiser

_NUMBERS = count()  # two pieces of code that differ in nothing are one to torch


def compiled(net: Denoiser, compiler: str = "inductor") -> Denoiser:
    """Return a denoiser that shares the weights of another one and computes its steps by compiled code.

    It is compiled when it is first asked: for one row, for a first number of rows above one, and once more for all
    others. Numbers differ by rounding alone.

    Args:
        net: The denoiser, on any device. It is put into evaluation mode.
        compiler: A backend of ``torch.compile``.
    """
    if isinstance(net, FineTunedDenoiser):  # which of the two answers depends on the time
        return FineTunedDenoiser(compiled(net.base, compiler), compiled(net.tuned, compiler), net.times)
    return CompiledDenoiser(net, compiler)


class CompiledDenoiser(ActingDenoiser):
    """See `compiled`."""

    def __init__(self, net: Denoiser, compiler: str) -> None:
        """Prepare to compile; see `compiled`."""
        super().__init__(net, "compiled networks")
        self._compiler = compiler
        step = net.step()

        def take(x: Tensor, *told: Tensor) -> Tensor:
            return step(x, *told)

        # torch keeps what it compiles with a function's code, and only so many of it: each network has code of its own
        code = take.__code__.replace(co_name=f"step_{next(_NUMBERS)}")
        own = FunctionType(code, take.__globals__, closure=take.__closure__)
        # on a CPU weights that are constants are packed, as by `robopol.networks.packed`
        frozen = compiler == "inductor" and next(net.parameters()).device.type == "cpu"
        options: dict[str, Any] | None = {"freezing": True} if frozen else None
        self._step = torch.compile(own, backend=compiler, fullgraph=True, options=options)

    def _walk(self, t: Tensor, cond: Tensor) -> Walk:
        told = self.net.told(self.of_times(t), cond)
        return lambda x, i: self._compute(x, *told[i])

    def _compute(self, x: Tensor, *told: Tensor) -> Tensor:
        """Take a step.

        Raises:
            ConfigError: If torch cannot compile it.
        """
        try:
            prediction: Tensor = self._step(x, *told)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            first = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"torch.compile ({self._compiler}) cannot compile the network: {first}. On a CPU it needs a C++ "
                "compiler, on a GPU Triton; policy.backend=packed and policy.backend=cuda_graph need neither"
            ) from error
        return prediction
