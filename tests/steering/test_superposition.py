"""OR and AND of frozen policies: likelihoods along a walk, and what is made of them, against closed forms."""

import pytest
import torch
from gaussians import act, many, policy, spec

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.policies import Policy, Previous
from robopol.policies.generative import GenerativePolicy
from robopol.registry import lookup
from robopol.steering import AgreementConfig, InnerStepsConfig, MixtureConfig, SteeredPolicy, WarmStartConfig
from robopol.steering.agreement import Agreement
from robopol.steering.composition import Composition, CompositionConfig
from robopol.steering.inner_steps import InnerSteps
from robopol.steering.log import Log
from robopol.steering.members import Members, join
from robopol.steering.mixture import Mixture
from robopol.steering.steering import Planning
from robopol.steering.warm_start import WarmStart

KINDS = {"mixture": (Mixture, MixtureConfig), "agreement": (Agreement, AgreementConfig)}
KINDS |= {"composition": (Composition, CompositionConfig)}

COSINE = {"path": {"kind": "cosine_vp"}, "prediction": "v"}


def by_all(kind: str, base: Policy, others: list[Policy], **tree) -> SteeredPolicy:
    built, config = KINDS[kind]
    members = [join(base, other, kind) for other in others]
    return SteeredPolicy(base, [built(config(policies=("never read",) * len(others), **tree), members)])


def ddpm(steps: int, spacing: str = "karras", clip: str = "never") -> dict:
    return {"kind": "ddpm", "steps": steps, "spacing": spacing, "clip": clip}


def followed(steered: SteeredPolicy, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Walk, and return the last odds (M - 1, R), the state y (R, Tp, A) that they are of, and kappa."""
    base, moments = steered.base, []
    planning = Planning(
        base, {"state": torch.zeros(1, 1, 1)}, count, torch.Generator().manual_seed(seed), [None], Log()
    )
    field = steered.steerings[0].field(base.walked, planning)
    weigh = field.weigh
    field.weigh = lambda at: (moments.append(at), weigh(at))[1]
    base.sampler.sample(field, planning.draw(), torch.zeros(count, 1, 1), planning.draw)
    last = moments[-1]
    alpha = base.sampler.table(base.field).levels[-2].alpha.item()
    return last.odds, last.x / alpha, last.kappa


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("widths", [(0.2, 0.2), (0.15, 0.3)])
def test_odds_along_a_walk_are_those_of_the_closed_form(widths, swapped):
    one = policy("diffusion", [[-0.3, 0.0]], widths[0], sampler=ddpm(600), **COSINE)
    two = policy("flow", [[0.3, 0.1]], widths[1], sampler=ddpm(600))
    base, other = (two, one) if swapped else (one, two)
    odds, y, kappa = followed(by_all("mixture", base, [other]), 500)
    known = other.field.net.log_density(y, kappa) - base.field.net.log_density(y, kappa)
    assert known.std() > 3
    assert (odds[0] - known).abs().mean() < 0.1 * known.abs().mean()
    assert torch.corrcoef(torch.stack([odds[0], known]))[0, 1] > 0.99


def test_a_discrete_chain_is_steered_by_what_knows_its_levels():
    one, two = policy("diffusion", [[-0.3]], sampler=ddpm(100)), policy("flow", [[0.3]], sampler=ddpm(100))
    odds, y, kappa = followed(by_all("mixture", one, [two]), 500)
    known = two.field.net.log_density(y, kappa) - one.field.net.log_density(y, kappa)
    assert torch.corrcoef(torch.stack([odds[0], known]))[0, 1] > 0.98
    with pytest.raises(ConfigError, match="steer that one, with this policy among its policies"):
        act(by_all("mixture", two, [one]))


def test_odds_begin_even_and_are_not_moved_by_pure_noise():
    """A straight path begins at sigma / alpha = inf, where every sample is as likely in each member."""
    sampler = {"kind": "ancestral", "steps": 200, "spacing": "uniform", "clip": "never"}
    one, two = (policy("flow", [[mean]], sampler=sampler) for mean in (-0.3, 0.3))
    steered = by_all("mixture", one, [two])
    odds, y, kappa = followed(steered, 500)
    known = two.field.net.log_density(y, kappa) - one.field.net.log_density(y, kappa)
    assert torch.corrcoef(torch.stack([odds[0], known]))[0, 1] > 0.98
    samples = many(steered, 4000)
    assert (samples > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_far_modes_stay_apart_where_a_convex_mix_goes_between():
    one, two = policy("diffusion", [[-0.6]], 0.1, sampler=ddpm(100)), policy("flow", [[0.6]], 0.1)
    either = many(by_all("mixture", one, [two]), 4000)
    between = many(by_all("composition", one, [two], weights=(0.5, 0.5)), 4000)
    near = (either.abs() - 0.6).abs() < 0.3
    assert near.float().mean() > 0.99
    assert (either > 0).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert either.abs().std().item() == pytest.approx(0.1, abs=0.02)
    assert (between.abs() < 0.3).float().mean() > 0.99


def test_priors_say_how_often_each_is_taken():
    one, two = policy("diffusion", [[-0.6]], 0.1, sampler=ddpm(100)), policy("flow", [[0.6]], 0.1)
    either = many(by_all("mixture", one, [two], priors=(3.0, 1.0)), 4000)
    assert (either < 0).float().mean().item() == pytest.approx(0.75, abs=0.06)


def test_at_temperature_0_a_mixture_keeps_its_priors_and_is_the_convex_mix():
    one, two = policy("diffusion", None, seed=1, sampler=ddpm(10)), policy("flow", None, seed=2)
    expected = act(by_all("composition", one, [two], weights=(0.25, 0.75)))
    found = act(by_all("mixture", one, [two], priors=(1.0, 3.0), temperature=0.0))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_member_that_is_impossible_is_not_there():
    base, same, other = (policy("diffusion", None, seed=seed, sampler=ddpm(10)) for seed in (1, 2, 3))
    assert torch.equal(act(by_all("mixture", base, [same, other], priors=(1.0, 0.0, 0.0))), act(base))
    assert torch.equal(act(by_all("mixture", base, [same, other], priors=(0.0, 0.0, 2.0))), act(other))
    both, pair = act(by_all("mixture", base, [same, other], priors=(0.0, 1.0, 2.0))), None
    pair = act(by_all("mixture", same, [other], priors=(1.0, 2.0)))
    assert torch.equal(both, pair)
    assert not torch.equal(both, act(other))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("clip", ["never", "every"])
def test_agreement_reaches_equal_densities(swapped, clip):
    sampler = ddpm(100, clip=clip)
    one = policy("diffusion", [[-0.5, 0.1]], 0.3, sampler=sampler, **COSINE)
    two = policy("flow", [[0.5, -0.2]], 0.3, sampler=sampler)
    base, other = (two, one) if swapped else (one, two)

    def spread(kind, **tree):
        chunk = many_windows(by_all(kind, base, [other], **tree), 2000)
        odds = other.field.net.log_density(chunk, 0.0) - base.field.net.log_density(chunk, 0.0)
        return odds.std().item(), chunk

    halved, middle = spread("composition", weights=(0.5, 0.5))
    equal, chunk = spread("agreement")
    assert halved > 3
    assert equal < (0.05 if clip == "never" else 0.3) * halved
    torch.testing.assert_close(chunk.mean((0, 1)), middle.mean((0, 1)), atol=0.03, rtol=0)
    assert chunk.std() > 0.1  # along the line of equal densities it is as wide as ever


def many_windows(steered: SteeredPolicy, count: int) -> torch.Tensor:
    return steered.plan({"state": torch.zeros(1, 1, 1)}, count, torch.Generator().manual_seed(0))[0]


def test_three_members_agree_too():
    members = [
        policy("flow", [mean], 0.3, sampler=ddpm(100)) for mean in ([-0.4, 0.0, 0.1], [0.3, 0.3, 0.0], [0, -0.4, 0])
    ]
    chunk = many_windows(by_all("agreement", members[0], members[1:]), 1000)
    odds = [one.field.net.log_density(chunk, 0.0) - members[0].field.net.log_density(chunk, 0.0) for one in members[1:]]
    assert max(one.std().item() for one in odds) < 0.1


def test_members_that_agree_already_are_left_alone():
    members = [policy("diffusion", [[0.3]], sampler=ddpm(20)) for _ in range(2)]
    torch.testing.assert_close(act(by_all("agreement", members[0], members[1:])), act(members[0]))


def test_knowing_the_noise_beforehand_draws_no_other():
    """The walk of an agreement sees the very noise that the base's does, step for step."""
    base, other = (policy("diffusion", None, seed=seed, sampler=ddpm(6)) for seed in (1, 1))
    steered, seen = by_all("agreement", base, [other]), []
    walk = base.sampler.sample

    def look(field, noise, cond, draw, **more):
        return walk(field, noise, cond, draw, hook=lambda step: seen.append(step.noise), **more)

    base.sampler.sample = look  # type: ignore[method-assign]
    generators = [torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)]
    steered.act({"state": torch.zeros(2, 1, 1)}, 1, generators)
    again = [torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)]
    drawn = [torch.stack([torch.randn(1, 2, 1, generator=g)[0] for g in again]) for _ in range(6)][1:]
    assert seen[-1] is None
    assert all(torch.equal(one, two) for one, two in zip(seen[:-1], drawn, strict=True))
    assert [g.initial_seed() for g in generators] == [3, 4]
    assert all(torch.equal(one.get_state(), two.get_state()) for one, two in zip(generators, again, strict=True))


@pytest.mark.parametrize("kind", ["mixture", "agreement"])
@pytest.mark.parametrize(
    "sampler",
    [
        {"kind": "heun", "spacing": "karras"},
        {"kind": "edm", "churn": 5.0},
        {"kind": "langevin"},
        {"kind": "dpm_solver", "sde": True},
        {"kind": "diffusers", "scheduler": "DDIMScheduler"},
    ],
)
def test_samplers_of_other_steps_are_refused_in_words(kind, sampler):
    if sampler["kind"] == "diffusers":
        pytest.importorskip("diffusers")
    base, other = policy("diffusion", None, sampler=sampler), policy("diffusion", None, seed=1)
    with pytest.raises(ConfigError, match=f"{kind} follows .* {sampler['kind']} sampler's steps are of another kind"):
        act(by_all(kind, base, [other]))


@pytest.mark.parametrize("kind", ["mixture", "agreement"])
@pytest.mark.parametrize(
    "sampler", [{"kind": "ddim"}, {"kind": "ddim", "eta": 0.5}, {"kind": "consistency", "steps": 3}]
)
def test_walks_with_less_noise_are_refused_in_words(kind, sampler):
    base, other = policy("diffusion", None, sampler=sampler), policy("diffusion", None, seed=1)
    with pytest.raises(ConfigError, match=f"{kind} follows .* does not draw as much as a level loses: walk by .*ddpm"):
        act(by_all(kind, base, [other]))
    base.resample(parse(lookup("sampler", "ddim"), {"eta": 1.0}))
    assert act(by_all(kind, base, [other])).isfinite().all()


@pytest.mark.parametrize("kind", ["mixture", "agreement"])
def test_inner_steps_are_refused_in_words(kind):
    base, other = policy("diffusion", None), policy("diffusion", None, seed=1)
    built = by_all(kind, base, [other]).steerings[0]
    with pytest.raises(ConfigError, match=f"{kind} follows a walk that takes every step once, and inner_steps"):
        SteeredPolicy(base, [built, InnerSteps(InnerStepsConfig(count=2))])
    SteeredPolicy(base, [built, InnerSteps(InnerStepsConfig(count=1))])


@pytest.mark.parametrize("kind", ["mixture", "agreement"])
def test_members_that_do_not_know_a_level_are_refused_in_words(kind):
    base = policy("diffusion", None)
    narrow = policy("edm", None, path={"kind": "variance_exploding", "sigma_max": 1.0})
    with pytest.raises(ConfigError, match=rf"{kind} needs every member at every level, .* in \[0.005, 1\] only"):
        act(by_all(kind, base, [narrow]))


@pytest.mark.parametrize("kind", ["mixture", "agreement"])
def test_walks_from_the_middle_are_refused_in_words(kind):
    base, other = policy("diffusion", None, sampler=ddpm(6)), policy("diffusion", None, seed=1)
    built = by_all(kind, base, [other]).steerings[0]
    warm = SteeredPolicy(base, [built, WarmStart(WarmStartConfig(steps=2))])
    obs, generators = {"state": torch.zeros(1, 1, 1)}, [torch.Generator().manual_seed(0)]
    window = warm.plan(obs, 1, generators, [None])[0, 0]  # from noise, as there is no old plan
    with pytest.raises(ConfigError, match=f"{kind} follows a walk from pure noise on, .* leave warm_start out"):
        warm.plan(obs, 1, generators, [Previous(window, 1)])


def test_a_walk_that_goes_another_way_is_refused_in_words():
    base, other = policy("diffusion", None), policy("diffusion", None, seed=1)
    planning = Planning(base, {"state": torch.zeros(1, 1, 1)}, 1, None, [None], Log())
    field = by_all("mixture", base, [other]).steerings[0].field(base.walked, planning)
    walk = field.prepare(base.sampler.table(base.field).schedule, torch.zeros(1, 1, 1))
    walk(torch.zeros(1, 2, 1), 0)
    with pytest.raises(ConfigError, match="this one goes another way"):
        walk(torch.zeros(1, 2, 1), 0)


def test_priors_that_mean_nothing_are_refused():
    for priors, words in (([0, 0], "priors are all 0"), ([1], "1 priors for 2 members"), ([1, -1], "greater than")):
        with pytest.raises(ConfigError, match=words):
            parse(MixtureConfig, {"kind": "mixture", "policies": ["x"], "priors": priors})


@pytest.mark.parametrize("kind", ["mixture", "agreement"])
def test_what_a_plan_remembers_is_of_that_plan_and_row_alone(kind):
    base, other = policy("diffusion", None, seed=1), policy("flow", None, seed=2)
    steered = by_all(kind, base, [other])
    first = act(steered, rows=3)
    act(steered, rows=2, seed=50)
    assert torch.equal(act(steered, rows=3), first)


@pytest.mark.parametrize("kind", ["mixture", "agreement"])
def test_saved_and_loaded_they_act_by_the_same_bits(kind, tmp_path):
    base, other = policy("diffusion", None, seed=1), policy("flow", None, seed=2)
    for name, part in (("base", base), ("other", other)):
        (tmp_path / name).mkdir()
        save_part(part, tmp_path / name)
    config = parse(lookup("steering", kind), {"kind": kind, "policies": [str(tmp_path / "other")]})
    steered = load_policy(tmp_path / "base").steered(config)
    assert isinstance(steered.steerings[0], Members)
    assert isinstance(steered.steerings[0].members[0], GenerativePolicy)
    expected = act(steered)
    (tmp_path / "both").mkdir()
    save_part(steered, tmp_path / "both")
    assert torch.equal(act(load_policy(tmp_path / "both")), expected)
    assert expected.shape == (3, 2, spec().chunk, 1)
