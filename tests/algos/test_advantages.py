"""Advantages by hand, by brute force and from rollouts in chunks; the scale of rewards."""

import numpy as np
import pytest
import torch
from rollouts import build, rollout

from robopol.algos.advantages import Outcomes, RewardScale, advantages

GAMMA, LAMBDA = 0.9, 0.8


def outcomes(steps: int, count: int, seed: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((steps, count)) < 0.2, rng.random((steps, count)) < 0.2
    discount = GAMMA ** rng.integers(1, 4, (steps, count)) * ~terminated
    reward, value, after = rng.normal(size=(3, steps, count))
    return Outcomes(reward, discount, (~terminated & ~truncated).astype(float), value, after)


def test_numbers_by_hand():
    """One environment: a step that goes on, one that terminates, one that is cut off, one at the rollout's end."""
    made = Outcomes(
        reward=np.array([[1.0], [2.0], [3.0], [4.0]]),
        discount=np.array([[0.9], [0.0], [0.9], [0.9]]),
        goes_on=np.array([[1.0], [0.0], [0.0], [1.0]]),
        value=np.array([[0.5], [1.0], [1.5], [2.0]]),
        next_value=np.array([[1.0], [100.0], [10.0], [20.0]]),
    )
    last = 4 + 0.9 * 20 - 2  # bootstrapped from where the rollout stopped
    cut = 3 + 0.9 * 10 - 1.5  # bootstrapped from the true final observation; nothing of the next episode
    over = 2 - 1.0  # what terminated earns nothing more, whatever V says of its last state
    first = (1 + 0.9 * 1 - 0.5) + 0.9 * 0.8 * over
    assert advantages(made, LAMBDA)[:, 0] == pytest.approx([first, over, cut, last])


@pytest.mark.parametrize("seed", range(5))
def test_as_a_sum_over_what_follows(seed):
    made = outcomes(12, 4, seed)
    delta = made.reward + made.discount * made.next_value - made.value
    found = advantages(made, LAMBDA)
    for column in range(4):
        for t in range(12):
            total, weight = 0.0, 1.0
            for k in range(t, 12):
                total += weight * delta[k, column]
                weight *= LAMBDA * made.discount[k, column]
                if not made.goes_on[k, column]:
                    break
            assert found[t, column] == pytest.approx(total)


def test_the_ends_of_lambda():
    made = outcomes(10, 3, 0)._replace(goes_on=np.ones((10, 3)), discount=np.full((10, 3), GAMMA))
    made = made._replace(next_value=np.concatenate([made.value[1:], made.next_value[-1:]]))
    returns = np.zeros((11, 3))
    returns[10] = made.next_value[-1]
    for t in range(9, -1, -1):
        returns[t] = made.reward[t] + GAMMA * returns[t + 1]
    assert advantages(made, 1.0) == pytest.approx(returns[:-1] - made.value)
    assert advantages(made, 0.0) == pytest.approx(made.reward + GAMMA * made.next_value - made.value)


def test_a_chunk_is_discounted_by_the_steps_that_were_executed():
    """By hand: rewards within a chunk by gamma^k, what follows by gamma^h, an environment with fewer decisions."""
    algo = build("ppo", "chunks", model={"discount": GAMMA}, gae_lambda=LAMBDA)
    batch = rollout(algo, 1, 3)
    batch |= {
        "order": torch.tensor([[0, 1], [2, -1]]),
        "reward": torch.tensor([[1.0, 2.0, 3.0], [5.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
        "length": torch.tensor([3, 1, 2]),
        "terminated": torch.tensor([False, True, False]),
        "truncated": torch.tensor([False, False, True]),
    }
    value, after = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.3, 7.0, 0.5])
    found = algo._advantages(batch, value, after)
    third = (1 + GAMMA) + GAMMA**2 * 0.5 - 0.3
    first = (1 + GAMMA * 2 + GAMMA**2 * 3) + GAMMA**3 * 0.3 - 0.1 + LAMBDA * GAMMA**3 * third
    torch.testing.assert_close(found, torch.tensor([first, 5 - 0.2, third]))


def test_rewards_are_divided_by_the_spread_of_the_return_so_far():
    """Over two rollouts, as if the returns of every step so far had been stored."""
    rng = np.random.default_rng(0)
    reward, on = 3 * rng.normal(size=(40, 2)) + 1, (rng.random((40, 2)) > 0.1).astype(float)
    made = np.ones((40, 2), bool)
    made[17:20, 1] = False  # a rollout in which one environment came to fewer decisions
    scale, seen, running = RewardScale(limit=1.0), [], np.zeros(2)
    for part in (slice(0, 20), slice(20, 40)):
        found = scale.scale(reward[part], np.full((20, 2), GAMMA), on[part], made[part])
        for t in range(part.start, part.stop):
            for column in range(2):
                if made[t, column]:
                    running[column] = GAMMA * running[column] + reward[t, column]
                    seen.append(running[column])
                    running[column] *= on[t, column]
        assert found == pytest.approx(np.clip(reward[part] / np.sqrt(np.var(seen) + 1e-8), -1, 1))
    other = RewardScale(limit=1.0)
    other.load_state(scale.state())
    more = (reward[:5], np.full((5, 2), GAMMA), on[:5], made[:5])
    assert np.array_equal(scale.scale(*more), other.scale(*more))
