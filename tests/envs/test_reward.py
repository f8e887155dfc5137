"""A reward that is said once is the same in the world and in its records, and for chunks what its steps come to."""

import pytest
import torch

from robopol.data import Episodes, Windows
from robopol.data.rewards import rewarded
from robopol.data.windows import Transition
from robopol.envs import make_env
from robopol.envs.wrappers.reward import with_reward
from robopol.evaluation import ExpertActor, Recorder, rollout
from robopol.reward import Reward

ID, OPTIONS = "robopol/MultiGoal-v0", {"max_episode_steps": 18}
RULES = [Reward(scale=10.0, shift=-5.0), Reward(of="success", shift=-1.0), Reward(of="success", scale=2.0)]


@pytest.fixture(scope="module")
def recorded() -> Episodes:
    """Some episodes that succeed and some that run out of time."""
    with make_env(ID, 4, **OPTIONS) as env:
        recorder = Recorder(env, "expert")
        rollout(ExpertActor(env), env, range(12), recorder=recorder)
        episodes = recorder.episodes()
    assert 0 < int(episodes.success.sum()) < 12
    return episodes


@pytest.mark.parametrize("rule", RULES)
def test_the_world_and_its_records_agree_step_by_step(recorded, rule):
    changed = rewarded(recorded, rule)
    with make_env(ID, 1, **OPTIONS) as plain:
        env = with_reward(plain, rule)
        for number in range(12):
            first, length = int(recorded.starts[number]), int(recorded.lengths[number])
            env.reset([0], [int(recorded.seed[number])])
            for row in range(first, first + length):
                result = env.step([0], recorded.action[row : row + 1])
                assert result.reward.item() == changed.reward[row].item()
                assert result.terminated.item() == recorded.terminated[row].item() == changed.terminated[row].item()
                assert result.truncated.item() == changed.truncated[row].item()


def test_success_is_one_at_the_end_and_nothing_before(recorded):
    reward = rewarded(recorded, Reward(of="success", shift=-1.0)).reward
    last = recorded.starts + recorded.lengths - 1
    assert torch.equal(reward[last], recorded.success.float() - 1)
    assert (reward == 0).sum() == recorded.success.sum()
    assert set(reward.tolist()) == {-1.0, 0.0}


def test_nothing_said_is_nothing_done(recorded):
    assert rewarded(recorded, Reward()) is recorded
    with make_env(ID, 1) as env:
        assert with_reward(env, Reward()) is env


def test_a_chunk_is_worth_what_its_steps_are(recorded):
    rule, gamma = RULES[0], 0.9
    plain, changed = (
        Windows(part, 1, 3, transition=Transition(3, gamma)).gather(torch.arange(recorded.num_steps))
        for part in (recorded, rewarded(recorded, rule))
    )
    taken = torch.zeros(recorded.num_steps)
    left = (recorded.starts + recorded.lengths)[recorded.episode_index] - torch.arange(recorded.num_steps)
    for k in range(3):
        taken += gamma**k * (left > k)
    torch.testing.assert_close(changed["reward"], 10 * plain["reward"] - 5 * taken)
    assert torch.equal(changed["discount"], plain["discount"])
