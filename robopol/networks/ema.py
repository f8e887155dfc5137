"""Moving averages of a module's parameters: with a warm-up of the decay for what acts, without for targets."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class EMA(nn.Module):
    """A running average of another module's parameters; the weights that are evaluated and deployed.

    The decay of the update after k earlier ones is 0 for k <= 1, else ``min(1 - k ** -power, max_decay)``;
    with power 3/4 it passes 0.999 after 10 k updates and 0.9999 after 215 k (Diffusion Policy, Chi et al.
    2023). Buffers, and all of a batch normalisation, are copied, not averaged. The state dict holds tensors
    only.

    Attributes:
        module: The average: a copy of the module in evaluation mode, without gradients.
        updates: k, updates done so far.
    """

    def __init__(self, module: nn.Module, power: float = 0.75, max_decay: float = 0.9999) -> None:
        """Start from a copy of the module.

        Args:
            module: The module to follow.
            power: Exponent of the warm-up; larger forgets the start later.
            max_decay: Upper bound of the decay, below 1.
        """
        super().__init__()
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.power, self.max_decay = power, max_decay
        self.updates = 0
        self.eval()

    def decay(self) -> float:
        """Return the decay of the next update."""
        return min(1 - self.updates**-self.power, self.max_decay) if self.updates > 1 else 0.0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the parameters of ``module``.

        Args:
            module: The module given at construction, trained further.
        """
        averaged, live = _averaged(self.module), _averaged(module)
        torch._foreach_lerp_(averaged, live, 1 - self.decay())
        copied, fresh = _copied(self.module), _copied(module)
        if copied:
            torch._foreach_copy_(copied, fresh)
        self.updates += 1

    def get_extra_state(self) -> Tensor:
        """Return the number of updates, for the state dict."""
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of updates from the state dict."""
        self.updates = int(state)


class Polyak:
    """Moves a copy of a module towards it: theta_bar <- theta_bar + rate (theta - theta_bar); buffers are copied.

    It looks the tensors up once, which takes longer than to move those of a small network.
    """

    def __init__(self, target: nn.Module, live: nn.Module) -> None:
        """Take over a copy and the module; neither may get other tensors afterwards.

        Args:
            target: The copy.
            live: The module.
        """
        self._parameters: tuple[list[Tensor], list[Tensor]] = [*target.parameters()], [*live.parameters()]
        self._buffers: tuple[list[Tensor], list[Tensor]] = [*target.buffers()], [*live.buffers()]

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """Move the copy.

        Args:
            rate: In [0, 1]; 0 leaves the copy, 1 makes it equal.
        """
        torch._foreach_lerp_(*self._parameters, rate)
        if self._buffers[0]:
            torch._foreach_copy_(*self._buffers)


def polyak(target: nn.Module, live: nn.Module, rate: float) -> None:
    """Move a copy of a module towards it once; see `Polyak`."""
    Polyak(target, live).update(rate)


def _averaged(module: nn.Module) -> list[Tensor]:
    """List the parameters outside batch normalisations."""
    return [
        parameter
        for part in module.modules()
        if not isinstance(part, _BatchNorm)
        for parameter in part.parameters(recurse=False)
    ]


def _copied(module: nn.Module) -> list[Tensor]:
    """List the buffers and the parameters of batch normalisations."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    return [*module.buffers(), *(parameter for norm in norms for parameter in norm.parameters())]
