"""Gaussian behaviour-cloning policy over action chunks: the baseline that averages."""

from typing import Literal

from pydantic import Field

from robopol.policies.gmm import MixturePolicy
from robopol.policies.part import PolicySpec
from robopol.policies.policy import PolicyConfig


class GaussianConfig(PolicyConfig):
    """One diagonal Gaussian over the normalised chunk.

    Attributes:
        hidden: Widths of the trunk.
        min_std: Smallest standard deviation, in normalised action units.
        deterministic: Act with the mean instead of a sample.
    """

    kind: Literal["gaussian"] = "gaussian"
    hidden: tuple[int, ...] = (512, 512, 512)
    min_std: float = Field(1e-3, gt=0)
    deterministic: bool = True

    def build(self, spec: PolicySpec) -> MixturePolicy:
        """Return the policy, its weights untrained: a mixture of one."""
        return MixturePolicy(self, spec, 1, self.hidden, self.min_std, deterministic=self.deterministic)
