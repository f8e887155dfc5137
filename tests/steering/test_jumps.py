"""What steers a consistency policy, whose jumps end at a plan and say no mean, and what is refused."""

import math

import pytest
import torch
from policies.test_policies import make
from steering.paths import ABSOLUTE, generators, observe, planar, steered
from steering.test_neutral import actor, edits, repair
from torch import Tensor

from robopol.algos.scoring.flow_matching import FlowMatchingConfig
from robopol.checkpoint import save_part
from robopol.commands.acting import ActingCommand
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.execution.inpainting import InpaintingConfig as InpaintingExecutor
from robopol.execution.real_time_chunking import RealTimeChunkingConfig as ChunkingExecutor
from robopol.networks.denoiser import Denoiser
from robopol.policies import Policy, Previous
from robopol.policies.consistency import ConsistencyConfig
from robopol.policies.prediction import reading
from robopol.real_robot.policy_process import Speaker
from robopol.registry import kinds
from robopol.steering import InpaintingConfig, SteeredPolicy
from robopol.steering.learned_noise import LearnedNoise

STD, RHO, LOW, HIGH = 0.3, 0.9, 0.03, 80.0
LINE = {"kind": "biased_start", "points": [[0, 0], [1, 1]], "motion": ABSOLUTE}
SMOOTH = {"kind": "smoothness", "motion": ABSOLUTE}
GUIDE = {"kind": "guide", "objective": SMOOTH}
INNER = {"kind": "inner_steps", "count": 3}
NUDGE = {"kind": "nudge", "actions": [[0.4, None]]}

REFUSED = [
    GUIDE,
    GUIDE | {"at": "backprop"},
    GUIDE | {"at": "noisy"},
    {"kind": "real_time_chunking", "delay": 1},
    {"kind": "real_time_chunking", "jacobian": False},
    INNER | {"back": "langevin"},
    INNER | {"back": "repeat"},
]
"""They move the mean of the clean plans by a score, or show the network a state with too little noise."""
BETWEEN = [{"kind": "inpainting", "delay": 1}, NUDGE]
"""They need a level between two jumps."""
BEGUN = [{"kind": "warm_start"}, {"kind": "warm_start", "renoise": True}, LINE, LINE | {"noise": 0.5}]
"""They need one where something is left of what they begin from."""
ALLOWED = [
    {"kind": "start_noise", "scale": 0.3},
    {"kind": "best_of", "objective": SMOOTH, "n": 3},
    INNER | {"back": "time_travel"},
    INNER | {"back": "renoise"},
    NUDGE | {"how": "output"},
    LINE | {"steps": 0},
    {"kind": "warm_start", "steps": None},
]
"""Another start of the same way, a choice of its ends, or a way gone again."""
BUILT = {
    "learned_noise": lambda policy: LearnedNoise(actor(policy), policy),
    "learned_edit": edits,
    "learned_repair": repair,
}
"""The same, made of networks."""
ELSEWHERE = {"composition", "mixture", "agreement", "goal_weight"}
"""Held in test_composition.py, and below for goals."""


class Jump(Denoiser):
    """What makes f exact for plans N(0, STD^2) whose neighbouring actions correlate by RHO, entry by entry."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.path = policy.field.path
        steps = torch.arange(policy.spec.horizon, dtype=torch.float64)
        covariance = STD**2 * RHO ** (steps[:, None] - steps).abs()
        self.sizes, self.axes = torch.linalg.eigh(covariance)
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        level = self.path.level((4 * t[:1].double() / self.path.time_scale).exp())
        x = x.double() / self.path.input_scale(level)
        shrink = ((self.sizes + LOW**2) / (self.sizes + level.kappa**2)).sqrt()
        end = self.axes @ (shrink[:, None] * (self.axes.T @ x))
        read = reading("consistency", level, self.path)
        return ((end - read.x0_x * x) / read.x0_out).float()


def jumping(jumps: int, horizon: int = 2, **changes: object) -> Policy:
    path = {"kind": "variance_exploding", "sigma_min": LOW, "sigma_max": HIGH}
    sampler = {"kind": "consistency", "steps": jumps, "clip": "never"}
    policy = planar("consistency", horizon=horizon, path=path, sampler=sampler, **changes)
    policy.field.net = Jump(policy)
    return policy


def plans(policy: Policy, rows: int, old: Tensor | None = None) -> Tensor:
    previous = None if old is None else [Previous(one, 0) for one in old]
    return policy.plan(observe(rows), 1, torch.Generator().manual_seed(int(old is None)), previous)[:, 0]


def test_every_steering_is_judged():
    told = [tree["kind"] for tree in [*REFUSED, *BETWEEN, *BEGUN, *ALLOWED]]
    assert {*told, *BUILT, *ELSEWHERE} == set(kinds("steering"))


@pytest.mark.parametrize("jumps", [1, 3])
@pytest.mark.parametrize("tree", REFUSED)
def test_what_moves_a_mean_is_refused(tree, jumps):
    with pytest.raises(ConfigError, match=rf"{tree['kind']}.* needs the mean of the clean actions .*\(best_of\)"):
        steered(jumping(jumps), tree)
    steered(planar("flow"), tree)


def test_what_goes_between_two_jumps_needs_two():
    for tree in BETWEEN:
        with pytest.raises(ConfigError, match=rf"{tree['kind']}.* a policy that jumps once has none.*policy\.steps=2"):
            steered(jumping(1), tree)
        steered(jumping(2), tree)


def test_what_begins_from_actions_does_not_begin_at_pure_noise():
    for tree in BEGUN:
        with pytest.raises(ConfigError, match=rf"{tree['kind']} with steps=2 begins .* pure noise.* fewer .* its 2"):
            steered(jumping(2), tree | {"steps": 2})
        steered(jumping(3), tree | {"steps": 2})


def test_what_steers_is_made_for_the_walk_as_it_is_to_be(tmp_path):
    save_part(make({"kind": "consistency", "net": {"kind": "mlp", "width": 8}}), tmp_path)
    said = {"device": "cpu", "policy": {"steps": 3}}
    eager, robot = parse(ActingCommand, said), {"checkpoint": str(tmp_path), "steering": BETWEEN[0]}
    for loaded in (
        eager.load(str(tmp_path), steering=(InpaintingConfig(delay=1),), device="cpu"),
        parse(Speaker, said | robot).load(),
    ):
        assert (loaded.inner().sampler.config.steps, loaded.steerings[0].config.delay) == (3, 1)
    with pytest.raises(ConfigError, match="a policy that jumps once has none"):
        parse(Speaker, robot).load()


@pytest.mark.parametrize("config", [ChunkingExecutor(), InpaintingExecutor()])
def test_executors_refuse_what_they_steer_by(config):
    with pytest.raises(ConfigError, match=f"{config.kind} "):
        config.build(jumping(1))


def test_a_goal_pulls_no_jump():
    goal = {"kind": "consistency", "net": {"kind": "mlp", "width": 8}, "guidance": {"keys": ["aux"]}}
    with pytest.raises(ConfigError, match=r"guidance.weight=2.0 extrapolates .* learn from a teacher"):
        parse(ConsistencyConfig, goal | {"guidance": {"weight": 2}})
    policy = make(goal)
    with pytest.raises(ConfigError, match=r"goal_weight=2.0, neither 0 nor 1, needs the mean"):
        steered(policy, {"kind": "goal_weight", "weight": 2})
    steered(policy, {"kind": "goal_weight", "weight": 0})
    with pytest.raises(ConfigError, match=r"guidance.weight=3.0 extrapolates"):
        policy.guide(3.0)
    policy.guide(0.0)
    assert policy.config.guidance.weight == 0


def test_the_loss_of_a_jump_is_no_likelihood():
    with pytest.raises(ConfigError, match=r"flow_matching reads the likelihood .* where a walk ends"):
        FlowMatchingConfig().build(jumping(1))


@pytest.mark.parametrize("tree", ALLOWED)
@pytest.mark.parametrize("jumps", [1, 3])
def test_what_has_a_meaning_steers_a_jump(tree, jumps):
    policy, rows = jumping(jumps, horizon=3), observe(3)
    plan = steered(policy, tree).plan(rows, 1, generators(3))
    assert plan.isfinite().all()
    neutral = tree in ({"kind": "warm_start", "steps": None},)
    assert torch.equal(plan, policy.plan(rows, 1, generators(3))) == neutral


@pytest.mark.parametrize("kind", BUILT)
def test_what_was_learned_steers_a_jump(kind):
    policy = jumping(1, horizon=3)
    assert SteeredPolicy(policy, [BUILT[kind](policy)]).plan(observe(3), 1, generators(3)).isfinite().all()


def test_a_start_of_less_noise_ends_in_less():
    found = plans(steered(jumping(1), {"kind": "start_noise", "scale": 0.5}), 20_000)
    size = (STD**2 * (1 + RHO), STD**2 * (1 - RHO))
    start = 0.5 * math.sqrt(HIGH**2 + 0.5**2)
    var = sum(0.5 * start**2 * (one + LOW**2) / (one + HIGH**2) for one in size)
    assert found.std(0).mean().item() == pytest.approx(math.sqrt(var), rel=0.02)


@pytest.mark.parametrize(
    "tree",
    [
        INNER | {"back": "time_travel"},
        INNER | {"back": "renoise"},
        {"kind": "warm_start", "steps": 2, "renoise": True},
    ],
)
def test_a_way_gone_again_ends_where_the_data_are(tree):
    policy = jumping(4)
    old = plans(policy, 1000)
    found = plans(steered(policy, tree), 1000, old)
    assert (found - old).abs().mean() > 0.01
    wanted = STD**2 * torch.tensor([[1.0, RHO], [RHO, 1.0]])
    torch.testing.assert_close(torch.cov(found[..., 0].T), wanted, atol=0.012, rtol=0)


def test_the_more_jumps_the_more_a_plan_follows_what_is_known_of_it():
    known = torch.tensor([[0.4, -0.2], [9.0, 9.0]]).expand(500, 2, 2)
    followed = []
    for jumps in (2, 8, 40):
        found = plans(steered(jumping(jumps), BETWEEN[0]), 500, known)
        torch.testing.assert_close(found[:, 0], known[:, 0])
        followed.append((found[:, 1].mean(0) / known[0, 0]).mean().item())
    assert followed[0] < followed[1] < followed[2]
    assert followed[2] == pytest.approx(RHO, abs=0.15)
