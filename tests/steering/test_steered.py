"""A steered policy is a policy: it is saved, loaded, steered again, executed and evaluated."""

import json

import pytest
import torch
from policies.test_policies import NETS, POLICIES, make, obs
from steering.known import LinearConfig, NearConfig, gaussian, observe

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.envs import make_env
from robopol.errors import CheckpointError, ConfigError, ShapeError
from robopol.evaluation import evaluate
from robopol.evaluation.report import show
from robopol.execution.executor import Executor
from robopol.policies import Previous
from robopol.policies.observation import LowDimObservation
from robopol.policies.resampling import Resampling
from robopol.steering import (
    BestOfConfig,
    CompositionConfig,
    GuideConfig,
    InnerStepsConfig,
    RealTimeChunkingConfig,
    SteeredPolicy,
    WarmStartConfig,
)
from robopol.steering.composition import Composition
from robopol.steering.objectives.motion import Motion
from robopol.steering.objectives.point import PointConfig


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def member(tmp_path):
    folder = tmp_path / "member"
    folder.mkdir()
    save_part(make(POLICIES["flow-mlp"]), folder)
    return folder


def test_a_steered_policy_is_saved_whole(tmp_path, member):
    base = make(POLICIES["diffusion-mlp"])
    steered = base.steered(
        CompositionConfig(policies=(str(member),), weights=(0.5, 0.5)),
        InnerStepsConfig(count=2),
        BestOfConfig(n=3),
    )
    expected = steered.plan(obs(4), 2, rng())
    folder = tmp_path / "steered"
    folder.mkdir()
    save_part(steered, folder)
    (member / "model.safetensors").unlink()  # what it was made from is no longer needed
    again = load_policy(folder)
    assert torch.equal(again.plan(obs(4), 2, rng()), expected)
    assert again.spec == steered.spec
    assert str(member) not in (folder / "config.json").read_text()


def test_a_base_that_is_walked_otherwise_is_saved_so(tmp_path):
    steered = make(POLICIES["diffusion-mlp"], guidance={"keys": ["aux"]}).steered(BestOfConfig(n=2))
    parse(Resampling, {"sampler": "ddim", "steps": 3}).apply(steered)
    steered.inner().guide(2.0)
    save_part(steered, tmp_path)
    again = load_policy(tmp_path)
    assert again.config == steered.config
    assert again.inner().config == steered.inner().config
    assert torch.equal(again.plan(obs(4), 2, rng()), steered.plan(obs(4), 2, rng()))


def test_steering_twice_is_steering_by_both(member):
    base = make(POLICIES["diffusion-mlp"])
    one, two = CompositionConfig(policies=(str(member),), weights=(0.5, 0.5)), InnerStepsConfig(count=2)
    at_once, in_turn = base.steered(one, two), base.steered(one).steered(two)
    assert isinstance(in_turn, SteeredPolicy)
    assert in_turn.base is base
    assert torch.equal(in_turn.plan(obs(3), 1, rng()), at_once.plan(obs(3), 1, rng()))


def test_the_base_is_not_changed(member):
    base = make(POLICIES["flow-mlp"])
    before = base.plan(obs(3), 1, rng())
    base.steered(CompositionConfig(policies=(str(member),), weights=(0.2, 0.8)), InnerStepsConfig()).plan(obs(3))
    assert torch.equal(base.plan(obs(3), 1, rng()), before)


def test_selections_are_nested_in_their_order():
    """The first picks the largest of 4 plans, the second the smallest of 8 such winners."""
    base = gaussian(entries=1)
    largest, smallest = BestOfConfig(objective=LinearConfig(), n=4), BestOfConfig(objective=LinearConfig(slope=-1), n=8)
    proposals = base.plan(observe(5), 32, rng())  # 8 groups of 4
    sums = proposals.flatten(2).sum(-1).unflatten(1, (8, 4))
    expected = sums.amax(-1).amin(-1)
    found = base.steered(largest, smallest).plan(observe(5), 1, rng()).flatten(2).sum(-1)[:, 0]
    torch.testing.assert_close(found, expected)


def test_a_constraint_comes_before_the_objective():
    base = gaussian(entries=1)
    proposals = base.plan(observe(64), 16, rng())
    steering = BestOfConfig(objective=NearConfig(), constraint=LinearConfig(), n=16)
    found = base.steered(steering).plan(observe(64), 1, rng())[:, 0]
    margin = proposals.flatten(2).sum(-1)
    nearness = NearConfig().build(base).score({}, proposals)
    allowed = torch.where(margin >= 0, nearness, -torch.inf)
    row = torch.where((margin >= 0).any(-1), allowed.argmax(-1), margin.argmax(-1))
    torch.testing.assert_close(found, proposals[torch.arange(64), row])
    safe = base.steered(BestOfConfig(constraint=LinearConfig(), n=16))
    assert (safe.plan(observe(64), 1, rng()).flatten(2).sum(-1)[:, 0] >= 0).sum() == (margin >= 0).any(-1).sum()
    assert safe.log.means()["best_of/effective_number"] == pytest.approx(
        (margin >= 0).sum(-1).clamp(min=1).double().mean().item()
    )
    none = BestOfConfig(objective=NearConfig(), constraint=LinearConfig(slope=-1), n=1)
    assert base.steered(none).plan(observe(3)).isfinite().all()


def test_a_row_depends_on_its_own_generator_alone():
    base = gaussian().steered(
        GuideConfig(objective=LinearConfig()),
        InnerStepsConfig(count=2),
        BestOfConfig(objective=NearConfig(), n=4, temperature=1.0),
    )
    several = base.plan(observe(6), 2, [rng(seed) for seed in range(6)])
    swapped = base.plan(observe(6), 2, [rng(seed) for seed in (5, 1, 2, 3, 4, 0)])
    torch.testing.assert_close(swapped[[5, 1, 2, 3, 4, 0]], several)


@pytest.mark.parametrize("name", ["flow-mlp", "gmm"])
def test_what_does_not_go_with_the_rows_is_refused(name):
    steered = make(POLICIES[name]).steered(BestOfConfig(n=2))
    with pytest.raises(ShapeError, match="2 generators for 4 rows"):
        steered.plan(obs(4), 1, [rng(), rng()])
    with pytest.raises(ShapeError, match="1 last plans for 3 rows"):
        steered.plan(obs(3), 1, None, [None])
    with pytest.raises(ShapeError, match="the observation lacks 'state'; it has nothing"):
        steered.plan({})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_rows_that_are_not_meant_draw_where_the_others_do():
    steered, old = make(POLICIES["flow-mlp"]).to("cuda").steered(WarmStartConfig(steps=2)), torch.zeros(8, 3)
    seen = {key: value.cuda() for key, value in obs(2).items()}
    sources = [torch.Generator("cuda").manual_seed(row) for row in range(2)]
    assert steered.plan(seen, 1, sources, [Previous(old, 1), None]).isfinite().all()


@pytest.mark.parametrize("net", [*NETS.values(), {"kind": "film_mlp", "width": 16, "features": 8}])
def test_gradients_steer_in_inference_mode_too(net):
    base = make(POLICIES["flow-mlp"], net=net)
    near = PointConfig(point=(0.3, -0.2), motion=Motion(actions=(0, 1), means="delta", start=(0, 1)))  # of the state
    guides = [GuideConfig(objective=near, at=at) for at in ("x0", "backprop", "noisy")]
    for steering in (*guides, RealTimeChunkingConfig(delay=1), RealTimeChunkingConfig(delay=1, jacobian=False)):
        steered = base.steered(steering)
        plans = []
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                seen = {key: value.clone() for key, value in obs(3).items()}
                old = base.plan(seen, 1, rng(1))[:, 0]
                plans.append(steered.plan(seen, 1, rng(), [Previous(window, 1) for window in old]))
        assert torch.equal(*plans)


def test_statistics_count_no_row_that_fills_up_a_batch():
    steered = make(POLICIES["flow-mlp"]).steered(BestOfConfig(objective=LinearConfig(), n=3))
    executor = Executor(steered, 4, 0)
    executor.reset([0, 1], [3, 4])
    seen = {key: rows[:, 0] for key, rows in obs(2).items()}
    executor.act([0, 1], seen)
    found = steered.log.means()
    steered.plan({key: torch.stack([rows, rows], 1) for key, rows in seen.items()}, 1, [rng(3), rng(4)])
    assert found == pytest.approx(steered.log.means(), rel=1e-4)


def test_statistics_count_a_row_where_it_begins():
    """A started row walks 2 steps and a fresh one 4, each in a batch with the other."""
    steered = make(POLICIES["flow-mlp"]).steered(GuideConfig(objective=LinearConfig()), WarmStartConfig(steps=2))
    old, alone = Previous(torch.tensor([10.5, -19.5, 0.5]).expand(8, 3), 1), []
    for row, previous in enumerate([old, None]):
        steered.plan({key: rows[row : row + 1] for key, rows in obs(2).items()}, 1, [rng(row)], [previous])
        alone.append(steered.log.means()["guide/score"])
    steered.plan(obs(2), 1, [rng(0), rng(1)], [old, None])
    assert steered.log.means()["guide/score"] == pytest.approx((2 * alone[0] + 4 * alone[1]) / 6, rel=1e-4)


def test_two_kernels_or_two_starts_are_refused():
    base = make(POLICIES["flow-mlp"])
    with pytest.raises(ConfigError, match="inner_steps and inner_steps both say what happens between two levels"):
        base.steered(InnerStepsConfig(), InnerStepsConfig())
    with pytest.raises(ConfigError, match="warm_start and warm_start both say where a walk begins"):
        base.steered(WarmStartConfig(), WarmStartConfig())


def test_samplers_that_cannot_step_again_are_refused():
    for sampler in ({"kind": "langevin", "steps": 3}, {"kind": "diffusers", "steps": 3}):
        base = make({**POLICIES["diffusion-mlp"], "sampler": sampler})
        with pytest.raises(ConfigError, match="cannot take a step again"):
            base.steered(InnerStepsConfig()).plan(obs(2))


def test_other_observations_are_asked_for_and_contradictions_refused(tmp_path, member):
    base = make(POLICIES["flow-mlp"], encoder={"kind": "low_dim", "keys": ["state"]})
    steered = base.steered(CompositionConfig(policies=(str(member),), weights=(0.5, 0.5)))
    assert steered.spec.obs_shapes == {"state": (5,), "aux": (2,)}
    other = make(POLICIES["flow-mlp"])
    other.spec = other.spec.model_copy(update={"obs_shapes": {"state": (4,), "aux": (2,)}})
    joined = Composition(CompositionConfig(policies=("x",), weights=(0.5, 0.5)), [other])
    with pytest.raises(ConfigError, match=r"'state' of shape \(4,\), the policy at one of \(5,\)"):
        SteeredPolicy(base, [joined])


def test_a_damaged_steered_policy_is_refused(tmp_path, member):
    steered = make(POLICIES["flow-mlp"]).steered(CompositionConfig(policies=(str(member),), weights=(0.5, 0.5)))
    folder = tmp_path / "steered"
    folder.mkdir()
    save_part(steered, folder)
    tree = json.loads((folder / "config.json").read_text())
    tree["policy"]["steerings"][0]["weights"] = [0.5, 0.6]
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match=r"sum to 1\.1, and must sum to 1"):
        load_policy(folder)
    tree["policy"]["steerings"][0] = {"kind": "os.system"}
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match=r"unknown steering 'os\.system'"):
        load_policy(folder)


def test_an_evaluation_says_what_steering_did(capsys):
    """Of a policy that drifts east in the world of the point; the log begins anew with each evaluation."""
    with make_env("robopol/MultiGoal-v0", 4, max_episode_steps=5) as env:
        spec = {"obs_shapes": {"state": (2,)}, "action_space": env.spec.action_space}
        base = gaussian(std=0.05, encoder={"kind": "low_dim"})
        names = {"action_names": env.spec.action_names, "control_hz": env.spec.control_hz}
        base.spec = base.spec.model_copy(update=spec | names)
        base.observation = LowDimObservation({"state": (2,)}, "identity")
        steered = base.steered(BestOfConfig(objective=LinearConfig(), n=4))
        first, again = (evaluate(steered, env, 4, 7) for _ in range(2))
        assert evaluate(base, env, 2, 0).steering is None
    assert first.steering == again.steering
    assert first.steering["best_of/gain"] > 0
    show(first, {}, [])
    assert "steering    best_of/spread" in capsys.readouterr().out
