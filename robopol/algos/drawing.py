"""A policy that draws its plans, also where it is deployed with its mean: what learning from several of them needs."""

import copy
from typing import Any

from robopol.policies import Policy


def drawing(policy: Policy) -> Policy:
    """Return a policy of the same weights that draws; one that never acts with a mean is returned itself."""
    if not getattr(policy.config, "deterministic", False):
        return policy
    sampling: Any = copy.copy(policy)  # the same weights
    sampling.config = policy.config.model_copy(update={"deterministic": False})
    drawn: Policy = sampling
    return drawn
