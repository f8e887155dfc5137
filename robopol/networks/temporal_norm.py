"""Group normalisation in (time, batch, channel) layout."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robopol.errors import ConfigError
from robopol.networks.autograd import run


def _group_mean(sums: Tensor, groups: int, steps: int) -> Tensor:
    """Turn sums over time (B, C) into means over each group, repeated for its channels (B, C)."""
    grouped = sums.unflatten(1, (groups, -1))
    return grouped.mean(-1, keepdim=True).div_(steps).expand_as(grouped).flatten(1)


class _Normalize(torch.autograd.Function):
    """Group normalisation with its gradient written out, so that few passes over the data are needed.

    With d = x - mean, r = 1 / std, w the weight and g the gradient of the output, means taken over a group:
    ``dx = r w g - r^3 d mean(w g d) - r mean(w g)``. Statistics are float32 whatever x is; the centred input
    and r are returned only because the gradient needs them.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        steps = x.shape[0]
        centred = x - _group_mean(x.sum(0, dtype=torch.float32), groups, steps)
        inverse_std = _group_mean(centred.square().sum(0), groups, steps).add_(eps).rsqrt_()
        return torch.addcmul(bias, centred, inverse_std * weight), centred, inverse_std

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, centred, inverse_std = output
        ctx.mark_non_differentiable(centred, inverse_std)
        ctx.save_for_backward(inputs[1], centred, inverse_std)
        ctx.dtype, ctx.groups = inputs[0].dtype, inputs[3]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        weight, centred, inverse_std = ctx.saved_tensors
        along, level = (grad * centred).sum(0), grad.sum(0)  # sums over time (B, C)
        steps = len(centred)
        slope = _group_mean(along * weight, ctx.groups, steps).mul_(inverse_std.pow(3)).neg_()
        shift = _group_mean(level * weight, ctx.groups, steps).mul_(inverse_std).neg_()
        grad_x = torch.addcmul(shift, centred, slope).addcmul_(grad, inverse_std * weight)
        return grad_x.to(ctx.dtype), (along * inverse_std).sum(0), level.sum(0), None, None


class TemporalGroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) of (T, B, C): over all steps and the C / groups channels of a group.

    Equal to ``nn.GroupNorm`` up to the layout. The output is float32.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        """Make weight 1 and bias 0.

        Args:
            groups: Number of groups.
            channels: C, a multiple of ``groups``.
            eps: Added to the variance.

        Raises:
            ConfigError: If ``channels`` is not a multiple of ``groups``.
        """
        super().__init__()
        if channels % groups:
            raise ConfigError(f"{channels} channels cannot be split into {groups} groups; use a multiple of {groups}")
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (T, B, C), in any floating type, to float32 (T, B, C)."""
        if x.shape[1] == 1:  # one row is, to torch's own kernel, an image with its channels last
            image = x.float().reshape(1, -1, 1, x.shape[2]).permute(0, 3, 1, 2)
            return F.group_norm(image, self.groups, self.weight, self.bias, self.eps).permute(0, 2, 3, 1).view(x.shape)
        normal: Tensor = run(_Normalize, x, self.weight, self.bias, self.groups, self.eps)[0]
        return normal
