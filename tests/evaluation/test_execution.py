"""What an evaluation says of the execution of plans: seams, jerk, starvation; and evaluation under latency."""

import json

import pytest
import torch

from robopol import cli
from robopol.checkpoint import save_part
from robopol.config import parse
from robopol.data import save_episodes
from robopol.envs import make_env
from robopol.evaluation import Evaluation, ExpertActor, Monitor, evaluate
from robopol.evaluation.collect import collect
from robopol.evaluation.report import show
from robopol.execution import Decision, OpenLoopConfig, RecedingHorizonConfig, TemporalEnsembleConfig
from robopol.registry import lookup
from robopol.training.contract import spec_for

REACH = "robopol/Reach-v0"
A = 5


@pytest.fixture(scope="module")
def episodes():
    with make_env(REACH, 4) as env:
        return collect(ExpertActor(env), env, 6, 0, source="expert", only_success=True)


@pytest.fixture(scope="module")
def policy(episodes):
    with make_env(REACH) as env:
        tree = {"net": {"kind": "mlp", "width": 32}, "sampler": {"kind": "ddpm", "steps": 5}}
        config = parse(lookup("policy", "diffusion"), {**tree, "horizon": 8, "n_action_steps": 4})
        torch.manual_seed(0)
        made = config.build(spec_for(config, {"demos": episodes}, env.spec))
    made.fit_normalizers(episodes)
    return made


class Script:
    """Replays decisions in the policy's units: rows of (first entry of the action, planned, seam, starved)."""

    def __init__(self, policy, rows):
        self.policy, self.rows = policy, list(rows)

    def reset(self, slots, seeds):
        self.left = list(self.rows)

    def decide(self, slots, obs):
        first, *flags = self.left.pop(0)
        action = torch.zeros(1, A)
        action[0, 0] = first
        return Decision(self.policy.action_normalizer.unnormalize(action), *(torch.tensor([flag]) for flag in flags))


def monitored(policy, *episodes):
    monitor = Monitor(Script(policy, []))
    for seed, rows in enumerate(episodes):
        monitor.executor.rows = rows
        monitor.reset([0], [seed])
        for _ in rows:
            monitor.act([0], {})
    return monitor.execution(RecedingHorizonConfig())


def test_figures_of_an_episode_made_by_hand(policy):
    rows = [
        (0.0, True, False, False),
        (0.1, False, False, False),
        (0.5, True, True, False),
        (0.5, False, False, True),
        (-0.1, True, True, False),
    ]
    found = monitored(policy, rows, rows[:2])
    assert found.seam_jump == pytest.approx((0.4 + 0.6) / 2, abs=1e-5)
    assert found.step_change == pytest.approx(0.1, abs=1e-5)
    # third differences: 0.5 - 3 * 0.5 + 3 * 0.1 - 0 and -0.1 - 3 * 0.5 + 3 * 0.5 - 0.1; at 10 Hz
    assert found.jerk == pytest.approx((0.7**2 + 0.2**2) / 2 * 1e6, rel=1e-3)
    assert found.starvation == pytest.approx(1 / 7)
    assert found.plans == 2.0


def test_actions_beyond_the_bounds_are_measured_as_the_world_clips_them(policy):
    high = policy.action_normalizer.normalize(torch.tensor(policy.spec.action_high))[0].item()
    found = monitored(policy, [(0.0, True, False, False), (1e3, True, True, False)])
    assert found.seam_jump == pytest.approx(high, rel=1e-4)


def test_nothing_is_said_of_what_there_was_not(policy):
    found = monitored(policy, [(0.0, True, False, False)] * 2)
    assert (found.seam_jump, found.jerk, found.starvation) == (None, None, 0.0)
    assert found.step_change == 0.0


@pytest.mark.parametrize("execution", [TemporalEnsembleConfig(latency=2), OpenLoopConfig(latency=3)])
def test_outcomes_under_latency_depend_on_the_seed_alone(policy, execution):
    found = []
    for num_envs in (1, 20):
        with make_env(REACH, num_envs, max_episode_steps=20) as env:
            found.append(evaluate(policy, env, 4, execution=execution))
    assert found[0] == found[1]
    assert parse(Evaluation, json.loads(json.dumps(found[0].tree()))) == found[0]


def test_latency_makes_open_loop_wait(policy):
    """H = 7: each plan after the first is waited for as long as it is late."""
    with make_env(REACH, 4, max_episode_steps=20) as env:
        whole, late = (evaluate(policy, env, 4, execution=OpenLoopConfig(latency=k)).execution for k in (0, 3))
    assert whole.starvation == 0
    assert late.starvation == 6 / 20
    assert whole.plans == late.plans == 3


def test_the_command_line_says_how_plans_are_executed(policy, tmp_path, capsys):
    save_part(policy, tmp_path)
    out = tmp_path / "evaluation.json"
    words = [
        f"checkpoint={tmp_path}",
        "env=reach",
        "env.options.max_episode_steps=12",
        "episodes=2",
        "num_envs=2",
        f"out={out}",
    ]
    assert cli.run(["eval", *words, "execution=open_loop", "execution.latency=3"]) == 0
    told = json.loads(out.read_text())["execution"]
    assert told["executor"] == {"kind": "open_loop", "latency": 3}
    assert told["starvation"] == 3 / 12
    assert "open_loop, 3 steps late: 2.0 plans an episode, seam jump " in capsys.readouterr().out
    assert cli.run(["eval", *words, "execution=ensemble"]) == 1
    assert "choices: inpainting, open_loop, real_time_chunking, receding_horizon" in capsys.readouterr().err
    assert cli.run(["eval", *words, "execution.n_action_steps=99"]) == 1
    assert "99 actions of a plan cannot be executed" in capsys.readouterr().err


def test_a_table_without_executor_has_no_line_of_it(policy, capsys):
    with make_env(REACH, 2, max_episode_steps=5) as env:
        found = evaluate(policy, env, 2)
    show(found.model_copy(update={"execution": None}), {}, [])
    assert "execution" not in capsys.readouterr().out
    show(found, {}, [])
    assert "receding_horizon: 2.0 plans an episode" in capsys.readouterr().out


def test_training_refuses_what_its_policy_cannot_do_before_it_begins(episodes, tmp_path, capsys):
    save_episodes(episodes, tmp_path / "demos.hdf5")
    words = ["env=reach", "policy=gaussian", f"data.demos.uri={tmp_path / 'demos.hdf5'}", f"run={tmp_path / 'run'}"]
    assert cli.run(["train", *words, "execution=warm_start"]) == 1
    assert (
        "warm_start acts on the way from noise to an action, and a gaussian policy has none" in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
