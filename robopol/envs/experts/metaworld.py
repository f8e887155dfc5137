"""Meta-World's own scripted policies."""

import warnings

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.foreign import ForeignExpert
from robopol.envs.foreign.world import World
from robopol.errors import EnvError


class MetaWorldExpert(ForeignExpert):
    """Acts by the policy that ``metaworld.policies`` has for the task, on the observation, which holds the goal."""

    def start(self, env: World, rng: np.random.Generator) -> None:
        """Make the policy anew: some remember.

        Raises:
            EnvError: If the goal is hidden.
        """
        from metaworld.policies import ENV_POLICY_MAP

        if env.options.get("partially_observable"):
            raise EnvError(f"{env.id} with partially_observable hides the goal, which Meta-World's experts look at")
        self._policy = ENV_POLICY_MAP[env.id.removeprefix("metaworld/")]()

    def plan(self, env: World) -> NDArray[np.float64]:
        """Ask the policy."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every action that is clipped
            action = self._policy.get_action(np.array(env.latest))
        return np.asarray(action, dtype=np.float64)
