"""The energy-based policy: what one descent does, that rows do not mix, and that both ways of a fork are learned."""

import math

import pytest
import torch
from torch import Tensor, nn

from robopol.algos.bc import BCConfig
from robopol.config import parse
from robopol.errors import ConfigError, ShapeError
from robopol.networks.precision import RuntimeConfig
from robopol.policies import PolicySpec
from robopol.policies.ebt import EBTConfig, EBTPolicy

SIZE = {"n_obs_steps": 2, "horizon": 4, "n_action_steps": 3}
SPEC = {
    "obs_shapes": {"state": [5]},
    "action_names": ["x", "y", "grip"],
    "action_low": [-2, -2, 0],
    "action_high": [2, 2, 1],
    "action_space": "box",
    "control_hz": 10.0,
}
SMALL = {"energy": {"kind": "mlp", "hidden": [32, 32]}}
TRANSFORMER = {"energy": {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}}


class Bowl(nn.Module):
    """What makes the whole energy mean((x - mu)^2) / 2, with mu the observation's first entries."""

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        mu = cond[:, :1, :3]
        return (0.5 * mu**2 - x * mu).mean((1, 2))


def make(**options: object) -> EBTPolicy:
    torch.manual_seed(0)
    policy = parse(EBTConfig, {"kind": "ebt", **SMALL, **SIZE, **options}).build(parse(PolicySpec, SPEC | SIZE))
    rng = torch.Generator().manual_seed(0)
    policy.observation.fit({"state": torch.randn(64, 5, generator=rng)})
    policy.action_normalizer.fit(torch.rand(100, 3, generator=rng) + torch.tensor([10.0, -20.0, 0.0]))
    return policy.eval()


def bowl(**options: object) -> EBTPolicy:
    policy = make(**options)
    policy.net = Bowl()
    return policy


def obs(rows: int) -> dict[str, Tensor]:
    return {"state": torch.randn(rows, 2, 5, generator=torch.Generator().manual_seed(3))}


def batch(rows: int = 5) -> dict:
    rng = torch.Generator().manual_seed(1)
    action = torch.rand(rows, 4, 3, generator=rng) + torch.tensor([10.0, -20.0, 0.0])
    return {"obs": obs(rows), "action": action, "mask": torch.ones(rows, 4, dtype=torch.bool)}


def chunks(rows: int = 6) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(2)
    return torch.randn(rows, 4, 3, generator=rng), torch.randn(rows, 2, 5, generator=rng)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_bowl_is_descended_in_one_step_of_size_one():
    x, cond = chunks()
    policy = bowl(step_size=1.0, momentum=0.0, max_steps=20, tolerance=1e-4)
    end = policy._descend(x, cond)
    torch.testing.assert_close(end.windows, cond[:, :1, :3].expand(-1, 4, -1))
    torch.testing.assert_close(end.energy, torch.zeros(6))
    assert end.steps.tolist() == [2] * 6, "the second step finds that nothing moves"


def test_without_momentum_it_is_plain_gradient_descent():
    x, cond = chunks()
    policy = make(step_size=0.3, momentum=0.0, max_steps=7, tolerance=0.0)
    expected = x.clone()
    for _ in range(7):
        expected = expected.detach().requires_grad_()
        entries = expected.square().mean((1, 2)) / 2 + policy.net(expected, cond)
        expected = expected - 0.3 * 12 * torch.autograd.grad(entries.sum(), expected)[0]
    torch.testing.assert_close(policy._descend(x, cond).windows, expected.detach())


def test_momentum_is_nesterovs():
    """y = x + mu u; u' = mu u - alpha g(y); x' = x + u'. On a bowl around 0 the recursion is one of numbers."""
    x, cond = torch.ones(1, 4, 3), torch.zeros(1, 2, 5)
    policy = bowl(step_size=0.2, momentum=0.9, max_steps=5, tolerance=0.0)
    at, velocity = 1.0, 0.0
    for _ in range(5):
        velocity = 0.9 * velocity - 0.2 * (at + 0.9 * velocity)
        at += velocity
    torch.testing.assert_close(policy._descend(x, cond).windows, torch.full((1, 4, 3), at))


def test_a_step_of_size_nothing_stays_where_it_is():
    x, cond = chunks()
    policy = make(momentum=0.9, tolerance=0.0)
    with torch.no_grad():
        policy.log_step.fill_(-math.inf)
    assert torch.equal(policy._descend(x, cond).windows, x)


def test_an_unbounded_tolerance_takes_one_step_and_none_takes_all():
    x, cond = chunks()
    assert make(tolerance=1e9)._descend(x, cond).steps.tolist() == [1] * 6
    assert make(tolerance=0.0, max_steps=9)._descend(x, cond).steps.tolist() == [9] * 6


def test_each_row_stops_for_itself():
    cond = torch.zeros(4, 2, 5)
    x = torch.tensor([0.01, 1.0, 100.0, 0.0])[:, None, None].expand(-1, 4, 3)
    policy = bowl(step_size=0.5, momentum=0.0, tolerance=0.1, max_steps=20)
    end = policy._descend(x, cond)
    # x halves at each step; the step that is at most 0.1 is the last one
    assert end.steps.tolist() == [1, 4, 10, 1]
    torch.testing.assert_close(end.windows[:, 0, 0], torch.tensor([0.01 / 2, 1 / 2**4, 100 / 2**10, 0.0]))


@pytest.mark.parametrize("energy", [SMALL, TRANSFORMER])
def test_a_row_does_not_depend_on_the_others(energy):
    x, cond = chunks()
    policy = make(**energy, step_size=0.5, tolerance=0.01, max_steps=12)
    whole = policy._descend(x, cond)
    others = torch.where(torch.arange(6)[:, None, None] == 2, x, 50 * x)
    mixed = policy._descend(others, cond)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(whole, mixed, strict=True))
    alone = policy._descend(x[2:3], cond[2:3])
    torch.testing.assert_close(alone.windows, whole.windows[2:3], rtol=1e-4, atol=1e-5)
    assert alone.steps == whole.steps[2]


def test_the_loss_of_a_row_does_not_depend_on_the_others():
    policy, data = make(), batch()
    loss = policy.loss(data, rng())
    other = {**data, "action": data["action"].clone()}
    other["action"][0] += 3
    changed = policy.loss(other, rng())
    assert loss.shape == (5,)
    assert torch.equal(changed[1:], loss[1:])
    assert changed[0] != loss[0]


def test_the_loss_is_the_distance_after_one_step_where_there_is_but_one():
    policy = make(train_steps=[1, 1], train_starts=1, train_rest=0.0, loss_on_padding=False)
    data = batch()
    data["mask"][0, 2:] = False
    action, cond = policy.action_normalizer.normalize(data["action"]), policy.observation(data["obs"], 2)
    start, velocity = policy._approach(action, cond, rng())
    assert not velocity.any()
    end = policy._step(start[:, 0], velocity[:, 0], cond)[0]
    error = (end - action).square().mean(-1)
    expected = torch.cat([error[:1, :2].mean(1), error[1:].mean(1)])
    torch.testing.assert_close(policy.loss(data, rng()).detach(), expected)


def test_steps_that_do_not_count_are_without_effect_on_the_loss():
    policy, data = make(loss_on_padding=False, train_rest=0.0), batch()
    data["mask"][0, 2:] = False
    before = policy.loss(data, rng())
    data["action"] = data["action"].clone()
    data["action"][0, 2:] = 0
    assert torch.equal(policy.loss(data, rng()), before)


def test_the_nearest_of_the_starts_is_trained():
    policy = make(train_steps=[1, 1], train_starts=6, train_rest=0.0)
    action, cond = chunks()
    starts, velocity = policy._approach(action, cond, rng())
    ends = policy._step(starts.flatten(0, 1), velocity.flatten(0, 1), cond.repeat_interleave(6, 0))[0].view(6, 6, 4, 3)
    expected = (ends - action[:, None]).square().mean((2, 3)).amin(1)
    torch.testing.assert_close(policy._loss(action, cond, torch.ones(6, 4), rng()).detach(), expected)


def test_training_walks_as_acting_does_but_for_the_noise():
    policy = make(train_steps=[5, 5], train_starts=1, train_rest=0.0, noise=[0.0, 0.0], momentum=0.9, tolerance=0.0)
    action, cond = chunks()
    policy.config = policy.config.model_copy(update={"max_steps": 4})
    before_last, _ = policy._approach(action, cond, rng())
    policy.config = policy.config.model_copy(update={"train_steps": (1, 1)})
    noise, _ = policy._approach(action, cond, rng())
    torch.testing.assert_close(before_last[:, 0], policy._descend(noise[:, 0], cond).windows)


def test_langevin_noise_falls_and_some_begin_later():
    """On a flat landscape what is left is the noise: its variance is the sum over the steps that a sample takes."""
    policy = bowl(train_steps=[1, 3], train_starts=2000, train_rest=1.0, noise=[0.4, 0.1], momentum=0.0)
    with torch.no_grad():
        policy.log_step.fill_(-math.inf)
    action, cond = torch.zeros(64, 4, 3), torch.zeros(64, 2, 5)
    found = policy._approach(action, cond, rng())[0].square().mean((1, 2, 3)).sqrt()
    middle = 0.1 + 0.3 * (1 + math.cos(math.pi / 2)) / 2
    possible = torch.tensor([0.0, 0.4, math.hypot(0.4, middle)])  # after one step none, after two the first, ...
    off, which = (found[:, None] - possible).abs().min(1)
    assert off.max() < 0.01
    assert torch.bincount(which, minlength=3).min() > 10


def test_some_samples_begin_at_the_demonstration():
    policy = make(train_steps=[1, 1], train_rest=0.3)
    action = torch.zeros(500, 4, 3)
    x, _ = policy._approach(action, torch.zeros(500, 2, 5), rng())
    at_rest = (x == 0).all(-1).all(-1)
    assert (at_rest == at_rest[:, :1]).all(), "all starts of a sample or none"
    assert at_rest[:, 0].float().mean().item() == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("energy", [SMALL, TRANSFORMER])
def test_the_loss_reaches_every_weight_and_the_step_size(energy):
    policy = make(**energy).train()
    policy.loss(batch(), rng()).mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in policy.parameters())
    assert "log_step" in policy.state_dict()


def test_the_step_size_moves_at_its_own_rate():
    policy = make(step_size=500.0, step_rate=3.0)
    assert policy.step_size.item() == 500.0
    with torch.no_grad():
        policy.log_step += 1e-4
    # EBT's text models: 1500 times a learning rate of 1e-4, at alpha = 500
    assert policy.step_size.item() - 500.0 == pytest.approx(1500 * 1e-4, rel=1e-2)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_acting_and_validating_work_where_gradients_are_off(mode):
    policy = make()
    expected = policy.loss(batch(), rng()).detach()
    with mode():
        chunk = policy.act(obs(3), n=2, generator=rng())
        loss = policy.loss(batch(), rng())
    assert chunk.shape == (3, 2, 3, 3)
    assert not loss.requires_grad
    assert torch.equal(loss, expected)


def test_arithmetic_is_float32_where_the_run_is_bfloat16():
    policy = make()
    with torch.autocast("cpu", torch.bfloat16):
        loss = policy.loss(batch(), rng())
        plan = policy.plan_with_energy(obs(3), 2, rng())
    assert torch.equal(loss, policy.loss(batch(), rng()))
    exact = policy.plan_with_energy(obs(3), 2, rng())
    assert all(torch.equal(a, b) for a, b in zip(plan, exact, strict=True))


def test_a_plan_says_its_energy_and_acting_executes_it():
    policy = make()
    plan = policy.plan_with_energy(obs(3), 2, rng())
    assert plan.windows.shape == (3, 2, 4, 3)
    assert plan.steps.shape == (3, 2)
    assert torch.equal(plan.windows[:, :, 1:], policy.act(obs(3), 2, rng()))
    for proposal in range(2):
        again = policy.energy(obs(3), plan.windows[:, proposal])
        torch.testing.assert_close(again, plan.energy[:, proposal], rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match=r"\(B, Tp, A\) = \(3, 4, 3\)"):
        policy.energy(obs(3), plan.windows[:, :, 0])
    with pytest.raises(ShapeError, match="2 generators for 3 rows"):
        policy.plan_with_energy(obs(3), 1, [rng(), rng()])


def test_the_lowest_of_several_starts_is_proposed():
    many = make(starts=5, max_steps=3)
    cond = many.observation(obs(3), 2)
    ends = many._descend(torch.randn(3, 2, 5, 4, 3, generator=rng()).flatten(0, 2), cond.repeat_interleave(10, 0))
    energy, best = ends.energy.view(3, 2, 5).min(-1)
    plan = many._propose(cond, 2, rng())
    assert torch.equal(plan.energy, energy)
    windows = ends.windows.view(3, 2, 5, 4, 3)
    assert torch.equal(plan.windows, windows[torch.arange(3)[:, None], torch.arange(2), best])


def test_the_most_steps_are_not_fewer_than_the_fewest():
    with pytest.raises(ConfigError, match="fewest and the most"):
        parse(EBTConfig, {"kind": "ebt", "train_steps": [3, 2]})


def learn(**options: object) -> EBTPolicy:
    """Train on two ways, -1 or 1, from the same observation."""
    size = {"n_obs_steps": 1, "horizon": 2, "n_action_steps": 2}
    plain = {"obs_normalization": "identity", "action_normalization": "identity"}
    spec = SPEC | size | {"obs_shapes": {"state": [1]}, "action_names": ["x"], "action_low": [-2], "action_high": [2]}
    torch.manual_seed(0)
    config = parse(EBTConfig, {"kind": "ebt", **SMALL, **size, **plain, **options})
    policy = config.build(parse(PolicySpec, spec))
    algo = BCConfig(lr=3e-3, warmup=20).build(policy, 400, RuntimeConfig(threads=1, matmul="highest").build())
    noise = torch.Generator().manual_seed(0)
    for step in range(400):
        side = (2 * torch.randint(0, 2, (64, 1, 1), generator=noise) - 1).float()
        action = side + 0.05 * torch.randn(64, 2, 1, generator=noise)
        data = {"obs": {"state": torch.zeros(64, 1, 1)}, "action": action, "mask": torch.ones(64, 2)}
        algo.update(data | {"weight": torch.ones(64)}, step, rng(step))
    return algo.deployed().eval()


@pytest.mark.slow
def test_both_ways_are_learned_and_the_energy_is_low_on_them():
    policy = learn()
    here = {"state": torch.zeros(1, 1, 1)}
    side = policy.act(here, n=400, generator=rng())[0, ..., 0]
    decided = ((side.abs() - 1).abs() < 0.3).all(-1) & (side[:, 0].sign() == side[:, 1].sign())
    assert decided.float().mean() > 0.9
    assert (side[decided][:, 0] > 0).float().mean().item() == pytest.approx(0.5, abs=0.2)
    levels = torch.tensor([-1.0, 0.0, 1.0])[:, None, None].expand(-1, 2, 1)
    left, between, right = policy.energy({"state": torch.zeros(3, 1, 1)}, levels).tolist()
    assert max(left, right) < between


@pytest.mark.slow
def test_trained_as_published_it_learns_the_mean():
    """A demonstration that is independent of the start of the descent is best met by its mean."""
    side = learn(train_starts=1, train_rest=0.0).act({"state": torch.zeros(1, 1, 1)}, n=400, generator=rng())[0, ..., 0]
    assert side.abs().mean() < 0.3
