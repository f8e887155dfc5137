"""A denoiser with a copy of its own for a stretch of noise levels: what fine-tuning the last steps of a walk leaves."""

from typing import Annotated, Any, Literal, cast

import torch
from torch import Tensor

from robopol.config import Config, OneOf
from robopol.networks.denoiser import Denoiser, Walk


class FineTunedConfig(Config):
    """Two networks of one shape, one of which answers at some times and the other at all others.

    Attributes:
        net: The shape.
        times: Least and greatest network time at which the tuned one answers; it never does if the first is greater.
    """

    kind: Literal["fine_tuned"] = "fine_tuned"
    net: Annotated[Any, OneOf("net")]
    times: tuple[float, float]

    def build(self, action_dim: int, horizon: int, cond_dim: int, n_obs_steps: int) -> "FineTunedDenoiser":
        """Make both networks, each with weights of its own.

        Args:
            action_dim: A, size of one action.
            horizon: Tp, actions in a chunk.
            cond_dim: D, size of one encoded observation.
            n_obs_steps: To, observations in the history.
        """
        shape = (action_dim, horizon, cond_dim, n_obs_steps)
        return FineTunedDenoiser(self.net.build(*shape), self.net.build(*shape), self.times)


class FineTunedDenoiser(Denoiser):
    """See `FineTunedConfig`.

    Attributes:
        base: What the tuned network was copied from; it answers outside `times`.
        tuned: Answers within them.
    """

    def __init__(self, base: Denoiser, tuned: Denoiser, times: tuple[float, float]) -> None:
        """Join two networks of one shape."""
        super().__init__()
        self.base, self.tuned, self.times = base, tuned, times
        self._known: tuple[Tensor, tuple[float, float], list[bool]] | None = None

    def begin(self) -> None:
        """Let both say what the base says."""
        self.tuned.load_state_dict(self.base.state_dict())

    def within(self, t: Tensor) -> Tensor:
        """Say at which network times, of any shape, the tuned network answers."""
        return (t >= self.times[0]) & (t <= self.times[1])

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """See `Denoiser.forward`."""
        mine = self.within(t)
        if bool(mine.all()):
            return cast(Tensor, self.tuned(x, t, cond))
        if not bool(mine.any()):
            return cast(Tensor, self.base(x, t, cond))
        return torch.where(mine[:, None, None], self.tuned(x, t, cond), self.base(x, t, cond))

    def prepare(self, t: Tensor, cond: Tensor) -> Walk:
        """See `Denoiser.prepare`; both for all times, so that equal networks round alike wherever one takes over."""
        if self._known is None or self._known[0] is not t or self._known[1] != self.times:
            self._known = t, self.times, self.within(t).tolist()  # asked once, as a GPU would be waited for
        mine = self._known[2]
        walks = {own: net.prepare(t, cond) for own, net in ((True, self.tuned), (False, self.base)) if own in mine}
        return lambda x, i: walks[mine[i]](x, i)
