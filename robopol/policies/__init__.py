"""Policies: an observation history in, action chunks out."""

from robopol.policies.part import Needs, Part, PartConfig, PolicySpec
from robopol.policies.policy import Policy, PolicyConfig, Previous

__all__ = ["Needs", "Part", "PartConfig", "Policy", "PolicyConfig", "PolicySpec", "Previous"]
