"""Policies: an observation history in, action chunks out."""

from robopol.policies.policy import Policy, PolicyConfig, PolicySpec

__all__ = ["Policy", "PolicyConfig", "PolicySpec"]
