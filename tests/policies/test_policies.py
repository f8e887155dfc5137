"""What every policy promises, whatever it is made of."""

import math
import warnings

import numpy as np
import pytest
import torch

from robopol.config import parse
from robopol.data import Episodes, EpisodesMeta
from robopol.errors import ConfigError, DataError, DataWarning, RobopolError, ShapeError
from robopol.policies import Policy, PolicySpec, Previous
from robopol.policies.gmm import cluster
from robopol.policies.resampling import Acting, Resampling
from robopol.policies.samplers.first_order import DDIMConfig
from robopol.registry import lookup

NETS = {
    "mlp": {"kind": "mlp", "width": 32},
    "unet": {"kind": "unet", "widths": [16, 32, 32], "groups": 4, "step_dim": 16},
    "transformer": {"kind": "transformer", "width": 16, "layers": 2, "heads": 2},
}
POLICIES = {
    f"{kind}-{net}": {"kind": kind, "net": tree, "sampler": {"kind": sampler, "steps": 4}}
    for kind, sampler in (("diffusion", "ddpm"), ("edm", "heun"), ("flow", "euler"))
    for net, tree in NETS.items()
} | {
    "gaussian": {"kind": "gaussian", "hidden": [32]},
    "gmm": {"kind": "gmm", "hidden": [32], "modes": 3},
    "meow": {"kind": "meow", "hidden": [32], "shift_hidden": [8], "modes": 3},
    "ebt": {"kind": "ebt"},
}

SPEC = {
    "obs_shapes": {"state": [5], "aux": [2]},
    "action_names": ["x", "y", "grip"],
    "action_low": [-2, -2, 0],
    "action_high": [2, 2, 1],
    "action_space": "box",
    "control_hz": 10.0,
    "n_obs_steps": 2,
    "horizon": 8,
    "n_action_steps": 4,
}


def obs(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "state": torch.randn(rows, 2, 5, generator=rng),
        "aux": torch.randn(rows, 2, 2, generator=rng),
        "ignored": torch.zeros(rows, 2, 9),
    }


def batch(rows: int) -> dict:
    rng = torch.Generator().manual_seed(1)
    mask = torch.ones(rows, 8, dtype=torch.bool)
    mask[0, 5:] = False
    action = torch.rand(rows, 8, 3, generator=rng) + torch.tensor([10.0, -20.0, 0.0])
    return {"obs": obs(rows), "action": action, "mask": mask, "weight": torch.ones(rows)}


def make(tree: dict, **changes: object) -> Policy:
    config = parse(lookup("policy", tree["kind"]), {**tree, "horizon": 8, "n_action_steps": 4, **changes})
    torch.manual_seed(0)
    policy = config.build(parse(PolicySpec, SPEC))
    policy.fit_normalizers(episodes())
    return policy.eval()


def episodes() -> Episodes:
    """Eight episodes of 16 steps, with actions in [10, 11] x [-20, -19] x [0, 1]."""
    rows, rng = 128, torch.Generator().manual_seed(2)
    last = torch.arange(rows) % 16 == 15
    seen = {key: value.flatten(0, 1) for key, value in obs(64).items()}
    return Episodes(
        obs=seen,
        action=torch.rand(rows, 3, generator=rng) + torch.tensor([10.0, -20.0, 0.0]),
        reward=torch.zeros(rows),
        terminated=last,
        truncated=torch.zeros(rows, dtype=torch.bool),
        source=torch.zeros(rows, dtype=torch.int64),
        intervention=torch.zeros(rows, dtype=torch.bool),
        starts=torch.arange(8) * 16,
        lengths=torch.full((8,), 16),
        final_obs={key: value[:8] for key, value in seen.items()},
        has_final=torch.ones(8, dtype=torch.bool),
        success=torch.ones(8, dtype=torch.bool),
        way=torch.full((8,), -1),
        seed=torch.arange(8),
        meta=EpisodesMeta(source_names=("toy",)),
    )


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return make(POLICIES[request.param])


def test_chunks_start_now_and_are_in_environment_units(policy):
    chunk = policy.act(obs(6), n=3, generator=torch.Generator().manual_seed(0))
    assert chunk.shape == (6, 3, 7, 3)  # H = Tp - To + 1
    assert chunk.dtype == torch.float32
    assert chunk.isfinite().all()
    assert (chunk[..., 0] > 8).all()
    assert (chunk[..., 1] < -17).all()


def test_a_row_depends_on_its_own_observation_and_generator_alone(policy):
    def generators(seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    # as many rows as executors plan for; for other numbers a kernel may round the last rows differently
    seeds = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]
    whole = policy.act(obs(16), n=2, generator=generators(seeds))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = {key: value[order] for key, value in obs(16).items()}
    again = policy.act(shuffled, n=2, generator=generators([seeds[i] for i in order]))
    assert torch.equal(again, whole[order])
    few = policy.act({key: value[:3] for key, value in obs(16).items()}, n=2, generator=generators(seeds[:3]))
    torch.testing.assert_close(few, whole[:3], atol=1e-4, rtol=1e-5)


def test_the_same_seed_gives_the_same_chunk_and_another_seed_another_one(policy):
    first, second = (policy.act(obs(3), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    if policy.config.tree()["kind"] != "gaussian":  # it acts with its mean
        many = policy.act(obs(1), n=32, generator=torch.Generator().manual_seed(8))
        assert many.std(1).max() > 0


def test_loss_is_per_sample_and_has_gradients(policy):
    rng = torch.Generator().manual_seed(0)
    loss = policy.loss(batch(5), rng)
    assert loss.shape == (5,)
    loss.mean().backward()
    # likelihood says nothing about MEow's shift of Q
    trained = [p for name, p in policy.named_parameters() if ".shifts." not in name]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("name", ["diffusion-mlp", "flow-mlp", "gmm"])
def test_padding_counts_only_if_it_is_asked_for(name):
    for on_padding in (True, False):
        policy = make(POLICIES[name], loss_on_padding=on_padding)
        data = batch(3)
        before = policy.loss(data, torch.Generator().manual_seed(0)).detach()
        data["action"] = data["action"].clone()
        # for diffusion the whole noised chunk is an input, so change only what the target sees: all rows' padding
        weight = torch.ones_like(before)
        assert torch.equal(policy.loss(data | {"weight": weight}, torch.Generator().manual_seed(0)), before)
        everything = policy.loss(data | {"mask": torch.ones(3, 8, dtype=torch.bool)}, torch.Generator().manual_seed(0))
        assert (everything[0] == before[0]) == on_padding
        assert torch.equal(everything[1:], before[1:])


@pytest.mark.parametrize("name", ["diffusion-mlp", "flow-mlp"])
def test_what_is_left_out_of_the_loss_has_no_gradient(name):
    policy, said = make(POLICIES[name], loss_on_padding=False).train(), []

    def heard(_net, _given, out):
        out.retain_grad()
        said.append(out)

    policy.field.net.register_forward_hook(heard)
    data = batch(3)
    policy.loss(data, torch.Generator().manual_seed(0)).sum().backward()
    (out,) = said
    assert not data["mask"].all()
    assert (out.grad[~data["mask"]] == 0).all()
    assert (out.grad[data["mask"]] != 0).any(-1).all()


def test_gaussian_loss_is_the_log_density_by_hand():
    policy = make(POLICIES["gaussian"])
    data = batch(4)
    cond = policy.observation(data["obs"], 2)
    _, mean, std = policy._heads(cond)
    action = policy.action_normalizer.normalize(data["action"])
    expected = -torch.distributions.Normal(mean[:, 0], std[:, 0]).log_prob(action).mean((1, 2))
    torch.testing.assert_close(policy.loss(data), expected)


def test_mixture_loss_is_the_log_density_by_hand():
    policy = make(POLICIES["gmm"], loss_on_padding=False)
    data = batch(4)
    log_weights, mean, std = policy._heads(policy.observation(data["obs"], 2))
    action = policy.action_normalizer.normalize(data["action"])
    for row in range(4):
        steps = data["mask"][row]
        densities = [
            log_weights[row, k].exp()
            * torch.distributions.Normal(mean[row, k][steps], std[row, k][steps])
            .log_prob(action[row][steps])
            .sum()
            .exp()
            for k in range(3)
        ]
        expected = -math.log(sum(d.item() for d in densities)) / (int(steps.sum()) * 3)
        assert policy.loss(data)[row].item() == pytest.approx(expected, rel=1e-3)


def test_modes_are_drawn_by_their_weights():
    policy = make(POLICIES["gmm"])
    one = {key: value[:1] for key, value in obs(1).items()}
    log_weights, mean, _ = policy._heads(policy.observation(one, 2))
    drawn = policy._sample(policy.observation(one, 2), 6000, torch.Generator().manual_seed(0))[0]
    mode = (drawn[:, None] - mean[0][None]).abs().sum((2, 3)).argmin(1)
    shares = torch.bincount(mode, minlength=3) / 6000
    torch.testing.assert_close(shares, log_weights[0].exp().detach(), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"obs": {"state": torch.zeros(3, 2, 5)}}, ShapeError, "lacks 'aux'"),
        ({"obs": obs(3) | {"state": torch.zeros(3, 1, 5)}}, ShapeError, r"needs \(B, 2, 5\)"),
        ({"action": torch.zeros(3, 9, 3)}, ShapeError, r"needs \(B, 8, 3\)"),
    ],
)
def test_wrong_batches_are_refused_in_words(change, error, words):
    policy = make(POLICIES["diffusion-mlp"])
    with pytest.raises(error, match=words):
        policy.loss(batch(3) | change)


def test_wrong_number_of_generators_is_refused():
    for name in ("flow-mlp", "ebt"):
        with pytest.raises(ShapeError, match="2 generators for 3 rows"):
            make(POLICIES[name]).act(obs(3), generator=[torch.Generator(), torch.Generator()])


@pytest.mark.parametrize("shape", [(2, 1, 8, 3), (3, 1, 16, 3), (3, 8, 3), (3,)])
def test_noise_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError, match=r"needed \(3, n, 8, 3\)"):
        make(POLICIES["flow-mlp"]).plan_from(obs(3), torch.zeros(shape))


@pytest.mark.parametrize(("passed", "left"), [(0, [0, 1, 2]), (2, [2, 2, 2]), (3, [2, 2, 2]), (20, [2, 2, 2])])
def test_a_plan_that_is_over_goes_on_with_its_last_action(passed, left):
    window = torch.arange(3.0)[:, None]
    assert Previous(window, passed).shifted().flatten().tolist() == left


def test_an_unfitted_policy_refuses_to_act():
    config = parse(lookup("policy", "diffusion"), {**POLICIES["diffusion-mlp"], "horizon": 8, "n_action_steps": 4})
    with pytest.raises(DataError, match="never fitted"):
        config.build(parse(PolicySpec, SPEC)).act(obs(1))


@pytest.mark.parametrize(
    ("tree", "changes", "words"),
    [
        ({"n_action_steps": 8}, {}, "more than the 7 actions"),
        ({"action_low": [0, 0]}, {}, "2 lower"),
        ({"obs_shapes": {"images.front": [96, 96, 3]}}, {}, "take vectors only"),
        ({}, {"sampler": {"kind": "ddim", "steps": 200}}, "1 to 100 steps"),
        ({"horizon": 10}, {"net": NETS["unet"]}, "horizon"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_they_are_put_together(tree, changes, words):
    config = parse(lookup("policy", "diffusion"), {**POLICIES["diffusion-mlp"], **changes})
    with pytest.raises(ConfigError, match=words):
        config.build(parse(PolicySpec, SPEC | tree))


def test_clusters_are_found_where_they_are():
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 7.0]])
    points = centres.repeat(50, 1) + 0.3 * torch.randn(150, 2, generator=rng)
    found = cluster(points, 3)
    assert torch.cdist(found, centres).amin(0).max() < 0.2
    torch.testing.assert_close(cluster(points, 1)[0], points.mean(0))


# --------------------------------------------------------------------------------------------- other walks


@pytest.mark.parametrize("kind", ["diffusion", "edm", "flow"])
@pytest.mark.parametrize(
    "sampler",
    [
        {"kind": "ddim", "steps": 5, "spacing": "karras"},
        {"kind": "heun", "steps": 5, "spacing": "exponential"},
        {"kind": "dpm_solver", "steps": 5, "spacing": "karras", "sde": True},
        {"kind": "edm", "steps": 5, "churn": 2.0},
        {"kind": "ancestral", "steps": 5, "spacing": "linear"},
        {"kind": "langevin", "steps": 3, "corrections": 2},
    ],
)
def test_a_trained_policy_can_be_walked_in_other_ways(kind, sampler):
    policy = make(POLICIES[f"{kind}-mlp"])
    before = policy.act(obs(2), generator=torch.Generator().manual_seed(0))
    config = parse(lookup("sampler", sampler["kind"]), sampler)
    Resampling(sampler=config).apply(policy)
    assert policy.config.sampler == config
    after = policy.act(obs(2), generator=torch.Generator().manual_seed(0))
    assert after.shape == before.shape
    assert after.isfinite().all()
    assert not torch.equal(after, before)


def test_the_number_of_steps_alone_can_be_changed():
    policy = make(POLICIES["flow-mlp"])
    calls: list[int] = []
    policy.field.net.forward = lambda x, t, cond: (calls.append(1), torch.zeros_like(x))[1]
    policy.field.net.prepare = lambda t, cond: lambda x, i: policy.field.net.forward(x, t[i], cond)
    Resampling(steps=9).apply(policy)
    policy.act(obs(2))
    assert len(calls) == 9


@pytest.mark.parametrize(("backend", "near"), [("packed", 1e-4), ("packed_fp16", 0.02), ("packed_bf16", 0.2)])
def test_packed_weights_act_alike(backend, near):
    policy = make(POLICIES["flow-unet"])
    before = policy.act(obs(16), generator=torch.Generator().manual_seed(0))
    Acting(backend=backend).apply(policy)
    after = policy.act(obs(16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(after, before, atol=near, rtol=0)
    with pytest.raises(RobopolError, match="packed weights only act, they cannot be saved"):
        policy.state_dict()


def test_policies_without_a_walk_refuse_another_sampler():
    with pytest.raises(ConfigError, match="a gmm policy does not walk from noise: policy"):
        Resampling(steps=5).apply(make(POLICIES["gmm"]))


@pytest.mark.parametrize("name", ["gaussian", "gmm", "meow"])
def test_a_saved_policy_of_gaussians_may_draw_after_all(name):
    policy, drawing = make(POLICIES[name]), make({**POLICIES[name], "deterministic": False})
    rng = torch.Generator()
    Acting(deterministic=False).apply(policy)
    one, other = (p.act(obs(4), n=3, generator=rng.manual_seed(0)) for p in (policy, drawing))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    Acting(deterministic=True).apply(policy)
    assert not torch.equal(policy.act(obs(4), n=3, generator=rng.manual_seed(0)), one)


def test_policies_that_walk_have_no_gaussians_to_draw_from():
    with pytest.raises(ConfigError, match="a flow policy has no Gaussians to draw from"):
        Resampling(deterministic=True).apply(make(POLICIES["flow-mlp"]))


def test_samplers_do_not_clip_actions_that_are_not_scaled_to_be_clipped():
    with pytest.raises(ConfigError, match=r"sampler\.clip=never"):
        make(POLICIES["diffusion-mlp"], action_normalization="zscore")
    wide = {"kind": "ddim", "steps": 4, "clip": "never"}
    policy = make(POLICIES["diffusion-mlp"], action_normalization="zscore", sampler=wide)
    with pytest.raises(ConfigError, match=r"sampler\.clip=never"):
        parse(Resampling, {"sampler": "ddim"}).apply(policy)


def test_actions_that_are_not_scaled_are_not_clipped_in_silence():
    with pytest.raises(ConfigError, match=r"actions that are not scaled reach 20, .*policy.action_normalization=min"):
        make(POLICIES["flow-mlp"], action_normalization="identity")
    within = episodes()
    within.action[:] = within.action.clamp(-1, 1)
    config = parse(lookup("policy", "flow"), {**POLICIES["flow-mlp"], "horizon": 8, "action_normalization": "identity"})
    config.build(parse(PolicySpec, SPEC)).fit_normalizers(within)


def test_another_sampler_does_not_clip_in_silence():
    wide = {"kind": "euler", "steps": 4, "clip": "never"}
    policy = make(POLICIES["flow-mlp"], action_normalization="identity", sampler=wide)
    for sampler in ("euler", {"kind": "heun", "clip": "every"}):
        with pytest.raises(ConfigError, match=r"action_normalization=identity .*outside.* clip: never\}"):
            parse(Resampling, {"sampler": sampler}).apply(policy)
    parse(Resampling, {"sampler": {"kind": "heun", "clip": "never"}}).apply(policy)
    parse(Resampling, {"steps": 3}).apply(policy)
    assert (policy.config.sampler.kind, policy.config.sampler.steps, policy.bounded) == ("heun", 3, False)
    scaled = make(POLICIES["flow-mlp"], sampler=wide)  # all that was demonstrated lies where plans are clipped
    parse(Resampling, {"sampler": "euler"}).apply(scaled)
    assert scaled.bounded


def test_actions_beyond_the_quantiles_are_not_clipped_in_silence():
    shown = episodes()
    shown.action[3, 0], shown.action[7, 1], shown.action[:, 2] = 14.0, -18.0, 0.5
    shown.action[5, 2] = 0.9  # seldom enough to lie beyond both quantiles

    def fitted(name: str, **changes: object) -> Policy:
        config = parse(lookup("policy", POLICIES[name]["kind"]), {**POLICIES[name], "horizon": 8, **changes})
        made = config.build(parse(PolicySpec, SPEC))
        made.fit_normalizers(shown)
        return made

    with pytest.warns(DataWarning, match=r"scaled by quantile.* x in \d+ of 128 \(.*%\), as far as 7\.") as told:
        policy = fitted("flow-mlp", action_normalization="quantile")
    (said,) = [str(one.message) for one in told]
    assert "grip, always planned as 0.5, differs in 1 of 128" in said
    assert "policy.sampler.clip=never" in said
    low, high = np.quantile(shown.action[:, 1].double().numpy(), [0.01, 0.99])
    outside = int(((shown.action[:, 1] < low - 1e-5) | (shown.action[:, 1] > high + 1e-5)).sum())
    assert f"y in {outside} of 128" in said
    # what is trained on is not clipped, and comes back
    normalized = policy.action_normalizer.normalize(shown.action)
    assert normalized[3, 0] > 7
    torch.testing.assert_close(policy.action_normalizer.unnormalize(normalized)[:, :2], shown.action[:, :2])
    wide = {"kind": "euler", "steps": 4, "clip": "never"}
    with pytest.warns(DataWarning, match="grip, always") as told:
        fitted("flow-mlp", action_normalization="quantile", sampler=wide)
    assert " x in " not in str(told[0].message)
    with pytest.warns(DataWarning, match="scaled by bounds, .* x in 128 of 128"):  # they are bounds of something else
        fitted("flow-mlp", action_normalization="bounds")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted("flow-mlp")


def test_actions_that_are_too_small_to_be_scaled_are_not_held_still_in_silence():
    shown = episodes()
    rows = len(shown.action)
    shown.action[:, 0] = 3e-5 * torch.linspace(-1, 1, rows)
    shown.action[:, 1] = 0.9
    shown.action[::2, 1] += 6e-8  # the last bit is no motion
    policy = parse(lookup("policy", "flow"), {**POLICIES["flow-mlp"], "horizon": 8}).build(parse(PolicySpec, SPEC))
    with pytest.warns(DataWarning, match=rf"x, always planned as .*, differs in \d+ of {rows}\. .*units") as told:
        policy.fit_normalizers(shown)
    assert "y, " not in str(told[0].message)
    shown.action[:, 0] /= 1e4  # nor is what an arm wavers by that stands still
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.fit_normalizers(shown)


@pytest.mark.parametrize("told", [Acting(), Acting(sampler=DDIMConfig(steps=3), backend="packed"), Resampling(steps=4)])
def test_what_is_changed_about_a_walk_is_written_and_read(told):
    assert parse(type(told), told.tree()) == told


def test_a_plan_is_the_window_that_a_chunk_is_the_end_of():
    for name in ("flow-mlp", "gaussian"):
        policy = make(POLICIES[name])
        plan = policy.plan(obs(3), n=2, generator=torch.Generator().manual_seed(0))
        assert plan.shape == (3, 2, 8, 3)
        assert torch.equal(plan[:, :, 1:], policy.act(obs(3), n=2, generator=torch.Generator().manual_seed(0)))
