"""Wrappers of batches: each against what it should do to the plain world."""

import numpy as np
import pytest
import torch

from robopol.config import parse
from robopol.configs import load_config
from robopol.envs import make_env
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError, EnvError
from robopol.evaluation import ExpertActor, Recorder, rollout
from robopol.evaluation.protocol import summarise
from robopol.registry import kinds, lookup

ID = "Pendulum-v1"
PUSH_T = "gym_pusht/PushT-v0"


def wrapped(*wrappers, id=ID, num_envs=1, **options):
    return parse(EnvConfig, {"id": id, "options": options, "wrappers": list(wrappers)}).make(num_envs)


def actions(steps, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-2, 2, (steps, 1, 1)).astype(np.float32))


def episode(env, seed, plan, slot=0):
    found = [env.reset([slot], [seed])]
    results = [env.step([slot], action) for action in plan]
    return found + [result.obs for result in results], results


class Constant:
    """An actor that always does the same."""

    def __init__(self, *action):
        self.action = torch.tensor(action)

    def reset(self, slots, seeds):
        pass

    def act(self, slots, obs):
        return self.action.expand(len(slots), -1)


def test_nothing_wraps_nothing():
    assert type(wrapped()) is type(make_env(ID))
    assert wrapped().spec == make_env(ID).spec


def test_action_repeat_is_that_many_steps():
    plan = actions(9)
    env = wrapped({"kind": "action_repeat", "times": 3})
    assert env.spec.max_episode_steps == 67  # of 200, the last one cut short
    assert env.spec.control_hz == pytest.approx(20 / 3)
    repeated, results = episode(env, 5, plan)
    plain, singles = episode(make_env(ID), 5, plan.repeat_interleave(3, dim=0))
    for step in range(9):
        assert torch.equal(repeated[step + 1]["state"], plain[3 * step + 3]["state"])
        total = sum(single.reward for single in singles[3 * step : 3 * step + 3])
        torch.testing.assert_close(results[step].reward, total)


def test_action_repeat_stops_with_each_episode():
    env = wrapped({"kind": "action_repeat", "times": 4}, num_envs=2, max_episode_steps=6)
    env.reset([0], [0])
    env.step([0], torch.ones(1, 1))
    env.reset([1], [1])
    result = env.step([1, 0], torch.ones(2, 1))
    assert result.truncated.tolist() == [False, True]  # after 4 steps, and after 2 of 4
    alone = make_env(ID, max_episode_steps=6)
    alone.reset([0], [0])
    last = [alone.step([0], torch.ones(1, 1)) for _ in range(6)]
    torch.testing.assert_close(result.reward[1], (last[4].reward + last[5].reward)[0])
    assert torch.equal(result.obs["state"][1], last[5].obs["state"][0])


def test_time_limit_truncates_each_slot_by_itself():
    env = wrapped({"kind": "time_limit", "steps": 3}, num_envs=2)
    assert env.spec.max_episode_steps == 3
    env.reset([0, 1], [0, 1])
    env.step([0], torch.zeros(1, 1))
    env.step([0, 1], torch.zeros(2, 1))
    assert env.step([1, 0], torch.zeros(2, 1)).truncated.tolist() == [False, True]
    with pytest.raises(EnvError, match=r"slots \[0\].*reset them first"):
        env.step([0, 1], torch.zeros(2, 1))
    env.reset([0], [2])
    assert not env.step([0], torch.zeros(1, 1)).truncated.any()


def test_final_limit_takes_a_time_out_for_an_end():
    env = wrapped({"kind": "time_limit", "steps": 2}, {"kind": "final_limit"}, num_envs=2)
    env.reset([0, 1], [0, 1])
    env.step([0], torch.zeros(1, 1))
    result = env.step([0, 1], torch.zeros(2, 1))
    assert result.terminated.tolist() == [True, False]
    assert not result.truncated.any()


def test_frame_stack_shows_the_past():
    plan = actions(5)
    plain, _ = episode(make_env(ID), 3, plan)
    stacked, _ = episode(wrapped({"kind": "frame_stack", "frames": 3}), 3, plan)
    states = [obs["state"] for obs in plain]
    for step, obs in enumerate(stacked):
        past = [states[max(step - ago, 0)] for ago in (2, 1, 0)]
        assert torch.equal(obs["state"], torch.cat(past, dim=1))


def test_frame_stack_stacks_channels():
    env = wrapped({"kind": "frame_stack", "frames": 2, "keys": ["images.top"]}, id=PUSH_T, obs_type="pixels_agent_pos")
    assert env.spec.obs_shapes == {"agent_pos": (2,), "images.top": (96, 96, 6)}
    first = env.reset([0], [0])["images.top"]
    assert torch.equal(first[..., :3], first[..., 3:])
    second = env.step([0], torch.tensor([[500.0, 500.0]])).obs["images.top"]
    assert torch.equal(second[..., :3], first[..., 3:])
    assert not torch.equal(second[..., 3:], first[..., 3:])


def test_noise_comes_from_the_seed_alone():
    noise = {"kind": "observation_noise", "std": {"state": 0.1}}
    plan = actions(200)
    plain, _ = episode(make_env(ID), 7, plan)
    noisy, _ = episode(wrapped(noise, num_envs=2), 7, plan)
    other = wrapped(noise, num_envs=2)
    other.reset([0], [1])
    again, _ = episode(other, 7, plan, slot=1)
    assert all(torch.equal(x["state"], y["state"]) for x, y in zip(noisy, again, strict=True))
    errors = torch.cat([x["state"] - y["state"] for x, y in zip(noisy, plain, strict=True)])
    assert errors.std().item() == pytest.approx(0.1, rel=0.1)
    assert abs(errors.mean().item()) < 0.015
    twice, _ = episode(wrapped(noise, noise), 7, plan)
    double = torch.cat([x["state"] - y["state"] for x, y in zip(twice, plain, strict=True)])
    assert double.std().item() == pytest.approx(0.1 * 2**0.5, rel=0.1)  # two streams, not one twice


def test_latency_shifts_actions():
    plan = actions(8)
    late, results = episode(wrapped({"kind": "latency", "action": 3}), 2, plan)
    shifted = torch.cat([torch.zeros(3, 1, 1), plan[:5]])
    plain, singles = episode(make_env(ID), 2, shifted)
    for step in range(8):
        assert torch.equal(late[step]["state"], plain[step]["state"])
        assert results[step].reward == singles[step].reward
    first, _ = episode(wrapped({"kind": "latency", "action": 1, "first": [1.5]}), 2, plan[:1])
    expected, _ = episode(make_env(ID), 2, torch.full((1, 1, 1), 1.5))
    assert torch.equal(first[1]["state"], expected[1]["state"])


def test_latency_shifts_observations():
    plan = actions(8)
    late, results = episode(wrapped({"kind": "latency", "observation": 2}), 2, plan)
    plain, singles = episode(make_env(ID), 2, plan)
    for step in range(9):
        assert torch.equal(late[step]["state"], plain[max(step - 2, 0)]["state"])
    assert [r.reward for r in results] == [r.reward for r in singles]


def test_latency_of_poses_needs_a_first_action():
    with pytest.raises(ConfigError, match=r"env\.options\.domain\.latency"):
        wrapped({"kind": "latency", "action": 1}, id="robopol/Reach-v0", action_space="joint_pos")
    with pytest.raises(ConfigError, match=r"give 'first'$"):
        wrapped({"kind": "latency", "action": 1}, id="robopol/MultiGoal-v0", actions="absolute")
    with pytest.raises(ConfigError, match="'first' has 2 entries, an action has 1"):
        wrapped({"kind": "latency", "action": 1, "first": [0.0, 0.0]})


def test_success_by_reward_and_by_return():
    plan = actions(30)
    _, singles = episode(make_env(ID), 1, plan)
    rewards = torch.cat([single.reward for single in singles]).double()
    threshold = rewards[10:].max().item()
    first = int((rewards >= threshold).nonzero()[0])
    _, results = episode(wrapped({"kind": "success", "reward": threshold}), 1, plan)
    assert [bool(r.success) for r in results] == [step >= first for step in range(30)]
    assert not any(bool(r.terminated) for r in results)
    # the sum of negative rewards falls: it is above the threshold at first, and that is not forgotten
    _, results = episode(wrapped({"kind": "success", "total": rewards[:1].sum().item()}), 1, plan)
    assert all(bool(r.success) for r in results)


def test_success_ends_episodes_if_asked():
    env = wrapped({"kind": "success", "reward": -100.0, "terminate": True})
    env.reset([0], [0])
    result = env.step([0], torch.zeros(1, 1))
    assert (bool(result.success), bool(result.terminated), bool(result.truncated)) == (True, True, False)
    with pytest.raises(EnvError, match="reset them first"):
        env.step([0], torch.zeros(1, 1))
    arrived = wrapped({"kind": "success", "terminate": True}, id="robopol/Reach-v0").spec
    assert arrived.wrappers == ({"kind": "success", "reward": None, "total": None, "terminate": True},)


def test_keys_are_joined_and_left_out():
    id = "PointMaze_UMaze-v3"
    pytest.importorskip("gymnasium_robotics")
    plain = make_env(id).reset([0], [4])
    joined = wrapped({"kind": "concatenate", "keys": ["state", "goal"]}, id=id)
    assert joined.spec.obs_shapes == {"achieved_goal": (2,), "state": (6,)}
    both = joined.reset([0], [4])
    assert torch.equal(both["state"], torch.cat([plain["state"], plain["goal"]], dim=1))
    assert torch.equal(both["achieved_goal"], plain["achieved_goal"])
    fewer = wrapped({"kind": "select", "keys": ("state",)}, id=id)
    assert fewer.reset([0], [4]).keys() == {"state"} == fewer.spec.obs_shapes.keys()
    whole = make_env(id)
    whole.reset([0], [4])
    push = torch.tensor([[1.0, -0.5]])
    assert torch.equal(fewer.step([0], push).obs["state"], whole.step([0], push).obs["state"])


def test_camera_observes_what_is_rendered():
    env = wrapped({"kind": "camera", "height": 48, "width": 64}, id=PUSH_T, num_envs=2)
    assert env.spec.obs_shapes["images.render"] == (48, 64, 3)
    assert env.spec.obs_dtypes["images.render"] == "uint8"
    seen = env.reset([1, 0], [8, 9])["images.render"]
    picture = env.render(1)
    assert seen.shape == (2, 48, 64, 3)
    assert seen[0].float().mean().item() == pytest.approx(picture.mean(), abs=1.0)
    assert not torch.equal(seen[0], seen[1])
    exact = wrapped({"kind": "camera", "name": "all", "height": picture.shape[0], "width": picture.shape[1]}, id=PUSH_T)
    assert torch.equal(exact.reset([0], [8])["images.all"][0], torch.from_numpy(picture.copy()))


def test_states_hold_what_wrappers_remember():
    stack = (
        {"kind": "latency", "action": 2},
        {"kind": "success", "total": -1e9},
        {"kind": "time_limit", "steps": 9},
    )
    env = wrapped(*stack, id="robopol/Reach-v0", num_envs=2)
    generator = torch.Generator().manual_seed(0)
    plan = (torch.rand(9, 1, 5, generator=generator) - 0.5) * 0.05
    env.reset([0, 1], [3, 4])
    for action in plan[:4]:
        env.step([0], action)
    state = env.save_state(0)
    assert len(state) == len(env.env.env.env.save_state(0)) + 2 * 5 + 3 + 1
    expected = [env.step([0], action) for action in plan[4:]]
    env.restore_state(1, state)
    found = [env.step([1], action) for action in plan[4:]]
    for one, other in zip(expected, found, strict=True):
        for left, right in zip(one[1:], other[1:], strict=True):
            assert torch.equal(left, right)
        assert torch.equal(one.obs["state"], other.obs["state"])
    assert bool(found[-1].truncated)


def test_what_a_world_is_wrapped_in_is_recorded_and_evaluated():
    config = parse(EnvConfig, {"id": ID, "wrappers": [{"kind": "time_limit", "steps": 4}, {"kind": "frame_stack"}]})
    with config.make(2) as env:
        recorder = Recorder(env, "nobody")
        outcomes = rollout(Constant(0.5), env, [0, 1, 2], recorder=recorder)
        episodes = recorder.episodes()
        assert episodes.obs["state"].shape == (12, 6)
        assert episodes.meta.env_wrappers == env.spec.wrappers
        again = summarise(outcomes, env).env
        assert again == EnvConfig.of(env.spec)
        assert again.wrappers == config.wrappers
        assert parse(EnvConfig, again.tree()) == again


def test_wrappers_are_listed_on_the_command_line():
    words = ["checkpoint=x", "env.id=Hopper-v5", "env.wrappers=[{kind: action_repeat, times: 2}, {kind: frame_stack}]"]
    tree = load_config("eval", words)["env"]
    config = parse(EnvConfig, tree)
    assert [wrapper.kind for wrapper in config.wrappers] == ["action_repeat", "frame_stack"]
    with pytest.raises(ConfigError, match=r"env\.wrappers\.0\.tims|wrappers\.0\.tims \(did you mean times\?\)"):
        parse(EnvConfig, {"id": ID, "wrappers": [{"kind": "action_repeat", "tims": 2}]})
    with pytest.raises(ConfigError, match=r"wrappers\.1: unknown wrapper 'frames'"):
        parse(EnvConfig, {"id": ID, "wrappers": [{"kind": "frame_stack"}, {"kind": "frames"}]})


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ({"kind": "observation_noise", "std": {"stat": 1.0}}, r"no observation 'stat' \(did you mean state\?\)"),
        ({"kind": "concatenate"}, "no observation 'goal'"),
        ({"kind": "select", "keys": ["x"]}, "no observation 'x'"),
        ({"kind": "frame_stack", "keys": ["images.a"]}, "no observation 'images.a'"),
    ],
)
def test_keys_that_do_not_exist_are_refused(wrapper, message):
    with pytest.raises(ConfigError, match=message):
        wrapped(wrapper)


def test_every_kind_wraps_any_world():
    given = {
        "time_limit": {"steps": 5},
        "observation_noise": {"std": {"state": 0.0}},
        "success": {"reward": 0.0},
        "select": {"keys": ("state",)},
        "concatenate": {"keys": ("state",)},
    }
    plan = actions(3)
    plain, _ = episode(make_env(ID, render_mode="rgb_array"), 6, plan)
    for kind in sorted(kinds("wrapper").keys() - {"camera", "action_repeat", "asked_way"}):
        env = lookup("wrapper", kind)(**given.get(kind, {})).build(make_env(ID, num_envs=1))
        found, results = episode(env, 6, plan)
        assert env.spec.wrappers[0]["kind"] == kind
        assert [obs["state"].shape[1:] for obs in found] == [env.spec.obs_shapes["state"]] * 4
        assert torch.equal(found[2]["state"][:, -3:], plain[2]["state"])
        assert all(part.shape == (1,) for part in results[0][1:])
        assert env.step([], torch.zeros(0, 1)).reward.shape == (0,)


def test_the_way_that_is_asked_for_is_shown_and_alone_counts():
    env = wrapped({"kind": "asked_way"}, id="robopol/MultiGoal-v0", num_envs=2)
    assert env.spec.obs_shapes["asked"] == (4,)
    asked = torch.cat([env.reset([0], [seed])["asked"] for seed in range(200)])
    assert torch.equal(asked[::40], torch.cat([env.reset([1], [seed])["asked"] for seed in range(0, 200, 40)]))
    assert (asked.sum(1) == 1).all()
    assert (asked.mean(0) - 0.25).abs().max() < 0.1
    recorder = Recorder(env, "expert")
    outcomes = rollout(ExpertActor(env, "north"), env, range(20), recorder=recorder)
    shown, episodes = asked[:20].argmax(1), recorder.episodes()
    assert {outcome.way for outcome in outcomes} == {"north"}
    assert [outcome.success for outcome in outcomes] == (shown == 1).tolist()
    assert episodes.terminated.sum() == 20
    assert torch.equal(episodes.returns(), (shown == 1).float())

    env.reset([0, 1], [3, 4])
    env.step([0], torch.tensor([[0.05, 0.0]]))
    seen = env.restore_state(1, env.save_state(0))
    assert torch.equal(seen["asked"], asked[3:4])
    assert torch.equal(env.step([1], torch.zeros(1, 2)).obs["asked"], asked[3:4])


@pytest.mark.parametrize(
    ("id", "message"), [(ID, "has no ways to choose from"), ("robopol/Reach-v0", "has no ways to choose from")]
)
def test_what_has_no_ways_cannot_be_asked_for_one(id, message):
    with pytest.raises(ConfigError, match=message):
        wrapped({"kind": "asked_way"}, id=id)


def test_a_constant_is_always_there_and_never_changes():
    env = wrapped({"kind": "constant", "key": "optimal", "value": [1.0, -2.0]}, num_envs=2)
    assert env.spec.obs_shapes["optimal"] == (2,)
    observations, _ = episode(env, 5, actions(3))
    plain, _ = episode(make_env(ID), 5, actions(3))
    for seen, bare in zip(observations, plain, strict=True):
        assert seen["optimal"].tolist() == [[1.0, -2.0]]
        assert torch.equal(seen["state"], bare["state"])
    with pytest.raises(ConfigError, match="has an observation 'state' of its own"):
        wrapped({"kind": "constant", "key": "state"})
