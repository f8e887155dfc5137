"""Randomness as a function of (seed, purpose, step), so that nothing has to be saved to resume it."""

import zlib

import numpy as np
import torch


def seed_of(seed: int, purpose: str, step: int = 0) -> int:
    """Return a 63-bit seed that is independent for every (seed, purpose, step)."""
    entropy = [seed, zlib.crc32(purpose.encode()), step]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def generator(device: torch.device, seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """Return a generator on ``device``, seeded by `seed_of`."""
    return torch.Generator(device).manual_seed(seed_of(seed, purpose, step))
