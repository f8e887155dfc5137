"""Whether a policy may act: what it would have said in situations that were recorded."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.data import Episodes, Windows
from robopol.errors import ConfigError
from robopol.policies import Policy, PolicySpec

ROWS = 256
"""Recorded observations that a policy is tried on."""
_WARM = 3  # plans that are not timed


class Fitness(NamedTuple):
    """What a policy said of recorded observations.

    Attributes:
        refused: Share of its plans that would have been refused: not finite, or out of the range of actions.
        why: Why the first of them would have been, in words; empty if none was.
        p99: Time that a plan took, the 99th percentile, s.
    """

    refused: float
    why: str
    p99: float

    def fault(self, allowed: float) -> str:
        """Return in words why the policy is not to act; empty if it may.

        Args:
            allowed: Greatest `p99`, s.
        """
        if self.refused:
            return f"{self.refused:.0%} of its plans for recorded observations are refused, the first one as {self.why}"
        if self.p99 > allowed:
            return f"99 of 100 plans take up to {self.p99 * 1e3:.0f} ms, and {allowed * 1e3:.0f} ms are allowed"
        return ""


def histories(episodes: Episodes, policy: Policy) -> dict[str, Tensor]:
    """Return `ROWS` observation histories from episodes, evenly spaced, key -> (ROWS, To, ...).

    Raises:
        ConfigError: If the episodes lack an observation that the policy looks at, or have it in another shape.
    """
    spec = policy.spec
    for key, shape in spec.obs_shapes.items():
        found = tuple(episodes.obs[key].shape[1:]) if key in episodes.obs else "none"
        if found != tuple(shape):
            raise ConfigError(f"the recorded observation '{key}' has shape {found}, the policy needs {tuple(shape)}")
    windows = Windows(episodes, spec.n_obs_steps, spec.horizon)
    chosen = torch.linspace(0, len(windows) - 1, ROWS).round().long()
    obs = windows.gather(chosen)["obs"]
    return {key: obs[key] for key in spec.obs_shapes}


def fitness(
    policy: Policy,
    episodes: Episodes,
    judge: Callable[[NDArray[np.float32]], str],
    run: Callable[[Callable[[], tuple[Tensor, float]]], tuple[Tensor, float]] = lambda job: job(),
) -> Fitness:
    """Let a policy plan for recorded observations; nothing is moved.

    Args:
        policy: The policy.
        episodes: What was recorded.
        judge: Says in words why actions (H, A) are refused; nothing if they are not.
        run: Runs what makes one plan, where and when there is room for it, and returns what that returns.

    Raises:
        ConfigError: If the episodes lack an observation that the policy looks at.
    """
    found, took, refusals = histories(episodes, policy), list[float](), list[str]()
    for k in range(-_WARM, ROWS):

        def plan(k: int = max(k, 0)) -> tuple[Tensor, float]:
            obs = {key: value[k][None].to(policy.device) for key, value in found.items()}
            start = time.perf_counter()
            window = policy.plan(obs, 1, [torch.Generator().manual_seed(k)])[0, 0].cpu()
            return window, time.perf_counter() - start

        window, seconds = run(plan)
        if k < 0:
            continue
        took.append(seconds)
        refusals += [why] if (why := judge(window[policy.spec.n_obs_steps - 1 :].numpy())) else []
    return Fitness(len(refusals) / len(took), refusals[0] if refusals else "", float(np.percentile(took, 99)))


def in_time(spec: PolicySpec, executed: int) -> float:
    """Return how long a plan may take, s: half of the time that the one before is executed."""
    return executed / spec.control_hz / 2 if spec.control_hz else np.inf


def widened(spec: PolicySpec, margin: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the box of actions, each side wider by a share of its width; sides without an end stay so."""
    low, high = np.array(spec.action_low, np.float64), np.array(spec.action_high, np.float64)
    width = high - low
    more = np.where(np.isfinite(width), margin * width, np.inf)
    return low - more, high + more


def within(spec: PolicySpec, margin: float) -> Callable[[NDArray[np.float32]], str]:
    """Return what refuses actions (H, A), in words, that are not finite or beyond the `widened` box."""
    low, high = widened(spec, margin)

    def judge(actions: NDArray[np.float32]) -> str:
        if not np.isfinite(actions).all():
            return "not finite"
        excess = np.maximum(low - actions, actions - high)
        step, entry = np.unravel_index(int(np.argmax(excess)), excess.shape)
        name, value = spec.action_names[entry], actions[step, entry]
        return f"{name} = {value:.4g}, beyond {low[entry]:.4g} to {high[entry]:.4g}" if excess.max() > 0 else ""

    return judge


def check_successor(new: PolicySpec, old: PolicySpec) -> None:
    """See that a policy can take the place of another while that acts.

    Raises:
        ConfigError: If observations, actions, rate or horizon differ, with all that does.
    """
    fields = [name for name in PolicySpec.model_fields if name != "env" and getattr(new, name) != getattr(old, name)]
    if fields:
        told = "; ".join(f"{name}: {getattr(new, name)} instead of {getattr(old, name)}" for name in fields)
        raise ConfigError(f"the new policy is for something else than the one that acts: {told}. End it and start anew")
