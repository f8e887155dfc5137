"""A policy through the whole bridge, in lock-step with the simulated arm, against the same policy in its simulator."""

import numpy as np
import pytest
import torch
from lockstep import robot
from reaching import reach_policy

from robopol import cli
from robopol.commands.deploy import DeployCommand
from robopol.config import parse
from robopol.configs import load_config
from robopol.envs.control import CONTROLS
from robopol.envs.kinematics import HOME, ToolKinematics
from robopol.errors import ConfigError
from robopol.evaluation import rollout
from robopol.execution import OpenLoopConfig, RecedingHorizonConfig, TemporalEnsembleConfig
from robopol.real_robot import rehearsal
from robopol.real_robot.events import Code
from robopol.real_robot.motion import Motion
from robopol.real_robot.observing import ArmObserver
from robopol.real_robot.placing import modelled
from robopol.real_robot.rehearsal import rehearse
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.ticks import new_tick
from robopol.real_robot.waypoints import JointWaypoints, waypoints_for

SEEDS = range(100, 104)


def ur5e():
    return parse(RobotConfig, load_config("deploy", ["robot=ur5e_simulated", "checkpoint=x"])["robot"])


def run(seeds=SEEDS, **options):
    policy, env = reach_policy()
    events = []
    free = ur5e().model_copy(update={"geometry": None})  # distances are tested elsewhere
    outcomes = rehearse(policy, free, env, seeds, report=lambda seed, event: events.append(event), **options)
    return outcomes, events


def steps(outcomes):
    return np.mean([outcome.length for outcome in outcomes])


def test_it_succeeds_as_in_the_simulator_and_latency_matching_recovers_what_latency_costs():
    policy, env = reach_policy()
    with env.make(4) as made:
        simulated = rollout(RecedingHorizonConfig().build(policy), made, SEEDS)
    assert all(outcome.success for outcome in simulated)
    direct, events = run()
    assert all(outcome.success for outcome in direct)
    assert steps(direct) <= steps(simulated) + 1
    assert {event.code for event in events} == {Code.STATE_CHANGED, Code.COMMANDED}
    matched, _ = run(latency=0.2)
    naive, _ = run(latency=0.2, matched=False)
    assert steps(naive) > steps(direct) + 4
    assert steps(matched) - steps(direct) <= (steps(naive) - steps(direct)) / 2


class Counted:
    """Counts the plans that a policy is asked for."""

    def __init__(self, policy):
        self.asked, plan = 0, policy.plan

        def counting(obs, n=1, generator=None, previous=None):
            self.asked += 1
            return plan(obs, n, generator, previous)

        policy.plan = counting


@pytest.mark.parametrize(
    "execution",
    [RecedingHorizonConfig(n_action_steps=2, blend=3), OpenLoopConfig(), TemporalEnsembleConfig()],
    ids=lambda execution: execution.kind,
)
def test_plans_are_executed_on_a_robot_as_they_are_in_evaluation(execution):
    policy, env = reach_policy()
    there, seen = ur5e().model_copy(update={"geometry": None}), Counted(policy)
    with env.make(1) as made:
        (simulated,) = rollout(execution.build(policy), made, [101])
    asked, seen.asked = seen.asked, 0
    (direct,) = rehearse(policy, there, env, [101], execution=execution)
    assert simulated.success
    assert direct.success
    assert abs(direct.length - simulated.length) <= 2
    assert abs(seen.asked - asked) <= 2
    assert asked == -(-simulated.length // execution.period(policy.spec))


def test_a_rehearsal_is_a_function_of_its_seeds():
    first, events = run([3], latency=0.1)
    again, same = run([3], latency=0.1)
    assert first == again
    assert events == same


@pytest.mark.parametrize("space", sorted(CONTROLS))
def test_actions_become_the_joints_that_the_simulator_commands(space):
    policy, _ = reach_policy()
    made = CONTROLS[space](ToolKinematics(), 0.1)
    spec = policy.spec.model_copy(
        update={"action_space": space, "action_names": made.names, "action_low": tuple(made.low.tolist())}
    )
    spec = spec.model_copy(update={"action_high": tuple(made.high.tolist())})
    start, _ = made.kinematics.inverse(np.array([0.45, 0.02, 0.2, 0.1]), HOME)
    rng = np.random.default_rng(0)
    made.reset(start, 0.4)
    hold = made.hold()
    actions = hold + rng.uniform(-0.02, 0.02, (8, len(hold)))
    points = waypoints_for(spec, ur5e()).points(actions, start, 0.4)
    for action, point in zip(actions, points, strict=True):
        made.command(action)
        np.testing.assert_allclose(point, np.append(made.q, made.opening), atol=1e-12)


def test_joint_actions_of_any_arm():
    policy, _ = reach_policy()
    names = tuple(f"j{i}" for i in range(6))
    box = {"action_names": names, "action_low": (-0.1,) * 6, "action_high": (0.1,) * 5 + (1.0,)}
    spec = policy.spec.model_copy(update={"action_space": "joint_delta", **box})
    made = waypoints_for(spec, robot())
    assert isinstance(made, JointWaypoints)
    actions = np.array([[0.05, 0, 0, 0, 0, 0.3], [0.5, 0, 0, 0, -0.02, 2.0]])
    points = made.points(actions, np.ones(5), 0.0)
    np.testing.assert_allclose(points, [[1.05, 1, 1, 1, 1, 0.3], [1.15, 1, 1, 1, 0.98, 1.0]])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"action_space": "ee_delta"}, "only joint_pos and joint_delta"),
        ({"action_space": "joint_pos"}, "5 action entries, so101 takes 6"),
        ({"control_hz": 0.0}, "how many actions"),
    ],
)
def test_actions_that_are_not_the_robots_are_refused_in_words(change, text):
    policy, _ = reach_policy()
    with pytest.raises(ConfigError, match=text):
        waypoints_for(policy.spec.model_copy(update=change), robot())


def test_the_arm_is_observed_by_the_fields_that_are_named():
    policy, _ = reach_policy()
    spec = policy.spec.model_copy(update={"obs_shapes": {"state": (11,), "speed": (6,)}})
    observer = ArmObserver(ur5e(), spec, {"state": ("q", "tool", "gripper"), "speed": ("dq",)})
    row = new_tick(6)[0]
    row["q"], row["dq"], row["gripper"] = HOME, 0.5, 0.25
    seen = observer.observe(row)
    np.testing.assert_allclose(seen["state"], [*HOME, *ToolKinematics().pose(HOME), 0.25], atol=1e-6)
    np.testing.assert_array_equal(seen["speed"], np.full(6, 0.5, np.float32))
    for fields, text in (({"state": ("q",)}, "has 6"), ({"state": ("camera",)}, "camera"), ({}, "has 0")):
        with pytest.raises(ConfigError, match=text):
            ArmObserver(ur5e(), policy.spec, fields)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["checkpoint=x"], "robot"),
        (["checkpoint=x", "robot=nowhere"], "there is no robot=nowhere"),
        (["checkpoint=/nowhere", "robot=ur5e_simulated"], "/nowhere"),
        (["checkpoint=x", "robot=ur5e_simulated", "robot.watch.deadman=0.1"], "deadman"),
        (["checkpoint=x", "robot=ur5e_simulated", "robot.perid=0.01"], "did you mean period"),
        (["checkpoint=x", "robot=ur5e_simulated", "execution=open_loop", "execution.latency=1"], "leave it out"),
        *(
            (
                ["checkpoint=x", "robot=ur5e_simulated", "rehearse=1", word],
                f"{word.partition('=')[0]}= would change nothing",
            )
            for word in ("operator=keyboard", "seconds=3", "record=x", "trials=x", "out=x.hdf5", "seed=1", "observe={}")
        ),
        (["checkpoint=x", "robot=ur5e_simulated", "latency=0.1"], "latency= is of a rehearsal"),
    ],
)
def test_wrong_commands_get_one_clear_error_before_anything_moves(words, text, capsys):
    assert cli.run(["deploy", *words]) == 1
    errors = capsys.readouterr().err
    assert text in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("name", ["so101", "so101_simulated", "ur5e", "ur5e_simulated"])
def test_every_robot_that_is_shipped_is_whole_and_stands_free(name, tmp_path):
    words = [f"robot={name}", "robot.driver.host=h"] if name == "ur5e" else [f"robot={name}"]
    words += ["robot.driver.port=p", "robot.driver.calibration=c"] if name == "so101" else []
    made = modelled(parse(RobotConfig, load_config("deploy", words)["robot"]), tmp_path)
    motion = Motion(made)
    if made.geometry is not None:
        clearance = motion.filter.geometry.look(HOME if len(made.joints) == 6 else np.zeros(5))
        assert clearance.distances.min() >= made.geometry.slow  # at full speed where work begins
        assert clearance.margins.min() > 0
    if "simulated" not in name:
        assert made.speed == 0.1


@pytest.mark.parametrize(("name", "joint"), [("so101_simulated", 1), ("ur5e_simulated", 1)])
def test_every_arm_that_is_shipped_stops_before_its_table(name, joint, tmp_path):
    """T13: whatever side it is led to, nothing comes nearer than it may."""
    made = modelled(parse(RobotConfig, load_config("deploy", [f"robot={name}"])["robot"]), tmp_path)
    made = made.model_copy(update={"geometry": made.geometry.model_copy(update={"workspace": ()}), "period": 0.02})
    filtered, start, codes = Motion(made).filter, HOME if len(made.joints) == 6 else np.zeros(5), set()
    for way in (1.2, -1.2):
        filtered.reset(start)
        goal = start + way * (np.arange(len(start)) == joint)
        for _ in range(100):
            codes |= {finding.code for finding in filtered.follow(goal, np.zeros_like(goal)).findings}
            assert filtered.geometry.look(filtered.limiter.q).distances.min() >= made.geometry.stop - 1e-3
        assert np.abs(filtered.limiter.q - start).max() > 0.2
    assert Code.TOO_NEAR in codes


def test_a_rehearsal_by_the_command_line(tmp_path, monkeypatch, capsys):
    policy, _ = reach_policy()
    monkeypatch.setattr(DeployCommand, "load", lambda self: policy)
    told, make, threads = [], rehearsal.PolicyLoop, torch.get_num_threads()
    watched = lambda *args, **fields: told.append((fields["reach"], torch.get_num_threads())) or make(*args, **fields)  # noqa: E731
    monkeypatch.setattr(rehearsal, "PolicyLoop", watched)
    words = ["checkpoint=x", "robot=ur5e_simulated", "rehearse=2", "latency=0.1", "reach=2", "threads=2"]
    try:
        assert cli.run(["deploy", *words]) == 0
    finally:
        torch.set_num_threads(threads)
    assert told == [(2, 2)] * 2
    out = capsys.readouterr().out
    assert "success: 2 of 2" in out
    assert "2 commanded" not in out  # two words an episode: arm, run
    assert "4 commanded" in out
