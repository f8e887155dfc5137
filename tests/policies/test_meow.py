"""MEow as a policy: exact densities in environment units, two ways kept, data that would make them infinite."""

import math

import pytest
import test_learning
import torch
from test_learning import fork, learn

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError, ShapeError
from robopol.policies import PolicySpec
from robopol.policies.meow import MEowConfig, MEowPolicy

SIZES = {"n_obs_steps": 1, "horizon": 2, "n_action_steps": 2}
SMALL = SIZES | {"hidden": [16], "shift_hidden": [8], "modes": 2}


def make(**changes: object) -> MEowPolicy:
    """Make a policy of actions (x, y, grip), the last constant, with random weights, fitted to `fork`."""
    sizes = {key: changes.get(key, value) for key, value in SIZES.items()}
    spec = {
        "obs_shapes": {"state": [2]},
        "action_names": ["x", "y", "grip"],
        "action_low": [-2, -2, 0],
        "action_high": [2, 2, 1],
        "action_space": "box",
        "control_hz": 10.0,
    }
    torch.manual_seed(0)
    policy = parse(MEowConfig, SMALL | changes).build(parse(PolicySpec, spec | sizes))
    policy.fit_normalizers(fork())
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return policy.eval()


def obs(rows: int) -> dict[str, torch.Tensor]:
    return {"state": 0.01 * torch.randn(rows, 1, 2, generator=torch.Generator().manual_seed(2))}


def test_density_is_one_in_environment_units_over_what_varies():
    policy = make(horizon=1, n_action_steps=1)
    offset, unscale = policy.action_normalizer.offset[:2], policy.action_normalizer.unscale[:2]
    u = torch.linspace(-5, 5, 300)
    mesh = torch.cartesian_prod(u, u)
    xy = offset + unscale * 1.25 * mesh.tanh()
    cell = (unscale * 1.25 * (1 - mesh.tanh() ** 2)).log().sum(-1) + 2 * math.log(u[1] - u[0])
    windows = torch.cat([xy, torch.full((len(xy), 1), 0.85)], -1)[None, :, None]  # (1, N, 1, 3)
    mass = (policy.log_prob(obs(1), windows) + cell).exp().sum()
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_q_and_v_belong_to_the_density():
    policy = make()
    windows = policy.act(obs(4), n=3, generator=torch.Generator().manual_seed(0))
    log_prob, q, v = policy.log_prob(obs(4), windows), policy.q(obs(4), windows), policy.v(obs(4))
    assert (log_prob.shape, q.shape, v.shape) == ((4, 3), (2, 4, 3), (2, 4))
    constant = (q - v[..., None]) / 0.25 - log_prob
    expected = policy.action_normalizer.unscale[:2].log().sum() * 2  # two steps
    torch.testing.assert_close(constant, expected.expand(2, 4, 3), atol=1e-4, rtol=0)
    one = policy.q(obs(4), windows[:, 1])
    torch.testing.assert_close(one, q[:, :, 1])


def test_a_sample_is_spread_around_the_centre_that_it_is_without_noise():
    still, lively = make(), make(deterministic=False)
    draws = {
        name: policy.act(obs(1), n=200, generator=torch.Generator().manual_seed(0))[0]
        for name, policy in (("still", still), ("lively", lively))
    }
    assert len(draws["still"].unique(dim=0)) == 2  # the Gaussians
    assert len(draws["lively"].unique(dim=0)) == 200
    near = torch.cdist(draws["lively"].flatten(1), draws["still"].flatten(1).unique(dim=0)).argmin(1)
    assert set(near.tolist()) == {0, 1}
    for draw in draws.values():
        assert (draw[..., 2] == torch.tensor(0.85)).all()


def test_a_saved_policy_is_whole(tmp_path):
    policy = make()
    save_part(policy, tmp_path)
    again = load_policy(tmp_path)
    windows = policy.act(obs(4), generator=torch.Generator().manual_seed(0))[:, 0]
    assert torch.equal(again.act(obs(4), generator=torch.Generator().manual_seed(0))[:, 0], windows)
    assert torch.equal(again.log_prob(obs(4), windows), policy.log_prob(obs(4), windows))
    assert torch.equal(again.v(obs(4)), policy.v(obs(4)))


@pytest.mark.slow
@pytest.mark.parametrize(("tree", "kept"), [({}, True), ({"modes": 1, "coupling": "additive"}, False)])
def test_the_default_keeps_two_ways_and_the_released_network_cannot(tree, kept, monkeypatch):
    monkeypatch.setattr(test_learning, "UPDATES", 500)
    policy = learn({"kind": "meow", "hidden": [32, 32], "shift_hidden": [8], "deterministic": False, **tree})
    chunks = policy.act({"state": torch.zeros(1, 1, 2)}, n=400, generator=torch.Generator().manual_seed(0))[0]
    side = chunks[..., 0]
    decided = ((side.abs() - 1).abs() < 0.3).all(-1) & (side.sign() == side[:, :1].sign()).all(-1)
    if not kept:
        assert decided.float().mean() < 0.7
        return
    assert decided.float().mean() > 0.9, "samples lie on one of the ways, for the whole chunk"
    right = (side[decided].mean(-1) > 0).float().mean().item()
    assert right == pytest.approx(0.5, abs=0.15)
    assert chunks[..., 1].mean().item() == pytest.approx(0.5, abs=0.05)


def test_windows_that_repeat_themselves_have_a_bounded_density():
    """The likelihood of a copy is at most that of the noise it is trained with."""
    policy = make().train()
    states = obs(64)
    action = torch.tensor([0.9, 0.5, 0.85]).expand(64, 2, 3)  # the same everywhere, and both steps alike
    batch = {"obs": states, "action": action, "mask": torch.ones(64, 2), "weight": torch.ones(64)}
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    for step in range(300):
        optimizer.zero_grad()
        loss = policy.loss(batch, torch.Generator().manual_seed(step)).mean()
        loss.backward()
        optimizer.step()
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.05**2)
    assert entropy - 0.15 < loss.item() < entropy + 0.3


def test_the_largest_actions_of_the_data_are_within_reach_of_the_density():
    """An action of -1 or 1 lies at infinity before the squash, unless the box is wider."""
    wide, narrow = make(min_std=0.0), make(min_std=0.0, box=1.0)
    episodes = fork()
    row = episodes.action[:, 0].argmax()
    window = episodes.action[row].expand(1, 2, 3).clone()
    batch = {"obs": obs(1), "action": window, "mask": torch.ones(1, 2), "weight": torch.ones(1)}
    assert wide.loss(batch).item() < 100
    assert narrow.loss(batch).item() > 10 * abs(wide.loss(batch).item())


def test_a_part_of_a_window_is_refused():
    with pytest.raises(ConfigError, match="loss_on_padding=false"):
        parse(MEowConfig, {"kind": "meow", "loss_on_padding": False})


def test_actions_outside_the_box_are_refused():
    with pytest.raises(ConfigError, match=r"policy\.box=1\.25"):
        make(action_normalization="zscore")


@pytest.mark.parametrize("shape", [(4, 3, 3), (3, 2, 3), (2, 3), (4, 1, 1, 2, 3)])
def test_windows_that_do_not_fit_are_refused_in_words(shape):
    with pytest.raises(ShapeError, match="4 observations go with"):
        make().log_prob(obs(4), torch.zeros(shape))
