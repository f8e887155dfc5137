"""Environments that are not robopol's, each against the real package."""

import importlib.util
import json

import gymnasium
import numpy as np
import pytest
import torch

from robopol.cli import run
from robopol.config import parse
from robopol.data import EpisodesMeta, Normalizer, load_episodes
from robopol.envs import make_env, make_expert
from robopol.envs.config import EnvConfig
from robopol.envs.foreign import FAMILIES, family_of
from robopol.envs.foreign.world import GlobalStream
from robopol.envs.rendering import why_not
from robopol.errors import ConfigError, EnvError, MissingExtraError
from robopol.evaluation import ExpertActor, rollout
from robopol.evaluation.recorder import Recorder
from robopol.training.collector import Collector

FACTS = {
    # id: (observation shapes, action entries, Hz, limit, whether states can be saved)
    "Hopper-v5": ({"state": (11,)}, 3, 125.0, 1000, True),
    "FetchPush-v4": ({"achieved_goal": (3,), "goal": (3,), "state": (25,)}, 4, 25.0, 50, True),
    "PointMaze_UMaze-v3": ({"achieved_goal": (2,), "goal": (2,), "state": (4,)}, 2, 100.0, 300, True),
    "AntMaze_UMaze-v5": ({"achieved_goal": (2,), "goal": (2,), "state": (105,)}, 8, 20.0, 700, True),
    "AdroitHandDoor-v1": ({"state": (39,)}, 28, 100.0, 200, True),
    "AdroitHandPen-v1": ({"state": (45,)}, 24, 100.0, 200, True),
    "FrankaKitchen-v1": ({"achieved_goal": (17,), "goal": (17,), "state": (59,)}, 9, 12.5, 280, True),
    "gym_pusht/PushT-v0": ({"state": (5,)}, 2, 10.0, 300, False),
    "dm_control/reacher-easy-v0": ({"position": (2,), "to_target": (2,), "velocity": (2,)}, 2, 50.0, 1000, True),
    "cube-single-v0": ({"goal": (28,), "state": (28,)}, 5, 20.0, 200, True),
    "puzzle-3x3-play-v0": ({"goal": (55,), "state": (55,)}, 5, 20.0, 500, True),
    "pointmaze-medium-navigate-v0": ({"goal": (2,), "state": (2,)}, 2, 10.0, 1000, True),
    "antmaze-medium-v0": ({"goal": (29,), "state": (29,)}, 8, 10.0, 1000, True),
}
REQUIRED = sorted({name for family in FAMILIES for name in family.requires} - {"gymnasium", "metaworld", "robosuite"})

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in REQUIRED),
    reason=f"needs all of {', '.join(REQUIRED)}: pip install --group test",
)


@pytest.fixture(scope="module", params=FACTS)
def world(request):
    """Two slots of each id, made once: what one test leaves behind must not matter to the next."""
    with make_env(request.param, 2, backend="serial") as env:
        yield env


def plan_for(spec, steps, seed=0):
    rng = np.random.default_rng(seed)
    low, high = np.clip(spec.action_low, -1, 1), np.clip(spec.action_high, -1, 512)
    return torch.from_numpy(rng.uniform(low, high, (steps, 1, len(low))).astype(np.float32))


def episode(env, slot, seed, plan):
    rows = [env.reset([slot], [seed])]
    for action in plan:
        result = env.step([slot], action)
        rows.append({**result.obs, "reward": result.reward, "success": result.success, "end": result.terminated})
        if result.terminated or result.truncated:
            break
    return rows


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(one[key], other[key]) for one, other in zip(left, right, strict=True) for key in one
    )


def test_the_spec_is_what_comes_out(world):
    env, spec = world, world.spec
    shapes, size, hz, limit, saves = FACTS[spec.id]
    assert (spec.obs_shapes, spec.max_episode_steps) == (shapes, limit)
    assert spec.control_hz == pytest.approx(hz)
    assert len(spec.action_low) == len(spec.action_high) == len(set(spec.action_names)) == size
    obs = env.reset([1, 0], [3, 4])
    assert {key: tuple(value.shape) for key, value in obs.items()} == {k: (2, *v) for k, v in shapes.items()}
    assert {str(value.dtype) for value in obs.values()} == {"torch.float32"}
    assert (env.save_state(0) is not None) == saves


def test_an_episode_is_its_seed_and_its_actions(world):
    env = world
    plan = plan_for(env.spec, 12)
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = episode(env, 0, 7, plan)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    episode(env, 0, 8, plan_for(env.spec, 12, seed=1))
    np.random.seed(2)
    assert same(first, episode(env, 0, 7, plan))
    assert same(first, episode(env, 1, 7, plan))
    assert not same(first, episode(env, 0, 8, plan))


def test_episodes_go_on_from_saved_states(world):
    env = world
    if not FACTS[env.spec.id][-1]:
        env.reset([0], [0])
        with pytest.raises(EnvError, match="cannot continue from a saved state"):
            env.restore_state(0, torch.zeros(5))
        return
    plan = plan_for(env.spec, 14)
    begun = env.reset([0], [7])
    start = env.save_state(0)
    for action in plan[:8]:
        env.step([0], action)
    middle = env.save_state(0)
    expected = [env.step([0], action) for action in plan[8:]]
    # in another slot, whose own episode has other goals and places
    env.reset([1], [9])
    env.step([1], plan[0])
    restored = env.restore_state(1, start)
    if env.spec.id != "FrankaKitchen-v1":  # it draws noise on its observations
        assert all(torch.allclose(restored[key], begun[key], atol=1e-5) for key in begun)
    env.restore_state(1, middle)
    for action, other in zip(plan[8:], expected, strict=True):
        result = env.step([1], action)
        for key, value in result.obs.items():
            # Most go on to the bit; some read positions that MuJoCo leaves one physics step behind, or draw noise.
            exact = env.spec.id not in ("FrankaKitchen-v1", "cube-single-v0")
            torch.testing.assert_close(value, other.obs[key], atol=0.0 if exact else 0.03, rtol=0.0)
        assert result.truncated == other.truncated


def test_states_of_other_datasets_are_taken():
    env = make_env("Hopper-v5", backend="serial")
    env.reset([0], [0])
    env.step([0], torch.full((1, 3), 0.5))
    state = env.envs[0].unwrapped.state_vector()
    seen = env.envs[0].unwrapped._get_obs()
    env.reset([0], [1])
    for vector in (state, np.append(3.0, state)):
        found = env.restore_state(0, torch.from_numpy(vector))
        np.testing.assert_allclose(found["state"][0], seen, atol=1e-6)
    with pytest.raises(EnvError, match=r"shape \(5,\), needed \(\d+,\), or \(12,\) for qpos and qvel"):
        env.restore_state(0, torch.zeros(5))


def test_fetch_has_succeeded_if_it_was_there_once():
    env = make_env("FetchPush-v4")
    env.reset([0], [0])
    inner = env.envs[0].unwrapped
    still = torch.zeros(1, 4)
    assert not env.step([0], still).success
    goal = inner.goal.copy()
    inner.goal = env.envs[0].latest["achieved_goal"].copy()
    result = env.step([0], still)
    assert result.success
    assert not result.terminated
    inner.goal = goal
    assert env.step([0], still).success
    env.reset([0], [0])
    assert not env.step([0], still).success


def test_mazes_go_on_at_the_goal_unless_told_otherwise():
    expert = ExpertActor(env := make_env("PointMaze_UMaze-v3", max_episode_steps=250))
    assert rollout(expert, env, [0])[0].model_dump()["length"] == 250
    expert = ExpertActor(env := make_env("PointMaze_UMaze-v3", continuing_task=False))
    (outcome,) = rollout(expert, env, [0])
    assert outcome.success
    assert outcome.length < 250


def test_the_kitchen_succeeds_when_all_that_was_asked_for_is_done():
    env = make_env("FrankaKitchen-v1", tasks_to_complete=["microwave", "light switch"])
    assert env.spec.obs_shapes["goal"] == (3,)
    first = env.reset([0], [0])
    inner, still = env.envs[0].unwrapped, torch.zeros(1, 9)
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

    np.testing.assert_allclose(first["goal"][0, :2], OBS_ELEMENT_GOALS["light switch"])  # in the order of their names
    for task, done in (("microwave", False), ("light switch", True)):
        inner.data.qpos[OBS_ELEMENT_INDICES[task]] = OBS_ELEMENT_GOALS[task]
        inner.data.qvel[:] = 0.0
        result = env.step([0], still)
        assert bool(result.success) == done == bool(result.terminated)
    state = env.save_state(0)
    env.reset([0], [1])
    env.restore_state(0, state)
    assert set(inner.episode_task_completions) == {"microwave", "light switch"}


def test_adroit_tells_success():
    env = make_env("AdroitHandDoor-v1")
    env.reset([0], [0])
    still = torch.zeros(1, 28)
    assert not env.step([0], still).success
    inner = env.envs[0].unwrapped
    inner.data.qpos[inner.door_hinge_addrs] = 1.4
    assert env.step([0], still).success


def test_push_t_covers_its_place():
    env = make_env("gym_pusht/PushT-v0")
    env.reset([0], [0])
    inner = env.envs[0].unwrapped
    assert not env.step([0], torch.tensor([[50.0, 50.0]])).success
    inner.block.angle, inner.block.position = float(inner.goal_pose[2]), tuple(map(float, inner.goal_pose[:2]))
    result = env.step([0], torch.tensor([[50.0, 50.0]]))
    assert result.success
    assert result.terminated


def test_goals_of_ogbench():
    env = make_env("pointmaze-medium-navigate-v0")
    first = env.reset([0], [5])
    np.testing.assert_array_equal(first["goal"][0], env.envs[0].latest_info["goal"].astype(np.float32))
    result = env.step([0], torch.ones(1, 2))
    assert torch.equal(result.obs["goal"], first["goal"])
    goals = {tuple(env.reset([0], [seed])["goal"][0].tolist()) for seed in range(6)}
    assert len(goals) == 6
    oracle = make_env("antmaze-medium-navigate-oraclerep-v0")
    assert oracle.spec.obs_shapes == {"goal": (2,), "state": (29,)}


def test_pictures_and_vectors_of_one_world():
    env = make_env("gym_pusht/PushT-v0", obs_type="pixels_agent_pos", observation_width=32, observation_height=24)
    assert env.spec.obs_shapes == {"agent_pos": (2,), "images.top": (24, 32, 3)}
    obs = env.reset([0], [0])
    assert obs["images.top"].dtype == torch.uint8
    assert obs["images.top"].float().std() > 1


@pytest.mark.skipif(why_not() is not None, reason="nothing can be rendered here")
@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("PointMaze_UMaze-v3", {"width": 64, "height": 64}),
        ("dm_control/reacher-easy-v0", {}),
        ("pointmaze-medium-navigate-v0", {"width": 64, "height": 64}),
    ],
)
def test_worlds_are_rendered_without_a_screen(id, options):
    env = make_env(id, **options)
    env.reset([0], [0])
    picture = env.render(0)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.std() > 5


@pytest.mark.skipif(why_not() is not None, reason="nothing can be rendered here")
def test_ogbench_seen_by_a_camera():
    env = make_env("visual-antmaze-medium-navigate-v0")
    assert env.spec.obs_shapes == {"images.front": (64, 64, 3), "images.goal": (64, 64, 3)}
    obs = env.reset([0], [0])
    assert obs["images.front"].float().std() > 5
    assert not torch.equal(obs["images.front"], obs["images.goal"])


@pytest.mark.parametrize(
    ("id", "seeds"),
    [
        ("PointMaze_Medium-v3", 2),
        ("pointmaze-medium-v0", 2),
        ("cube-single-play-singletask-v0", 1),
        pytest.param("puzzle-3x3-play-singletask-task1-v0", 1, marks=pytest.mark.slow),
    ],
)
def test_experts_succeed(id, seeds):
    with make_env(id) as env:
        outcomes = rollout(ExpertActor(env), env, range(seeds))
    assert all(outcome.success for outcome in outcomes)


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (4, 5), (2, 7)])
def test_presses_turn_over_what_is_wrong_and_nothing_else(shape):
    from robopol.envs.experts.ogbench import presses

    rng = np.random.default_rng(0)

    def press(which):
        board = np.zeros((shape[0] + 2, shape[1] + 2), dtype=int)
        for row, column in np.argwhere(which) + 1:
            for down, right in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
                board[row + down, column + right] += 1
        return board[1:-1, 1:-1] % 2 == 1

    for _ in range(20):
        wrong = press(rng.random(shape) < 0.5)
        np.testing.assert_array_equal(press(presses(wrong)), wrong)
    if shape == (4, 4):  # of its boards one in sixteen can be set right
        alone = np.zeros(shape, dtype=bool)
        alone[0, 0] = True
        with pytest.raises(EnvError, match="no presses"):
            presses(alone)


def test_demonstrations_are_collected(tmp_path):
    out = tmp_path / "demos.hdf5"
    words = ["env=ogbench_cube", "episodes=1", "num_envs=1", "env.wrappers=[{kind: concatenate}]"]
    assert run(["collect", f"out={out}", *words]) == 0
    episodes = load_episodes(str(out))
    assert bool(episodes.success.all())
    assert episodes.obs["state"].shape[1:] == (56,)
    assert episodes.states is not None
    assert episodes.meta.env_id == "cube-single-v0"
    assert episodes.meta.env_wrappers == ({"kind": "concatenate", "keys": ["state", "goal"], "into": "state"},)
    assert episodes.meta.versions["ogbench"]


def test_noise_of_an_expert_is_its_own():
    with make_env("pointmaze-medium-v0") as env:
        quiet, noisy = make_expert(env.spec.id), make_expert(env.spec.id, noise=0.2)
        env.reset([0], [0])
        world = env.envs[0]
        for expert in (quiet, noisy):
            expert.reset(world, np.random.default_rng(3))
        errors = []
        for _ in range(200):
            action = noisy.act(world)
            np.testing.assert_array_equal(noisy.clean, quiet.act(world))
            errors.append(action - noisy.clean)
        assert 0.05 < np.std(errors) < 0.2  # some of it is clipped
        with pytest.raises(EnvError, match="there is no way 'left'"):
            make_expert(env.spec.id, way="left")
        with pytest.raises(EnvError, match="at least 0"):
            make_expert(env.spec.id, noise=-1)
    with pytest.raises(EnvError, match=r"'FetchPush-v4' has no expert"):
        make_expert("FetchPush-v4")


def test_processes_give_what_one_process_gives():
    id, seeds = "PointMaze_UMaze-v3", {2: 11, 0: 12, 1: 13}
    with make_env(id, 3) as here, make_env(id, 3, workers=2) as there:
        assert there.spec == here.spec
        plan = plan_for(here.spec, 8)
        first = [env.reset(list(seeds), list(seeds.values())) for env in (here, there)]
        assert same(first[:1], first[1:])
        for step, slots in enumerate(([2, 0, 1], [1], [0, 2], [])):
            actions = plan[step : step + len(slots), 0]
            left, right = here.step(slots, actions), there.step(slots, actions)
            assert same([left.obs], [right.obs])
            assert all(torch.equal(one, other) for one, other in zip(left[1:], right[1:], strict=True))
        state = here.save_state(1)
        assert torch.equal(state, there.save_state(1))
        assert same([here.restore_state(2, state)], [there.restore_state(2, state)])
        with pytest.raises(EnvError, match=r"distinct and within 0\.\.2"):
            there.step([3], plan[0])
        with pytest.raises(EnvError, match=r"shape \(1,\), needed"):
            there.restore_state(0, torch.zeros(1))
        with pytest.raises(EnvError, match=r"env\.workers=0"):
            ExpertActor(there)


def test_processes_say_what_went_wrong_in_them():
    with pytest.raises(ConfigError, match="control_hz"):
        make_env("robopol/Reach-v0", 2, workers=1, control_hz=7)


def test_what_is_not_installed_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ogbench" else find(name))
    with pytest.raises(MissingExtraError, match=r"needs ogbench.*pip install 'robopol\[ogbench\]'"):
        make_env("cube-single-v0")


def test_an_id_imports_nothing_that_it_names():
    with pytest.raises(EnvError, match="names a module to import"):
        make_env("os:Hopper-v5")


@pytest.mark.parametrize(
    "options",
    [
        {"xml_file": "/home/me/evil.xml"},
        {"xml_file": "evil.xml"},
        {"xml_file": "evil"},
        {"robots": ["Panda", "..\\evil"]},
        {"controller_configs": {"body_parts": {"right": "~evil"}}},
    ],
)
def test_a_world_that_a_file_names_reads_no_files(options):
    with pytest.raises(EnvError, match=r"names the file '.*evil"):
        EnvConfig(id="Hopper-v5", options=options).checked()


def test_plain_options_of_a_file_are_taken():
    options = {"maze_map": [[1, "r"], [0, "g"]], "robots": ["Panda"], "version": "1.4.2", "direction": "left", "n": 0.5}
    config = EnvConfig(id="PointMaze_UMaze-v3", options=options)
    assert config.checked() is config


def test_families_know_their_ids(capsys):
    for family in FAMILIES:
        assert all(family_of(id) is family for id in family.examples)
    assert run(["list", "envs"]) == 0
    shown = capsys.readouterr().out
    assert "robopol/Push-v0" in shown
    assert "  FetchPush-v4" in shown


def test_wrong_options_are_refused_in_words():
    with pytest.raises(EnvError, match=r"gymnasium cannot make 'FetchPush-v4' with \{'color': 'red'\}"):
        make_env("FetchPush-v4", color="red")
    with pytest.raises(EnvError, match="max_episode_steps must be a number"):
        make_env("FetchPush-v4", max_episode_steps="many")
    assert make_env("FetchPush-v4", max_episode_steps=7).spec.max_episode_steps == 7


def test_mixed_spaces():
    class Odd(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict({"count": gymnasium.spaces.Discrete(3)})
        action_space = gymnasium.spaces.Box(-1, 1, (2,))

    gymnasium.register("robopol-test/Odd-v0", Odd)
    try:
        with pytest.raises(EnvError, match="observations count = Discrete"):
            make_env("robopol-test/Odd-v0")
    finally:
        del gymnasium.registry["robopol-test/Odd-v0"]


@pytest.mark.parametrize("end", [np.inf, np.finfo(np.float32).max, 1e300])
def test_an_action_without_bounds_has_none_and_is_executed_as_it_is(end):
    class Free(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        action_space = gymnasium.spaces.Box(np.array([-end, -1]), np.array([end, 1]), dtype=np.float64)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return action[:1], 0.0, False, False, {}

    gymnasium.register("robopol-test/Free-v0", Free)
    try:
        env = make_env("robopol-test/Free-v0")
    finally:
        del gymnasium.registry["robopol-test/Free-v0"]
    assert (env.spec.action_low, env.spec.action_high) == ([-np.inf, -1], [np.inf, 1])
    env.reset([0], [0])
    assert env.step([0], torch.tensor([[1e30, 5.0]])).obs["state"].item() == np.float32(1e30)
    meta = Recorder(env, "nobody").meta
    assert parse(EpisodesMeta, json.loads(json.dumps(meta.tree()))) == meta
    with pytest.raises(ConfigError, match="some action has none"):
        Collector(env, None, ["state"], 0, torch.device("cpu")).check_bounds()
    with pytest.raises(ConfigError, match="some action has none"):
        Normalizer(2, "bounds", (env.spec.action_low, env.spec.action_high))


def test_a_lent_stream_is_its_own():
    stream, other = GlobalStream(), GlobalStream()
    stream.seed(5)
    np.random.seed(0)
    expected = np.random.uniform(size=3)
    np.random.seed(0)
    with stream.lent():
        lent = [np.random.uniform()]
    with other.lent():
        np.random.uniform()
    with stream.lent():
        lent.append(np.random.uniform())
    np.testing.assert_array_equal(np.random.uniform(size=3), expected)
    stream.seed(5)
    with stream.lent():
        np.testing.assert_array_equal(np.random.uniform(size=2), lent)
