"""Randomness as a function of (seed, purpose, step), so that nothing has to be saved to resume it."""

from hashlib import blake2b

import torch


def seed_of(seed: int, purpose: str, step: int = 0) -> int:
    """Return a 63-bit seed that is independent for every (seed, purpose, step)."""
    digest = blake2b(f"{seed} {purpose} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_layers(device: torch.device, seed: int) -> None:
    """Seed what layers draw from, such as dropout: torch's own generators."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)  # torch.manual_seed does the same, and records where it was called
    else:
        torch.manual_seed(seed)


def generator(device: torch.device, seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """Return a generator on ``device``, seeded by `seed_of`."""
    return torch.Generator(device).manual_seed(seed_of(seed, purpose, step))
