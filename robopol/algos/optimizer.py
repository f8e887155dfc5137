"""AdamW as one fused call a step, its memory a plain dict of tensors.

The same kernel and the same numbers as ``torch.optim.AdamW(fused=True)`` (a test says so). That class imports torch's
compiler when it is made, which takes over a second, and spends longer than the kernel on book-keeping for small
networks; and its memory has to be taken apart before it can be stored without pickling.
"""

from collections.abc import Mapping, Sequence

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
        # one call for all where nothing decays
        self._groups = [(matrices, weight_decay), (vectors, 0.0)] if weight_decay else [(self._ordered, 0.0)]
        self._first = {p: torch.zeros_like(p) for p in self._ordered}
        self._second = {p: torch.zeros_like(p) for p in self._ordered}
        # of all parameters together, so that those that move together are counted at once
        self._all_steps = torch.zeros(len(self._ordered), device=self._ordered[0].device if self._ordered else None)
        self._steps = dict(zip(self._ordered, self._all_steps.unbind(), strict=True))

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters that have a gradient, and forget the gradients.

        Args:
            lr: Learning rate.
        """
        counted = [self._steps[p] for p in self._ordered if p.grad is not None]
        if len(counted) == len(self._ordered):
            self._all_steps += 1
        elif counted:
            torch._foreach_add_(counted, 1)
        for group, weight_decay in self._groups:
            moved = [p for p in group if p.grad is not None]
            if not moved:
                continue
            torch._fused_adamw_(
                moved,
                [p.grad for p in moved if p.grad is not None],
                [self._first[p] for p in moved],
                [self._second[p] for p in moved],
                [],
                [self._steps[p] for p in moved],
                lr=lr,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=weight_decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )
            for p in moved:
                p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return the memory: ``<index of the parameter>.<name>`` -> tensor."""
        memory = {"first": self._first, "second": self._second, "step": self._steps}
        return {f"{i}.{name}": part[p] for i, p in enumerate(self._ordered) for name, part in memory.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])
