"""At its neutral setting every steering leaves every policy as it was, bit for bit."""

from functools import cache

import pytest
import torch
from policies.test_policies import POLICIES, SPEC, make, obs
from steering.known import LinearConfig

from robopol.config import parse
from robopol.models.q import QConfig
from robopol.policies import PolicySpec, Previous
from robopol.policies.deterministic import DeterministicConfig
from robopol.policies.generative import GenerativePolicy
from robopol.policies.squashed_gaussian import SquashedGaussianConfig
from robopol.registry import kinds
from robopol.steering import (
    AgreementConfig,
    BestOfConfig,
    BiasedStartConfig,
    CompositionConfig,
    GoalWeightConfig,
    GuideConfig,
    InnerStepsConfig,
    InpaintingConfig,
    MixtureConfig,
    NudgeConfig,
    RealTimeChunkingConfig,
    StartNoiseConfig,
    SteeredPolicy,
    WarmStartConfig,
)
from robopol.steering.agreement import Agreement
from robopol.steering.composition import Composition
from robopol.steering.learned_edit import LearnedEdit
from robopol.steering.learned_noise import LearnedNoise
from robopol.steering.learned_repair import LearnedRepair
from robopol.steering.mixture import Mixture
from robopol.steering.objectives.motion import Motion

GOAL = {"kind": "edm", "net": {"kind": "mlp", "width": 32}, "sampler": {"kind": "heun", "steps": 4}}
GOAL |= {"guidance": {"keys": ["aux"]}}


def composition(policy, weights, other):
    return Composition(CompositionConfig(policies=("elsewhere",), weights=weights), [other])


def actor(policy):
    size = 1 if policy.noise_shape is None else policy.noise_shape[0] * policy.noise_shape[1]
    told = {"action_names": [f"noise {i}" for i in range(size)], "n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
    told |= {"action_low": [-1.0] * size, "action_high": [1.0] * size}
    return SquashedGaussianConfig(hidden=(8,)).build(parse(PolicySpec, policy.spec.tree() | told))


def edits(policy):
    """One proposal and no edit: an editor of two actions and a critic of these."""
    shapes, size = policy.spec.tree()["obs_shapes"], 2 * policy.spec.action_dim
    told = {"action_names": [f"edit {i}" for i in range(size)], "n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
    told |= {"action_low": [-1.0] * size, "action_high": [1.0] * size, "obs_shapes": shapes | {"proposal": [size]}}
    editor = SquashedGaussianConfig(hidden=(8,)).build(parse(PolicySpec, policy.spec.tree() | told))
    judged = parse(PolicySpec, policy.spec.tree() | {"n_obs_steps": 1, "horizon": 2, "n_action_steps": 2})
    critic = QConfig(n_action_steps=2, hidden=(8,), action_normalization="identity").build(judged)
    return LearnedEdit(editor, critic, policy, 1, 0.0)


def repair(policy):
    """An editor of whole plans whose edits weigh nothing."""
    shapes, size = policy.spec.tree()["obs_shapes"], policy.spec.chunk * policy.spec.action_dim
    told = {"action_names": [f"edit {i}" for i in range(size)], "n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
    told |= {"action_low": [-1.0] * size, "action_high": [1.0] * size, "obs_shapes": shapes | {"proposal": [size]}}
    editor = DeterministicConfig(hidden=(8,)).build(parse(PolicySpec, policy.spec.tree() | told))
    return LearnedRepair(editor, LinearConfig().build(policy), policy, 0.0)


PATH = Motion(actions=(0, 1), means="absolute")
NEUTRAL = {
    "agreement of equals": lambda policy: Agreement(AgreementConfig(policies=("elsewhere",)), [policy]),
    "biased_start": lambda policy: BiasedStartConfig(points=((0.0, 0.0), (1.0, 1.0)), steps=None, motion=PATH).build(
        policy
    ),
    "best_of": lambda policy: BestOfConfig(objective=LinearConfig(), n=1, temperature=0.7).build(policy),
    "composition": lambda policy: composition(policy, (1.0, 0.0), make(POLICIES["flow-mlp"])),
    "composition of equals": lambda policy: composition(policy, (0.3, 0.7), policy),
    "goal_weight": lambda policy: GoalWeightConfig(weight=1.0).build(policy),
    "guide": lambda policy: GuideConfig(objective=LinearConfig(), scale=0.0).build(policy),
    "inner_steps": lambda policy: InnerStepsConfig(count=1).build(policy),
    "inpainting": lambda policy: InpaintingConfig(delay=0).build(policy),
    "learned_edit": edits,
    "learned_noise": lambda policy: LearnedNoise(actor(policy), policy, 0.0),
    "learned_repair": repair,
    "mixture": lambda policy: Mixture(
        MixtureConfig(policies=("elsewhere",), priors=(1.0, 0.0)), [make(POLICIES["flow-mlp"])]
    ),
    "nudge": lambda policy: NudgeConfig(actions=()).build(policy),
    "real_time_chunking": lambda policy: RealTimeChunkingConfig(delay=2, beta=0.0).build(policy),
    "start_noise": lambda policy: StartNoiseConfig(scale=1.0).build(policy),
    "warm_start": lambda policy: WarmStartConfig(steps=None).build(policy),
}
"""Kind (and which neutral setting) -> the steering of a policy."""


APART = ("goal_weight", "agreement of equals", "biased_start")
"""Not together with the others: without a goal, on walks without noise, and beside another start."""


def generators(rows):
    return [torch.Generator().manual_seed(10 + row) for row in range(rows)]


def test_every_steering_has_a_neutral_setting():
    assert {name.split()[0] for name in NEUTRAL} == set(kinds("steering"))


@cache
def planned(name):
    """A policy and its plans; nothing here changes the policy."""
    policy = make(GOAL if name == "goal" else POLICIES[name])
    return policy, policy.plan(obs(3), 2, generators(3))


@pytest.mark.parametrize("kind", NEUTRAL)
@pytest.mark.parametrize("name", [*POLICIES, "goal"])
def test_a_neutral_steering_changes_nothing(kind, name):
    policy, expected = planned(name)
    if kind == "goal_weight" and name != "goal":
        pytest.skip("there is no goal")
    if not isinstance(policy, GenerativePolicy) and kind not in ("best_of", "learned_repair"):
        pytest.skip("there is no field")
    if kind == "agreement of equals" and not name.startswith("diffusion"):
        pytest.skip("it cancels noise, and the walk has none")
    steered = SteeredPolicy(policy, [NEUTRAL[kind](policy)])
    assert torch.equal(steered.plan(obs(3), 2, generators(3)), expected)
    previous = [Previous(expected[row, 0], row) if row % 2 else None for row in range(3)]
    assert torch.equal(steered.plan(obs(3), 2, generators(3), previous), expected)
    assert torch.equal(steered.act(obs(3), 2, generators(3)), expected[:, :, SPEC["n_obs_steps"] - 1 :])


@pytest.mark.parametrize("name", ["diffusion-unet", "flow-transformer", "edm-mlp"])
def test_all_neutral_steerings_together_change_nothing(name):
    policy = make(POLICIES[name])
    steered = SteeredPolicy(policy, [build(policy) for kind, build in NEUTRAL.items() if kind not in APART])
    assert torch.equal(steered.plan(obs(3), 2, generators(3)), policy.plan(obs(3), 2, generators(3)))
