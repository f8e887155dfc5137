"""Bounds of returns in a replay are those of the same episodes, however the ring turned and whenever it was asked."""

import math

import pytest
import torch

from robopol.data.replay import ReplayBuffer
from robopol.data.replay_bounds import ReplayBounds

GAMMA, STEPS, ENVS = 0.9, 40, 3


def empty(capacity: int) -> ReplayBuffer:
    return ReplayBuffer(capacity, {"state": (1,)}, 1)


def fill(buffer: ReplayBuffer, after_step=lambda step: None) -> list[list[tuple[int, float, bool, bool]]]:
    """Let three environments add; return the steps (number, reward, terminated, truncated) of each of them."""
    rng, met = torch.Generator().manual_seed(0), [[] for _ in range(ENVS)]
    for step in range(STEPS):
        reward, kind = torch.rand(ENVS, generator=rng) - 0.5, torch.rand(ENVS, generator=rng)
        terminated, truncated = kind < 0.1, (kind > 0.1) & (kind < 0.2)
        state = {"state": torch.zeros(ENVS, 1)}
        buffer.add(state, torch.zeros(ENVS, 1), reward, terminated, truncated, state)
        for env in range(ENVS):
            met[env].append((step * ENVS + env, reward[env].item(), bool(terminated[env]), bool(truncated[env])))
        after_step(step)
    return met


def bounds_by_hand(steps: list[tuple[int, float, bool, bool]], lowest: float) -> dict[int, float]:
    found, bound = {}, -math.inf
    for number, reward, terminated, truncated in reversed(steps):
        if terminated:
            bound = 0.0
        elif truncated:
            bound = lowest / (1 - GAMMA)
        bound = reward + GAMMA * bound
        found[number] = bound
    return found


@pytest.mark.parametrize("capacity", [1000, 50, 31])
@pytest.mark.parametrize("every", [1, 7, STEPS])
def test_bounds_are_those_of_the_episodes_and_there_are_none_of_a_running_one(capacity, every):
    buffer = empty(capacity)
    bounds = ReplayBounds(buffer, ENVS, GAMMA)
    met = fill(buffer, lambda step: bounds.at(torch.tensor([0])) if step % every == 0 else None)
    there = torch.arange(buffer.added - len(buffer), buffer.added)
    lowest = min(reward for steps in met for number, reward, *_ in steps if number >= there[0])
    wanted = {number: bound for steps in met for number, bound in bounds_by_hand(steps, lowest).items()}
    found = bounds.at(there)
    torch.testing.assert_close(found, torch.tensor([wanted[number] for number in there.tolist()]))
    assert found.isinf().any()
    assert found.isfinite().any()


def test_a_buffer_that_was_saved_and_loaded_has_the_same_bounds_to_the_bit():
    buffer, other = empty(50), empty(50)
    bounds = ReplayBounds(buffer, ENVS, GAMMA)
    fill(buffer, lambda step: bounds.at(torch.tensor([0])))
    other.load_state(buffer.state())
    there = torch.arange(buffer.added - 50, buffer.added)
    assert torch.equal(bounds.at(there), ReplayBounds(other, ENVS, GAMMA).at(there))


def test_what_is_known_from_elsewhere_counts_too():
    buffer = empty(1000)
    met = fill(buffer)
    there, wanted = torch.arange(buffer.added), {}
    for steps in met:
        wanted |= bounds_by_hand(steps, -3.0)
    found = ReplayBounds(buffer, ENVS, GAMMA, lowest=-3.0).at(there)
    torch.testing.assert_close(found, torch.tensor([wanted[number] for number in there.tolist()]))
