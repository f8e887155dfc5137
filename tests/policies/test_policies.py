"""What every policy promises, whatever it is made of."""

import math

import pytest
import torch

from robopol.config import parse
from robopol.errors import ConfigError, DataError, ShapeError
from robopol.policies import Policy, PolicySpec
from robopol.policies.gmm import cluster
from robopol.registry import lookup

NETS = {
    "mlp": {"kind": "mlp", "width": 32},
    "unet": {"kind": "unet", "widths": [16, 32, 32], "groups": 4, "step_dim": 16},
    "transformer": {"kind": "transformer", "width": 16, "layers": 2, "heads": 2},
}
POLICIES = {
    f"{kind}-{net}": {"kind": kind, "net": tree, "sampler": {"kind": sampler, "steps": 4}}
    for kind, sampler in (("diffusion", "ddpm"), ("flow", "euler"))
    for net, tree in NETS.items()
} | {"gaussian": {"kind": "gaussian", "hidden": [32]}, "gmm": {"kind": "gmm", "hidden": [32], "modes": 3}}

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
    policy.observation.fit({key: value.flatten(0, 1) for key, value in obs(64).items()})
    policy.action_normalizer.fit(torch.rand(100, 3) + torch.tensor([10.0, -20.0, 0.0]))
    return policy.eval()


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

    seeds = [3, 1, 4, 1, 5, 9]
    whole = policy.act(obs(6), n=2, generator=generators(seeds))
    order = [4, 0, 2, 1, 5, 3]
    shuffled = {key: value[order] for key, value in obs(6).items()}
    again = policy.act(shuffled, n=2, generator=generators([seeds[i] for i in order]))
    assert torch.equal(again, whole[order])


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
    reached = [p.grad is not None and p.grad.isfinite().all() for p in policy.parameters()]
    assert all(reached)


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
    with pytest.raises(ShapeError, match="2 generators for 3 rows"):
        make(POLICIES["flow-mlp"]).act(obs(3), generator=[torch.Generator(), torch.Generator()])


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
