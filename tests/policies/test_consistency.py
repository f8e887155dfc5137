"""Consistency models: the boundary, the closed-form jump of a Gaussian, the loss, few-step sampling."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.networks.denoiser import Denoiser
from robopol.policies import PolicySpec
from robopol.policies.consistency import ConsistencyConfig, ConsistencyPolicy, draw_pairs, ladder, noised
from robopol.policies.field import Field
from robopol.policies.paths.discrete_vp import DiscreteVPConfig
from robopol.policies.paths.rectified_flow import RectifiedFlowConfig
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.prediction import reading
from robopol.policies.resampling import Resampling
from robopol.policies.samplers import Step
from robopol.policies.samplers.first_order import ConsistencyConfig as JumpConfig
from robopol.registry import kinds

MEAN, STD = 0.3, 0.2
PATHS = {
    "edm": VarianceExplodingConfig(sigma_min=0.02, sigma_max=80.0).build(),
    "vp": DiscreteVPConfig().build(),
}
SPEC = {
    "obs_shapes": {"state": [1]},
    "action_names": ["x", "y"],
    "action_low": [-1, -1],
    "action_high": [1, 1],
    "action_space": "box",
    "control_hz": 10.0,
    "n_obs_steps": 1,
    "horizon": 2,
    "n_action_steps": 2,
}


class Exact(Denoiser):
    """Says what makes f the exact jump for data N(MEAN, STD^2)."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        time = (4 * t.double() / self.path.time_scale).exp() if self.path is PATHS["edm"] else t.double()
        level = self.path.level(time)
        read = reading("consistency", level, self.path)
        x = x.double() / self.path.input_scale(level).reshape(-1, 1, 1)
        lowest = self.path.kappa_range[0]
        shrink = ((STD**2 + lowest**2) / (STD**2 + level.kappa**2)).sqrt().reshape(-1, 1, 1)
        end = MEAN + (x / level.alpha.reshape(-1, 1, 1) - MEAN) * shrink
        output = (end - read.x0_x.reshape(-1, 1, 1) * x) / read.x0_out.reshape(-1, 1, 1)
        return (self.scale * output.nan_to_num(posinf=0.0, neginf=0.0)).float()


def policy(path=None, **changes) -> ConsistencyPolicy:
    net = {"kind": "mlp", "width": 64, "blocks": 2}
    size = {key: SPEC[key] for key in ("n_obs_steps", "horizon", "n_action_steps")}
    tree = {"net": net, **size, **changes} | ({} if path is None else {"path": path.tree()})
    torch.manual_seed(0)
    built = parse(ConsistencyConfig, tree).build(parse(PolicySpec, SPEC))
    built.action_normalizer.fit(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    built.observation.fit({"state": torch.tensor([[0.0], [1.0]])})
    return built


def exact(name: str) -> ConsistencyPolicy:
    made = policy()
    made.field = Field(Exact(PATHS[name]), PATHS[name], "consistency")
    return made


@pytest.mark.parametrize("name", PATHS)
def test_at_the_lowest_level_a_consistency_function_is_the_identity(name):
    path = PATHS[name]
    field = Field(torch.nn.Identity(), path, "consistency")
    field.net.forward = lambda x, t, cond: torch.full_like(x, 1e3)
    x, t = torch.randn(5, 2, 2), ladder(path, 7)[:1].expand(5)
    alpha = path.level(t).alpha.reshape(-1, 1, 1)
    torch.testing.assert_close(field(x, t, torch.zeros(5, 1, 1)).x0.double(), x / alpha)


def test_far_from_the_data_only_the_network_speaks():
    path = PATHS["edm"]
    read = reading("consistency", path.level(torch.tensor(80.0)), path)
    assert read.x0_x.item() == pytest.approx(0, abs=1e-4)
    assert read.x0_out.item() == pytest.approx(path.data_std, rel=1e-3)


@pytest.mark.parametrize("name", PATHS)
def test_the_ladder_is_karras_from_end_to_end(name):
    path = PATHS[name]
    rungs = path.level(ladder(path, 9)).kappa
    low, high = path.kappa_range
    assert rungs[0].item() == pytest.approx(low, rel=1e-9)
    assert rungs[-1].item() == pytest.approx(high, rel=1e-9)
    roots = rungs ** (1 / 7)
    assert roots.diff().tolist() == pytest.approx([(roots[-1] - roots[0]).item() / 8] * 8, rel=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_the_exact_jump_has_no_gap_along_its_trajectories_and_others_have(name):
    made = exact(name)
    path, rng = PATHS[name], torch.Generator().manual_seed(0)
    t, s = draw_pairs(ladder(path, 40), 256, rng, torch.device("cpu"))
    x = noised(path, MEAN + STD * torch.randn(256, 2, 2, generator=rng), torch.randn(256, 2, 2, generator=rng), t)
    here, there = path.level(t), path.level(s)
    shrink = ((STD**2 + there.kappa**2) / (STD**2 + here.kappa**2)).sqrt()
    y = there.alpha.reshape(-1, 1, 1) * (MEAN + (x / here.alpha.reshape(-1, 1, 1) - MEAN) * shrink.reshape(-1, 1, 1))
    apart = (here.kappa - there.kappa).float()
    cond, mask = torch.zeros(256, 1, 1), torch.ones(256, 2)
    assert (made.gap(x, t, y.float(), s, cond, mask) * apart).max() < 1e-5
    assert (made.gap(x, t, (y + 0.5 * there.sigma.reshape(-1, 1, 1)).float(), s, cond, mask) * apart).min() > 1e-3


def test_only_the_noisier_point_is_pulled():
    made = policy()
    seen = []
    original = type(made.field).forward

    def watch(field, x, t, cond):
        found = original(field, x, t, cond)
        seen.append((t, found.x0.requires_grad))
        return found

    made.field.forward = watch.__get__(made.field)
    batch = {"obs": {"state": torch.zeros(8, 1, 1)}, "action": torch.zeros(8, 2, 2), "mask": torch.ones(8, 2)}
    made.loss(batch, torch.Generator().manual_seed(0)).mean().backward()
    (clean, frozen), (noisy, trained) = seen
    assert (clean < noisy).all()
    assert not frozen
    assert trained
    assert all(p.grad is not None for p in made.field.net.parameters())


def test_masked_steps_do_not_count():
    made = policy(loss_on_padding=False)
    action = torch.randn(8, 2, 2, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    mask = torch.tensor([1.0, 0.0]).expand(8, 2)
    t, s = draw_pairs(made.ladder, 8, torch.Generator().manual_seed(0), torch.device("cpu"))
    x, y, cond = 3 * action, 2 * action, torch.zeros(8, 1, 1)
    whole, part = made.gap(x, t, y, s, cond, torch.ones(8, 2)), made.gap(x, t, y, s, cond, mask)
    assert (part < whole).all()


def test_a_path_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="set policy/path=variance_exploding"):
        policy(path=RectifiedFlowConfig())


@pytest.mark.parametrize("kind", [kind for kind in kinds("sampler") if kind not in ("consistency", "diffusers")])
def test_a_walk_that_needs_a_mean_is_refused(kind):
    with pytest.raises(ConfigError, match=f"the {kind} sampler needs the mean .* policy.sampler=consistency"):
        parse(Resampling, {"sampler": kind, "steps": 4}).apply(policy())


def test_no_more_jumps_are_taken_than_were_learned():
    parse(Resampling, {"steps": 3}).apply(policy())
    made = policy(jumps=1)
    with pytest.raises(ConfigError, match=r"steps=3 is more than the 1 that the policy learned"):
        parse(Resampling, {"steps": 3}).apply(made)
    parse(Resampling, {"steps": 1}).apply(made)


def test_several_jumps_end_where_the_data_are():
    """The exact jump, re-noised in between, keeps the distribution of the lowest level."""
    path = PATHS["edm"]
    field = Field(Exact(path), path, "consistency")
    rng = torch.Generator().manual_seed(0)
    steps: list[Step] = []

    def draw() -> Tensor:
        return torch.randn(20_000, 1, 1, generator=rng)

    sampler = JumpConfig(steps=3, clip="never").build()
    chunks = sampler.sample(field, draw(), torch.zeros(20_000, 1, 1), draw, hook=lambda step: steps.append(step))
    ratio = (0.02 / 80) ** (1 / 3)
    assert [step.kappa for step in steps] == pytest.approx([80, 80 * ratio, 80 * ratio**2])
    for step, then in pairwise(steps):
        assert step.std == pytest.approx((then.kappa**2 - 0.02**2) ** 0.5, rel=1e-6)
        assert then.x.var().item() == pytest.approx(STD**2 + then.kappa**2, rel=0.03)
    assert steps[-1].std == 0
    assert chunks.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert chunks.std().item() == pytest.approx((STD**2 + 0.02**2) ** 0.5, abs=0.005)


def test_an_action_depends_on_its_own_seed_not_on_the_batch():
    made = policy().eval()
    obs = torch.linspace(0, 1, 5).reshape(5, 1, 1)

    def act(rows: list[int]) -> Tensor:
        return made.act({"state": obs[rows]}, generator=[torch.Generator().manual_seed(row) for row in rows])[:, 0]

    whole = act([0, 1, 2, 3, 4])
    for row in range(5):
        torch.testing.assert_close(act([row])[0], whole[row])
    assert (whole[0] - whole[1]).abs().max() > 1e-3
