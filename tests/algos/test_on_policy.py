"""The contract of scorings, and PPO on it: ratio 1, gradients by hand, divergences, sum and mean, what is saved."""

import math

import pytest
import torch
from rollouts import POLICIES, build, part, rng, rollout
from torch.distributions import Independent, Normal, kl_divergence

from robopol.algos.algorithm import Explores
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.networks.precision import RuntimeConfig
from robopol.registry import lookup

ALGOS = ["ppo", "spo", "trpo", "fixpo"]


def moved(algo, scale: float = 0.05, seed: int = 0) -> None:
    """Disturb what is trained."""
    with torch.no_grad():
        for weight in algo.actor_weights:
            weight.add_(scale * torch.randn(weight.shape, generator=rng(seed)))


@pytest.mark.parametrize("name", POLICIES)
def test_before_the_first_step_every_ratio_is_one(name):
    algo = build("ppo", name)
    lesson, _ = algo.lesson(rollout(algo))
    said = algo.say(lesson)
    log_ratio = algo.scoring.log_ratio(said, lesson.old, lesson.trace)
    rows = {"denoising": 4}.get(name, 1)
    assert log_ratio.shape == (24, rows)
    assert torch.equal(log_ratio, torch.zeros_like(log_ratio))
    assert torch.equal(algo.scoring.kl(said, lesson.old), torch.zeros(24))
    part_ = lesson.rows(torch.tensor([3, 7, 20]))  # other rows beside it change no more than rounding
    again = algo.scoring.log_ratio(algo.say(part_), part_.old, part_.trace)
    torch.testing.assert_close(again, torch.zeros_like(again), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", POLICIES)
def test_so_it_is_in_bfloat16(name):
    algo = build("ppo", name)
    algo.runtime = RuntimeConfig(device="cpu", precision="bf16", threads=1, matmul="highest").build()
    lesson, _ = algo.lesson(rollout(algo))
    with algo.runtime.autocast():  # as losses are computed
        log_ratio = algo.scoring.log_ratio(algo.say(lesson), lesson.old, lesson.trace)
    assert torch.equal(log_ratio, torch.zeros_like(log_ratio))


@pytest.mark.parametrize("name", POLICIES)
def test_its_first_gradient_is_that_of_reinforce_with_a_baseline(name):
    """For a Gaussian and a chain: of mean A log pi(a|s), by torch's own distributions."""
    algo = build("ppo", name, normalize_advantage="no", clip_norm=None)
    lesson, _ = algo.lesson(rollout(algo))
    losses, _ = algo.losses(lesson)
    mine = torch.autograd.grad(losses["train/policy_loss"], algo.actor_weights)
    said = algo.say(lesson)
    if name == "flow_matching":
        log_prob = -said["loss"].mean(1, keepdim=True)
    elif name == "denoising":
        chosen = Normal(said["mean"], algo.scoring.scoring_std[:, None, None]).log_prob(lesson.trace["chain"][:, 1:])
        log_prob = chosen[:, :, :3].mean((-2, -1))  # the 3 executed of 4 predicted actions
    else:
        chosen = Normal(said["mean"], said["log_std"].exp()).log_prob(lesson.trace["latent"])
        log_prob = chosen[:, : algo.deployed().spec.n_action_steps].sum((-2, -1))[:, None]
    weights = algo.scoring.row_weights
    wanted = -(log_prob * lesson.advantage[:, None] * (1.0 if weights is None else weights)).mean()
    theirs = torch.autograd.grad(wanted, algo.actor_weights)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", POLICIES)
def test_how_far_an_update_went_is_told_of_all_its_decisions(name, monkeypatch):
    monkeypatch.setattr("robopol.algos.on_policy.BLOCK", 10)  # of 24 decisions
    algo = build("ppo", name)
    lesson, _ = algo.lesson(rollout(algo))
    names = ("kl", "kl_max", "ratio_kl", "ratio_deviation", "clip_fraction")
    with torch.no_grad():
        told = algo._moved(lesson)
        assert all(told[f"train/{one}"] == pytest.approx(0, abs=2e-6) for one in names)
        moved(algo, 0.3)
        told = algo._moved(lesson)
        said = algo.say(lesson)
        log_ratio = algo.scoring.log_ratio(said, lesson.old, lesson.trace)
        divergence, ratio = algo.scoring.kl(said, lesson.old), log_ratio.exp()
    share = 1 if algo.scoring.row_clips is None else algo.scoring.row_clips
    outside = ((ratio - 1).abs() > algo.surrogate.clip * share).float().mean()
    by_hand = (divergence.mean(), divergence.max(), (ratio - 1 - log_ratio).mean(), (ratio - 1).abs().mean(), outside)
    for key, value in zip(names, by_hand, strict=True):
        torch.testing.assert_close(told[f"train/{key}"], value, atol=1e-5, rtol=1e-4)
    assert outside > 0


@pytest.mark.parametrize("kind", ["ppo", "spo"])
def test_every_row_is_held_by_its_own_clip_range(kind):
    algo = build(kind, "denoising", normalize_advantage="no")
    lesson, _ = algo.lesson(rollout(algo))
    moved(algo, 0.3)
    log_ratio = algo.scoring.log_ratio(algo.say(lesson), lesson.old, lesson.trace)
    ratio, advantage = log_ratio.exp(), algo.row_advantages(lesson)
    width = algo.surrogate.clip * algo.scoring.row_clips
    assert len(width.unique()) == 4
    if kind == "ppo":
        gained = torch.minimum(ratio * advantage, ratio.clamp(1 - width, 1 + width) * advantage)
    else:
        gained = ratio * advantage - advantage.abs() * (ratio - 1) ** 2 / (2 * width)
    torch.testing.assert_close(algo.losses(lesson)[0]["train/policy_loss"], -gained.mean())


@pytest.mark.parametrize("name", ["density", "chunks", "squashed"])
def test_ratio_divergence_and_entropy_of_a_gaussian(name):
    algo = build("ppo", name)
    lesson, _ = algo.lesson(rollout(algo))
    moved(algo)
    new, old = algo.say(lesson), lesson.old
    steps = algo.deployed().spec.n_action_steps
    then, now = (
        Independent(Normal(said["mean"][:, :steps], said["log_std"][:, :steps].exp()), 2) for said in (old, new)
    )
    chosen = lesson.trace["latent"][:, :steps]
    torch.testing.assert_close(
        algo.scoring.log_ratio(new, old, lesson.trace)[:, 0], now.log_prob(chosen) - then.log_prob(chosen)
    )
    torch.testing.assert_close(algo.scoring.kl(new, old), kl_divergence(then, now), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(algo.scoring.entropy(new), now.entropy())
    assert algo.scoring.kl(new, old).min() > 0


def test_squashing_cancels_in_the_ratio():
    """The ratio of the squashed densities, which know where the action landed, is that of the Gaussians."""
    algo = build("ppo", "squashed")
    batch = rollout(algo)
    lesson, _ = algo.lesson(batch)
    then = algo.deployed().log_prob(batch["obs"], batch["action"]).detach()
    moved(algo)
    squashed = algo.deployed().log_prob(batch["obs"], batch["action"]) - then
    mine = algo.scoring.log_ratio(algo.say(lesson), lesson.old, lesson.trace)[:, 0]
    inside = (algo.deployed().action_normalizer.normalize(batch["action"]).abs() < 0.99).all(-1).all(-1)
    assert inside.sum() > 10
    torch.testing.assert_close(mine[inside], squashed[inside], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("name", "entries"), [("chunks", 6), ("denoising", 6), ("flow_matching", 6)])
def test_the_mean_over_entries_is_the_sum_over_their_number(name, entries):
    found = {}
    for reduction in ("sum", "mean"):
        algo = build("ppo", name, scoring={"reduction": reduction})
        lesson, _ = algo.lesson(rollout(algo))
        moved(algo)
        said = algo.say(lesson)
        found[reduction] = algo.scoring.log_ratio(said, lesson.old, lesson.trace)
        found[f"{reduction} kl"] = algo.scoring.kl(said, lesson.old)
    torch.testing.assert_close(found["sum"], entries * found["mean"], atol=1e-5, rtol=1e-4)
    assert found["sum"].abs().max() > 1e-3
    if name != "flow_matching":
        torch.testing.assert_close(found["sum kl"], found["mean kl"])  # a divergence is in nats either way


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("kind", ALGOS)
def test_every_update_goes_with_every_scoring(kind, name):
    """It moves the policy, lowers the loss of V, and its state is all that further updates depend on."""
    few = {"critic_epochs": 2} if kind == "trpo" else {"epochs": 2}
    algo = build(kind, name, **few)
    assert isinstance(algo, Explores)
    before = [weight.clone() for weight in algo.actor_weights]
    frozen = {n: v.clone() for n, v in algo.deployed().state_dict().items()}
    batch = rollout(algo)
    told = [algo.update(batch, step, rng(step)) for step in range(2)]
    assert all(bool(value.isfinite().all()) for line in told for value in line.values())
    assert any(not torch.equal(one, other) for one, other in zip(before, algo.actor_weights, strict=True))
    trained = {id(weight) for weight in algo.actor_weights}
    own = dict(algo.deployed().named_parameters())
    still = [n for n, value in frozen.items() if n not in own or id(own[n]) not in trained]
    assert all(torch.equal(frozen[n], algo.deployed().state_dict()[n]) for n in still)
    other = build(kind, name, **few)
    other.load_state({key: value.clone() for key, value in algo.state().items()})
    for one in (algo, other):
        one.update(batch, 2, rng(2))
    state = other.state()
    assert all(torch.equal(value, state[key]) for key, value in algo.state().items())
    assert set(algo.parts()) == {"policy", "model"}


def test_ppo_learns_which_of_two_actions_is_paid_for():
    algo = build("ppo", "density", lr=2e-2, critic_lr=1e-2, epochs=5)
    for step in range(12):
        batch = rollout(algo, 32, 4, seed=step, minibatch=64)
        batch["reward"] = (batch["action"][..., 0] - 2) / 4  # the first entry of the action
        batch["terminated"] = torch.ones(128, dtype=torch.bool)
        algo.update(batch, step, rng(step))
    mean = algo.deployed().act({"state": torch.zeros(1, 1, 3)})[0, 0, 0]
    assert mean[0] > 4
    assert algo.model.v({"state": torch.zeros(1, 1, 3)}) > 0.2


@pytest.mark.parametrize("surrogate", ["clip", "simple", "asymmetric", "discovered", "unclipped"])
@pytest.mark.parametrize("changes", [{}, {"entropy_weight": 0.1, "scoring": {"reduction": "mean"}}])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradients_that_are_written_out_are_those_of_autograd(surrogate, changes, activation):
    shape = {"hidden": [8, 5], "activation": activation}
    policy = {"horizon": 2, "n_action_steps": 2, **shape}
    algo = build("ppo", "density", policy=policy, model=shape, surrogate={"kind": surrogate}, **changes)
    lesson, _ = algo.lesson(rollout(algo))
    moved(algo, 0.2)  # far enough to leave the range
    weights = [*algo.actor_weights, *algo.critic_weights]
    losses, _ = algo.losses(lesson)
    theirs = torch.autograd.grad(losses["train/loss"], weights)
    gathered = algo.written_out.optimizers
    for one in gathered:
        one.begin()
    mine = algo.written_out.gradients(lesson)
    told = [losses[f"train/{name}"].detach() for name in ("loss", "value_loss", "policy_loss")]
    torch.testing.assert_close(torch.tensor(mine), torch.stack(told), atol=1e-5, rtol=1e-5)
    places = gathered[0].gradients | gathered[1].gradients
    for weight, gradient in zip(weights, theirs, strict=True):
        torch.testing.assert_close(places[weight], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_passes_that_are_written_out_are_those_of_autograd(clip_norm):
    """Weights, what the optimisers remember, and what is told; after some steps that autograd took of both."""
    shape = {"hidden": [8, 5]}
    changes = {"lr": 1e-2, "critic_lr": 3e-2, "clip_norm": clip_norm, "adam_eps": 1e-3}
    found = []
    for written_out in (True, False):
        algo = build("ppo", "density", policy=shape, model=shape, **changes)
        passes, algo.written_out = algo.written_out, None
        algo.update(rollout(algo), 0, rng())
        algo.written_out = passes if written_out else None
        told = algo.update(rollout(algo), 1, rng(1))
        found.append((dict(algo.state()), told))
    (mine, told), (theirs, wanted) = found
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3, msg=name)
    for name, value in told.items():
        torch.testing.assert_close(value, wanted[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("squashed", {}),
        ("chunks", {}),
        ("denoising", {}),
        ("density", {"value_clip": 0.2}),
        ("density", {"target_kl": 0.1}),
        ("density", {"policy": {"activation": "elu"}}),
        ("density", {"model": {"hidden": [64, 200]}}),
    ],
)
def test_what_is_not_plain_is_left_to_autograd(name, changes):
    assert build("ppo", name, **changes).written_out is None
    assert build("fixpo", "density").written_out is None


def test_a_minibatch_has_its_own_advantages_and_none_is_lost():
    algo = build("ppo", "density")
    lesson, _ = algo.lesson(rollout(algo, 7, 3))
    parts = list(algo.minibatches(lesson, 5, rng()))
    assert sorted(part_.size for part_ in parts) == [5, 5, 5, 6]
    seen = torch.cat([part_.goal for part_ in parts])
    assert torch.equal(seen.sort().values, lesson.goal.sort().values)
    for part_ in parts:
        torch.testing.assert_close(part_.advantage.mean(), torch.zeros(()), atol=1e-6, rtol=0)
        torch.testing.assert_close(part_.advantage.std(), torch.ones(()), atol=1e-4, rtol=0)
    again = torch.cat([part_.goal for part_ in algo.minibatches(lesson, 5, rng(1))])
    assert not torch.equal(seen, again)


def test_values_are_clipped_around_what_was_said():
    algo = build("ppo", "density", value_clip=0.1)
    lesson, _ = algo.lesson(rollout(algo))
    lesson = lesson._replace(value=lesson.value + torch.linspace(-0.3, 0.3, 24))
    losses, _ = algo.losses(lesson)
    said = algo.judge(lesson)
    near = lesson.value + (said - lesson.value).clamp(-0.1, 0.1)
    wanted = torch.maximum((said - lesson.goal) ** 2, (near - lesson.goal) ** 2).mean()
    torch.testing.assert_close(losses["train/value_loss"], wanted)


def test_passes_end_when_the_policy_is_far_away():
    far = build("ppo", "density", lr=0.05, target_kl=0.01).update(rollout(build("ppo")), 0, rng())
    near = build("ppo", "density", lr=1e-5, target_kl=0.01).update(rollout(build("ppo")), 0, rng())
    assert far["train/passes"] < 10
    assert near["train/passes"] == 10


def test_in_the_warm_up_the_values_learn_alone():
    algo = build("ppo", "density", warmup=2)
    before = [weight.clone() for weight in algo.actor_weights]
    value = algo.model.net[0].weight.clone()
    for step in range(2):
        algo.update(rollout(algo), step, rng(step))
        assert all(torch.equal(one, other) for one, other in zip(before, algo.actor_weights, strict=True))
    assert not torch.equal(value, algo.model.net[0].weight)
    algo.update(rollout(algo), 2, rng(2))
    assert not torch.equal(before[0], algo.actor_weights[0])


def test_rates_fall_to_nothing_over_the_run():
    algo = build("ppo", "density", anneal=True)
    assert [algo.rate(step) for step in (0, 5, 10)] == [1, 0.5, 0]
    assert build("ppo", "density").rate(10) == 1


def test_running_normalisers_take_note_of_a_rollout_after_it_was_learned_from():
    running = {"obs_normalization": "running", "encoder": {"kind": "low_dim", "limit": 10.0}}
    algo = build("ppo", "density", policy=running, model={"obs_normalization": "running"})
    for step in range(2):
        batch = rollout(algo, seed=step)
        batch["obs"] = {"state": 5 * batch["obs"]["state"] + 3}
        lesson, _ = algo.lesson(batch)
        log_ratio = algo.scoring.log_ratio(algo.say(lesson), lesson.old, lesson.trace)
        assert torch.equal(log_ratio, torch.zeros_like(log_ratio))
        algo.update(batch, step, rng(step))
    policy, value = algo.deployed().observation, algo.model.observation
    assert torch.equal(policy.normalizer.mean, value.normalizer.mean)
    assert policy.normalizer.count == 48
    seen = torch.cat([5 * rollout(algo, seed=step)["obs"]["state"][:, 0] + 3 for step in range(2)])
    torch.testing.assert_close(policy.normalizer.normalize(seen).mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(policy.normalizer.normalize(seen).std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    other = build("ppo", "density", policy=running, model={"obs_normalization": "running"})
    other.load_state(algo.state())
    batch = rollout(algo, seed=5)
    for one in (algo, other):
        one.update(batch, 2, rng(2))
    assert torch.equal(
        algo.state()["policy.observation.normalizer.squares"], other.state()["policy.observation.normalizer.squares"]
    )


def test_the_policy_acts_with_its_mean_and_explores_around_it():
    policy = part("policy", POLICIES["density"])
    algo = build("ppo")
    obs = {"state": torch.randn(1, 1, 3, generator=rng()).expand(4000, 1, 3)}
    chunks = policy.act({"state": obs["state"][:3]}, n=2, generator=rng())
    assert torch.equal(chunks[:, 0], chunks[:, 1])
    tried = algo.explore(obs, rng())
    spread = tried.action[:, 0].std(0)
    half = torch.tensor([4.0, 0.5])  # of the bounds
    torch.testing.assert_close(spread, math.exp(-0.5) * half, rtol=0.05, atol=0)
    assert (tried.action[:, 0, 0] > 6).any(), "the density is not clipped, the world clips"


@pytest.mark.parametrize(
    ("scoring", "policy", "message"),
    [
        ("density", {"kind": "deterministic"}, "no density that could be compared: set policy=diagonal_gaussian"),
        ("denoising", POLICIES["density"], "takes none: train a diffusion or flow policy"),
        ("flow_matching", POLICIES["density"], r"set algo\.scoring=density"),
    ],
)
def test_a_policy_that_cannot_be_scored_so_is_refused_in_words(scoring, policy, message):
    config, made = parse(lookup("scoring", scoring), {"kind": scoring}), part("policy", policy)
    with pytest.raises(ConfigError, match=message):
        config.build(made)


def test_another_model_is_refused_in_words():
    with pytest.raises(ConfigError, match="set model=state_value"):
        build("ppo", "density", model={"kind": "value"})


COMMON = [{"critic_lr": 1e-2}, {"gae_lambda": 0.5}, {"normalize_advantage": "rollout"}, {"adam_eps": 1.0}]
COMMON += [{"normalize_advantage": "no"}, {"normalize_advantage": "minibatch"}, {"reward_limit": 0.1}]
COMMON += [{"scale_rewards": True}, {"scale_rewards": False}]
PASSES = [{"lr": 1e-2}, {"epochs": 1}, {"value_weight": 5.0}, {"value_clip": 1e-3}, {"entropy_weight": 0.1}]
PASSES += [{"clip_norm": 1e-3}, {"target_kl": 1e-9}, {"anneal": True}, {"anneal": False}, {"warmup": 1}]
PASSES += [{"surrogate": {"kind": kind}} for kind in ("clip", "simple", "asymmetric", "discovered", "unclipped")]
MENDS = [{"max_kl": 1e-6}, {"target_coefficient": 1.0}, {"beta": 0.0}, {"beta_lr": 1.0}]
STEPS = [{"max_kl": 1e-4}, {"cg_steps": 1}, {"cg_damping": 9.0}, {"critic_epochs": 1}]
OPTIONS = [("ppo", [*COMMON, *PASSES]), ("fixpo", [*COMMON, *PASSES, *MENDS]), ("trpo", [*COMMON, *STEPS])]


def learned(kind: str, **changes: object) -> torch.Tensor:
    """What two updates make of the weights, where passes over a rollout are two."""
    few = {} if kind == "trpo" else {"epochs": 2, "lr": 3e-2}
    algo = build(kind, "density", **few | changes)
    for step in range(2):
        algo.update(rollout(algo, 4, 4), step, rng(step))
    return torch.cat([weight.detach().flatten() for weight in [*algo.actor_weights, *algo.critic_weights]])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_every_option_does_something_or_is_refused(kind, options):
    usual, defaults = learned(kind), lookup("algo", kind)().tree()
    for changes in options:
        (name, value) = next(iter(changes.items()))
        held = defaults[name]["kind"] if isinstance(value, dict) else defaults[name]
        if held == (value["kind"] if isinstance(value, dict) else value):
            continue
        try:
            assert not torch.equal(learned(kind, **changes), usual), changes
        except ConfigError:
            assert (kind, name) in {("trpo", "normalize_advantage"), ("fixpo", "target_kl")} or name == "reward_limit"


@pytest.mark.parametrize(
    ("kind", "name", "changes", "words"),
    [
        ("trpo", "density", {"normalize_advantage": "minibatch"}, "one, of the whole rollout; set it to rollout or no"),
        ("ppo", "density", {"reward_limit": 5.0}, "set scale_rewards=true"),
        ("fixpo", "density", {"target_kl": 0.1}, "set max_kl, and leave target_kl out"),
        ("ppo", "denoising", {"entropy_weight": 0.1}, "algo.scoring=denoising knows none: set it to 0"),
        ("ppo", "denoising", {"surrogate": "unclipped"}, "algo=ppo with the unclipped surrogate: leave it at 1"),
        ("ppo", "denoising", {"scoring": {"clip_base": 1.0, "clip_rate": 1.0}}, "set clip_base below 1"),
        ("ppo", "flow_matching", {"scoring": {"limit": 1.0}}, "set ratios=each"),
    ],
)
def test_an_option_without_effect_is_refused_in_words(kind, name, changes, words):
    with pytest.raises(ConfigError, match=words):
        build(kind, name, **changes)
