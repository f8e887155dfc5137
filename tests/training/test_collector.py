"""Acting to learn: what the replay is told at the ends of episodes, and that a run comes back to where it was."""

import pytest
import torch

from robopol.algos.algorithm import Explored
from robopol.data.replay import ReplayBuffer
from robopol.envs import make_env
from robopol.errors import CheckpointError
from robopol.training.collector import FIRST_SEED, Collector

CPU = torch.device("cpu")
LIMIT = 7


def choose(obs, rng):
    """Towards the east, with noise: some episodes succeed, others reach their limit."""
    count = len(obs["state"])
    return Explored(torch.tensor([0.05, 0.0]) + 0.02 * torch.randn(count, 1, 2, generator=rng))


def collector(envs: int = 3, limit: int = LIMIT, capacity: int = 500, id: str = "robopol/MultiGoal-v0") -> Collector:
    env = make_env(id, envs, max_episode_steps=limit)
    size = env.spec.obs_shapes["state"]
    replay = ReplayBuffer(capacity, {"state": size}, len(env.spec.action_low))
    return Collector(env, replay, ["state"], 5, CPU)


def rows(replay: ReplayBuffer) -> torch.Tensor:
    return replay.state()["rows"][: len(replay)]


def test_the_replay_holds_true_final_observations_and_both_flags():
    made = collector(limit=16)
    made.begin()
    for _ in range(60):
        made.step(choose)
    assert made.env_steps == len(made.replay) == 180
    data = rows(made.replay).view(60, 3, -1)
    obs, action, reward, terminated, truncated, after = (
        data[..., part] for part in (slice(0, 2), slice(2, 4), 4, 5, 6, slice(7, 9))
    )
    ended = (terminated + truncated) > 0
    assert terminated.any()
    assert truncated.any()
    assert not (terminated * truncated).any()
    # within an episode the next row begins where this one ended; after its end it does not
    same = (obs[1:] == after[:-1]).all(-1)
    assert torch.equal(same, ~ended[:-1])
    # every successor is where this step really led to, by a world that is stepped again from the same seed
    with make_env("robopol/MultiGoal-v0", 1, max_episode_steps=16) as again:
        for slot in range(3):
            assert torch.equal(again.reset([0], [episode_seed(slot)])["state"][0], obs[0, slot])
            for time in range(int(ended[:, slot].nonzero()[0]) + 1):
                result = again.step([0], action[time, slot][None])
                assert torch.equal(result.obs["state"][0], after[time, slot])
                assert result.reward[0] == reward[time, slot]
    told = made.finished
    assert len(told) == int(ended.sum())
    assert sum(episode.success for episode in told) == int(terminated.sum())
    assert all(1 <= episode.length <= 16 for episode in told)


def episode_seed(number: int) -> int:
    made = collector(envs=number + 1)
    made.begin()
    return int(made.state()["seeds"][number])


def test_seeds_are_new_for_every_episode_and_no_evaluation_uses_them():
    made, seeds = collector(envs=2, limit=1), set()
    made.begin()
    for _ in range(30):
        seeds |= set(made.state()["seeds"].tolist())
        made.step(None)
    assert len(seeds) == 60
    assert min(seeds) >= FIRST_SEED


def test_random_actions_fill_the_bounds_and_nothing_else():
    made = collector(envs=3)
    made.begin()
    for _ in range(100):
        made.step(None)
    action = rows(made.replay)[:, 2:4]
    low, high = torch.tensor(made.env.spec.action_low), torch.tensor(made.env.spec.action_high)
    share = (action - low) / (high - low)
    assert 0 <= share.min() < 0.02
    assert 0.98 < share.max() <= 1
    torch.testing.assert_close(share.mean(0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.06)


def test_what_is_stored_is_what_the_world_executed():
    made = collector(envs=1)
    made.begin()
    made.step(lambda obs, rng: Explored(torch.full((1, 1, 2), 1e6)))
    assert torch.equal(rows(made.replay)[0, 2:4], torch.tensor(made.env.spec.action_high))


@pytest.mark.parametrize("id", ["robopol/MultiGoal-v0", "Pendulum-v1", "HalfCheetah-v5"])
def test_a_collector_that_is_taken_up_again_goes_on_to_the_same_bits(id):
    def act(obs, rng):
        return Explored(torch.randn(2, 1, len(one.env.spec.action_low), generator=rng))

    one, other = collector(2, 9, id=id), collector(2, 9, id=id)
    one.begin()
    for _ in range(13):
        one.step(act)
    other.replay.load_state(one.replay.state())
    other.load_state(one.state())
    one.finished = []
    for made in (one, other):
        for _ in range(17):
            made.step(act)
    assert torch.equal(rows(one.replay), rows(other.replay))
    assert one.finished == other.finished
    assert len(one.finished) >= 2


def test_a_world_that_does_not_repeat_itself_is_refused_in_words():
    made = collector()
    made.begin()
    for _ in range(3):
        made.step(choose)
    state = made.state()
    state["actions"] = state["actions"] + 0.01
    with pytest.raises(CheckpointError, match="cannot be resumed exactly"):
        collector().load_state(state)
    with pytest.raises(CheckpointError, match="cannot be resumed exactly"):
        collector(limit=2).load_state(made.state())
