"""The six strategies of ITPS (Wang et al. 2025) and what must hold of each; see docs/steering-by-hand.md."""

from itertools import pairwise

import pytest
import torch
from policies.test_policies import episodes, make, obs
from steering.paths import ABSOLUTE, DELTA, built, generators, observe, planar, steered

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.networks.denoiser import Denoiser
from robopol.policies.prediction import target
from robopol.policies.resampling import Acting
from robopol.registry import lookup
from robopol.steering.biased_start import BiasedStart
from robopol.steering.log import Log
from robopol.steering.steering import Planning

LINE = [[-0.5, 0.0], [0.2, 0.6], [0.7, -0.4]]
SKETCH = {"kind": "sketch", "points": LINE, "motion": ABSOLUTE}
PR = {"kind": "best_of", "objective": SKETCH, "n": 32}
BI = {"kind": "biased_start", "points": LINE, "motion": ABSOLUTE}
GD = {"kind": "guide", "objective": SKETCH, "at": "noisy", "space": "eps", "scale": 20 / 64, "interval": [0.1, 1.0]}
SS = [GD | {"scale": 60 / 64}, {"kind": "inner_steps", "back": "renoise", "count": 4}]
NUDGE = {"kind": "nudge", "actions": [[0.4, 0.1], [0.3, None]]}
CLIPPED = {"sampler": {"kind": "ddim", "steps": 10, "clip": "every", "eps_from_clipped": True}}

NEUTRAL = {
    "PR of one": [PR | {"n": 1}],
    "BI of no step": [BI | {"steps": None}],
    "GD of no scale": [GD | {"scale": 0.0}],
    "SS of no scale and one step": [SS[0] | {"scale": 0.0}, SS[1] | {"count": 1}],
    "nobody's hand": [NUDGE | {"actions": []}],
    "a hand that leaves all to the policy": [NUDGE | {"actions": [[None, None]], "how": "output"}],
}


def distance(policy, plans):
    return -built(SKETCH, policy).score(observe(len(plans)), plans) / policy.spec.horizon


@pytest.mark.parametrize("kind", ["diffusion", "flow", "gmm"])
@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_settings_change_nothing(name, kind):
    policy = simple() if kind == "gmm" else planar(kind)
    trees = NEUTRAL[name]
    if kind == "gmm" and not name.startswith(("PR", "a hand")):
        with pytest.raises(ConfigError, match="can only be steered by choosing"):
            steered(policy, *trees)
        return
    found = steered(policy, *trees).plan(observe(3), 2, generators(3))
    assert torch.equal(found, policy.plan(observe(3), 2, generators(3)))


def simple():
    """Return a policy that walks no field."""
    spec = planar().spec
    tree = {"kind": "gmm", "n_obs_steps": 1, "horizon": 8, "n_action_steps": 2, "action_normalization": "identity"}
    torch.manual_seed(0)
    return parse(lookup("policy", "gmm"), tree | {"obs_normalization": "identity"}).build(spec).eval()


def test_ranking_is_no_worse_with_more_proposals():
    policy, best = planar(), []
    for n in (1, 2, 4, 8, 16, 32):
        best.append(distance(policy, steered(policy, PR | {"n": n}).plan(observe(20), 1, generators(20)))[:, 0])
    for fewer, more in pairwise(best):
        assert (more <= fewer).all()
    assert (best[-1] < best[0]).all()


@pytest.mark.parametrize("motion", [ABSOLUTE, DELTA])
def test_a_walk_that_begins_at_its_end_returns_the_sketch(motion):
    policy = planar(n_obs_steps=2)
    plans = steered(policy, BI | {"steps": 0, "motion": motion}).plan(observe(3, 2), 2)
    path = built(SKETCH | {"motion": motion}, policy).track.positions(observe(3, 2), plans)
    line = torch.tensor(LINE)
    torch.testing.assert_close(path[:, :, [0, 3, 6]], line.expand(3, 2, 3, 2))


def test_a_sketch_is_noised_as_a_walk_has_it_or_as_released():
    policy = planar()
    level = policy.field.path.level(policy.sampler.times(policy.field.path)[4])
    line = built(SKETCH, policy).config.points
    obs = observe(500)
    for tree, mean, std in (({}, level.alpha.item(), level.sigma.item()), ({"noise": 0.5}, 1.0, 0.5)):
        steering = built(BI | tree | {"steps": 6}, policy, "steering")
        assert isinstance(steering, BiasedStart)
        planning = Planning(policy, obs, 2, torch.Generator().manual_seed(0), [None] * 500, Log())
        assert steering.starts(planning).all()
        x, first = steering.start(planning)
        assert (first, x.shape) == (4, (1000, 8, 2))
        torch.testing.assert_close(x.mean(0)[[0, -1]], mean * torch.tensor(line)[[0, -1]], rtol=0, atol=0.1)
        assert x.std(0).mean().item() == pytest.approx(std, rel=0.02)


def test_a_biased_start_leads_towards_the_sketch_the_more_the_later_it_is():
    policy = planar()
    found = [
        distance(policy, steered(policy, BI | {"steps": steps}).plan(observe(200), 1, generators(200))).mean().item()
        for steps in (10, 6, 2)
    ]
    base = distance(policy, policy.plan(observe(200), 1, generators(200))).mean().item()
    assert base > found[0] > found[1] > found[2]


def test_guiding_and_ranking_together_follow_the_sketch_better():
    policy = planar(**CLIPPED)
    obs, n = observe(100), 1

    def mean(*trees):
        plans = steered(policy, *trees) if trees else policy
        return distance(policy, plans.plan(obs, n, generators(100))).mean().item()

    base, ranked, guided, again = mean(), mean(PR), mean(GD), mean(*SS)
    assert base > ranked
    assert base > guided > again
    assert again < 0.6 * base


def spread(std, *trees, rows=1000, **changes):
    """Return the standard deviation of plans whose entries should be N(0, std^2)."""
    policy = planar(std=std, **changes)
    policy = steered(policy, *trees) if trees else policy
    return policy.plan(observe(rows), 1, torch.Generator().manual_seed(0)).std().item()


def inner(back, **more):
    return {"kind": "inner_steps", "count": 4, "back": back} | more


@pytest.mark.parametrize(("std", "once", "renoised", "repeated"), [(1.0, 0.87, 0.71, 0.586), (0.5, 0.425, None, 0.033)])
def test_kernels_as_released_contract_an_unguided_gaussian(std, once, renoised, repeated):
    """10 steps of DDIM on the cosine chain of 100, from its end to its end."""
    walk = {"sampler": {"kind": "ddim", "steps": 10, "spacing": "linspace", "clip": "never"}}
    assert spread(std, **walk) == pytest.approx(once, abs=0.01)
    if renoised is not None:
        assert spread(std, inner("renoise"), **walk) == pytest.approx(renoised, abs=0.01)
    assert spread(std, inner("repeat"), **walk) == pytest.approx(repeated, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("std", [0.3, 1.0])
def test_corrected_kernels_leave_an_unguided_gaussian_as_it_is(std):
    """On a walk that is nearly exact: the whole of a long chain."""
    chain = {
        "rows": 400,
        "path": {"kind": "discrete_vp", "train_steps": 500},
        "sampler": {"kind": "ddpm", "clip": "never"},
    }
    assert spread(std, **chain) == pytest.approx(std, rel=0.02)
    assert spread(std, inner("time_travel"), **chain) == pytest.approx(std, rel=0.03)
    assert spread(std, inner("langevin", step_size=0.05), **chain) == pytest.approx(std, rel=0.03)
    assert spread(std, inner("renoise"), **chain) < 0.8 * std


class Together(Denoiser):
    """A perfect network for plans whose steps are all nearly equal: covariance 0.3^2 (0.95 + 0.05 I)."""

    def __init__(self, policy):
        super().__init__()
        self.path, self.prediction = policy.field.path, policy.field.prediction
        self.covariance = 0.09 * (0.95 + 0.05 * torch.eye(8, dtype=torch.float64))
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t, cond):
        level = self.path.level(t[:1].double() / self.path.time_scale)
        alpha, sigma = level.alpha, level.sigma
        gain = alpha * self.covariance @ torch.linalg.inv(alpha**2 * self.covariance + sigma**2 * torch.eye(8))
        x0 = gain @ x.double()
        return target(self.prediction, x0, (x - alpha * x0) / sigma, level, self.path).to(x.dtype)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_the_rest_of_a_plan_goes_with_the_hand_or_does_not(kind):
    policy = planar(kind)
    policy.field.net = Together(policy)
    base = policy.plan(observe(400), 1, generators(400))[:, 0]
    inpainted = steered(policy, NUDGE).plan(observe(400), 1, generators(400))[:, 0]
    replaced = steered(policy, NUDGE | {"how": "output"}).plan(observe(400), 1, generators(400))[:, 0]
    for found in (inpainted, replaced):
        torch.testing.assert_close(found[:, 0], torch.tensor([0.4, 0.1]).expand(400, 2))
        torch.testing.assert_close(found[:, 1, 0], torch.full((400,), 0.3))
    assert torch.equal(replaced[:, 2:], base[:, 2:])
    assert torch.equal(replaced[:, 1, 1], base[:, 1, 1])
    assert base[:, 2:].mean().abs() < 0.03
    # given 0.4 and 0.3, the mean of the others is 0.95 (0.4 + 0.3) / (2 * 0.95 + 0.05) = 0.341; a walk that hears of
    # them late goes a part of the way, and one that is led back goes the rest
    assert inpainted[:, 2:, 0].mean() > 0.12
    patient = steered(policy, NUDGE, {"kind": "inner_steps", "count": 10})
    assert patient.plan(observe(400), 1, generators(400))[:, 0, 2:, 0].mean().item() == pytest.approx(0.31, abs=0.02)


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        (NUDGE | {"actions": [[0.0, 0.0]] * 9}, "9 actions, and plans have 8"),
        (NUDGE | {"actions": [[0.0]]}, "1 numbers for an action, and the policy's have 2: east"),
        (NUDGE | {"actions": [[0.0, 0.0], [0.0]]}, "as many entries each"),
        (BI | {"steps": 11}, "walks 10 in all"),
        (BI | {"points": [[0.0, 0.0, 0.0]]}, "has 3 numbers, and the motion has 2 axes"),
        (BI | {"motion": None}, "say it by motion"),
        (BI | {"motion": DELTA | {"start": [0, 7]}}, "have 3 entries, and none is 7"),
    ],
)
def test_wrong_worlds_are_refused(tree, fault):
    with pytest.raises(ConfigError, match=fault):
        steered(planar(), tree)


@pytest.mark.parametrize(
    ("action", "still", "clip", "fault"),
    [
        ([10.5, -18.5, None], False, "last", r"y = -18.5, .* plans it in \[-20, -19\]: .* how=output"),
        ([10.5, -19.5, 0.4], True, "never", r"grip = 0.4, .* plans it in \[0.5, 0.5\]"),
        ([10.5, -19.5, 0.5], True, "last", None),
        ([12.0, None, None], False, "never", None),
    ],
)
def test_a_hand_is_followed_or_told_that_it_is_not(action, still, clip, fault, tmp_path):
    policy = make({"kind": "flow", "net": {"kind": "mlp", "width": 8}, "sampler": {"kind": "euler", "clip": clip}})
    if still:
        shown = episodes()
        shown.action[:, 2] = 0.5
        policy.fit_normalizers(shown)
    hand = NUDGE | {"actions": [action]}
    if fault:
        with pytest.raises(ConfigError, match=fault):
            steered(policy, hand)
        hand |= {"how": "output"}
    save_part(steered(policy, hand), tmp_path)
    found = load_policy(tmp_path).plan(obs(2))[:, 0, 1]
    given = torch.tensor([torch.nan if one is None else one for one in action]).expand(2, -1)
    torch.testing.assert_close(found, torch.where(given.isnan(), found, given), rtol=0, atol=1e-3)


def test_a_sketch_begins_no_earlier_than_the_walk():
    """Of a walk that is made shorter, or longer, after the policy was saved."""
    config, fewer = built(BI, group="steering").config, Acting(steps=4)
    with pytest.raises(ConfigError, match="walks 4 in all"):
        fewer.apply(planar(), [config])
    policy = steered(planar(), BI)
    fewer.apply(policy)
    with pytest.raises(ConfigError, match="walks 4 in all"):
        policy.plan(observe(1))
    short = planar(sampler={"kind": "ddim", "steps": 4, "clip": "never"})
    assert Acting(steps=10).apply(short, [config]).plan(observe(1)).isfinite().all()


def test_two_beginnings_are_refused():
    with pytest.raises(ConfigError, match="both say where a walk begins"):
        steered(planar(), BI, {"kind": "warm_start"})


@pytest.mark.parametrize("tree", [BI, BI | {"motion": DELTA, "noise": 0.5}, NUDGE, NUDGE | {"how": "output"}])
def test_what_is_steered_is_saved(tree, tmp_path):
    plain = parse(lookup("policy", "diffusion"), planar().config.tree()).build(planar().spec).eval()
    policy = steered(plain, tree)
    save_part(policy, tmp_path)
    found = load_policy(tmp_path).plan(observe(2), 3, generators(2))
    assert torch.equal(found, policy.plan(observe(2), 3, generators(2)))
    assert not torch.equal(found, plain.plan(observe(2), 3, generators(2)))
