"""Linear maps to the range in which networks learn, and back; they travel inside the policy's state dict."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from robopol.errors import ConfigError, DataError, ShapeError

NormalizerMode: TypeAlias = Literal["minmax", "zscore", "quantile", "identity", "running"]

ActionNormalizerMode: TypeAlias = Literal["minmax", "zscore", "quantile", "identity", "bounds"]
"""Actions have bounds in their contract, so that there need not be any data."""

SMALLEST_RANGE = 1e-4
"""An entry whose range is smaller is only centred (Chi et al. 2023, Diffusion Policy); see `robopol.data.reach`."""

STD_EPS = 1e-3
"""Added to the standard deviation (robomimic)."""

VARIANCE_EPS = 1e-8
"""Added to a running variance (Stable-Baselines3)."""


class Normalizer(nn.Module):
    """One key's map, y = (x - offset) * scale in each of the D entries of the last axis.

    Modes: ``minmax`` sends the smallest and largest training value to -1 and 1; ``quantile`` sends the 1 %
    and 99 % quantiles there, for data with outliers; ``zscore`` gives mean 0 and standard deviation 1;
    ``bounds`` sends given bounds to -1 and 1; ``identity`` changes nothing. The last two need no fitting. ``running``
    changes nothing at first; each fit adds rows to all earlier ones, and gives these mean 0 and variance 1, for what
    learns while it acts. Values outside the training range are mapped linearly, not clipped, as openpi does with
    quantiles; a policy may still keep its plans within [-1, 1], of which `robopol.data.reach` warns. A constant maps to
    0, and every number maps back to that constant: what was never varied in the data is never varied by a policy.
    """

    scale: Tensor
    offset: Tensor
    unscale: Tensor
    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(
        self,
        dim: int,
        mode: NormalizerMode | ActionNormalizerMode,
        bounds: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        """Make a map that has still to be fitted, or loaded from a state dict.

        Args:
            dim: D, size of the last axis.
            mode: How to fit.
            bounds: Lowest and highest value of every entry, (D,) each; only ``bounds`` looks at them.

        Raises:
            ConfigError: If the mode is unknown, or is ``bounds`` and an entry has none.
        """
        super().__init__()
        known_modes = dict.fromkeys((*get_args(NormalizerMode), *get_args(ActionNormalizerMode)))
        if mode not in known_modes:
            known = ", ".join(known_modes)
            raise ConfigError(f"unknown normalizer mode '{mode}'; the modes are {known}")
        self.dim = dim
        self.mode = mode
        # NaN stands for "not fitted", so that the state dict of an unfitted map says so too.
        begin = 1.0 if mode in ("identity", "running") else float("nan")
        self.register_buffer("scale", torch.full((dim,), begin))
        self.register_buffer("offset", torch.zeros(dim))
        self.register_buffer("unscale", torch.full((dim,), begin))
        if mode == "running":
            self.register_buffer("count", torch.zeros((), dtype=torch.float64))
            self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
            self.register_buffer("squares", torch.zeros(dim, dtype=torch.float64))
        self._known_fitted = False
        if mode == "bounds":
            low, high = (torch.tensor(side, dtype=torch.float64) for side in bounds or ((), ()))
            if len(low) != dim or not bool((low.isfinite() & high.isfinite()).all()):
                raise ConfigError(
                    "normalization by bounds needs a lowest and a highest value of every entry, and some action has "
                    "none: use another mode"
                )
            self._send_to_ends(low, high)

    @property
    def fitted(self) -> bool:
        """Whether the map is known."""
        return bool(self.scale.isfinite().all())

    @torch.no_grad()
    def fit(self, data: Tensor) -> None:
        """Choose scale and offset from training data.

        Args:
            data: (..., D), of the training split only.

        Raises:
            ShapeError: If the last axis is not D.
            DataError: If there are no data or some are not finite.
        """
        self._check_shape(data)
        values = data.detach().reshape(-1, self.dim).double()
        if not len(values) or not bool(values.isfinite().all()):
            raise DataError("a normalizer is fitted to at least one row, all of it finite")
        if self.mode in ("identity", "bounds"):
            return
        if self.mode == "running":
            self._merge(values)
        elif self.mode == "zscore":
            spread = values.std(0, correction=0)
            self._take(values.mean(0), spread + STD_EPS, values.amin(0) == values.amax(0))
        elif self.mode == "minmax":
            self._send_to_ends(*values.aminmax(dim=0))
        else:
            low, high = torch.from_numpy(np.quantile(values.cpu().numpy(), [0.01, 0.99], axis=0))
            self._send_to_ends(low, high)

    def normalize(self, x: Tensor) -> Tensor:
        """Map environment units to the network's range.

        Args:
            x: (..., D).

        Returns:
            (..., D).

        Raises:
            ShapeError: If the last axis is not D.
            DataError: If the map was never fitted.
        """
        self._check_fitted()
        self._check_shape(x)
        return x if self._leaves(x) else (x - self.offset) * self.scale

    def unnormalize(self, y: Tensor) -> Tensor:
        """Map the network's range back to environment units, the inverse of `normalize`.

        Args:
            y: (..., D).

        Returns:
            (..., D).

        Raises:
            ShapeError: If the last axis is not D.
            DataError: If the map was never fitted.
        """
        self._check_fitted()
        self._check_shape(y)
        return y if self._leaves(y) else y * self.unscale + self.offset

    def _merge(self, values: Tensor) -> None:
        """Add rows to those that were seen, by their means and sums of squared deviations (Chan et al. 1979)."""
        rows, mean = len(values), values.mean(0)
        total = self.count + rows
        shift = mean - self.mean
        self.squares += ((values - mean) ** 2).sum(0) + shift**2 * self.count * rows / total
        self.mean += shift * rows / total
        self.count.copy_(total)
        spread = (self.squares / total + VARIANCE_EPS).sqrt()
        self._take(self.mean, spread, self.squares == 0)

    def _send_to_ends(self, low: Tensor, high: Tensor) -> None:
        """Send the values ``low`` to -1 and ``high`` to 1."""
        self._take((low + high) / 2, (high - low) / 2, high - low < SMALLEST_RANGE)

    def _take(self, offset: Tensor, unscale: Tensor, constant: Tensor) -> None:
        self.offset.copy_(offset)
        self.scale.copy_(torch.where(constant, 1.0, 1 / unscale))
        self.unscale.copy_(torch.where(constant, 0.0, unscale))

    def _leaves(self, x: Tensor) -> bool:
        return self.mode == "identity" and x.is_floating_point()

    def _check_fitted(self) -> None:
        # The buffer is looked at only until it was once seen fitted: on a GPU each look waits for it.
        if not self._known_fitted:
            self._known_fitted = self.fitted
        if not self._known_fitted:
            raise DataError("the normalizer was never fitted: call fit(training data) or load a state dict")

    def _check_shape(self, x: Tensor) -> None:
        if x.dim() < 1 or x.shape[-1] != self.dim:
            raise ShapeError(f"the normalizer has {self.dim} dimensions, got shape {tuple(x.shape)}")

    def extra_repr(self) -> str:
        """Say size and mode in the printed module tree."""
        return f"dim={self.dim}, mode={self.mode}"
