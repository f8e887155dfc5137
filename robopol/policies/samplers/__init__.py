"""Samplers: how x_t walks from noise to an action, one rule a file."""

from robopol.policies.samplers.sampler import Draw, Hook, Sampler, SamplerConfig, Step

__all__ = ["Draw", "Hook", "Sampler", "SamplerConfig", "Step"]
