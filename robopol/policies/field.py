"""The field: what a network says about a noised action chunk at a noise level, given the observation."""

import torch
from torch import Tensor, nn

from robopol.errors import ConfigError
from robopol.networks.denoiser import Denoiser, Walk
from robopol.policies.paths import Level, Path
from robopol.policies.prediction import PREDICTIONS, Estimate, reading, target


class Schedule:
    """What a network is told along a walk, apart from the states.

    Attributes:
        times: Its path times, (S,) float64.
        told: What the network is told of them, (S,) float32.
        scales: Factor on the state at each.
    """

    def __init__(self, times: Tensor, told: Tensor, scales: tuple[float, ...]) -> None:
        """Take the three, the tensors on the CPU."""
        self.times, self.told, self.scales = times, told, scales
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """Return what the network is told, on its device; the copy is kept, so that a walk moves nothing."""
        if device not in self._copies:
            with torch.inference_mode(False):  # whoever asks next may want gradients
                self._copies[device] = self.told.to(device)
        return self._copies[device]

    def since(self, first: int) -> "Schedule":
        """Return the rest of the walk from its ``first``-th time on."""
        if first == 0:
            return self
        rest = Schedule(self.times[first:], self.told[first:], self.scales[first:])
        rest._copies = {device: copy[first:] for device, copy in self._copies.items()}
        return rest


class Field(nn.Module):
    """A denoiser network together with the path it was trained on and what its output means."""

    def __init__(self, net: Denoiser, path: Path, prediction: str) -> None:
        """Join the three.

        Args:
            net: A `robopol.networks.denoiser.Denoiser`.
            path: The path on which ``net`` sees x_t.
            prediction: A name of `robopol.policies.prediction.PREDICTIONS`.

        Raises:
            ConfigError: If the prediction is unknown.
        """
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ConfigError(f"unknown prediction '{prediction}'; known: {', '.join(PREDICTIONS)}")
        self.net = net
        self.path = path
        self.prediction = prediction

    @property
    def says_means(self) -> bool:
        """Whether x0 is the mean of the clean chunks that a state may come from, not the one where its walk ends."""
        return self.prediction != "consistency"

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Estimate:
        """Estimate the clean chunk and the noise.

        Args:
            x: Noised chunks, (B, Tp, A).
            t: Path times, (B,).
            cond: Encoded observation history, (B, To, D).

        Returns:
            x0 and eps, each (B, Tp, A), with x = alpha x0 + sigma eps.
        """
        level = self.path.level(t)
        return reading(self.prediction, level, self.path).estimate(x, self._output(x, t, level, cond))

    def at(self, x: Tensor, level: Level, cond: Tensor) -> Estimate:
        """Estimate at a state of another path, at the same noise level.

        kappa = sigma / alpha says when this field's path has that level, and the state is scaled to it; x0 and eps are
        the same in both frames, a velocity would not be.

        Args:
            x: States of the other path, (B, Tp, A).
            level: The other path's level of each row, (B,).
            cond: Encoded observation history, (B, To, D).

        Returns:
            x0 and eps, each (B, Tp, A).

        Raises:
            ConfigError: If the level lies outside this field's path.
        """
        low, high = self.path.kappa_range
        kappa = level.kappa
        slack = 1e-6  # rounding of a level that was made from the same end
        if kappa.min() < low * (1 - slack) or kappa.max() > high * (1 + slack):
            raise ConfigError(
                f"a field that was trained for sigma/alpha in [{low:.3g}, {high:.3g}] is asked at "
                f"{kappa.min():.3g} to {kappa.max():.3g}: choose a grid within its range"
            )
        t = self.path.time_of(kappa)
        own = self.path.level(t)
        scale = (own.sigma / level.sigma).to(x).reshape(-1, *(1,) * (x.ndim - 1))
        return self(scale * x, t, cond)

    def schedule(self, times: Tensor) -> Schedule:
        """Return what the network is told at path times (S,) float64."""
        scales = self.path.input_scale(self.path.level(times))
        return Schedule(times, self.path.network_time(times).float(), tuple(scales.tolist()))

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """Return the network along a walk, with whatever does not depend on the states computed once.

        Args:
            schedule: Of the walk, from `schedule`.
            cond: Encoded observation history, (B, To, D).

        Returns:
            (x (B, Tp, A), i) -> the output at the i-th time, (B, Tp, A).
        """
        walk: Walk = self.net.prepare(schedule.on(cond.device), cond)
        scales = schedule.scales
        if all(scale == 1 for scale in scales):
            return walk
        return lambda x, i: walk(scales[i] * x, i)

    def loss(self, x0: Tensor, cond: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the squared error of the network's own output at a random level, element by element.

        L = || net(x_t, t, c) - target ||^2 with x_t = alpha x0 + sigma eps (Ho et al. 2020, eq. 14; for ``velocity``
        the conditional flow-matching loss, Lipman et al. 2023, eq. 14; for ``edm`` with the weight of Karras et al.
        2022, table 1).

        Args:
            x0: Clean normalised chunks, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).
            generator: Source of times and noise, on the device of ``x0``.

        Returns:
            (B, Tp, A).
        """
        t = self.path.draw_time(len(x0), generator, x0.device)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        output, wanted = self.asked(x0, t, eps, cond)
        return (output - wanted) ** 2

    def hidden(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """Return clean chunks x0 hidden in noise eps, (B, Tp, A) each, at a level of each row."""
        alpha, sigma = (v.to(x0).reshape(-1, *(1,) * (x0.ndim - 1)) for v in (level.alpha, level.sigma))
        return alpha * x0 + sigma * eps

    def asked(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Ask the network about clean chunks that are hidden in given noise.

        Args:
            x0: Clean normalised chunks, (B, Tp, A).
            t: Path times, (B,).
            eps: Noise, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).

        Returns:
            Its own output and what it is trained to say, (B, Tp, A) each.
        """
        level = self.path.level(t)
        output = self._output(self.hidden(x0, eps, level), t, level, cond)
        return output, target(self.prediction, x0, eps, level, self.path)

    def _output(self, x: Tensor, t: Tensor, level: Level, cond: Tensor) -> Tensor:
        """Ask the network about x_t at path times (B,)."""
        scale = self.path.input_scale(level).to(x).reshape(-1, *(1,) * (x.ndim - 1))
        output: Tensor = self.net(scale * x, self.path.network_time(t).to(torch.float32), cond)
        return output


class DerivedField(Field):
    """A field made of another one, which says along a walk what it makes of it.

    Attributes:
        field: The other one; path and prediction are its own.
    """

    def __init__(self, field: Field) -> None:
        """Derive from a field."""
        super().__init__(field.net, field.path, field.prediction)
        self.field = field

    def _output(self, x: Tensor, t: Tensor, level: Level, cond: Tensor) -> Tensor:
        if not bool((t == t[0]).all()):
            raise ConfigError("a steered field is asked at one time for all rows, as on a walk")
        return self.prepare(self.schedule(t[:1].double()), cond)(x, 0)
