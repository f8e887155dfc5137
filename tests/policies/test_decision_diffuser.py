"""Plans of states that are told a return: what they are trained on, what is pinned, and what is acted."""

from dataclasses import replace

import pytest
import torch

from robopol.checkpoint import load_policy, save_part
from robopol.commands.eval import EvalCommand
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import Episodes, EpisodesMeta, Windows
from robopol.data.hindsight import HindsightConfig
from robopol.data.normalizer import Normalizer
from robopol.errors import ConfigError, DataError, DataWarning, ShapeError
from robopol.networks.denoiser import Denoiser
from robopol.policies import Needs, PolicySpec
from robopol.policies.decision_diffuser import DecisionDiffuser, PinnedField
from robopol.policies.field import Field
from robopol.policies.guidance import GuidedField, SummedField
from robopol.policies.paths.discrete_vp import DiscreteVPConfig
from robopol.policies.samplers.first_order import DDPMConfig
from robopol.registry import lookup
from robopol.training.contract import spec_for
from robopol.training.sources import Sources

NET = {"kind": "film_mlp", "width": 32, "features": 16}
SMALL = {"kind": "decision_diffuser", "net": NET, "sampler": {"kind": "ddpm", "steps": 4}}
SPEC = {
    "obs_shapes": {"state": [3]},
    "action_names": ["x", "y"],
    "action_low": [-2, -2],
    "action_high": [2, 2],
    "action_space": "box",
    "control_hz": 10.0,
}
A = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.95, 0.1], [0.05, 0.0, 0.9]])
B = torch.tensor([[0.0, 0.2], [0.3, 0.0], [0.1, 0.4]])


def linear(lengths: tuple[int, ...] = (9, 4, 6), seed: int = 0, final: bool = True) -> Episodes:
    """Episodes of s' = A s + B a with random actions and rewards."""
    rng = torch.Generator().manual_seed(seed)
    states, actions, finals = [], [], []
    for length in lengths:
        state = torch.randn(3, generator=rng)
        for _ in range(length):
            states.append(state)
            actions.append(2 * torch.rand(2, generator=rng) - 1)
            state = A @ state + B @ actions[-1]
        finals.append(state if final else torch.zeros(3))
    rows, sizes = sum(lengths), torch.tensor(lengths)
    last = torch.zeros(rows, dtype=torch.bool)
    last[sizes.cumsum(0) - 1] = True
    return Episodes(
        obs={"state": torch.stack(states)},
        action=torch.stack(actions),
        reward=torch.randn(rows, generator=rng),
        terminated=last,
        truncated=torch.zeros(rows, dtype=torch.bool),
        source=torch.zeros(rows, dtype=torch.int64),
        intervention=torch.zeros(rows, dtype=torch.bool),
        starts=sizes.cumsum(0) - sizes,
        lengths=sizes,
        final_obs={"state": torch.stack(finals)},
        has_final=torch.full((len(lengths),), final),
        success=torch.ones(len(lengths), dtype=torch.bool),
        way=torch.full((len(lengths),), -1),
        seed=torch.arange(len(lengths)),
        meta=EpisodesMeta(source_names=("toy",)),
    )


def make(episodes: Episodes | None = None, **changes: object) -> DecisionDiffuser:
    size = {"n_obs_steps": 2, "horizon": 5, "n_action_steps": 2}
    config = parse(lookup("policy", "decision_diffuser"), {**SMALL, **size, **changes})
    torch.manual_seed(0)
    policy = config.build(parse(PolicySpec, SPEC | size))
    policy.fit_normalizers(episodes or linear())
    return policy.eval()


def test_states_beyond_the_quantiles_are_not_clipped_in_silence():
    with pytest.warns(DataWarning, match=r"some demonstrated observations .* state\[0\] in \d+ of \d+"):
        make(obs_normalization="quantile")


def test_another_sampler_does_not_clip_states_in_silence():
    policy = make(obs_normalization="quantile", sampler={"kind": "ddpm", "steps": 4, "clip": "never"})
    with pytest.raises(ConfigError, match=r"obs_normalization=quantile .*outside"):
        policy.resample(DDPMConfig(steps=2))
    policy.resample(DDPMConfig(steps=2, clip="never"))


def windows(policy: DecisionDiffuser, episodes: Episodes) -> Windows:
    needs = policy.needs
    spec = policy.spec
    told = {"plan": needs.plan, "discount": needs.discount, "labels": needs.labels}
    return Windows(episodes, spec.n_obs_steps, spec.horizon, keys=["state"], **told)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Watched(Denoiser):
    """Keeps the states that a network was asked about, also where it computes a walk ahead."""

    def __init__(self, net):
        super().__init__()
        self.net, self.asked = net, []

    def forward(self, x, t, cond):
        self.asked.append(x)
        return self.net(x, t, cond)


def watch(policy: DecisionDiffuser) -> list[torch.Tensor]:
    policy.field.net = Watched(policy.field.net)
    return policy.field.net.asked


def now(rows: int = 4) -> dict[str, torch.Tensor]:
    return {"state": torch.randn(rows, 2, 3, generator=rng(5))}


@pytest.mark.parametrize("final", [True, False])
def test_a_batch_holds_the_whole_window_and_the_return_to_go(final):
    episodes = linear(final=final)
    whole = Windows(episodes, 2, 5, plan=True, discount=0.9)
    plain = Windows(episodes, 2, 5)
    order = torch.randperm(len(whole), generator=rng())
    batch, same = whole.gather(order), plain.gather(order)
    assert all(torch.equal(batch[key], same[key]) for key in ("action", "mask", "weight"))
    assert torch.equal(batch["obs"]["state"], same["obs"]["state"])
    for row, index in enumerate(order.tolist()):
        episode, start = int(whole.episode[index]), int(whole.start[index])
        first, length = int(episodes.starts[episode]), int(episodes.lengths[episode])
        togo = sum(0.9**k * episodes.reward[first + start + 1 + k].item() for k in range(length - start - 1))
        assert batch["return_to_go"][row].item() == pytest.approx(togo, abs=1e-5)
        for step in range(6):
            at = start + step
            exists = 0 <= at < length + final
            assert batch["plan_mask"][row, step].item() == exists
            if exists:
                there = episodes.final_obs["state"][episode] if at == length else episodes.obs["state"][first + at]
                assert torch.equal(batch["plan"]["state"][row, step], there)
    part = whole.only(torch.tensor([2, 0]))
    chosen = torch.cat([torch.arange(13, 19), torch.arange(9)])
    for key in ("return_to_go", "plan_mask"):
        assert torch.equal(part.gather(torch.arange(len(part)))[key], whole.gather(chosen)[key])


def test_other_policies_get_the_batches_that_they_got():
    policy = parse(lookup("policy", "gaussian"), {"kind": "gaussian"}).build(
        parse(PolicySpec, SPEC | {"n_obs_steps": 2, "horizon": 16, "n_action_steps": 8})
    )
    assert policy.needs == Needs()
    batch = Sources({"toy": linear()}, policy.spec, 0, torch.device("cpu"), needs=policy.needs).batch(
        {"toy": 1.0}, 4, 0
    )
    assert batch.keys() == {"obs", "action", "mask", "weight"}


def test_returns_that_were_for_other_goals_are_refused():
    goals = {"toy": HindsightConfig(of="state")}
    policy = make()
    with pytest.raises(ConfigError, match=r"data\.toy\.sampling: .* reads return_to_go, which are for the"):
        Sources({"toy": linear()}, policy.spec, 0, torch.device("cpu"), goals, policy.needs)


def test_weight_one_is_the_told_plan_and_weight_zero_the_untold_one():
    policy = make(weight=1.0)
    asked = watch(policy)
    told = policy.act(now(), generator=rng())
    assert [len(x) for x in asked] == [4] * 4
    policy.config = policy.config.model_copy(update={"weight": 0.0})
    untold = policy.act(now(), generator=rng())
    policy.config = policy.config.model_copy(update={"target": -0.7})
    assert torch.equal(policy.act(now(), generator=rng()), untold), "who is not told a return does not depend on it"
    policy.config = policy.config.model_copy(update={"weight": 1.0})
    assert not torch.equal(policy.act(now(), generator=rng()), told)
    asked.clear()
    policy.config = policy.config.model_copy(update={"weight": 1.2})
    policy.act(now(), generator=rng())
    assert [len(x) for x in asked] == [8] * 4, "both branches in one batch"


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpm_solver", "edm"])
def test_the_network_always_sees_what_was_observed(sampler):
    tree = {"kind": sampler, "steps": 4, "spacing": "karras"}
    policy = make(sampler=tree)
    asked = watch(policy)
    policy.act(now(), n=3, generator=rng())
    states = policy.observation(now(), 2).repeat_interleave(3, 0)
    assert len(asked) >= 4
    for x in asked:
        assert torch.equal(x[:, :2], torch.cat([states, states]))


def test_it_can_be_walked_in_another_way_than_it_was_saved():
    words = ["checkpoint=RUN", "policy.sampler=ddim", "policy.steps=3"]
    policy, other = make(), make(sampler={"kind": "ddim", "steps": 3})
    parse(EvalCommand, load_config("eval", words)).policy.apply(policy)
    assert policy.config == other.config
    before, after, expected = (one.act(now(), generator=rng(3)) for one in (make(), policy, other))
    assert torch.equal(after, expected)
    assert not torch.equal(after, before)
    with pytest.raises(ConfigError, match="1 to 100 steps"):
        parse(EvalCommand, load_config("eval", ["checkpoint=RUN", "policy.steps=101"])).policy.apply(policy)


def test_the_network_sees_clean_rows_in_training_and_learns_nothing_from_them():
    policy = make().train()
    data = windows(policy, linear())
    outputs = []

    def keep(_, args, output):
        output.retain_grad()
        outputs.append((args[0], output))

    policy.field.net.register_forward_hook(keep)
    batch = data.gather(torch.arange(len(data)))
    policy.loss(batch, rng()).sum().backward()
    x, output = outputs[0]
    assert torch.equal(x[:, :2], policy.observation(batch["plan"], 6)[:, :2])
    counts = batch["plan_mask"].clone()
    counts[:, :2] = False
    assert (output.grad[~counts] == 0).all()
    assert (output.grad[counts] != 0).any(-1).all()


@pytest.mark.parametrize("final", [True, False])
def test_no_padding_is_learned_from(final):
    policy, episodes = make(), linear(final=final)
    data = windows(policy, episodes)
    batch = data.gather(torch.arange(len(data)))
    before = policy.loss(batch, rng())
    padded = dict(batch)
    # inverse dynamics read pairs, and the planner's loss is of its own noise: neither may see what never was
    padded["action"] = torch.where(batch["mask"][..., None], batch["action"], 9.0)
    assert torch.equal(policy.loss(padded, rng()), before)

    states = torch.where(batch["plan_mask"][..., None], batch["plan"]["state"], 9.0)
    moved = policy.observation({"state": states}, 6)
    pairs = batch["mask"] & batch["plan_mask"][:, :-1] & batch["plan_mask"][:, 1:]
    found, kept = policy._actions(moved), policy._actions(policy.observation(batch["plan"], 6))
    assert torch.equal(found[pairs], kept[pairs])


def test_the_loss_is_half_of_the_plan_and_half_of_the_inverse_dynamics():
    policy = make()
    data = windows(policy, linear())
    batch = data.gather(torch.arange(len(data)))
    states = policy.observation(batch["plan"], 6)
    y = policy.returns.normalize(batch["return_to_go"][:, None])
    cond = policy.embed(torch.cat([y, torch.zeros_like(y)], -1))[:, None]
    plan = PinnedField(policy.field, states[:, :2]).loss(states, cond, rng()).mean(-1)
    action = policy.action_normalizer.normalize(batch["action"])
    loss = policy.loss(batch, rng())
    for row in range(len(data)):
        steps = [h for h in range(2, 6) if batch["plan_mask"][row, h]]
        pairs = [
            h
            for h in range(5)
            if batch["mask"][row, h] and batch["plan_mask"][row, h] and batch["plan_mask"][row, h + 1]
        ]
        first = sum(plan[row, h].item() for h in steps) / max(len(steps), 1)
        errors = [
            ((policy.inverse(torch.cat([states[row, h], states[row, h + 1]])) - action[row, h]) ** 2).mean().item()
            for h in pairs
        ]
        assert loss[row].item() == pytest.approx((first + sum(errors) / max(len(errors), 1)) / 2, rel=1e-4)


def test_a_return_that_is_left_out_does_not_matter():
    policy = make(drop=0.8).train()
    data = windows(policy, linear((30, 40)))
    batch = data.gather(torch.arange(len(data)))
    other = batch | {"return_to_go": batch["return_to_go"] + 3}
    same = (policy.loss(batch, rng()) == policy.loss(other, rng())).float().mean().item()
    assert same == pytest.approx(0.8, abs=0.15)


class Gaussian(Denoiser):
    """Says the noise in data of mean 0.3 and standard deviation 0.4."""

    mean, std = 0.3, 0.4

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, x, t, cond):
        level = self.path.level(t[0])
        alpha, sigma = level.alpha.item(), level.sigma.item()
        var = (alpha * self.std) ** 2 + sigma**2
        return sigma * (x - alpha * self.mean) / var


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_a_temperature_scales_the_spread_and_keeps_the_mean(temperature):
    path = DiscreteVPConfig(train_steps=1000).build()
    field, draws = Field(Gaussian(path), path, "eps"), rng()

    def draw():
        return temperature * torch.randn(8000, 1, 1, generator=draws)

    sampler = DDPMConfig(steps=200, clip="never", spacing="linspace").build()
    found = sampler.sample(field, draw(), torch.zeros(8000, 1, 1), draw)
    assert found.mean().item() == pytest.approx(0.3, abs=0.012)
    assert found.std().item() == pytest.approx(0.4 * temperature, abs=0.015)


def test_temperature_reaches_the_walk():
    policy = make(temperature=0.0)
    first, second = (policy.act(now(), generator=rng(seed)) for seed in (0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(make().act(now(), generator=rng(0)), make().act(now(), generator=rng(1)))


def test_inverse_dynamics_recover_the_actions_of_a_linear_system():
    episodes = linear((20,) * 40)
    policy = make(episodes, inverse_hidden=[])
    batch = windows(policy, episodes).gather(torch.arange(800))
    pairs = batch["mask"] & batch["plan_mask"][:, :-1] & batch["plan_mask"][:, 1:]
    optimizer = torch.optim.LBFGS(policy.inverse.parameters(), 1, max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = policy.loss(batch, rng()).mean()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    states = policy.observation(batch["plan"], 6)
    found = policy.action_normalizer.unnormalize(policy._actions(states))
    assert (found - batch["action"])[pairs].abs().max() < 1e-2


def test_the_scale_of_returns_is_fitted_and_saved(tmp_path):
    policy, episodes = make(), linear((50, 60), seed=3)
    policy.fit_normalizers(episodes)
    togo = episodes.returns_to_go(0.99)
    low, high = torch.quantile(togo, torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
    assert policy.returns.unnormalize(torch.tensor([[-1.0], [1.0]])).flatten().tolist() == pytest.approx(
        [low, high], abs=1e-4
    )
    save_part(policy, tmp_path)
    assert torch.equal(load_policy(tmp_path).act(now(), generator=rng()), policy.act(now(), generator=rng()))


def test_plans_are_whole_windows():
    policy = make()
    assert policy.plan(now(), n=3, generator=rng()).shape == (4, 3, 5, 2)
    alone = policy.plan({"state": now()["state"][1:2]}, generator=[rng(1)])
    assert torch.allclose(alone, policy.plan(now(), generator=[rng(i) for i in range(4)])[1:2], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "shapes", "words"),
    [
        ({"encoder": {"kind": "image"}}, {"images.front": [96, 96, 3]}, "cannot plan pictures"),
        ({"obs_normalization": "zscore"}, {"state": [3]}, "sampler.clip=never"),
        ({"sampler": {"kind": "ddpm", "steps": 200}}, {"state": [3]}, "1 to 100 steps"),
        ({"drop": 0.0}, {"state": [3]}, "drop"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, shapes, words):
    size = {"n_obs_steps": 1, "horizon": 5, "n_action_steps": 1}
    with pytest.raises(ConfigError, match=words):
        parse(lookup("policy", "decision_diffuser"), SMALL | size | changes).build(
            parse(PolicySpec, SPEC | size | {"obs_shapes": shapes})
        )


@pytest.mark.parametrize(
    ("scheduler", "options", "draws"),
    [
        ("DDPMScheduler", {}, True),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, True),
        ("EulerAncestralDiscreteScheduler", {}, True),
        ("DPMSolverMultistepScheduler", {}, False),
        ("DDIMScheduler", {}, False),
        ("UniPCMultistepScheduler", {}, False),
    ],
)
def test_noise_that_no_temperature_scales_is_refused(scheduler, options, draws):
    pytest.importorskip("diffusers")
    sampler = {"kind": "diffusers", "scheduler": scheduler, "options": options, "steps": 8}
    if draws:
        with pytest.raises(ConfigError, match=f"temperature=0.5 .*{scheduler} of diffusers draws itself"):
            make(sampler=sampler)
        make(sampler=sampler, temperature=1.0)
    else:
        ends = [make(sampler=sampler, temperature=0.0).plan(now(), generator=rng(seed)) for seed in (0, 1)]
        assert torch.equal(*ends)


def test_batches_of_another_policy_are_refused():
    with pytest.raises(ShapeError, match="lacks plan, plan_mask, return_to_go"):
        make().loss({"obs": now(), "action": torch.zeros(4, 5, 2), "mask": torch.ones(4, 5)})


def test_an_unfitted_scale_of_returns_is_refused():
    policy = make()
    batch = windows(policy, linear()).gather(torch.arange(3))
    policy.returns = Normalizer(1, "quantile")
    with pytest.raises(DataError, match="never fitted"):
        policy.loss(batch, rng())


def labelled() -> Episodes:
    """The same, of which every step says how fast it is, and every episode whether it was careful."""
    episodes = linear()
    rng_ = torch.Generator().manual_seed(3)
    fast = torch.rand(episodes.num_steps, 1, generator=rng_)
    careful = (episodes.episode_index % 2).float()[:, None]
    final = {"fast": torch.zeros(3, 1), "careful": torch.zeros(3, 1)}
    labels = {"fast": fast, "careful": careful}
    return replace(episodes, obs=episodes.obs | labels, final_obs=episodes.final_obs | final)


LABELS = {"fast": 0.5, "careful": -1.0}


def test_labels_are_told_as_they_are_now_and_never_looked_at():
    episodes = labelled()
    policy = make(episodes, labels=LABELS)
    batch = (data := windows(policy, episodes)).gather(torch.arange(len(data)))
    now_ = episodes.starts[data.episode] + data.start + 1
    assert torch.equal(batch["labels"]["fast"], episodes.obs["fast"][now_, 0])
    assert torch.equal(batch["labels"]["careful"], episodes.obs["careful"][now_, 0])
    part = data.only(torch.tensor([2]))
    assert torch.equal(part.gather(torch.arange(6))["labels"]["fast"], episodes.obs["fast"][13:, 0])
    meta = EpisodesMeta(action_names=("x", "y"), action_low=(-2, -2), action_high=(2, 2), control_hz=10.0)
    assert spec_for(policy.config, {"toy": replace(episodes, meta=meta)}, None).obs_shapes.keys() == {"state"}
    before = policy.loss(batch, rng())
    other = batch | {"labels": {name: value + 1 for name, value in batch["labels"].items()}}
    assert not torch.equal(policy.loss(other, rng()), before)
    with pytest.raises(DataError, match=r"no label 'slow': .* there are fast, careful"):
        make(episodes, labels={"slow": 1.0})
    rare = replace(episodes, obs=episodes.obs | {"fast": torch.ones(19, 1)})
    with pytest.raises(DataError, match="label 'fast' is the same in 98 % of the steps"):
        make(rare, labels=LABELS)
    with pytest.raises(ShapeError, match="lacks labels"):
        policy.loss({key: value for key, value in batch.items() if key != "labels"}, rng())


def test_each_is_left_out_by_itself():
    policy = make(labelled(), labels=LABELS, drop=0.5).train()
    told, embed = [], policy._embed
    policy._embed = lambda y, mask: (told.append(mask), embed(y, mask))[1]
    batch = (data := windows(policy, labelled())).gather(torch.arange(len(data)).repeat(50))
    policy.loss(batch, rng())
    (mask,) = told
    assert ((mask.float().mean(0) - 0.5).abs() < 0.06).all()
    assert abs((mask[:, 0] == mask[:, 1]).float().mean() - 0.5) < 0.06


def test_what_is_asked_for_is_added_up_from_what_each_alone_changes():
    policy = make(labelled(), labels=LABELS, weight=1.3, target=None)
    asked = policy._asked(torch.device("cpu")).expand(4, -1, -1)
    assert asked.shape[1] == 2
    x, t = torch.randn(4, 6, 3, generator=rng(1)), torch.full((4,), 40)
    level = policy.field.path.level(t)
    nothing = policy._unasked(asked[:, :1])
    none, fast, careful = (policy.field._output(x, t, level, cond) for cond in (nothing, asked[:, :1], asked[:, 1:]))
    found = policy.walked._output(x, t, level, asked)
    torch.testing.assert_close(found, none + 1.3 * (fast - none) + 1.3 * (careful - none))
    one = SummedField(policy.field, policy._unasked, 1.3)._output(x, t, level, asked[:, :1])
    torch.testing.assert_close(one, GuidedField(policy.field, policy._unasked, 1.3)._output(x, t, level, asked[:, :1]))
    counted = watch(policy)
    policy.act(now(), generator=rng())
    assert [len(x) for x in counted] == [12] * 4, "two and none, in one batch"


def test_asked_for_nothing_it_plans_what_the_data_do():
    nothing = make(labelled(), labels=dict.fromkeys(LABELS), target=None)
    unpulled = make(labelled(), labels=LABELS, weight=0.0)
    torch.testing.assert_close(nothing.act(now(), generator=rng()), unpulled.act(now(), generator=rng()))


def test_one_with_labels_is_saved_and_loaded(tmp_path):
    policy = make(labelled(), labels=LABELS)
    save_part(policy, tmp_path)
    again = load_policy(tmp_path)
    assert again.config == policy.config
    assert torch.equal(again.act(now(), generator=rng()), policy.act(now(), generator=rng()))
