"""Gaussian behaviour-cloning policy over action chunks: the baseline that averages."""

from typing import Literal

from pydantic import Field

from robopol.policies.gmm import MixtureConfig, MixturePolicy
from robopol.policies.part import PolicySpec


class GaussianConfig(MixtureConfig):
    """One diagonal Gaussian over the normalised chunk.

    Attributes:
        min_std: Smallest standard deviation, in normalised action units.
    """

    kind: Literal["gaussian"] = "gaussian"
    min_std: float = Field(1e-3, gt=0)

    def build(self, spec: PolicySpec) -> MixturePolicy:
        """Return the policy, its weights untrained: a mixture of one."""
        return MixturePolicy(self, spec, 1)
