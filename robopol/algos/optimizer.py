"""AdamW as one fused call a step, its memory a plain dict of tensors.

The same kernel and the same numbers as ``torch.optim.AdamW(fused=True)`` (a test says so). That class imports torch's
compiler when it is made, which takes over a second, and spends longer than the kernel on book-keeping for small
networks; and its memory has to be taken apart before it can be stored without pickling.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), decaying matrices only.

    Vectors, i.e. biases and the scales of normalisations, are not decayed.
    """

    def __init__(
        self, params: Sequence[Tensor], betas: tuple[float, float], weight_decay: float, eps: float = 1e-8
    ) -> None:
        """Take over parameters.

        Args:
            params: What is trained, on the device it stays on.
            betas: Decay rates of the two moments.
            weight_decay: Times the learning rate, the share of a matrix that is taken away at each step.
            eps: Added to the root of the second moment.
        """
        self.betas, self.eps = betas, eps
        matrices, vectors = [p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]
        self._ordered = [*matrices, *vectors]
        self._first = [torch.zeros_like(p) for p in self._ordered]
        self._second = [torch.zeros_like(p) for p in self._ordered]
        # of all parameters together, so that those that move together are counted at once
        self._all_steps = torch.zeros(len(self._ordered), device=self._ordered[0].device if self._ordered else None)
        self._steps = list(self._all_steps.unbind())
        decaying, rest = slice(len(matrices)), slice(len(matrices), None)
        # one call for all where nothing decays
        self._groups = [(decaying, weight_decay), (rest, 0.0)] if weight_decay else [(slice(None), 0.0)]

    @property
    def size(self) -> int:
        """How many entries the parameters have together."""
        return sum(p.numel() for p in self._ordered)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters that have a gradient, and forget the gradients.

        Args:
            lr: Learning rate.
        """
        gradients = [p.grad for p in self._ordered]
        whole = not any(gradient is None for gradient in gradients)
        if whole:
            self._all_steps += 1
        columns = self._ordered, gradients, self._first, self._second, self._steps
        for part, weight_decay in self._groups:
            moved: Any = [column[part] for column in columns]
            if not whole:
                moved = [*zip(*(row for row in zip(*moved, strict=True) if row[1] is not None), strict=True)]
                if not moved:
                    continue
                torch._foreach_add_(moved[4], 1)
            _move(moved, lr, self.betas, weight_decay, self.eps)
        for p in self._ordered:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return the memory: ``<index of the parameter>.<name>`` -> tensor."""
        memory = {"first": self._first, "second": self._second, "step": self._steps}
        return {f"{i}.{name}": part[i] for i in range(len(self._ordered)) for name, part in memory.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])


class Gathered:
    """What an `AdamW` without decay moves and remembers, as one vector each, for many small steps that move all of it.

    Between `begin` and `end` nothing else may move, or look at, the parameters.

    Attributes:
        weights: Parameter -> its place in the vector of the weights.
        gradients: Parameter -> its place in that of the gradients, to be filled before a step.
    """

    def __init__(self, optimizer: AdamW, gradients: Tensor) -> None:
        """Make the vectors.

        Args:
            optimizer: Of the parameters, all of which have been moved equally often.
            gradients: (P,), the vector of the gradients, as large as the parameters together.
        """
        self._optimizer, self._gradients = optimizer, gradients
        self._weights, self._first, self._second = (torch.empty_like(gradients) for _ in range(3))
        self._step = torch.zeros((), device=gradients.device)
        params = optimizer._ordered
        self.weights = dict(zip(params, _places(self._weights, params), strict=True))
        self.gradients = dict(zip(params, _places(gradients, params), strict=True))
        self._own = [*self.weights.values(), *_places(self._first, params), *_places(self._second, params)]
        self._its = [*(p.detach() for p in params), *optimizer._first, *optimizer._second]

    def begin(self) -> None:
        """Take over how things stand."""
        torch._foreach_copy_(self._own, self._its)
        self._step.copy_(self._optimizer._all_steps[0])

    def step(self, lr: float) -> None:
        """Move all weights by their gradients; see `AdamW.step`."""
        self._step += 1
        own = [self._weights], [self._gradients], [self._first], [self._second], [self._step]
        _move(own, lr, self._optimizer.betas, 0.0, self._optimizer.eps)

    def end(self) -> None:
        """Hand back how things stand."""
        torch._foreach_copy_(self._its, self._own)
        self._optimizer._all_steps.fill_(self._step)


def _places(vector: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """Return where some parameters, one after the other, lie in a vector."""
    return [part.view_as(p) for part, p in zip(vector.split([p.numel() for p in params]), params, strict=True)]


def _move(
    columns: Sequence[Sequence[Tensor]], lr: float, betas: tuple[float, float], weight_decay: float, eps: float
) -> None:
    """Take a step, given weights, gradients, both moments and the numbers of the step."""
    params, gradients, first, second, steps = (list(column) for column in columns)
    torch._fused_adamw_(
        params,
        gradients,
        first,
        second,
        [],
        steps,
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
