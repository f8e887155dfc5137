"""Goals that can be left out, the weight of a goal, and BESO's preconditioning at its ends."""

import pytest
import torch

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.data.hindsight import HindsightConfig
from robopol.errors import ConfigError
from robopol.networks.denoiser import Denoiser
from robopol.policies import PolicySpec
from robopol.policies.field import Field
from robopol.policies.generative import GenerativePolicy
from robopol.policies.guidance import GoalEncoder, GuidedField
from robopol.policies.paths.variance_exploding import VarianceExplodingConfig
from robopol.policies.prediction import PREDICTIONS
from robopol.policies.samplers.first_order import AncestralConfig, DDIMConfig
from robopol.registry import lookup
from robopol.training.sources import Sources
from tests.policies.oracle import PATHS
from tests.policies.test_learning import fork

SIZE = {"n_obs_steps": 2, "horizon": 3, "n_action_steps": 2}
SPEC = {
    "obs_shapes": {"goal": [2], "state": [5]},
    "action_names": ["x", "y"],
    "action_low": [-2, -2],
    "action_high": [2, 2],
    "action_space": "box",
    "control_hz": 10.0,
} | SIZE
NET = {"kind": "film_mlp", "width": 32, "features": 16}


def obs(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    goal = torch.randn(rows, 1, 2, generator=rng).expand(-1, 2, -1)
    return {"state": torch.randn(rows, 2, 5, generator=rng), "goal": goal}


def make(kind: str = "beso", spec: dict | None = None, **changes: object) -> GenerativePolicy:
    config = parse(lookup("policy", kind), {"kind": kind, "net": NET, **SIZE, **changes})
    torch.manual_seed(0)
    policy = config.build(parse(PolicySpec, SPEC | (spec or {})))
    policy.observation.fit({key: value.flatten(0, 1) for key, value in obs(64).items()})
    policy.action_normalizer.fit(2 * torch.rand(100, 2) - 1)
    return policy.eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["beso", "diffusion", "flow"])
def test_weight_one_is_the_conditional_policy_and_weight_zero_the_one_without_a_goal(kind):
    policy = make(kind, guidance={"drop": 0.2, "weight": 1.0})
    told, noise = policy.observation(obs(4), 2), torch.randn(4, 3, 2, generator=rng())
    plain, walked = (
        policy.sampler.sample(field, noise, told, lambda: noise) for field in (policy.field, policy.walked)
    )
    assert torch.equal(walked, plain)

    policy.guide(0.0)
    goals = obs(4)["goal"], obs(4, 9)["goal"]
    here, elsewhere = (policy.act(obs(4) | {"goal": goal}, generator=rng()) for goal in goals)
    assert torch.equal(here, elsewhere)
    policy.guide(1.0)
    assert not torch.equal(policy.act(obs(4), generator=rng()), here)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["vp", "flow", "beso"])
def test_a_guided_field_mixes_the_estimates(name, prediction):
    torch.manual_seed(0)
    net = parse(lookup("net", "film_mlp"), NET).build(2, 3, 8, 2)
    field = Field(net, PATHS[name], prediction)
    goals = make().observation
    cond, x = goals(obs(5), 2), torch.randn(5, 3, 2)
    t = field.path.time_of(torch.tensor([0.06, 0.2, 0.4, 0.7, 0.99], dtype=torch.float64))
    told, without = field(x, t, cond), field(x, t, goals.without(cond))
    for weight in (0.0, 0.4, 1.0, 1.7, 3.0):
        guided = GuidedField(field, goals.without, weight)
        for part, c, u in zip(guided(x, t, cond), told, without, strict=True):
            torch.testing.assert_close(part, u + weight * (c - u), rtol=1e-4, atol=1e-4)
        schedule = field.schedule(t)
        walk = guided.prepare(schedule, cond)
        walks = [field.prepare(schedule, each) for each in (goals.without(cond), cond)]
        for i in range(5):
            u, c = (each(x, i) for each in walks)
            torch.testing.assert_close(walk(x, i), u + weight * (c - u), rtol=1e-4, atol=1e-4)


class Watched(Denoiser):
    """Counts the rows that a network is asked about, also where it computes a walk ahead."""

    def __init__(self, net):
        super().__init__()
        self.net, self.rows = net, []

    def forward(self, x, t, cond):
        self.rows.append(len(x))
        return self.net(x, t, cond)


def test_both_branches_are_one_batch_and_one_branch_is_not_doubled():
    policy = make()
    policy.field.net = Watched(policy.field.net)
    for weight in (0.0, 1.0, 2.0):
        policy.guide(weight)
        policy.act(obs(3), generator=rng())
    assert policy.field.net.rows == [3] * 5 + [3] * 5 + [6] * 5


@pytest.mark.parametrize("kind", ["beso", "diffusion", "flow", "consistency"])
def test_observations_are_encoded_once_for_a_plan(kind):
    policy = make(kind, **({} if kind == "consistency" else {"guidance": {"drop": 0.2, "weight": 1.5}}))
    encoded: list[int] = []
    policy.observation.register_forward_hook(lambda module, given, out: encoded.append(len(out)))
    policy.act(obs(3), n=4, generator=rng())
    assert encoded == [3]


def test_a_goal_is_left_out_as_a_whole_by_one_draw_a_sample():
    policy = make(guidance={"drop": 0.3}).train()
    encoder = policy.observation
    assert isinstance(encoder, GoalEncoder)
    cond = encoder(obs(4000), 2, augment=True, generator=rng())
    full = encoder(obs(4000), 2)
    out = cond[:, 0, -1] == 1
    assert torch.equal(cond[~out], full[~out])
    assert torch.equal(cond[out], encoder.without(full)[out])
    assert (cond[out][..., 5:7] == 0).all()
    assert torch.equal(cond[..., :5], full[..., :5])
    assert out.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_no_goal_is_told_apart_from_a_goal_in_the_middle():
    policy = make()
    encoder = policy.observation
    centre = encoder.goal.normalizer.offset.expand(1, 2, 2)
    cond = encoder(obs(1) | {"goal": centre}, 2)
    assert (cond[..., 5:7] == 0).all()
    assert not torch.equal(cond, encoder.without(cond))


@pytest.mark.parametrize("limit", [None, 2.0])
def test_a_goal_is_clipped_as_the_rest_is(limit):
    encoder = make(encoder={"kind": "low_dim", "limit": limit}).observation
    far = encoder({key: 100 + value for key, value in obs(1).items()}, 2)[..., :-1]
    assert (far == limit).all() if limit else (far > 20).all()


def test_only_training_leaves_goals_out():
    often, never = (make(guidance={"drop": drop}) for drop in (0.9, 0.0))
    data = {"obs": obs(64), "action": torch.zeros(64, 3, 2), "mask": torch.ones(64, 3, dtype=torch.bool)}
    assert torch.equal(often.loss(data, rng()), never.loss(data, rng()))
    moved = data | {"obs": obs(64) | {"goal": obs(64, 5)["goal"]}}
    often.train()
    same = (often.loss(data, rng()) == often.loss(moved, rng())).float().mean().item()
    assert same == pytest.approx(0.9, abs=0.12), "a goal that is left out does not matter"


def test_the_weight_is_saved_with_the_policy(tmp_path):
    policy = make()
    policy.guide(1.5)
    save_part(policy, tmp_path)
    again = load_policy(tmp_path)
    assert again.config.guidance.weight == 1.5
    assert torch.equal(again.act(obs(3), generator=rng()), policy.act(obs(3), generator=rng()))


def test_without_a_goal_beso_is_conditioned_on_the_rest():
    policy = make(spec={"obs_shapes": {"state": [5]}})
    assert policy.walked is policy.field
    assert policy.act({"state": obs(3)["state"]}, generator=rng()).shape == (3, 1, 2, 2)
    with pytest.raises(ConfigError, match="no goal that can"):
        policy.guide(2.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guidance": {"drop": 0.0, "weight": 2.0}}, "set drop above 0"),
        ({"guidance": {"drop": 1.0}}, "less than 1"),
        ({"guidance": {"keys": ["gaol"], "weight": 2.0}}, "finds no goal"),
        ({"encoder": {"kind": "low_dim", "keys": ["goal"]}}, "looks at no observation"),
    ],
)
def test_guidance_that_cannot_work_is_refused(changes, words):
    spec = {"obs_shapes": {"goal": [2]}} if "encoder" in changes else None
    with pytest.raises(ConfigError, match=words):
        make(spec=spec, **changes)


def test_goals_from_hindsight_reach_the_loss():
    config = parse(lookup("policy", "beso"), {"kind": "beso", "net": NET, **SIZE})
    bounds = {"action_names": list("xyz"), "action_low": [-2] * 3, "action_high": [2] * 3}
    policy = config.build(parse(PolicySpec, SPEC | bounds | {"obs_shapes": {"goal": [2], "state": [2]}}))
    goals = HindsightConfig(of="state")
    shown = goals.observed(fork())
    policy.fit_normalizers(shown)
    sources = Sources({"toy": shown}, policy.spec, 0, torch.device("cpu"), {"toy": goals}, policy.needs)
    loss = policy.loss(sources.batch({"toy": 1.0}, 16, 0), rng())
    loss.mean().backward()
    assert loss.shape == (16,)
    assert all(p.grad is not None for p in policy.parameters())


class Constant(Denoiser):
    """A network that always says the same."""

    def forward(self, x, t, cond):
        return torch.full_like(x, 0.7)


def test_the_denoiser_keeps_data_at_no_noise_and_believes_the_network_at_pure_noise():
    path = VarianceExplodingConfig(sigma_min=1e-5, sigma_max=1e5).build()
    field, cond = Field(Constant(), path, "edm"), torch.zeros(2, 1, 1)
    x = torch.tensor([[[0.3, -0.8]]] * 2)
    assert (field(x, torch.full((2,), 1e-5), cond).x0 - x).abs().max() < 1e-4
    assert (field(x, torch.full((2,), 1e5), cond).x0 - 0.5 * 0.7).abs().max() < 1e-4


class Shrink(Denoiser):
    """The raw network of the exact denoiser of N(mean, std^2) data: D = mean + (x - mean) std^2 / (std^2 + sigma^2)."""

    mean, std = 0.3, 0.2

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, x, t, cond):
        sigma = (4 * t[0].double() / self.path.time_scale).exp().item()
        y = x * (sigma**2 + 0.25) ** 0.5
        clean = self.mean + (y - self.mean) * self.std**2 / (self.std**2 + sigma**2)
        return (clean - 0.25 / (sigma**2 + 0.25) * y) * (sigma**2 + 0.25) ** 0.5 / (sigma * 0.5)


def test_gaussian_data_are_denoised_exactly_and_one_step_returns_the_denoiser():
    path = VarianceExplodingConfig().build()
    field, cond = Field(Shrink(path), path, "edm"), torch.zeros(500, 1, 1)
    noise = torch.randn(500, 1, 2, generator=rng())
    for config in (DDIMConfig(steps=1, clip="never"), AncestralConfig(steps=1, clip="never")):
        sampler = config.build()
        found = sampler.sample(field, noise, cond, lambda: torch.full_like(noise, torch.nan))
        x = path.start_std(path.level(torch.tensor(1.0))) * noise
        torch.testing.assert_close(found, 0.3 + (x - 0.3) * 0.04 / 1.04)
