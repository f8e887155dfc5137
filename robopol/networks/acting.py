"""A denoiser that only acts: what stands in for a trained one where its speed counts."""

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from robopol.errors import RobopolError
from robopol.networks.denoiser import Denoiser, Walk


class ActingDenoiser(Denoiser):
    """Gives no gradients, and cannot be trained, moved or copied: what was made of its weights would not follow them.

    It is saved as the denoiser that it stands for.

    Attributes:
        net: What is asked.
    """

    def __init__(self, net: Denoiser, what: str) -> None:
        """Wrap a denoiser, which is put into evaluation mode.

        Args:
            net: What is asked.
            what: What only acts, in the plural, for those who ask for more.
        """
        super().__init__()
        self.net, self._what = net, what
        self._of_times = WeakIdKeyDictionary()
        super().train(False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        self._check_gradient(x)
        self._check_gradient(cond)
        prediction: Tensor = self.net(x, t, cond)
        return prediction

    def prepare(self, t: Tensor, cond: Tensor) -> Walk:
        """See `Denoiser.prepare`."""
        self._check_gradient(cond)
        walk = self._walk(t, cond)

        def checked(x: Tensor, i: int) -> Tensor:
            self._check_gradient(x)
            return walk(x, i)

        return checked

    def _walk(self, t: Tensor, cond: Tensor) -> Walk:
        """Return the walk; see `Denoiser.prepare`."""
        return self.net.prepare(t, cond)

    def of_times(self, t: Tensor) -> Tensor:
        """See `Denoiser.of_times`. The weights stay what they are: what was said of a tensor is said again of it."""
        said: Tensor | None = self._of_times.get(t)
        if said is None:
            with torch.inference_mode(False), torch.no_grad():
                said = self.net.of_times(t)
            if said is not t:  # which would hold on to itself
                self._of_times[t] = said
        return said

    def train(self, mode: bool = True) -> "ActingDenoiser":
        """Stay in evaluation mode; raise a RobopolError if asked to train."""
        if mode:
            self._refuse("trained")
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights under the names that they have in the denoiser."""
        return self.net.state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("moved or converted")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Raise a RobopolError, for ``pickle`` and ``copy``."""
        self._refuse("copied or pickled")

    def _check_gradient(self, value: Tensor) -> None:
        """Raise a RobopolError if a gradient would be wanted, which would be left out in silence."""
        if value.requires_grad and torch.is_grad_enabled():
            self._refuse("differentiated")

    def _refuse(self, verb: str) -> NoReturn:
        raise RobopolError(f"{self._what} only act, they cannot be {verb}: load the policy anew for that")
