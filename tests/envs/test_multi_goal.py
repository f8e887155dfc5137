"""The point among goals: its motion, its ways, its rewards, its expert."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from robopol.cli import run
from robopol.data import load_episodes
from robopol.envs import make_env, make_expert
from robopol.envs.detours import Detours, entered, grown, inside, outside
from robopol.envs.multi_goal import CLEARANCE, DISC, GOAL_RADIUS, PENALTY, PICTURE, RADIUS, RING, STEP, MultiGoal
from robopol.errors import ConfigError, EnvError
from robopol.evaluation import ExpertActor, rollout
from robopol.evaluation.replay import replay

ID = "robopol/MultiGoal-v0"
OBSTACLES = ("none", "maze", "disc")


def put(env, position, seed=0):
    """Start an episode at a place."""
    env.reset(seed=seed)
    env.position[:] = position
    env._episode[3:5] = env._way_left()
    return env


def play(env, expert, seed):
    """Play one episode; return its positions, its rewards and its last info."""
    positions, rewards = [env.reset(seed=seed)[0]["state"]], []
    expert.reset(env, np.random.default_rng(seed))
    while True:
        observation, reward, terminated, truncated, info = env.step(expert.act(env))
        positions.append(observation["state"])
        rewards.append(reward)
        if terminated or truncated:
            return np.array(positions), np.array(rewards), info


@pytest.mark.filterwarnings("ignore:.*Overriding environment.*")
@pytest.mark.parametrize("actions", ["delta", "absolute"])
def test_gymnasium_checker_passes(actions):
    check_env(gymnasium.make(ID, actions=actions).unwrapped)


@pytest.mark.parametrize("obstacles", OBSTACLES)
@pytest.mark.parametrize("actions", ["delta", "absolute"])
def test_the_expert_takes_its_way(obstacles, actions):
    env = MultiGoal(obstacles=obstacles, actions=actions)
    for number, way in enumerate(env.way_names):
        for seed in range(3):
            positions, rewards, info = play(env, make_expert(ID, way=way), seed)
            assert (info["success"], info["way"]) == (True, number)
            assert np.linalg.norm(positions[-1] - env.goals[number]) < GOAL_RADIUS
            assert 1.8 < sum(rewards) <= 2.0
            assert env.cost(positions).max() == 0


@pytest.mark.parametrize("obstacles", OBSTACLES)
def test_the_expert_nearly_always_succeeds(obstacles):
    with make_env(ID, 10, obstacles=obstacles, goals=5) as env:
        outcomes = rollout(ExpertActor(env), env, range(60))
    assert sum(outcome.success for outcome in outcomes) > 57
    assert {outcome.way for outcome in outcomes} == set(env.spec.way_names) == {f"goal_{i}" for i in range(5)}


def test_noise_disturbs_the_executed_action_only():
    env = put(MultiGoal(), (0.3, 0.1))
    noisy, quiet = make_expert(ID, way="west"), make_expert(ID, way="west", noise=0.0)
    for expert in (noisy, quiet):
        expert.reset(env, np.random.default_rng(0))
    errors = []
    for _ in range(400):
        action = noisy.act(env)
        np.testing.assert_array_equal(noisy.clean, quiet.act(env))
        errors.append(action[1] - noisy.clean[1])  # westwards, some of it is clipped
    assert np.std(errors) == pytest.approx(0.01, rel=0.1)


def test_the_mean_of_opposite_ways_leads_nowhere():
    env = MultiGoal()
    env.reset(seed=0)
    experts = [make_expert(ID, way=way, noise=0.0) for way in env.way_names]
    for expert in experts:
        expert.reset(env, np.random.default_rng(0))
    over = False
    while not over:
        _, _, terminated, over, _ = env.step(np.mean([expert.act(env) for expert in experts], axis=0))
        assert not terminated


@given(st.integers(0, 10_000), st.sampled_from(["delta", "absolute"]))
def test_the_point_moves_by_a_step_at_most_and_never_into_walls(seed, actions):
    env, rng = MultiGoal(obstacles="maze", actions=actions), np.random.default_rng(seed)
    put(env, outside(rng.uniform(-0.7, 0.7, 2), grown(env.walls, 2 * RADIUS)))
    start = env.position.copy()
    for _ in range(40):
        before = env.position.copy()
        env.step(rng.uniform(env.action_space.low, env.action_space.high))
        assert np.linalg.norm(env.position - before) <= STEP + 1e-4
        assert not inside(env.position, grown(env.walls, RADIUS))
        assert entered(before, env.position - before, grown(env.walls, 0.0)) == 1.0
    assert np.linalg.norm(env.position - start) > 1e-3


def test_the_point_slides_along_a_wall_until_it_turns_away():
    env = put(MultiGoal(obstacles="maze"), (0.31, 0.0))
    seen = [env.step([0.04, 0.01]) for _ in range(5)]
    np.testing.assert_allclose(env.position, [0.4 - RADIUS, 0.05], atol=1e-4)
    assert [info["cost"] for *_, info in seen] == [0, 1, 1, 1, 1]
    assert env.cost([observation["state"] for observation, *_ in seen]).tolist() == [0, 1, 1, 1, 1]
    *_, info = env.step([-0.05, 0.0])
    assert info["cost"] == 0.0
    assert env.position[0] == pytest.approx(0.35 - RADIUS, abs=1e-4)
    put(env, (0.98, 0.0)).step([0.05, 0.0])
    assert env.position[0] == 1.0
    env = put(MultiGoal(obstacles="maze"), (0.0, 0.6))
    for _ in range(3):
        env.step([0.01, -0.04])
    np.testing.assert_allclose(env.position, [0.03, 0.5 + RADIUS], atol=1e-4)


def test_an_absolute_action_is_where_the_point_goes():
    env = put(MultiGoal(actions="absolute"), (0.0, 0.0))
    np.testing.assert_allclose(env.step([0.03, -0.02])[0]["state"], [0.03, -0.02], atol=1e-7)
    np.testing.assert_allclose(env.step([0.03, 0.9])[0]["state"], [0.03, 0.03], atol=1e-7)
    assert env.env_spec.action_high == [1.0, 1.0]
    assert env.env_spec.action_space == "absolute"


def test_success_is_at_a_goal_only():
    for number in range(6):
        env = MultiGoal(goals=6)
        for distance, success in ((GOAL_RADIUS + 0.002, False), (GOAL_RADIUS - 0.002, True)):
            put(env, env.goals[number] * (1 - distance / RING))
            _, _, terminated, truncated, info = env.step([0.0, 0.0])
            assert terminated is info["success"] is success
            assert info["way"] == (number if success else -1)
            assert not truncated


def test_the_goal_that_is_shown_is_the_one_that_counts():
    env = MultiGoal(target="shown")
    wanted = set()
    for seed in range(12):
        shown = env.reset(seed=seed)[0]["target"]
        wanted.add(env.wanted)
        np.testing.assert_array_equal(shown, env.goals[env.wanted].astype(np.float32))
        for number, way in enumerate(env.way_names):
            _, rewards, info = play(env, make_expert(ID, way=way), seed)
            assert (info["way"], info["success"]) == (number, number == env.wanted)  # any goal ends the episode
            assert (sum(rewards) > 1.8) == info["success"]
        _, _, info = play(env, make_expert(ID), seed)  # who is not told otherwise looks
        assert info["success"]
    assert wanted == set(range(4))
    state = env.save_state()
    other = MultiGoal(target="shown")
    other.reset(seed=seed + 1)
    np.testing.assert_array_equal(other.restore_state(state)["target"], env.goals[env.wanted].astype(np.float32))


def test_where_any_goal_counts_episodes_are_as_ever():
    shown, any_ = MultiGoal(target="shown"), MultiGoal()
    for seed in range(5):
        first, second = shown.reset(seed=seed)[0], any_.reset(seed=seed)[0]
        np.testing.assert_array_equal(first["state"], second["state"])
        assert set(first) == {"state", "target"}
        assert set(second) == {"state"}


def test_rewards():
    def rewards(kind, obstacles="disc"):
        """Go straight through the disc to the goal in the east."""
        env = put(MultiGoal(reward=kind, obstacles=obstacles), (0.08, 0.0))
        return np.array([env.step([0.05, 0.0])[1] for _ in range(13)])

    assert rewards("sparse").tolist() == [0.0] * 12 + [1.0]
    dense, safe = rewards("dense"), rewards("safe")
    assert rewards("dense", "none").sum() == pytest.approx(2 - 0.07 / 0.72)
    inner = abs(0.08 + 0.05 * np.arange(1, 14) - DISC[0]) < DISC[2]
    assert inner.sum() == 6
    np.testing.assert_allclose(dense - safe, PENALTY * inner)


def test_costs_are_told_by_recorded_positions(tmp_path):
    out = tmp_path / "demos.hdf5"
    words = ["env=multi_goal", "env.options.obstacles=disc", "episodes=8", "way=east", f"out={out}"]
    assert run(["collect", *words]) == 0
    episodes = load_episodes(str(out))
    assert bool(episodes.success.all())
    assert episodes.meta.env_options["obstacles"] == "disc"
    assert episodes.meta.way_names[0] == "east"
    assert episodes.way.tolist() == [0] * 8
    with make_env(episodes.meta.env_id, **episodes.meta.env_options) as env:
        world = env.envs[0]
        assert world.cost(episodes.obs["state"]).tolist() == [0.0] * len(episodes.action)
        assert world.cost([[0.4, 0.1], [0.4, 0.2]]).tolist() == [1.0, 0.0]
        for mode in ("states", "actions"):
            assert all(drift.within(0.0) for drift in replay(episodes, env, mode, range(8)))


def test_the_spec_makes_the_same_world():
    env = make_env(ID, goals=3, obstacles="disc", actions="absolute", reward="safe", max_episode_steps=9)
    spec = env.spec
    assert make_env(ID, **spec.options).spec == spec
    assert spec.way_names == ("goal_0", "goal_1", "goal_2")
    assert (spec.control_hz, spec.max_episode_steps) == (10.0, 9)
    assert spec.obs_shapes["state"] == (len(spec.state_names),) == (2,)
    assert MultiGoal().way_names == ("east", "north", "west", "south")
    np.testing.assert_allclose(MultiGoal().goals, RING * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]), atol=1e-12)


def test_the_picture_shows_everything():
    def colour(picture, x, y):
        return picture[round((1 - y) / 2 * PICTURE), round((x + 1) / 2 * PICTURE)].astype(int)

    env = put(MultiGoal(obstacles="maze"), (0.0, 0.0))
    env._trail = [env.position.copy()]
    for _ in range(4):
        env.step([0.0, 0.05])
    picture = env.render()
    assert picture.shape == (PICTURE, PICTURE, 3)
    assert picture.dtype == np.uint8
    red, trail, wall, goal, nothing = (
        colour(picture, *place) for place in ((0, 0.2), (0, 0.1), (0, 0.45), (0, 0.8), (0.2, 0.2))
    )
    assert red[0] > red[2] + 100
    assert trail[2] > trail[0] + 50
    assert wall.max() < 130
    assert goal[1] > goal[0]
    assert nothing.tolist() == [255, 255, 255]
    unsafe = colour(put(MultiGoal(obstacles="disc"), (0.0, 0.0)).render(), 0.4, 0.1)
    assert unsafe[0] > unsafe[1] + 20


def test_what_it_cannot_do_is_said():
    env = MultiGoal()
    with pytest.raises(EnvError, match="before reset"):
        env.step([0.0, 0.0])
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"shape \(3,\), needed \(2,\): point dx \[m\]"):
        env.step([0.0, 0.0, 0.0])
    with pytest.raises(EnvError, match="not finite"):
        env.step([np.nan, 0.0])
    with pytest.raises(EnvError, match=r"state has shape \(3,\), needed \(8,\)"):
        env.restore_state(np.zeros(3))
    with pytest.raises(ConfigError, match=r"unknown key: goal \(did you mean goals\?\)"):
        make_env(ID, goal=3)
    with pytest.raises(ConfigError, match="goals"):
        make_env(ID, goals=1)
    with pytest.raises(EnvError, match="cannot be stepped natively"):
        make_env(ID, backend="native")
    with pytest.raises(EnvError, match="cannot be simulated by MuJoCo Warp"):
        make_env(ID, backend="warp", device="cpu")
    expert = make_expert(ID, way="up")
    with pytest.raises(EnvError, match="no way 'up'; the ways are: east, north, west, south"):
        expert.reset(env, np.random.default_rng(0))
    with pytest.raises(EnvError, match="at least 0"):
        make_expert(ID, noise=-1.0)


# The geometry: one square between two places

SQUARE = ((-0.1, -0.1, 0.1, 0.1),)
POINT = st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0)).map(np.array)


def test_the_shortest_way_around_a_square():
    ways = Detours(np.array([[1.0, 0.0], [0.0, 0.5]]), SQUARE, 0.1)
    expected = 2 * np.hypot(0.8, 0.2) + 0.4
    np.testing.assert_allclose(ways.left(np.array([[-1.0, 0.0], [0.5, 0.0]]))[:, 0], [expected, 0.5])
    np.testing.assert_allclose(ways.turn(np.array([-1.0, 0.01]), 0), [-0.2, 0.2])
    np.testing.assert_allclose(ways.turn(np.array([-0.2, 0.2]), 0), [0.2, 0.2])
    np.testing.assert_allclose(ways.turn(np.array([0.2, 0.2]), 0), [1.0, 0.0])
    np.testing.assert_allclose(ways.turn(np.array([0.2, 0.2]), 1), [0.0, 0.5])
    # from within the margin it is left first
    np.testing.assert_allclose(ways.left(np.array([0.0, 0.15]))[1], 0.05 + 0.3)


@given(POINT, POINT)
def test_a_straight_motion_is_stopped_where_it_meets_a_square(start, end):
    start, rectangle = outside(start, np.array(SQUARE)), np.array(SQUARE)
    part = entered(start, end - start, rectangle)
    dense = start + np.linspace(0.0, 1.0, 2001)[:, None] * (end - start)
    hit = inside(dense, grown(SQUARE, -1e-9))
    assert not hit[np.linspace(0.0, 1.0, 2001) < part].any()
    if part < 1.0:
        assert not inside(start + part * (end - start), grown(SQUARE, -1e-9))
        assert inside(start + part * (end - start), grown(SQUARE, 1e-9))


@given(POINT)
def test_ways_are_as_long_as_what_is_walked(point):
    env = MultiGoal(obstacles="maze")
    first = outside(point, grown(env.walls, CLEARANCE))
    for goal in range(4):
        walked, place = float(np.linalg.norm(first - point)), first
        for _ in range(10):
            turn = env.detours.turn(place, goal)
            assert not inside(place + np.linspace(0, 1, 50)[:, None] * (turn - place), grown(env.walls, 0.04)).any()
            walked, place = walked + float(np.linalg.norm(turn - place)), turn
            if np.array_equal(turn, env.goals[goal]):
                break
        assert walked == pytest.approx(env.detours.left(point)[goal], abs=1e-4)
        assert walked >= np.linalg.norm(point - env.goals[goal]) - 1e-9


def test_points_inside_go_to_the_nearest_side():
    points = np.array([[0.05, 0.0], [0.0, -0.09], [0.3, 0.0]])
    np.testing.assert_allclose(outside(points, np.array(SQUARE)), [[0.1, 0.0], [0.0, -0.1], [0.3, 0.0]])


def test_one_seed_one_episode():
    with make_env(ID, 2, obstacles="maze") as env:
        first, second = env.reset([0, 1], [3, 4])["state"]
        assert not torch.equal(first, second)
        assert torch.equal(env.reset([1], [3])["state"][0], first)
        assert float(torch.stack([first, second]).abs().max()) <= 0.1
