"""Distillation: what the student is compared with, what it takes over, and whom it refuses."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from robopol.algos.distill import Distill, DistillConfig, TrajectoryConfig
from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import save_episodes
from robopol.envs import make_env
from robopol.errors import CheckpointError, ConfigError
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect
from robopol.networks.denoiser import Denoiser
from robopol.networks.precision import RuntimeConfig
from robopol.policies import Policy, PolicySpec
from robopol.policies.field import Field
from robopol.policies.generative import GenerativePolicy
from robopol.policies.resampling import Resampling
from robopol.policies.samplers.first_order import EulerConfig
from robopol.registry import lookup
from robopol.training.config import TrainConfig
from robopol.training.train import train
from tests.policies.oracle import PATHS, Ring, oracle

SIZE = {"n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
NET = {"kind": "mlp", "width": 96, "blocks": 2}
RUNTIME = RuntimeConfig(threads=1, matmul="highest").build()


VE = {"kind": "variance_exploding", "sigma_min": 0.02, "sigma_max": 80.0}
EULER = {"kind": "same_noise", "sampler": {"kind": "euler", "steps": 10}}


def build(kind: str, size: dict | None = None, goal: bool = False, **changes) -> Policy:
    chosen = SIZE | (size or {})
    shapes = {"state": [1], "goal": [2]} if goal else {"state": [1]}
    spec = {
        "obs_shapes": shapes,
        "action_names": ["x", "y"],
        "action_low": [-1, -1],
        "action_high": [1, 1],
        "action_space": "box",
        "control_hz": 10.0,
    }
    net = {} if kind == "gaussian" else {"net": NET}
    torch.manual_seed(0)
    config = parse(lookup("policy", kind), {"kind": kind, **chosen, **net, **changes})
    made = config.build(parse(PolicySpec, spec | chosen))
    made.action_normalizer.fit(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    made.observation.fit({key: torch.tensor([[-1.0], [1.0]]).repeat(1, size) for key, (size,) in shapes.items()})
    return made


def ring_teacher(path: str = "edm") -> GenerativePolicy:
    """A policy that knows the ring exactly, on any path."""
    made = build("edm", path=VE)
    assert isinstance(made, GenerativePolicy)
    made.field = oracle(PATHS[path], "velocity")
    made.field.net.unused = torch.nn.Parameter(torch.zeros(1))  # says where the policy lies
    made.resample(EulerConfig(clip="never"))
    return made


def student(**changes) -> Policy:
    return build("consistency", path=VE | {"sigma_min": 0.05, "sigma_max": 20.0}, **changes)


def one_step(policy: Policy) -> Tensor:
    rng = torch.Generator().manual_seed(7)
    return policy.act({"state": torch.zeros(1, 1, 1)}, n=2000, generator=rng)[0, :, 0]


def batch(count: int, seed: int) -> dict:
    ring, rng = Ring(), torch.Generator().manual_seed(seed)
    mode = torch.randint(8, (count,), generator=rng)
    action = ring.means[mode].float() + ring.std * torch.randn(count, 2, generator=rng)
    obs = {"state": torch.zeros(count, 1, 1)}
    return {"obs": obs, "action": action[:, None], "mask": torch.ones(count, 1), "weight": torch.ones(count)}


def learn(algo: Distill, updates: int) -> Distill:
    for step in range(updates):
        algo.update(batch(128, step), step, torch.Generator().manual_seed(step))
    return algo


def distill(method: str | dict, teacher: Policy, learner: Policy, updates: int = 400) -> Distill:
    config = parse(DistillConfig, {"teacher": "RUN", "method": method, "lr": 3e-3, "warmup": 20})
    return Distill(config, learner, updates, RUNTIME, teacher)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["flow", "vp", "edm"])
def test_a_teachers_step_stays_on_its_trajectory(path):
    method = TrajectoryConfig(levels=200).build(student(), ring_teacher(path))
    cond = torch.zeros(64, 1, 1)
    x = 20 * torch.randn(64, 1, 2, generator=torch.Generator().manual_seed(0))
    exact, ring, one = x[:, 0].double(), Ring(), torch.ones(())
    for t, s in pairwise(method.ladder.flip(0)):
        x = method.step(x, t.expand(64), s.expand(64), cond)
    for now, then in pairwise(20 * (0.05 / 20) ** torch.linspace(0, 1, 4000, dtype=torch.float64)):
        exact = exact + (then - now) * (exact - ring.x0(exact, one, now)) / now
    assert (x[:, 0].double() - exact).norm(dim=-1).quantile(0.9) < 0.01
    torch.testing.assert_close(method.step(x, s.expand(64), s.expand(64), cond), x)


def test_the_teachers_estimate_is_clipped_where_its_own_sampler_clips():
    class Beyond(Denoiser):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return torch.full_like(x, 3.0)

    teacher = build("edm", path=VE, sampler={"kind": "ddim", "clip": "never"})
    teacher.field = Field(Beyond(), PATHS["edm"], "x0")
    method = TrajectoryConfig().build(student(), teacher)
    x, t, s, cond = torch.full((1, 1, 2), 5.0), torch.tensor([0.5]), torch.tensor([0.25]), torch.zeros(1, 1, 1)
    assert method.step(x, t, s, cond).flatten().tolist() == pytest.approx([4.0, 4.0])
    teacher.resample(EulerConfig(clip="every"))
    assert method.step(x, t, s, cond).flatten().tolist() == pytest.approx([3.0, 3.0])


@pytest.mark.slow
def test_a_student_of_the_trajectory_covers_the_ring_in_one_step():
    algo = learn(distill({"kind": "trajectory", "levels": 10}, ring_teacher(), student()), 400)
    found, ring = one_step(algo.deployed()), Ring()
    assert ring.hits(found)[1] < 0.3
    assert ring.imbalance(found) < 0.1
    assert found.std(0).min() > 0.5 * ring.axis_std()


@pytest.mark.slow
def test_a_student_of_the_same_noise_goes_where_its_teacher_goes_and_one_of_another_nowhere():
    same, other = (distill(EULER, ring_teacher("flow"), student()) for _ in range(2))
    walk, rng = other.method.walk, torch.Generator().manual_seed(3)
    other.method.walk = lambda noise, cond: walk(torch.randn(noise.shape, generator=rng), cond)
    noise, cond = torch.randn(2000, 1, 2, generator=torch.Generator().manual_seed(7)), torch.zeros(2000, 1, 1)
    theirs = walk(noise, cond)
    mine, collapsed = (learn(algo, 300).deployed().jump(noise, cond) for algo in (same, other))
    assert (mine - theirs).norm(dim=-1).median() < 0.15
    assert mine.std() > 0.5 * theirs.std()
    assert collapsed.std() < 0.3 * theirs.std()


def test_the_encoder_and_the_normalisers_are_the_teachers_and_stay_so():
    teacher = build("edm", path=VE)
    teacher.action_normalizer.fit(torch.tensor([[-3.0, -1.0], [2.0, 5.0]]))
    teacher.observation.fit({"state": torch.tensor([[-7.0], [1.0]])})
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    algo = learn(distill("trajectory", teacher, student()), 2)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])
    for learner in (algo.policy, algo.deployed()):
        for part in ("observation", "action_normalizer"):
            theirs = getattr(teacher, part).state_dict()
            for name, value in getattr(learner, part).state_dict().items():
                assert torch.equal(value, theirs[name])
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_resumed_distillation_ends_in_the_same_bits():
    whole, half = (distill("trajectory", build("edm", path=VE), student()) for _ in range(2))
    with torch.no_grad():
        for weight in half.teacher.parameters():
            weight.add_(0.1)  # the run that was named has gone on since
    half.load_state({name: value.clone() for name, value in learn(whole, 3).state().items()})
    for algo in (whole, half):
        algo.update(batch(32, 9), 3, torch.Generator().manual_seed(9))
    for name, value in whole.state().items():
        assert torch.equal(value, half.state()[name]), name
    assert any(name.startswith("teacher") for name in half.state())


@pytest.mark.parametrize("weight", [1.5, 0.0])
def test_a_guided_teacher_teaches_what_it_does_with_its_own_weight(weight):
    told = {"goal": True, "path": VE, "sampler": {"kind": "ddim", "clip": "never", "steps": 4}}
    teacher, plain = (build("edm", guidance={"weight": pull}, **told) for pull in (weight, 1.0))
    learner, rng = student(goal=True, guidance={}), torch.Generator().manual_seed(0)
    obs = {"state": torch.zeros(6, 1, 1), "goal": torch.randn(6, 1, 2, generator=rng)}
    cond, noise = teacher.observation(obs, 1), torch.randn(6, 1, 2, generator=rng)
    t = torch.tensor([0.2, 0.4, 0.8, 1.0, 3.0, 9.0], dtype=torch.float64)
    level, x = learner.field.path.level(t), noise * t[:, None, None].float()
    near, far = (plain.field.at(x, level, c).eps for c in (cond, plain.observation.without(cond)))
    method = distill("trajectory", teacher, learner).method
    torch.testing.assert_close(method._eps(x, t, cond), far + weight * (near - far))
    assert not torch.allclose(near, far)
    same = distill({"kind": "same_noise", "sampler": {"kind": "euler", "steps": 3}}, teacher, learner).method
    walked = teacher.plan_from(obs, noise[:, None])[:, 0]  # normalised actions are as large as actions here
    torch.testing.assert_close(same.walk(noise, cond), walked)
    assert learner.config.guidance.weight == 1


def test_what_a_student_of_the_same_noise_learned_goes_with_it(tmp_path):
    algo = learn(distill(EULER, ring_teacher("flow"), student()), 1)
    save_part(algo.deployed(), tmp_path)
    saved = load_policy(tmp_path)
    with pytest.raises(ConfigError, match="steps=2 is more than the 1"):
        Resampling(steps=2).apply(saved)
    assert distill("trajectory", build("edm", path=VE), student()).policy.config.jumps is None


def test_a_run_names_its_teacher(tmp_path):
    demos, teacher, taught = (str(tmp_path / name) for name in ("reach.hdf5", "teacher", "student"))
    with make_env("robopol/Reach-v0", 2) as env:
        save_episodes(collect(ExpertActor(env), env, 2, 0, source="expert", only_success=True), demos)
    words = ["env=reach", "policy/net=mlp", "policy.net.width=16", "policy.horizon=8", "policy.n_action_steps=4"]
    words += [f"data.demos.uri={demos}", "data.demos.validation=0", "phases.cloning.updates=2", "batch_size=8"]
    words += ["eval.final_episodes=0", "runtime.threads=1", "runtime.matmul=highest"]

    def run(*more: str) -> None:
        train(parse(TrainConfig, load_config("train", [*words, *more])), [])

    learns = ["policy=consistency", "algo=distill", f"run={taught}"]
    with pytest.raises(ConfigError, match="a student needs a teacher: set algo"):
        run(*learns)
    with pytest.raises(CheckpointError, match="is not a folder"):
        run(*learns, f"algo.teacher={teacher}")
    run(f"run={teacher}")
    run(*learns, f"algo.teacher={teacher}")
    one, other = load_policy(teacher), load_policy(taught)
    assert torch.equal(one.action_normalizer.scale, other.action_normalizer.scale)
    obs = {key: torch.zeros(1, 2, *shape) for key, shape in other.spec.obs_shapes.items()}
    assert other.act(obs).isfinite().all()


def refusals():
    """Yield what, student, teacher, method, and what the error says."""
    teacher, two = build("edm", path=VE), {"kind": "consistency", "steps": 2}
    noisy = {"kind": "same_noise", "sampler": "ancestral"}
    yield "student", build("flow"), teacher, "trajectory", "a flow policy cannot be a student: set policy=consistency"
    yield "no field", student(), build("gaussian"), "trajectory", "RUN holds a gaussian policy"
    yield "no score", student(), student(), "trajectory", "RUN holds a consistency policy"
    yield "window", student(size={"horizon": 2}), teacher, "trajectory", "horizon is 2, there 1"
    scaled = student(obs_normalization="zscore")
    yield "scaling", scaled, teacher, "trajectory", "obs_normalization is zscore, there minmax"
    far, blind = build("edm", path=VE, goal=True, guidance={"weight": 1.5}), {"goal": True, "guidance": {"weight": 0.0}}
    yield "pull", student(**blind), far, "trajectory", "would weigh the student's goal once more"
    yield "drop", student(goal=True, guidance={"drop": 0.5}), far, "trajectory", "guidance is .*0.5.*, there .*0.1"
    yield "levels", student(), build("edm"), "trajectory", r"from 0.05 to 20, reach beyond .* 0.005 to 10: set"
    yield "steps", student(sampler=two), teacher, "same_noise", "set policy.sampler.steps=1"
    yield "noise", student(), teacher, noisy, "draws noise of its own"


@pytest.mark.parametrize("case", list(refusals()), ids=lambda case: case[0])
def test_pairs_that_do_not_fit_are_refused_in_words(case):
    _, learner, teacher, method, message = case
    with pytest.raises(ConfigError, match=message):
        distill(method, teacher, learner)
