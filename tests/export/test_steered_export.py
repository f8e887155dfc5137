"""Exports of steered policies: whatever steers a plan is in the one graph, or is refused in words."""

import pytest
import torch
from test_export import ENGINES, MLP, diffusion, made, needs, seen

from robopol.algos.editors import editing
from robopol.checkpoint import describe
from robopol.errors import ConfigError
from robopol.export import load_exported
from robopol.export.export import TOLERANCE, export
from robopol.models.value import ValueConfig as CriticConfig
from robopol.policies.deterministic import DeterministicConfig
from robopol.steering import (
    BestOfConfig,
    BiasedStartConfig,
    CompositionConfig,
    GuideConfig,
    InnerStepsConfig,
    InpaintingConfig,
    RealTimeChunkingConfig,
    SteeredPolicy,
    WarmStartConfig,
)
from robopol.steering.best_of import BestOf
from robopol.steering.composition import Composition
from robopol.steering.guide import Guide
from robopol.steering.learned_repair import LearnedRepair
from robopol.steering.objectives import STLConfig
from robopol.steering.objectives.motion import Motion
from robopol.steering.objectives.value import Value, ValueConfig


def valued(policy):
    """Return an untrained critic of three actions as an objective."""
    torch.manual_seed(5)
    spec = policy.spec.model_copy(update={"n_obs_steps": 1, "horizon": 3, "n_action_steps": 3})
    critic = CriticConfig(n_obs_steps=1, n_action_steps=3, hidden=(16,), layer_norm=True).build(spec).eval()
    rng = torch.Generator().manual_seed(1)
    critic.observation.fit({key: torch.randn(20, *shape, generator=rng) for key, shape in spec.obs_shapes.items()})
    critic.action_normalizer.fit(torch.randn(20, spec.action_dim, generator=rng))
    config = ValueConfig(critic=describe(critic))
    return config, Value(config, critic, policy.spec.n_obs_steps)


RULE = STLConfig(
    formula="eventually[1, end] x >= 0.3 and always[0, 1] (y >= 0 or distance(0, 0) <= 0.4)",
    motion=Motion(actions=(0, 1), means="absolute"),
)


def repair(policy):
    """Return an untrained editor of plans that violate a rule."""
    torch.manual_seed(6)
    editor = editing(DeterministicConfig(hidden=(16,)), policy, policy.spec.chunk, 0.2).eval()
    return LearnedRepair(editor, RULE.build(policy), policy)


def steerings(name, policy):
    config, value = valued(policy)
    flow = made({"kind": "flow", "net": MLP})
    return {
        "best_of": lambda: [BestOf(BestOfConfig(objective=config, n=5), value, None)],
        "constraint": lambda: [BestOf(BestOfConfig(objective=config, constraint=config, n=3), value, value)],
        "composition": lambda: [
            Composition(CompositionConfig(policies=("x",), weights=(0.6, 0.4)), [flow]),
            InnerStepsConfig(count=2).build(policy),
        ],
        "guide": lambda: [Guide(GuideConfig(objective=config, scale=0.3, cap=0.5), value)],
        "through the network": lambda: [Guide(GuideConfig(objective=config, scale=0.3, at="backprop"), value)],
        "formula": lambda: [BestOfConfig(objective=RULE, n=4).build(policy)],
        "repair": lambda: [repair(policy)],
    }[name]()


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        *((engine, "guide") for engine in ENGINES),
        *(("onnx", name) for name in ("best_of", "constraint", "composition", "through the network")),
        ("onnx", "formula"),
        *((engine, "repair") for engine in ENGINES),
    ],
)
def test_a_steered_policy_is_exported_with_what_steers_it(tmp_path, engine, name):
    needs(engine)
    base = made(diffusion())
    policy = SteeredPolicy(base, steerings(name, base))
    manifest = export(policy, engine, tmp_path / "out", seen(256), "a test", batch=4)
    assert max(check.max_error for check in manifest.checks) <= TOLERANCE
    artefact, obs = load_exported(tmp_path / "out"), seen(8)
    rng = [torch.Generator().manual_seed(i) for i in range(8)], [torch.Generator().manual_seed(i) for i in range(8)]
    found, expected = artefact.plan(obs, 2, rng[0]), policy.plan(obs, 2, rng[1])
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    assert not torch.allclose(found, base.plan(obs, 2, [torch.Generator().manual_seed(i) for i in range(8)]), atol=1e-3)


def test_a_start_that_is_always_the_same_is_exported(tmp_path):
    base = made(diffusion())
    motion = Motion(actions=(0, 1), means="absolute")
    policy = base.steered(BiasedStartConfig(points=((0.0, 0.0), (1.0, 1.0)), steps=2, motion=motion))
    export(policy, "torch", tmp_path / "out", seen(256), "a test", batch=4)
    rng = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    found, expected = load_exported(tmp_path / "out").plan(seen(8), 2, rng[0]), policy.plan(seen(8), 2, rng[1])
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_what_needs_more_than_observations_and_one_noise_is_refused(tmp_path):
    base = made(diffusion())
    for steering in (WarmStartConfig(), RealTimeChunkingConfig(delay=2), InpaintingConfig(delay=2)):
        with pytest.raises(ConfigError, match="goes on from its last plan"):
            export(base.steered(steering), "torch", tmp_path / "out", seen(256), "a test")
    config, value = valued(base)
    softmax = SteeredPolicy(base, [BestOf(BestOfConfig(objective=config, n=4, temperature=1.0), value, None)])
    with pytest.raises(ConfigError, match="noise of several shapes"):
        export(softmax, "torch", tmp_path / "out", seen(256), "a test")
