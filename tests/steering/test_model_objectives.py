"""Objectives that ask learned models: in environment units, about the actions from now on, whole when saved."""

import pytest
import torch
from policies.test_policies import POLICIES, make, obs

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.models.dynamics import DynamicsConfig
from robopol.models.feasibility import FeasibilityConfig
from robopol.models.value import ValueConfig as CriticConfig
from robopol.policies import PolicySpec
from robopol.steering import BestOfConfig, GuideConfig
from robopol.steering.objectives.feasible import FeasibleConfig
from robopol.steering.objectives.outcome import OutcomeConfig
from robopol.steering.objectives.value import ValueConfig


def saved(cls, folder, policy, **changes):
    """Save an untrained model of the next three actions, whose normalisers are not the policy's; return both."""
    config = cls(n_obs_steps=1, n_action_steps=3, hidden=(16,))
    window = {"n_obs_steps": 1, "horizon": 3, "n_action_steps": 3}
    spec = parse(PolicySpec, policy.spec.tree() | window | changes)
    torch.manual_seed(7)
    model = config.build(spec).eval()
    rng = torch.Generator().manual_seed(8)
    rows = {key: 3 * torch.randn(30, *shape, generator=rng) for key, shape in spec.obs_shapes.items()}
    for part in (model.observation, *([model.outcome] if cls is DynamicsConfig else [])):
        part.fit(rows)
    model.action_normalizer.fit(50 * torch.randn(30, spec.action_dim, generator=rng))
    folder.mkdir()
    save_part(model, folder)
    return model


@pytest.fixture
def policy():
    return make(POLICIES["flow-mlp"])


def proposals(policy, n=6):
    seen = obs(5)
    return seen, policy.plan(seen, n, torch.Generator().manual_seed(0))


def next_actions(windows):
    return windows[:, :, 1:4]  # now is the second step of a window


def test_value_is_the_lowest_head_of_the_actions_from_now_on(policy, tmp_path):
    critic = saved(CriticConfig, tmp_path / "critic", policy)
    seen, windows = proposals(policy)
    newest = {key: seen[key][:, -1:] for key in policy.spec.obs_shapes}
    heads = critic.q(newest, next_actions(windows))
    found = ValueConfig(critic=str(tmp_path / "critic")).build(policy)
    torch.testing.assert_close(found.score(seen, windows), heads.amin(0))
    careful = ValueConfig(critic=str(tmp_path / "critic"), pessimism=2.0).build(policy)
    torch.testing.assert_close(careful.score(seen, windows), heads.mean(0) - 2 * heads.std(0, correction=0))


def test_the_best_of_n_by_value_is_saved_whole(policy, tmp_path):
    critic = saved(CriticConfig, tmp_path / "critic", policy)
    steered = policy.steered(BestOfConfig(objective=ValueConfig(critic=str(tmp_path / "critic")), n=6))
    seen, windows = proposals(policy)
    newest = {key: seen[key][:, -1:] for key in policy.spec.obs_shapes}
    best = critic.q(newest, next_actions(windows)).amin(0).argmax(-1)
    chosen = steered.plan(seen, 1, torch.Generator().manual_seed(0))
    assert torch.equal(chosen[:, 0], windows[torch.arange(5), best])
    (tmp_path / "steered").mkdir()
    save_part(steered, tmp_path / "steered")
    (tmp_path / "critic" / "model.safetensors").unlink()
    again = load_policy(tmp_path / "steered")
    assert torch.equal(again.plan(seen, 1, torch.Generator().manual_seed(0)), chosen)


def test_feasible_is_what_is_left_below_zero(policy, tmp_path):
    critic = saved(FeasibilityConfig, tmp_path / "critic", policy)
    seen, windows = proposals(policy)
    newest = {key: seen[key][:, -1:] for key in policy.spec.obs_shapes}
    worst = critic.q(newest, next_actions(windows))
    for margin in (0.0, 0.5):
        found = FeasibleConfig(critic=str(tmp_path / "critic"), margin=margin).build(policy)
        torch.testing.assert_close(found.score(seen, windows), -worst - margin)


def outcome(policy, tmp_path, **told):
    if not (tmp_path / "dynamics").exists():
        saved(DynamicsConfig, tmp_path / "dynamics", policy)
    return OutcomeConfig(dynamics=str(tmp_path / "dynamics"), **told).build(policy)


def test_an_outcome_is_judged_by_its_distances_in_normalised_units(policy, tmp_path):
    model = saved(DynamicsConfig, tmp_path / "dynamics", policy)
    good, bad = ((1.0, -2.0), (0.5, 0.0)), ((3.0, 3.0),)
    found = outcome(policy, tmp_path, entries=(0, 3), toward=good, away=bad, width=0.7)
    seen, windows = proposals(policy)
    newest = {key: seen[key][:, -1:] for key in policy.spec.obs_shapes}
    z = model.predict(newest, next_actions(windows))[..., [0, 3]]
    normalizer = model.outcome.normalizer

    def distances(points):
        goals = (torch.tensor(points) - normalizer.offset[[0, 3]]) * normalizer.scale[[0, 3]]
        return (goals - z[:, :, None]).norm(dim=-1) / 2**0.5

    expected = (-distances(good) / 0.7).exp().sum(-1).log() - (-distances(bad) / 0.7).exp().sum(-1).log()
    torch.testing.assert_close(found.score(seen, windows), expected, atol=1e-5, rtol=1e-5)


def test_outcomes_turn_round_do_not_count_twice_and_have_no_order(policy, tmp_path):
    seen, windows = proposals(policy)
    windows = windows.requires_grad_()

    def gradient(**told):
        score = outcome(policy, tmp_path, **told).score(seen, windows)
        return torch.autograd.grad(score.sum(), windows)[0]

    one, two = (1.0,) * 7, (0.0,) * 7
    both = gradient(toward=(one, two))
    torch.testing.assert_close(gradient(away=(one, two)), -both)
    torch.testing.assert_close(gradient(toward=(one, one, two, two)), both)
    torch.testing.assert_close(gradient(toward=(two, one)), both)
    torch.testing.assert_close(
        gradient(toward=(one, two), width=1e4),
        gradient(toward=(one,), width=1e4) / 2 + gradient(toward=(two,), width=1e4) / 2,
    )
    assert both.isfinite().all()
    assert not both[:, :, 0].any()  # what is past
    assert not both[:, :, 4:].any()  # what the model does not look at


def test_a_guide_by_dynamics_brings_plans_nearer(policy, tmp_path):
    told = {"entries": (0,), "toward": ((5.0,),), "width": 1.0}
    objective = outcome(policy, tmp_path, **told)
    steered = policy.steered(
        GuideConfig(objective=OutcomeConfig(dynamics=str(tmp_path / "dynamics"), **told), scale=5.0)
    )
    seen = obs(5)
    rng = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    plain, guided = policy.plan(seen, 8, rng[0]), steered.plan(seen, 8, rng[1])
    assert objective.score(seen, guided).mean() > objective.score(seen, plain).mean()


def test_models_for_other_actions_or_of_other_kinds_are_refused(policy, tmp_path):
    saved(CriticConfig, tmp_path / "critic", policy)
    with pytest.raises(ConfigError, match=r"a FeasibilityModel is needed, and .* holds a model of kind value"):
        FeasibleConfig(critic=str(tmp_path / "critic")).build(policy)
    saved(CriticConfig, tmp_path / "fast", policy, control_hz=20.0)
    with pytest.raises(
        ConfigError, match=r"the value model does not fit the policy: the rate is 20\.0 there, 10\.0 in"
    ):
        ValueConfig(critic=str(tmp_path / "fast")).build(policy)
    with pytest.raises(ConfigError, match="has 2 numbers, and 1 entries count"):
        outcome(policy, tmp_path, entries=(0,), toward=((1.0, 2.0),))
    with pytest.raises(ConfigError, match="named for outcomes that are the state of a known world"):
        outcome(policy, tmp_path, entries=("disc x",), toward=((1.0,),))
    with pytest.raises(ValueError, match="give toward or away"):
        OutcomeConfig(dynamics="x")
