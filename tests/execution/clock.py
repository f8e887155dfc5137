"""A policy whose actions say which step they are for and when they were planned, and worlds without physics for it."""

from typing import Literal

import torch

from robopol.policies import Policy, PolicyConfig, PolicySpec


class ClockConfig(PolicyConfig):
    kind: Literal["clock"] = "clock"


class Clock(Policy):
    """Plans (step that the action is for, step of the newest observation, a number drawn from the generator).

    It takes an observation "state" of one entry, the step, in thousandths.
    """

    def __init__(self, n_obs_steps: int = 2, horizon: int = 7, n_action_steps: int = 3):
        spec = PolicySpec(
            obs_shapes={"state": (1,)},
            action_names=("for", "planned at", "noise"),
            action_low=(-1e3, -1e3, -1e3),
            action_high=(1e3, 1e3, 1e3),
            action_space="box",
            control_hz=10.0,
            n_obs_steps=n_obs_steps,
            horizon=horizon,
            n_action_steps=n_action_steps,
        )
        super().__init__(ClockConfig(obs_normalization="identity", action_normalization="identity"), spec)
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[int] = []

    def _sample(self, cond, n, generator):
        self.batches.append(len(cond))
        now = (1000 * cond[:, -1, 0]).round()
        index = torch.arange(self.spec.horizon) - (self.spec.n_obs_steps - 1)
        noise = torch.stack([torch.randn(self.spec.horizon, generator=g) for g in generator])
        steps = now[:, None] + index
        return torch.stack([steps, now[:, None].expand_as(steps), noise], -1)[:, None]

    def _loss(self, action, cond, mask, generator):
        raise AssertionError("it is not trained")


def observe(steps: list[int]) -> dict[str, torch.Tensor]:
    """Return the observation of some slots that are at these steps."""
    return {"state": torch.tensor(steps)[:, None] / 1000}


def play(executor, steps: int, slot: int = 0, seed: int = 0):
    """Return every decision of one episode: actions (T, 3), planned (T,), seam (T,), starved (T,)."""
    executor.reset([slot], [seed])
    decisions = [executor.decide([slot], observe([step])) for step in range(steps)]
    return [torch.cat(part) for part in zip(*decisions, strict=True)]
