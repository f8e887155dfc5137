"""What every `VectorEnv` promises; a test of a backend derives from `Conformance` and says how to make one."""

import pytest
import torch

from robopol.errors import EnvError


class Conformance:
    """The contract of `robopol.envs.vector.VectorEnv`, for any world whose observation is "state".

    A derived class gives ``make(num_envs)`` and ``make(num_envs, short=True)``: the same world, truncated
    after 2 steps.
    """

    @classmethod
    def make(cls, num_envs, short=False):
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def env(cls):
        """Three worlds that the tests of a class share; every test resets what it steps."""
        with cls.make(3) as made:
            yield made

    @pytest.fixture(scope="class")
    @classmethod
    def short(cls):
        with cls.make(3, short=True) as made:
            yield made

    def test_shapes_types_and_places(self, env):
        obs = env.reset([1], [0])
        assert set(obs) == set(env.spec.obs_shapes) == {"state"}
        result = env.step([1], still(env, 1))
        assert result.obs["state"].shape == (1, *env.spec.obs_shapes["state"])
        tensors = [obs["state"], result.obs["state"], *result[1:]]
        types = [torch.float32, torch.float32, torch.float32, torch.bool, torch.bool, torch.bool, torch.int64]
        assert [x.dtype for x in tensors] == types
        assert all(x.shape == (1,) for x in result[1:])
        assert all(x.device.type == env.device.type for x in tensors)
        empty = env.step([], still(env, 0))
        assert empty.obs["state"].shape == (0, *env.spec.obs_shapes["state"])
        assert empty.way.shape == (0,)
        assert env.reset([], [])["state"].shape == (0, *env.spec.obs_shapes["state"])

    def test_an_episode_does_not_depend_on_its_slot_or_the_batch(self, env):
        seeds = {2: 11, 0: 12}
        start = env.reset(list(seeds), list(seeds.values()))["state"]
        together = [env.step(list(seeds), torch.stack([drawn(env, s, t) for s in seeds.values()])) for t in range(3)]
        for row, seed in enumerate(seeds.values()):
            assert torch.equal(env.reset([1], [seed])["state"][0], start[row])
            for t in range(3):
                alone = env.step([1], drawn(env, seed, t)[None])
                assert torch.equal(alone.obs["state"][0], together[t].obs["state"][row])
                assert alone.reward[0] == together[t].reward[row]

    def test_rows_follow_the_order_of_the_slots(self, env):
        forward = env.reset([0, 2], [5, 6])["state"]
        action = torch.stack([drawn(env, 5, 0), drawn(env, 6, 0)])
        ahead = env.step([0, 2], action)
        assert torch.equal(forward, env.reset([2, 0], [6, 5])["state"].flip(0))
        back = env.step([2, 0], action.flip(0))
        assert torch.equal(ahead.obs["state"], back.obs["state"].flip(0))
        assert torch.equal(ahead.reward, back.reward.flip(0))

    def test_a_slot_that_is_not_stepped_stands_still(self, env):
        env.reset([0, 1], [3, 3])
        env.step([0, 1], drawn(env, 0, 0).expand(2, -1))
        env.step([0], drawn(env, 0, 1)[None])
        env.reset([2], [4])
        late, early = env.step([1], drawn(env, 0, 1)[None]), env.reset([0], [3])
        for t in range(2):
            early = env.step([0], drawn(env, 0, t)[None])
        assert torch.equal(late.obs["state"], early.obs["state"])
        assert late.reward == early.reward

    def test_actions_are_clipped_to_the_box(self, env):
        env.reset([0, 1], [2, 2])
        high = torch.tensor(env.spec.action_high)
        result = env.step([0, 1], torch.stack([high, high + 7.0]))
        assert torch.equal(*result.obs["state"])
        assert result.reward[0] == result.reward[1]

    def test_nothing_resets_itself(self, short):
        with pytest.raises(EnvError, match=r"\[1\].*reset"):
            step_and_look(short, [1], still(short, 1))
        short.reset([0, 1], [0, 1])
        short.step([0], still(short, 1))
        assert short.step([0, 1], still(short, 2)).truncated.tolist() == [True, False]
        with pytest.raises(EnvError, match=r"\[0\].*reset"):
            step_and_look(short, [0, 1], still(short, 2))
        short.reset([0], [0])
        assert short.step([0], still(short, 1)).truncated.tolist() == [False]

    def test_a_refused_step_moves_nothing(self, env):
        env.reset([0, 1], [8, 8])
        action = drawn(env, 8, 0)
        with pytest.raises(EnvError, match="not finite"):
            step_and_look(env, [0], torch.full_like(action, float("nan"))[None])
        result = env.step([0, 1], action.expand(2, -1))
        assert torch.equal(*result.obs["state"])

    def test_wrong_calls_are_refused_in_words(self, env):
        with pytest.raises(EnvError, match=r"distinct and within 0\.\.2"):
            env.reset([0, 3], [0, 1])
        with pytest.raises(EnvError, match="distinct"):
            env.step([1, 1], still(env, 2))
        with pytest.raises(EnvError, match="with 1 seeds"):
            env.reset([0, 1], [0])
        with pytest.raises(EnvError, match="at least 0"):
            env.reset([0], [-1])
        env.reset([0], [0])
        with pytest.raises(EnvError, match="shape"):
            env.step([0], still(env, 1)[:, 1:])

    def test_a_restored_state_goes_on_alike(self, env):
        env.reset([0], [9])
        env.step([0], drawn(env, 9, 0)[None])
        state = env.save_state(0)
        assert state.dtype == torch.float64
        after = env.step([0], drawn(env, 9, 1)[None])
        env.reset([1], [1])
        env.restore_state(1, state)
        again = env.step([1], drawn(env, 9, 1)[None])
        # a world may not store what its simulator derives from the state
        torch.testing.assert_close(again.obs["state"], after.obs["state"], rtol=0, atol=1e-5)
        torch.testing.assert_close(again.reward, after.reward, rtol=0, atol=1e-5)
        with pytest.raises(EnvError, match="shape"):
            env.restore_state(1, state[:-1])


def step_and_look(env, slots, actions):
    """Step, and look at the outcome: a device may tell of a wrong call only then."""
    env.step(slots, actions)
    env.save_state(slots[0])


def still(env, count):
    """Return the action in the middle of the box, (count, A)."""
    low, high = torch.tensor(env.spec.action_low), torch.tensor(env.spec.action_high)
    return ((low + high) / 2).repeat(count, 1)


def drawn(env, seed, step):
    """Return an action within the box that the seed and the step decide, (A,)."""
    low, high = torch.tensor(env.spec.action_low), torch.tensor(env.spec.action_high)
    generator = torch.Generator().manual_seed(1000 * seed + step)
    return low + (high - low) * torch.rand(len(low), generator=generator)
