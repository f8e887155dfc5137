"""Policies: an observation history in, action chunks out."""

from robopol.policies.policy import Needs, Policy, PolicyConfig, PolicySpec, Previous

__all__ = ["Needs", "Policy", "PolicyConfig", "PolicySpec", "Previous"]
