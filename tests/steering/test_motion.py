"""How windows become paths: integration, the past, names, and the simulator as the judge."""

import pytest
import torch
from steering.paths import ABSOLUTE, DELTA, built, observe, planar

from robopol.config import parse
from robopol.envs import make_env
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.steering.objectives import Motion
from robopol.steering.objectives.motion import motion_of


def track(tree, **options):
    return parse(Motion, tree).build(planar(**options).spec)


def arm(space: str, id: str = "robopol/Reach-v0", world: bool = True):
    """Return an arm and the contract of a policy for it."""
    env = make_env(id, 1, action_space=space, backend="serial")
    spec = env.spec
    return env, PolicySpec(
        obs_shapes={"state": spec.obs_shapes["state"]},
        action_names=spec.action_names,
        action_low=tuple(spec.action_low),
        action_high=tuple(spec.action_high),
        action_space=spec.action_space,
        control_hz=spec.control_hz,
        n_obs_steps=1,
        horizon=8,
        n_action_steps=4,
        env=EnvConfig.of(spec) if world else None,
    )


def test_positions_deltas_and_velocities_of_the_steps_from_now_on():
    windows = torch.randn(2, 3, 8, 2, generator=torch.Generator().manual_seed(0))
    obs = {"state": torch.arange(12.0).reshape(2, 2, 3)}
    future = windows[:, :, 1:]
    assert torch.equal(track(ABSOLUTE, n_obs_steps=2).positions(obs, windows), future)
    start = obs["state"][:, -1, 1:][:, None, None]
    expected = start + future.cumsum(2)
    torch.testing.assert_close(track(DELTA, n_obs_steps=2).positions(obs, windows), expected)
    velocity = track(DELTA | {"means": "velocity"}, n_obs_steps=2)
    torch.testing.assert_close(velocity.positions(obs, windows), start + future.cumsum(2) / 10)
    assert (velocity.steps, velocity.axes) == (7, 2)


@pytest.mark.parametrize("tree", [ABSOLUTE, DELTA, DELTA | {"means": "velocity"}])
def test_windows_of_a_path_lead_along_it(tree):
    rng = torch.Generator().manual_seed(0)
    path, rest = torch.randn(2, 3, 7, 2, generator=rng), torch.randn(2, 3, 8, 2, generator=rng)
    obs = {"state": torch.randn(2, 2, 3, generator=rng)}
    found = track(tree, n_obs_steps=2)
    windows = found.windows(obs, path, rest)
    torch.testing.assert_close(found.positions(obs, windows), path)
    one = track({**tree, "actions": [1], "start": [0] if tree["means"] != "absolute" else []}, n_obs_steps=2)
    assert torch.equal(one.windows(obs, path[..., :1], rest)[..., 0], rest[..., 0])


@pytest.mark.parametrize("space", ["ee_delta", "ee_pose"])
def test_the_arm_goes_where_its_windows_lead(space):
    """Commanded positions are met to a micrometre once the lag at the start is known, which is below 8 mm."""
    env, spec = arm(space)
    found, world = motion_of(spec, 3).build(spec), env.envs[0]
    for seed, moving in ((0, False), (1, True), (2, True)):
        state = env.reset([0], [seed])["state"]
        rng = torch.Generator().manual_seed(seed)
        lag, actions, commanded, measured = torch.zeros(3), [], [], []
        for step in range(-3 if moving else 0, 8):
            if step == 0:
                start = state[:, None]
                if space == "ee_delta":
                    lag = torch.tensor(world.commanded_pose()[:3] - world.tool_pose()[:3]).float()
            move = (2 * torch.rand(3, generator=rng) - 1) * torch.tensor([0.02, 0.02, 0.005])
            action = torch.tensor([[*move, 0.0, 0.5]])
            if space == "ee_pose":
                action[:, :3] += torch.tensor(world.commanded_pose()[:3])
            state = env.step([0], action).obs["state"]
            if step >= 0:
                actions.append(action)
                commanded.append(torch.tensor(world.commanded_pose()[:3]).float())
                measured.append(torch.tensor(world.tool_pose()[:3]).float())
        path = found.positions({"state": start}, torch.stack(actions, 1)[:, None])[0, 0]
        assert lag.abs().max() < (0.008 if moving else 1e-5)
        torch.testing.assert_close(path + lag, torch.stack(commanded), rtol=0, atol=1e-6)
        assert (path - torch.stack(measured)).abs().max() < 0.012


@pytest.mark.parametrize("actions", ["delta", "absolute"])
def test_the_point_goes_where_its_windows_lead(actions):
    env = make_env("robopol/MultiGoal-v0", 1, actions=actions)
    state = env.reset([0], [0])["state"]
    moves = 0.02 * torch.randn(1, 1, 6, 2, generator=torch.Generator().manual_seed(0))
    windows = moves if actions == "delta" else state + moves.cumsum(2)
    spec = planar().spec.model_copy(update={"action_names": env.spec.action_names, "obs_shapes": {"state": (2,)}})
    path = motion_of(spec, 2).build(spec).positions({"state": state[:, None]}, windows)[0, 0]
    reached = torch.cat([env.step([0], action[None]).obs["state"] for action in windows[0, 0]])
    torch.testing.assert_close(path, reached, rtol=0, atol=1e-6)


def test_entries_are_named_with_or_without_their_units():
    _, spec = arm("ee_delta")
    named = Motion(actions=("tool dx", "tool dy [m]"), means="delta", start=("tool x", "tool y [m]")).build(spec)
    assert named.motion == motion_of(spec, 2).build(spec).motion
    assert named.motion.actions == (0, 1)
    assert parse(Motion, named.motion.tree()) == named.motion
    _, homeless = arm("ee_delta", world=False)
    assert named.motion.build(homeless).motion == named.motion  # numbers need no world
    with pytest.raises(ConfigError, match="which world it is for"):
        Motion(actions=(0,), means="delta", start=("tool x",)).build(homeless)


def test_a_start_may_be_told_by_an_observation_that_the_policy_does_not_look_at():
    env, spec = arm("ee_delta")
    blind = spec.model_copy(update={"obs_shapes": {"images.front": (8, 8, 3)}})
    assert motion_of(blind, 2).build(blind).obs_shapes == {"state": env.spec.obs_shapes["state"]}
    with pytest.raises(ConfigError, match="has shape"):
        Motion(actions=(0,), means="delta", start=(0,), obs="images.front").build(blind)


def test_only_commands_of_a_tool_or_a_point_need_no_word_about_their_motion():
    assert motion_of(arm("ee_pose")[1], 2).build(arm("ee_pose")[1]).motion.means == "absolute"
    with pytest.raises(ConfigError, match="say it by motion"):
        built({"kind": "point", "point": [0.4, 0.1]})
    with pytest.raises(ConfigError, match="say it by motion"):
        motion_of(arm("joint_delta")[1], 3)


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        (DELTA | {"start": []}, "0 entries of the observation, and 2 delta action entries need 2"),
        (ABSOLUTE | {"start": [0]}, "2 absolute action entries need 0"),
        (ABSOLUTE | {"actions": [0, 2]}, "none is 2: east .m., north"),
        (ABSOLUTE | {"actions": ["east", "up"]}, "none is 'up'"),
        (ABSOLUTE | {"actions": ["east", 0]}, "twice"),
        (DELTA | {"start": [0, 3]}, "observation 'state' have 3 entries, and none is 3"),
        (DELTA | {"start": ["x", "y"]}, "which world it is for"),
        (DELTA | {"obs": "elsewhere"}, "which world it is for"),
    ],
)
def test_what_is_not_there_is_refused(tree, fault):
    with pytest.raises(ConfigError, match=fault):
        track(tree)


def test_velocities_need_the_rate():
    spec = planar().spec.model_copy(update={"control_hz": 0.0})
    with pytest.raises(ConfigError, match="control rate"):
        parse(Motion, DELTA | {"means": "velocity"}).build(spec)


def test_the_past_is_not_scored_and_has_no_gradient():
    policy = planar(n_obs_steps=3)
    windows = torch.randn(2, 2, policy.spec.horizon, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for motion in (ABSOLUTE, DELTA):
        objective = built({"kind": "point", "point": [1.0, 2.0], "motion": motion}, policy)
        (gradient,) = torch.autograd.grad(objective.score(observe(2, 3), windows).sum(), windows)
        assert not gradient[:, :, :2].any()
        assert gradient[:, :, 2:].all()
