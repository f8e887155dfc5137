"""DSRL: noise decides, targets by hand, what stays frozen, and that it finds the one mode that is rewarded."""

import math

import pytest
import torch
from algos.test_off_policy import part
from policies.test_policies import POLICIES, make
from steering.gaussians import many, policy, spec

from robopol.algos.algorithm import WarmsUp
from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.configs import load_config
from robopol.data.windows import newest
from robopol.errors import ConfigError
from robopol.networks.precision import RuntimeConfig
from robopol.registry import lookup
from robopol.steering.learned_noise import LearnedNoise, LearnedNoiseConfig
from robopol.training.config import TrainConfig

RUNTIME = RuntimeConfig(threads=1, matmul="highest").build()
SAMPLER = {"kind": "euler", "steps": 4, "clip": "never"}
FINE = {"kind": "euler", "steps": 12, "clip": "never"}
RING = [(0.8 * math.cos(i * math.pi / 4), 0.8 * math.sin(i * math.pi / 4)) for i in range(8)]
GAMMA, ROWS = 0.9, 12
MEAN = {"kind": "squashed_gaussian", "hidden": [8], "n_obs_steps": 2, "horizon": 8, "n_action_steps": 4}
MEAN |= {"obs_normalization": "identity"}


def base(means=((0.5,), (-0.5,)), horizon=1, past=0, taken=1, seed=0, **tree):
    names = [f"a{i}" for i in range(len(means[0]) if means else 1)]
    contract = spec(
        names,
        horizon=horizon,
        n_obs_steps=past + 1,
        n_action_steps=taken,
        action_low=(-1.0,) * len(names),
        action_high=(1.0,) * len(names),
    )
    tree = {"sampler": SAMPLER, "n_action_steps": taken} | tree
    return policy("flow", means, 0.05, contract=contract, seed=seed, **tree)


def build(frozen=None, model="q", kind="dsrl", **changes):
    torch.manual_seed(0)
    told = {"kind": kind, "actor": {"kind": "squashed_gaussian", "hidden": [32, 32], "deterministic": False}}
    return parse(lookup("algo", kind), told | changes).build(
        policy=base() if frozen is None else frozen,
        model=part("model", model, hidden=[32, 32], discount=GAMMA),
        total_updates=100,
        runtime=RUNTIME,
    )


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(algo, seed: int = 0) -> dict:
    """Random actions, none of them decoded; row 0 terminated."""
    source, frozen = rng(seed), algo.base.spec
    discount = torch.full((ROWS,), GAMMA**frozen.n_action_steps)
    discount[0] = 0
    known = torch.ones(ROWS, dtype=torch.bool)
    return {
        "obs": {"state": torch.randn(ROWS, frozen.n_obs_steps, 1, generator=source)},
        "action": torch.randn(ROWS, frozen.horizon, frozen.action_dim, generator=source),
        "reward": torch.randn(ROWS, generator=source),
        "discount": discount,
        "next_obs": {"state": torch.randn(ROWS, frozen.n_obs_steps, 1, generator=source)},
        "mask": known[:, None].expand(-1, frozen.horizon),
        "next_mask": known,
        "weight": torch.ones(ROWS),
        "trace": {"noise": torch.randn(ROWS, math.prod(algo.base.noise_shape), generator=source)},
    }


KINDS = ("dsrl", "dsrl_sac")


def test_noise_alone_decides_and_its_own_gives_the_base_policy():
    frozen, obs = base(None, horizon=4, taken=2), {"state": torch.randn(5, 1, 1)}
    noise = torch.randn(5, 3, 4, 1, generator=rng(3))
    plans = frozen.plan_from(obs, noise)
    assert torch.equal(plans, frozen.plan_from(obs, noise))
    assert torch.equal(plans, frozen.plan(obs, 3, rng(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_warm_up_the_base_policy_acts(kind):
    algo = build(base(None, horizon=4, past=1, taken=2), kind=kind)
    assert isinstance(algo, WarmsUp)
    obs = {"state": torch.randn(6, 2, 1, generator=rng())}
    warm, own = algo.warm_up(obs, rng(4)), algo.normal(6, rng(4))
    assert torch.equal(algo.decode(obs, own), algo.base.act(obs, 1, rng(4))[:, 0, :2].clamp(-1, 1))
    if kind == "dsrl_sac":  # of noises that its actor cannot choose its critics learn nothing
        assert own.abs().max() > 1.5
        own = own.clamp(-1.5, 1.5)
    assert torch.equal(warm.trace["noise"], own[:, 0])
    assert torch.equal(warm.action, algo.decode(obs, own))
    tried = algo.explore(obs, rng(4))
    assert tried.action.shape == (6, 2, 1)
    assert torch.equal(tried.action, algo.decode(obs, tried.trace["noise"][:, None])), "the trace is the noise"


@pytest.mark.parametrize("paid", [False, True])
def test_the_target_by_hand(paid):
    algo = build(base(None, horizon=3, past=1, taken=2), alpha=0.3, paid=paid)
    data = batch(algo)
    with torch.no_grad():
        goal = algo.goals(data, rng())
        drawn = algo.drawn(data["next_obs"], rng())
        plans = algo.base.plan_from(data["next_obs"], drawn.action.view(ROWS, 1, 3, 1))[:, 0, 1:3].clamp(-1, 1)
        worth = algo.target.q(data["next_obs"], plans).amin(0)
    expected = data["reward"] + data["discount"] * (worth - paid * 0.3 * drawn.log_prob)
    torch.testing.assert_close(goal, expected)
    assert goal[0] == data["reward"][0]


@pytest.mark.parametrize("paid", [False, True])
def test_the_target_of_noises_by_hand(paid):
    algo = build(base(None, horizon=3, past=1, taken=2), kind="dsrl_sac", alpha=0.3, paid=paid)
    assert algo.needs.transition == (2, GAMMA, None, False)
    data = batch(algo)
    with torch.no_grad():
        goal = algo.goals(data, rng())
        drawn = algo.drawn(data["next_obs"], rng())
        worth = algo.target.q(data["next_obs"], drawn.action).amin(0)
    expected = data["reward"] + data["discount"] * (worth - paid * 0.3 * drawn.log_prob)
    torch.testing.assert_close(goal, expected)
    other = batch(algo) | {"action": torch.zeros_like(data["action"])}
    losses = [
        algo.update(rows, 0, rng())["train/loss"]
        for algo, rows in zip((algo, build_again(algo)), (data, other), strict=True)
    ]
    assert losses[0] == losses[1], "what was executed says nothing, the noise all"


def build_again(algo):
    return build(algo.base, kind="dsrl_sac", alpha=0.3, paid=algo.config.paid)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_policy_stays_and_gets_no_gradient(kind):
    frozen = base(None, horizon=3, past=1, taken=2)
    before = [value.clone() for value in frozen.state_dict().values()]
    algo = build(frozen, kind=kind)
    for step in range(4):
        told = algo.update(batch(algo, step), step, rng(step))
    assert {"train/q_loss", "train/policy_loss", "train/alpha"} <= told.keys()
    assert all(torch.equal(one, other) for one, other in zip(before, frozen.state_dict().values(), strict=True))
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
    modules = (algo.policy, algo.model, getattr(algo, "noise_model", algo.model))
    assert all(p.grad is None for module in modules for p in module.parameters())


def test_noise_is_worth_what_the_plan_is_that_it_leads_to():
    """At the optimum of its loss W(s, w) is Q(s, f(s, w)), for noises that it was not taught."""
    algo = build(base(horizon=1), critic_lr=3e-3)
    data = batch(algo)
    for step in range(200):
        algo.fit_noise_model(data, rng(step))
    noise = 1.5 * (2 * torch.rand(ROWS, 1, 1, generator=rng(9999)) - 1)
    with torch.no_grad():
        said = algo.noise_model.q(data["obs"], noise)
        meant = algo.model.q(data["obs"], algo.decode(data["obs"], noise))
    assert (said - meant).abs().mean() < 0.2 * meant.std()


def test_what_the_actor_chooses_stays_within_its_magnitude():
    algo = build(magnitude=0.7)
    noise = algo.drawn({"state": torch.randn(500, 1, 1)}, rng()).action
    assert 0.6 < noise.abs().max() <= 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_an_entropy_means_the_same_whatever_the_magnitude(kind):
    """H = 0 is a box of edges of length 1 in the noise itself: D ln m is of the box that the actor squashes into."""
    wide, unit = (build(base(None, horizon=3), kind=kind, magnitude=size) for size in (1.5, 1.0))
    obs = {"state": torch.randn(6, 1, 1, generator=rng())}
    one, two = wide.drawn(obs, rng()), unit.drawn(obs, rng())
    torch.testing.assert_close(one.action, 1.5 * two.action)
    torch.testing.assert_close(one.log_prob, two.log_prob - 3 * math.log(1.5))
    assert torch.equal(two.log_prob, unit.policy.sample(obs, rng()).log_prob), "as released"
    assert wide.target_entropy == unit.target_entropy == 0


def test_the_settings_of_the_authors_code_are_those_of_it():
    config = parse(TrainConfig, load_config("train", ["experiment=dsrl_as_released", "env=push", "run=none"]))
    algo, critics, (phase,) = config.algo, config.model, config.phases.values()
    for network in (algo.actor, critics):
        assert (network.hidden, network.activation, network.layer_norm) == ((2048,) * 3, "tanh", True)
    assert (critics.ensemble, critics.discount, critics.discounted, critics.dropout) == (2, 0.99, "decision", 0)
    assert (algo.magnitude, algo.prior, algo.paid, algo.target_entropy, algo.alpha) == (1.0, 1.0, True, 0.0, 1.0)
    assert (algo.lr, algo.critic_lr, algo.alpha_lr, algo.polyak) == (3e-4, 3e-4, 3e-4, 0.005)
    assert (algo.delay, algo.noise_delay, algo.trusts, algo.target_heads) == (1, 2, "least", None)  # 20 : 20 : 10
    assert not algo.actor.deterministic
    assert (config.batch_size, config.collection.num_envs) == (256, 4)
    assert 0.6 <= phase.updates_per_step <= 1.9
    assert phase.warmup == 1500 * 4 * 4  # vector steps of 4 environments with chunks of 4
    assert [wrapper.kind for wrapper in config.env.wrappers] == ["final_limit"]
    assert (config.reward.of, config.reward.scale, config.reward.shift) == ("success", 1.0, -1.0)
    torch.manual_seed(0)
    small = critics.model_copy(update={"hidden": (16,)}).build(part("model", "q").spec)
    built = algo.model_copy(update={"actor": algo.actor.model_copy(update={"hidden": (16,)})}).build(
        policy=base(None, horizon=3, taken=3), model=small, total_updates=1, runtime=RUNTIME
    )
    assert built.needs.transition == (3, 0.99, None, True)
    for net in (built.policy.net, built.model.heads.layers, built.noise_model.heads.layers):
        assert [type(layer).__name__.removeprefix("Ensemble") for layer in net][1:3] in (
            ["LayerNorm", "Tanh"],
            ["Norm", "Tanh"],
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_the_mode_that_is_rewarded(kind):
    """The base policy takes each of eight ways alike."""
    frozen = base(RING, sampler=FINE)
    near = torch.tensor(RING[2])

    def share(found):
        return ((many(found, 400) - near).norm(dim=-1) < 0.2).float().mean().item()

    assert share(frozen) == pytest.approx(1 / 8, abs=0.06)
    algo = build(frozen, kind=kind, alpha=0.05, lr=2e-3, critic_lr=3e-3)
    obs, met = {"state": torch.zeros(32, 1, 1)}, []
    for turn in range(30):
        source = rng(turn)
        action, trace = (algo.warm_up if turn < 8 else algo.explore)(obs, source)
        won = (action[:, 0] - near).norm(dim=-1, keepdim=True) < 0.2
        met.append(torch.cat([action[:, 0], won, trace["noise"]], 1))
        rows = torch.cat(met)
        for again in range(8 if turn >= 8 else 0):
            drawn = rows[torch.randint(len(rows), (64,), generator=source)]
            state = {"state": torch.zeros(64, 1, 1)}
            data = {
                "obs": state,
                "action": drawn[:, None, :2],
                "reward": drawn[:, 2],
                "discount": torch.zeros(64),
                "next_obs": state,
                "mask": torch.ones(64, 1, dtype=torch.bool),
                "next_mask": torch.ones(64, dtype=torch.bool),
                "weight": torch.ones(64),
                "trace": {"noise": drawn[:, 3:]},
            }
            algo.update(data, 8 * turn + again, source)
    assert share(algo.deployed()) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learned_is_a_policy_that_is_saved_whole(tmp_path, kind):
    algo = build(base(None, horizon=3, past=1, taken=2), kind=kind)
    for step in range(2):
        algo.update(batch(algo, step), step, rng(step))
    obs = {"state": torch.randn(4, 2, 1)}
    steered = algo.deployed()
    expected = steered.act(obs, 3, rng())
    assert not torch.equal(expected, algo.base.act(obs, 3, rng()))
    save_part(steered, tmp_path)
    assert torch.equal(load_policy(tmp_path).act(obs, 3, rng()), expected)
    with torch.no_grad():  # it is what the algorithm itself tries, but for the order in which noise is drawn
        noise = torch.randn(4, 1, 3, 1, generator=rng(1))
        chosen = algo.policy.plan_from(newest(obs, 1), noise.flatten(2)[:, :, None])
        plans = algo.base.plan_from(obs, chosen.view(4, 1, 3, 1))
    assert torch.equal(steered.plan(obs, 1, rng(1)), plans)


@pytest.mark.parametrize("kind", KINDS)
def test_its_state_is_all_that_further_updates_depend_on(kind):
    algo, other = build(kind=kind), build(kind=kind, alpha=0.5)
    for step in range(3):
        algo.update(batch(algo, step), step, rng(step))
    other.load_state({name: value.clone() for name, value in algo.state().items()})
    for step in range(3, 6):
        for one in (algo, other):
            one.update(batch(one, step), step, rng(step))
    state = other.state()
    assert all(torch.equal(value, state[name]) for name, value in algo.state().items())


@pytest.mark.parametrize(
    ("frozen", "model", "words"),
    [
        (lambda: make(POLICIES["gmm"]), "q", "a gmm policy begins from none"),
        (lambda: make(MEAN), "q", "acts with its mean whatever the noise is"),
        (lambda: base(sampler={"kind": "ddpm", "steps": 4, "clip": "never"}), "q", "choose ddim or euler"),
        (base, "value", "set model=q"),
    ],
)
def test_what_cannot_be_tuned_so_is_refused_in_words(frozen, model, words):
    with pytest.raises(ConfigError, match=words):
        build(frozen(), model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_that_draws_on_its_way_is_walked_without(kind, tmp_path):
    """As a diffusion policy is saved that was trained with the defaults: all steps of DDPM."""
    frozen, sampler = make(POLICIES["diffusion-mlp"]), {"kind": "ddim", "steps": 3}
    with pytest.raises(ConfigError, match=r"algo\.sampler=\{kind: ddim"):
        build(frozen, kind=kind)
    algo = build(frozen, kind=kind, sampler=sampler)
    assert frozen.config.sampler.kind == "ddim"
    rows = {key: torch.randn(2, frozen.spec.n_obs_steps, *shape) for key, shape in frozen.spec.obs_shapes.items()}
    noise = algo.normal(2, rng())
    assert torch.equal(algo.decode(rows, noise), algo.decode(rows, noise))
    assert not torch.equal(algo.decode(rows, noise), algo.decode(rows, -noise))
    save_part(algo.deployed(), tmp_path)
    assert load_policy(tmp_path).base.config.sampler.tree() == frozen.config.sampler.tree()


def test_who_walks_no_field_is_not_walked_otherwise():
    with pytest.raises(ConfigError, match="a gmm policy walks no field"):
        build(make(POLICIES["gmm"]), sampler={"kind": "ddim"})


def test_decisions_are_worth_what_their_own_steps_earn():
    config = parse(lookup("algo", "dsrl_sac"), {"kind": "dsrl_sac"})
    critics = part("model", "q", hidden=[32], return_steps=5)
    with pytest.raises(ConfigError, match=r"leave model.return_steps out"):
        config.build(policy=base(), model=critics, total_updates=1, runtime=RUNTIME)


def test_an_actor_of_another_policy_is_refused(tmp_path):
    algo = build(base(None, horizon=3, past=1, taken=2))
    save_part(algo.policy, tmp_path)
    with pytest.raises(ConfigError, match="chooses 3 numbers and looks at 1 observations, the policy begins from 1"):
        base().steered(LearnedNoiseConfig(actor=str(tmp_path)))
    with pytest.raises(ConfigError, match="by a squashed_gaussian"):
        LearnedNoise(base(), base())
