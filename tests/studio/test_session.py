"""An episode steered by hand: what is shown is what is executed, and what the command line says."""

import shlex

import pytest
import torch
from studio.point import policy_for, world

from robopol.commands.eval import EvalCommand
from robopol.config import parse
from robopol.configs import load_config
from robopol.configs.spoken import spoken
from robopol.errors import ConfigError, EnvError
from robopol.steering import BestOfConfig, GuideConfig, InnerStepsConfig
from robopol.steering.objectives import Motion
from robopol.studio import Session, Wish

DELTA = {"actions": [0, 1], "means": "delta", "start": [0, 1]}
EAST = Wish(point=(0.8, 0.0), strength=20.0)


def session(actions="delta", **options):
    env = world(actions)
    return Session(policy_for(env), env, plans=6, seed=7, **options)


def ends(paths):
    return torch.tensor([path[-1] for path in paths])


@pytest.mark.parametrize("actions", ["delta", "absolute"])
def test_a_point_pulls_the_plans(actions):
    steered = session(actions)
    found = steered.plan(EAST)
    assert (len(found.base), len(found.base[0])) == (6, 7)
    target = torch.tensor(EAST.point)
    assert ((ends(found.steered) - target).norm(dim=-1) < (ends(found.base) - target).norm(dim=-1)).all()
    assert found.numbers["score/steered"] > found.numbers["score/base"]
    assert found.numbers["guide/shift"] > 0
    assert steered.facts.axes == ("point x [m]", "point y [m]")
    assert steered.facts.extent == (-1, -1, 1, 1)
    assert steered.scene().place == pytest.approx(steered.scene().trail[0])


def test_plans_hang_on_the_wish_and_the_episode_alone():
    steered = session()
    first = steered.plan(EAST)
    assert steered.plan(Wish()).steered is None
    assert steered.plan(Wish()).base == first.base
    assert steered.plan(EAST) == first
    assert steered.execute(EAST).step == 4
    assert steered.plan(EAST).base != first.base
    assert steered.reset(7).step == 0
    assert steered.plan(EAST) == first
    assert steered.reset().seed == 8
    assert steered.plan(EAST).base != first.base


@pytest.mark.parametrize("which", ["steered", "base"])
def test_what_is_executed_is_the_plan_that_was_shown(which):
    """Of deltas below the point's speed the world's positions are those of the plan."""
    steered = session()
    wish = Wish(point=(0.8, 0.0), strength=0.5, proposals=2)
    for _ in range(2):
        shown, begun = getattr(steered.plan(wish), which)[0][:4], len(steered.scene().trail)
        moved = torch.tensor(steered.execute(wish, which).trail[begun - 1 :])
        assert moved.diff(dim=0).norm(dim=-1).max() < 0.049
        torch.testing.assert_close(moved[1:], torch.tensor(shown), rtol=0, atol=1e-6)


def test_all_that_is_drawn_counts():
    wish = Wish(
        point=(0.5, 0.1),
        line=((0.0, 0.0), (0.5, 0.1)),
        discs=({"centre": (0.2, 0.2), "radius": 0.1},),
        strength=5.0,
        proposals=3,
        inner_steps=2,
    )
    kinds = [one.kind for one in wish.objective(None).objectives]
    assert kinds == ["point", "sketch", "keep_away"]
    assert wish.objective(None).weights == (1.0, 1.0, 3.0)
    guide, inner, best = wish.steerings(None)
    assert (guide.scale, inner.count, best.n) == (5.0, 2, 3)
    assert guide.objective == best.objective == wish.objective(None)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, (GuideConfig, InnerStepsConfig)),
        ({"inner_steps": 1}, (GuideConfig,)),
        ({"strength": 0}, ()),
        ({"strength": 0, "proposals": 4}, (BestOfConfig,)),
        ({"point": None, "proposals": 4}, ()),
    ],
)
def test_what_does_nothing_is_left_out(changes, kinds):
    wish = parse(Wish, {"point": [0.5, 0.1]} | changes)
    assert tuple(type(one) for one in wish.steerings(None)) == kinds
    assert (session().plan(wish).steered is None) == (not kinds)


@pytest.mark.parametrize("motion", [None, parse(Motion, DELTA)])
def test_the_command_line_says_the_same(motion):
    always = GuideConfig(objective={"kind": "smoothness", "motion": DELTA}, scale=0.25)
    steered = session(motion=motion, steerings=(always,), words=("checkpoint=my run", "policy.steps=5"))
    wish = Wish(point=(0.5, -0.1), discs=({"centre": (0.2, 1e-5), "radius": 0.1},), strength=3.0, proposals=4)
    words = shlex.split(steered.plan(wish).command)
    assert words[:3] == ["robopol", "eval", "checkpoint=my run"]
    told = parse(EvalCommand, load_config("eval", [*words[3:], "checkpoint=x"]))
    assert told.steering == (always, *wish.steerings(motion))
    assert told.policy.steps == 5
    assert shlex.split(session().command(Wish())) == ["robopol", "eval", "checkpoint=RUN"]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "plain",
            "true",
            "Null",
            "",
            "two words",
            "it's",
            "back\\",
            "a\\'b",
            "{a: b}",
            "1",
            "1e3",
            "x, y",
            "a=b",
            "ümlaut",
        ),
        *(1, -2.5, 1e-7, True, None, [], [[1, 2], ["a"]], {"a": {"images.front": [None]}}),
    ],
)
def test_values_are_read_back_as_they_were_said(value):
    assert load_config("eval", [f"out={spoken(value)}"])["out"] == value


def test_what_always_steers_is_no_part_of_the_base():
    plain, steered = session(), session(steerings=EAST.steerings(None))
    assert steered.plan(Wish()).base == plain.plan(Wish()).base
    assert steered.plan(Wish()).steered == plain.plan(EAST).steered
    assert steered.plan(Wish()).numbers["guide/shift"] > 0
    with pytest.raises(ConfigError, match="both say what happens between two levels"):
        steered.plan(EAST)


def test_an_episode_ends_once():
    steered = session()
    while not (scene := steered.execute(Wish(), "base")).over:
        assert scene.step < 60
    assert len(scene.trail) == scene.step + 1
    with pytest.raises(EnvError, match="reset it"):
        steered.execute(Wish())
    assert not steered.reset().over


def test_success_is_told():
    steered = session("absolute")
    wish = Wish(point=(0.8, 0.0), strength=50.0)
    while not (scene := steered.execute(wish)).over:
        pass
    assert (scene.success, scene.way) == (True, "east")
    assert scene.total_reward > 1
    assert scene.picture.startswith("data:image/png;base64,iVBOR")


def test_a_policy_without_a_walk_is_steered_by_choosing():
    env = world()
    steered = Session(policy_for(env, "gaussian"), env, plans=6)
    assert not steered.facts.guided
    with pytest.raises(ConfigError, match="only be steered by choosing"):
        steered.plan(EAST)
    found = steered.plan(Wish(point=(0.8, 0.0), strength=0, proposals=8))
    assert found.numbers["score/steered"] > found.numbers["score/base"]


def test_the_arm_is_seen_from_above_with_what_lies_there():
    with world(id="robopol/Reach-v0", max_episode_steps=3) as env:
        steered = Session(policy_for(env, std=None), env, plans=2)
        scene = steered.scene()
        assert steered.facts.axes == ("tool x [m]", "tool y [m]")
        assert steered.facts.extent is None
        assert scene.place == pytest.approx(env.envs[0].tool_pose()[:2], abs=1e-6)
        [target] = scene.landmarks
        assert target.name == "target"
        names = env.spec.state_names
        state = steered._episode.history["state"][-1].tolist()
        assert list(target.place) == pytest.approx([state[names.index(f"target {axis} [m]")] for axis in "xy"])
        assert (scene.picture is None) == (scene.no_picture is not None)
        assert steered.execute(Wish(point=(0.4, 0.1), strength=2.0)).step == 3  # the episode ends within the plan
    with world(id="robopol/Reach-v0", action_space="ee_pose") as env:
        steered = Session(policy_for(env, std=None), env, plans=2)
        assert steered.scene().place == pytest.approx(env.envs[0].tool_pose()[:2], abs=1e-6)


@pytest.mark.parametrize(
    ("id", "options", "motion", "fault"),
    [
        ("robopol/Reach-v0", {"action_space": "joint_delta"}, None, "say it by motion"),
        ("robopol/MultiGoal-v0", {}, {"actions": [0], "means": "absolute"}, "has 1 axes: give it 2"),
        ("robopol/MultiGoal-v0", {}, {"actions": [0, 5], "means": "absolute"}, "none is 5"),
    ],
)
def test_motion_that_is_not_known_in_a_plane_is_refused(id, options, motion, fault):
    with world(id=id, **options) as env, pytest.raises(ConfigError, match=fault):
        Session(policy_for(env), env, motion=motion and parse(Motion, motion))


def test_a_policy_for_another_world_is_refused():
    with pytest.raises(ConfigError, match="was not made for"):
        Session(policy_for(world("absolute")), world("delta"))
