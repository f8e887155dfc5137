"""Convex mixes of frozen policies, against closed forms and against the policies themselves."""

import pytest
import torch
from gaussians import act, field, many, policy, spec
from hypothesis import assume, given
from hypothesis import strategies as st

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.data.normalizer import Normalizer
from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.policies.field import Field
from robopol.policies.generative import GenerativePolicy
from robopol.policies.paths import Path
from robopol.policies.prediction import PREDICTIONS, reading
from robopol.registry import kinds, lookup
from robopol.steering import SteeredPolicy
from robopol.steering.composition import ComposedField, Composition, CompositionConfig
from robopol.steering.log import Log
from robopol.steering.members import Frame, Member, frame_of, join

WIDE = {"variance_exploding": {"sigma_min": 0.02, "sigma_max": 80.0}}
PATHS: dict[str, Path] = {
    **{kind: parse(lookup("path", kind), {"kind": kind} | WIDE.get(kind, {})).build() for kind in kinds("path")},
    "flow-noise-at-0": parse(lookup("path", "rectified_flow"), {"noise_at": 0}).build(),
    "beso": parse(lookup("path", "variance_exploding"), {"sigma_min": 0.05}).build(),
}
FLOW = {"sampler": {"kind": "euler", "steps": 20, "clip": "never"}}


def mixed(base: Policy, others: list[Policy], weights: list[float]) -> Policy:
    members = [join(base, other, "composition") for other in others]
    config = CompositionConfig(policies=("never read",) * len(others), weights=tuple(weights))
    return SteeredPolicy(base, [Composition(config, members)])


def plain(dim: int = 1) -> Frame:
    return Frame(1.0, torch.zeros(dim))


def x0_of(asked: Field, x: torch.Tensor, t: torch.Tensor, reader: Field) -> torch.Tensor:
    """Return the clean chunk that is meant by what a derived field says at one time."""
    output = asked.prepare(asked.schedule(t), torch.zeros(len(x), 1, 1))(x, 0)
    return reading(reader.prediction, reader.path.level(t), reader.path).estimate(x, output).x0


def test_all_weight_on_the_first_is_the_base_bit_for_bit_whatever_the_other_is():
    base, other = policy("diffusion", None, seed=1), policy("flow", None, seed=2, **FLOW)
    assert torch.equal(act(mixed(base, [other], [1.0, 0.0])), act(base))
    assert torch.equal(act(mixed(other, [base], [1.0, 0.0])), act(other))


def test_all_weight_on_the_other_of_one_path_is_the_other_bit_for_bit():
    base, other = policy("flow", None, seed=1, **FLOW), policy("flow", None, seed=2, **FLOW)
    assert torch.equal(act(mixed(base, [other], [0.0, 1.0])), act(other))
    assert not torch.equal(act(base), act(other))


def test_it_does_not_matter_which_of_two_on_one_path_is_steered():
    one, two = policy("diffusion", None, seed=1), policy("diffusion", None, seed=2, prediction="v")
    found = act(mixed(one, [two], [0.3, 0.7])), act(mixed(two, [one], [0.7, 0.3]))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[0], act(mixed(one, [two], [0.7, 0.3])), atol=1e-2)


@pytest.mark.parametrize("kind", kinds("path"))
def test_equal_members_change_nothing_whatever_the_weights(kind):
    tree = {"path": {"kind": kind} | WIDE.get(kind, {}), "prediction": "v"}
    tree["sampler"] = {"kind": "ddim", "steps": 3, "spacing": "karras", "clip": "never"}
    base, one, two = (policy("diffusion", None, seed=3, **tree) for _ in range(3))
    for first, second in ((0.5, 0.5), (0.7, 0.2), (0.0, 0.1), (-0.37, 1.9), (1 / 3, 1 / 3)):
        assert torch.equal(act(mixed(base, [one, two], [first, second, 1 - first - second])), act(base))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun", "euler"])
@pytest.mark.parametrize("swapped", [False, True])
def test_two_equally_wide_gaussians_on_two_paths_give_the_one_between(sampler, swapped):
    steps = 40 if sampler in ("heun", "dpm_solver") else 200  # of first order
    tree = {"kind": sampler, "steps": steps, "clip": "never", "spacing": "karras"}
    diffusion = policy("diffusion", [[-0.5]], sampler=tree)
    flow = policy("flow", [[0.5]], sampler=tree)
    base, other = (flow, diffusion) if swapped else (diffusion, flow)
    samples = many(mixed(base, [other], [0.75, 0.25]), count=4000)
    assert samples.mean().item() == pytest.approx(0.25 if swapped else -0.25, abs=0.01)
    assert samples.std().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("mine", PATHS)
@given(
    theirs=st.sampled_from(sorted(PATHS)),
    log_kappa=st.floats(-3.5, 4.0),
    weight=st.floats(-1.0, 2.0),
    first=st.sampled_from(sorted(PREDICTIONS)),
    second=st.sampled_from(sorted(PREDICTIONS)),
    at=st.floats(-1.0, 1.0),
)
def test_mixing_commutes_with_paths_and_predictions(mine, theirs, log_kappa, weight, first, second, at):
    kappa = torch.tensor([log_kappa], dtype=torch.float64).exp()
    low = max(PATHS[mine].kappa_range[0], PATHS[theirs].kappa_range[0])
    high = min(PATHS[mine].kappa_range[1], PATHS[theirs].kappa_range[1])
    assume(1.01 * low < kappa.item() < 0.99 * high)
    base = field(PATHS[mine], first, [[-0.5, 0.1]])
    other = field(PATHS[theirs], second, [[0.5, 0.3]], 0.1)
    t = base.path.time_of(kappa)
    y = at + kappa * torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 2, 2)
    x = (base.path.level(t).alpha * y).float()
    member = Member(other, torch.zeros(3, 1, 1), plain(2))
    composed = ComposedField(base, 1 - weight, [(member, weight)], Log().add)
    one = torch.ones(1, dtype=torch.float64)
    known = [(1 - weight, base), (weight, other)]
    expected = sum(share * each.net.x0(y, one, kappa) for share, each in known)
    # float32: a state is known to 1e-7 kappa, and an estimate from noise to as much as that of it
    slack = 3e-6 * (1 + abs(weight)) * (1 + kappa.item() + 1 / kappa.item())
    torch.testing.assert_close(x0_of(composed, x, t, base).double(), expected, atol=slack, rtol=0)


def test_normalisers_that_differ_by_one_factor_and_an_offset_are_bridged_exactly():
    sampler = {"kind": "ddim", "steps": 8, "spacing": "karras", "clip": "never"}
    far = {"path": {"kind": "variance_exploding", "sigma_min": 0.01, "sigma_max": 200.0}}  # for its range is scaled too
    for kind, tree in (("diffusion", {}), ("flow", {}), ("edm", far)):
        base = policy("diffusion", [[-0.2], [0.3]], 0.1, sampler=sampler)
        same = policy(kind, [[0.4], [-0.1]], 0.15, sampler=sampler, **tree)
        other = policy(kind, [[0.4], [-0.1]], 0.15, scale=1.6, offset=0.35, sampler=sampler, **tree)
        expected, found = (act(mixed(base, [one], [0.4, 0.6])) for one in (same, other))
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
        assert not torch.allclose(expected, act(base), atol=1e-2)


def fitted(*rows: list[float]) -> Normalizer:
    found = Normalizer(len(rows[0]), "minmax")
    found.fit(torch.tensor(rows))
    return found


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (fitted([0, 0], [1, 1]), fitted([0, 0], [1, 2]), "scaled differently entry by entry .*x 1, y 0.5"),
        (fitted([0, 0], [1, 1]), fitted([0, 5], [1, 5]), "'y' never varied"),
        (fitted([0, 4], [1, 4]), fitted([0, 5], [1, 5]), "'y' was always 4 in the one and 5 in the other"),
    ],
)
def test_actions_that_cannot_be_laid_over_each_other_are_refused_by_name(one, other, words):
    with pytest.raises(ConfigError, match=words):
        frame_of(one, other, ("x", "y"))


def test_actions_that_can_be_laid_over_each_other_are():
    frame = frame_of(fitted([0, 4, 0], [1, 4, 1]), fitted([1, 4, -1], [3, 4, 1]), ("x", "y", "z"))
    assert frame.scale == pytest.approx(0.5)
    torch.testing.assert_close(frame.offset, torch.tensor([-1.5, 0.0, 0.5]))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"horizon": 4}, "horizon is 4 there, 2 here"),
        ({"control_hz": 20.0}, "control_hz is 20.0 there, 10.0 here"),
        ({"action_space": "ee_pose"}, "action_space is ee_pose there, box here"),
        ({"action_names": ("b",)}, r"action_names is \('b',\) there"),
        ({"n_obs_steps": 2}, "n_obs_steps is 2 there, 1 here"),
    ],
)
def test_plans_that_mean_other_steps_are_refused_by_name(changed, words):
    base, other = policy("diffusion", None, contract=spec()), policy("diffusion", None, contract=spec(**changed))
    with pytest.raises(ConfigError, match=words):
        join(base, other, "composition")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_policy_that_jumps_is_no_member(swapped):
    pair = policy("diffusion", None), policy("consistency", None, sampler={"kind": "consistency", "clip": "never"})
    with pytest.raises(ConfigError, match="a consistency model says where a walk ends"):
        mixed(pair[swapped], [pair[not swapped]], [0.5, 0.5])


def test_policies_without_a_field_are_refused(tmp_path):
    save_part(policy("diffusion", None), tmp_path)
    config = parse(lookup("policy", "gaussian"), {"n_obs_steps": 1, "horizon": 2, "n_action_steps": 1})
    with pytest.raises(ConfigError, match="composition acts on the way from noise"):
        config.build(spec()).steered(CompositionConfig(policies=(str(tmp_path),), weights=(0.5, 0.5)))
    with pytest.raises(ConfigError, match="composition acts on the way from noise"):
        join(policy("diffusion", None), config.build(spec()), "composition")


@pytest.mark.parametrize(
    ("weights", "words"),
    [((0.5, 0.6), "sum to 1.1, and must sum to 1"), ((1.0,), "1 weights for 2 members")],
)
def test_weights_that_mean_nothing_are_refused(weights, words):
    with pytest.raises(ConfigError, match=words):
        parse(CompositionConfig, {"kind": "composition", "policies": ["x"], "weights": list(weights)})


def test_observations_of_other_shapes_are_refused_by_name():
    base = policy("diffusion", None, contract=spec(obs_shapes={"other": (1,)}))
    members = [policy("diffusion", None, contract=spec(obs_shapes={"state": (size,)})) for size in (1, 2)]
    with pytest.raises(ConfigError, match="observation 'state' of shape"):
        mixed(base, members, [0.4, 0.3, 0.3])
    with pytest.raises(ConfigError, match="looks at an observation 'state'"):
        mixed(members[0], [members[1]], [0.5, 0.5])


def test_members_may_look_at_different_things():
    base = policy("diffusion", None, contract=spec(obs_shapes={"a": (2,)}), seed=1)
    other = policy("diffusion", None, contract=spec(obs_shapes={"b": (3,)}), seed=2)
    steered = mixed(base, [other], [0.5, 0.5])
    assert steered.spec.obs_shapes == {"a": (2,), "b": (3,)}
    seen = {"a": torch.zeros(1, 1, 2), "b": torch.zeros(1, 1, 3)}
    ends = []
    for key in ("neither", "a", "b"):
        obs = {name: value + 0.5 * (name == key) for name, value in seen.items()}
        ends.append(steered.act(obs, 1, torch.Generator().manual_seed(0)))
    assert not torch.allclose(ends[0], ends[1])
    assert not torch.allclose(ends[0], ends[2])


def test_a_member_is_left_out_at_noise_that_it_was_not_trained_for():
    base = field(PATHS["cosine_vp"], "v", [[-0.5]])
    narrow = field(PATHS["beso"], "edm", [[0.5]])  # 0.05 to 1
    wide = field(PATHS["variance_exploding"], "edm", [[0.1]])
    members = [(Member(one, torch.zeros(3, 1, 1), plain()), share) for one, share in ((narrow, 0.5), (wide, 0.3))]
    composed = ComposedField(base, 0.2, members, Log().add)
    one = torch.ones(1, dtype=torch.float64)
    y = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64).reshape(3, 2, 1)
    for kappa, shares in ((0.03, (0.4, 0.0, 0.6)), (0.5, (0.2, 0.5, 0.3)), (2.0, (0.4, 0.0, 0.6))):
        kappa = torch.tensor([kappa], dtype=torch.float64)
        t = base.path.time_of(kappa)
        x = (base.path.level(t).alpha * y).float()
        expected = sum(s * each.net.x0(y, one, kappa) for s, each in zip(shares, (base, narrow, wide), strict=True))
        torch.testing.assert_close(x0_of(composed, x, t, base).double(), expected, atol=1e-4, rtol=0)
    # beyond the range of all others, and of all weight: the base is asked
    kappa = torch.tensor([0.001], dtype=torch.float64)
    t = base.path.time_of(kappa)
    x = (base.path.level(t).alpha * y).float()
    for weights in ((0.2, 0.5, 0.3), (0.0, 0.6, 0.4)):
        composed = ComposedField(
            base, weights[0], [(m, w) for (m, _), w in zip(members, weights[1:], strict=True)], Log().add
        )
        torch.testing.assert_close(x0_of(composed, x, t, base).double(), base.net.x0(y, one, kappa), atol=1e-4, rtol=0)


@pytest.mark.parametrize("prediction", ["eps", "score"])
def test_a_member_that_predicts_noise_is_not_asked_what_pure_noise_is_of(prediction):
    base = policy("flow", [[-0.5]], **FLOW)  # its walk begins at pure noise
    other = policy("flow", [[0.5]], prediction=prediction, sampler=FLOW["sampler"] | {"spacing": "karras"})
    samples = many(mixed(base, [other], [0.5, 0.5]), count=4000)
    assert samples.mean().item() == pytest.approx(0.0, abs=0.05)


def test_how_far_members_disagree_is_logged():
    base, other = policy("diffusion", [[-0.5]]), policy("diffusion", [[0.5]])
    steered = mixed(base, [other], [0.5, 0.5])
    act(steered)
    assert steered.log.means()["composition/disagreement"] > 0.1
    act(mixed(base, [policy("diffusion", [[-0.5]])], [0.5, 0.5]))
    same = mixed(base, [policy("diffusion", [[-0.5]])], [0.5, 0.5])
    act(same)
    assert same.log.means() == {"composition/disagreement": 0.0}


def test_each_member_is_asked_once_a_step_and_one_without_weight_never():
    base, one, two = (policy("diffusion", [[mean]], sampler={"kind": "ddim", "steps": 7}) for mean in (0.1, 0.2, 0.3))
    act(mixed(base, [one, two], [0.3, 0.7, 0.0]))
    assert [each.field.net.calls for each in (base, one, two)] == [7, 7, 0]
    act(mixed(base, [one, two], [0.0, 0.4, 0.6]))
    assert [each.field.net.calls for each in (base, one, two)] == [7, 14, 7]


def test_a_saved_composition_acts_by_the_same_bits_and_needs_no_other_folder(tmp_path):
    base, other = policy("diffusion", None, seed=1), policy("flow", None, seed=2, scale=1.5, offset=0.2, **FLOW)
    for name, part in (("base", base), ("other", other)):
        (tmp_path / name).mkdir()
        save_part(part, tmp_path / name)
    tree = {"kind": "composition", "policies": [str(tmp_path / "other")], "weights": [0.3, 0.7]}
    steered = load_policy(tmp_path / "base").steered(parse(CompositionConfig, tree))
    assert isinstance(steered.steerings[0].members[0], GenerativePolicy)
    expected = act(steered)
    (tmp_path / "both").mkdir()
    save_part(steered, tmp_path / "both")
    for name in ("base", "other"):
        (tmp_path / name).rename(tmp_path / f"{name}-moved")
    assert torch.equal(act(load_policy(tmp_path / "both")), expected)
    assert torch.equal(act(mixed(base, [other], [0.3, 0.7])), expected)
    assert not torch.allclose(expected, act(base))
