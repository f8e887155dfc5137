"""The field: what a network says about a noised action chunk at a noise level, given the observation."""

import torch
from torch import Tensor, nn

from robopol.errors import ConfigError
from robopol.policies.path import Level, Path
from robopol.policies.prediction import PREDICTIONS, Estimate


class Field(nn.Module):
    """A denoiser network together with the path it was trained on and what its output means."""

    def __init__(self, net: nn.Module, path: Path, prediction: str, time_scale: float = 1.0) -> None:
        """Join the three.

        Args:
            net: ``net(x (B, Tp, A), t (B,), cond (B, To, D)) -> (B, Tp, A)``.
            path: The path on which ``net`` sees x_t.
            prediction: A name of `robopol.policies.prediction.PREDICTIONS`.
            time_scale: The network is given ``time_scale * t``.

        Raises:
            ConfigError: If the prediction is unknown.
        """
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ConfigError(f"unknown prediction '{prediction}'; known: {', '.join(PREDICTIONS)}")
        self.net = net
        self.path = path
        self.prediction = prediction
        self.time_scale = time_scale

    def forward(self, x: Tensor, t: Tensor, level: Level, cond: Tensor) -> Estimate:
        """Estimate the clean chunk and the noise.

        Args:
            x: Noised chunks, (B, Tp, A).
            t: Path times, (B,).
            level: The path's level at ``t``, shaped to broadcast over ``x``.
            cond: Encoded observation history, (B, To, D).

        Returns:
            x0 and eps, each (B, Tp, A), with x = alpha x0 + sigma eps.
        """
        return PREDICTIONS[self.prediction].read(self.net(x, self.time_scale * t, cond), x, level)

    def loss(self, x0: Tensor, cond: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the squared error of the native prediction at a random level, element by element.

        L = || net(x_t, t, c) - target ||^2 with x_t = alpha x0 + sigma eps (Ho et al. 2020, eq. 14; for
        ``velocity`` the conditional flow-matching loss, Lipman et al. 2023, eq. 14).

        Args:
            x0: Clean normalised chunks, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).
            generator: Source of times and noise, on the device of ``x0``.

        Returns:
            (B, Tp, A).
        """
        t = self.path.draw_time(len(x0), generator, x0.device)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        level = self.path.level(t).like(x0)
        x = level.alpha * x0 + level.sigma * eps
        target = PREDICTIONS[self.prediction].target(x0, eps, level)
        return (self.net(x, self.time_scale * t, cond) - target) ** 2
