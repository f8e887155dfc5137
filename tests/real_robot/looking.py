"""A policy that looks at pictures and remembers what it was shown; and a device that is a camera."""

from typing import Literal

import numpy as np
import torch

from robopol.config import Config
from robopol.envs.config import EnvConfig
from robopol.policies.plan_only import PlanOnlyPolicy, box_units, contract
from robopol.real_robot.camera import Camera, Frame

PIXELS = 16


class LookerConfig(Config):
    kind: Literal["looker"] = "looker"


class Looker(PlanOnlyPolicy):
    """Creeps along the table whatever it sees."""

    refusal = "it learns nothing"

    def plan(self, obs, n=1, generator=None, previous=None):
        self.seen.append({key: value[0].numpy().copy() for key, value in self.histories(obs).items()})
        window = torch.zeros(1, n, self.spec.horizon, 5)
        window[..., 1], window[..., 4] = 0.004, 0.5
        return window


def looking_policy(cameras=("front",), steps=12, n_obs_steps=2, chunk=5):
    """Return the policy and its world; its `seen` has the observations of every plan."""
    options = {"cameras": list(cameras), "image_size": [PIXELS, PIXELS], "max_episode_steps": steps}
    env = EnvConfig(id="robopol/Reach-v0", options=options)
    with env.make(1) as made:
        spec = contract(made.spec, "it", None, n_obs_steps, chunk).model_copy(update={"n_action_steps": 2})
    policy = Looker(LookerConfig(), spec, box_units(spec))
    policy.seen = []
    return policy, env


def ask(capture, times):
    """Ask for pictures so many times."""
    for _ in range(times):
        capture.step()


def picture(number, size=(8, 12)):
    """Return a picture that no other number has."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


class Device(Camera):
    """A camera whose pictures come when they are due, unless it hangs (None) or repeats itself (the same number)."""

    def __init__(self, clock, period, numbers, size=(8, 12)):
        self.clock, self.period, self.numbers, self.size = clock, period, iter(numbers), size

    def open(self):
        return "a device"

    def read(self):
        self.clock.sleep_until(self.clock.now() + self.period)
        number = next(self.numbers)
        return None if number is None else Frame(self.clock.now(), picture(number, self.size))

    def close(self):
        pass
