"""A policy that acts by other means plans what it planned before, from the same noise; what it cannot do is refused."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from robopol.config import parse
from robopol.errors import ConfigError, RobopolError
from robopol.networks.compiled import compiled
from robopol.networks.fine_tuned import FineTunedDenoiser
from robopol.policies import walking
from robopol.policies.decision_diffuser import DecisionDiffuser
from robopol.policies.generative import GenerativePolicy
from robopol.policies.given import Watched
from robopol.policies.resampling import Acting, Resampling
from robopol.policies.samplers import captured
from robopol.policies.samplers.captured import count_draws
from robopol.policies.samplers.diffusers import DiffusersConfig
from robopol.real_robot.policy_process import latency_of
from robopol.serving import Served
from robopol.steering.best_of import BestOfConfig
from robopol.steering.objectives.motion import Motion
from robopol.steering.objectives.smoothness import SmoothnessConfig
from robopol.steering.start_noise import StartNoiseConfig
from tests.policies.test_policies import POLICIES, make, obs

UNET = {"kind": "unet", "widths": [8, 8], "groups": 4, "step_dim": 4, "kernel": 3}
WALKS = {
    "ddim": ("diffusion", {"kind": "ddim", "steps": 4}),
    "ddpm": ("diffusion", {"kind": "ddpm", "steps": 4}),
    "euler": ("flow", {"kind": "euler", "steps": 3}),
    "heun": ("edm", {"kind": "heun", "steps": 3}),
    "edm": ("edm", {"kind": "edm", "steps": 3}),
    "churn": ("edm", {"kind": "edm", "steps": 3, "churn": 2.0}),
    "sde": ("edm", {"kind": "dpm_solver", "steps": 3, "spacing": "karras", "sde": True}),
    "langevin": ("edm", {"kind": "langevin", "steps": 2, "corrections": 2}),
    "jumps": ("edm", {"kind": "consistency", "steps": 3}),
}
CUDA = pytest.param("cuda_graph", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA"))


def build(walk: str, net: dict | None = None) -> GenerativePolicy:
    kind, sampler = WALKS[walk]
    return make({"kind": kind, "net": net or {"kind": "mlp", "width": 16}, "sampler": sampler})


def generators(rows: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + row) for row in range(rows)]


@pytest.fixture
def traced(monkeypatch):
    """Stands in for torch.compile's compiler one that only traces, in a moment."""
    torch._dynamo.reset()
    monkeypatch.setattr(walking, "compiled", partial(compiled, compiler="eager"))
    yield
    torch._dynamo.reset()


@pytest.fixture
def recorded(monkeypatch):
    """Stands in for a CUDA graph a recording that computes the same on the same memory; counts them."""
    recordings = []

    def capture(walk, device):
        result = walk()
        recordings.append(result)
        return result, lambda: result.copy_(walk())

    monkeypatch.setattr(captured, "capture", capture)
    monkeypatch.setattr(GenerativePolicy, "device", torch.device("cuda"))
    return recordings


def assert_acts_alike(backend: str, policies, error: float, device: str = "cpu") -> None:
    """Compare plans, and the states that generators are left in, for several numbers of rows and after resampling."""
    eager, acting = (policies().to(device) for _ in range(2))
    acting.for_acting(backend)
    for rows, n, steps in ((3, 2, None), (1, 1, None), (3, 2, None), (5, 1, None), (3, 2, 2)):
        if steps is not None:
            for policy in (eager, acting):
                Resampling(steps=steps).apply(policy)
        seen, drawn, again = ({k: v.to(device) for k, v in obs(rows).items()}, *(generators(rows) for _ in range(2)))
        expected, plan = eager.plan(seen, n, drawn), acting.plan(seen, n, again)
        torch.testing.assert_close(plan, expected, atol=error, rtol=error)
        assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(drawn, again, strict=True))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("walk", ["ddim", "ddpm", "euler", "heun"])
def test_traced_networks_act_alike(walk):
    assert_acts_alike("compile", lambda: build(walk), 1e-6)


@pytest.mark.slow  # a C++ compiler takes its time
@pytest.mark.parametrize("net", [None, UNET])
@pytest.mark.parametrize("walk", ["ddim", "ddpm", "euler", "heun"])
def test_compiled_networks_act_alike(walk, net):
    torch._dynamo.reset()
    assert_acts_alike("compile", lambda: build(walk, net), 1e-5)


def planner() -> DecisionDiffuser:
    """Make a policy that walks states instead of actions."""
    tree = {"kind": "decision_diffuser", "net": {"kind": "film_mlp", "width": 32, "features": 16}}
    return make(tree | {"sampler": {"kind": "ddpm", "steps": 4}, "n_obs_steps": 2, "horizon": 8})


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("backend", ["packed", "compile"])
def test_a_planner_of_states_acts_alike(backend):
    assert_acts_alike(backend, planner, 1e-5)


def test_a_planner_of_states_is_not_captured():
    with pytest.raises(ConfigError, match="pinned to what it sees, and cannot be captured"):
        Acting(backend="cuda_graph").apply(planner())


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("walk", WALKS)
def test_recorded_walks_act_alike(walk):
    assert_acts_alike("cuda_graph", lambda: build(walk), 1e-6)


@pytest.mark.parametrize("backend", [CUDA])
@pytest.mark.parametrize("net", [None, UNET, {"kind": "transformer", "width": 16, "layers": 2, "heads": 2}])
@pytest.mark.parametrize("walk", WALKS)
def test_captured_walks_act_alike(walk, net, backend):
    assert_acts_alike(backend, lambda: build(walk, net), 1e-5, "cuda")


@pytest.mark.parametrize("backend", [CUDA])
def test_a_fine_tuned_network_is_captured(backend):
    assert_acts_alike(backend, fine_tuned, 1e-5, "cuda")


def fine_tuned() -> GenerativePolicy:
    """Make a policy of two networks, which take turns along the walk."""
    policy, other = build("ddim"), build("ddim")
    for parameter in other.parameters():
        parameter.data += 0.1
    policy.field.net = FineTunedDenoiser(policy.field.net, other.field.net, (0.0, 50.0))
    return policy


@pytest.mark.parametrize("walk", WALKS)
def test_draws_are_counted_without_asking_the_network(walk):
    policy, watched = build(walk), Watched()
    policy.plan(obs(2), 1, watched)
    policy.field.net = None
    counted = count_draws(policy.sampler, policy.field, torch.zeros(7, 8, 3))
    assert counted == len(watched.shapes)
    assert (counted > 1) == (walk in ("ddpm", "churn", "sde", "langevin", "jumps"))


def test_a_walk_is_recorded_once_for_a_number_of_rows_and_its_chunks_stay(recorded):
    policy = build("ddpm")
    policy.for_acting("cuda_graph")
    first = policy.plan(obs(3), 1, generators(3))
    kept = first.clone()
    policy.plan(obs(3, seed=1), 1, generators(3, 9))
    assert torch.equal(first, kept)
    assert len(recorded) == 1
    for rows in range(1, captured.KEPT + 2):
        policy.plan(obs(rows), 1, generators(rows))
    assert len(policy.sampler._recordings) == captured.KEPT
    assert torch.equal(policy.plan(obs(3), 1, generators(3)), kept)


@pytest.mark.usefixtures("recorded")
def test_noise_from_outside_is_walked_by_a_recording():
    noise = torch.randn(2, 3, 8, 3, generator=torch.Generator().manual_seed(0))
    eager, policy = build("euler"), build("euler")
    policy.for_acting("cuda_graph")
    torch.testing.assert_close(policy.plan_from(obs(2), noise), eager.plan_from(obs(2), noise))
    stochastic = build("ddpm")
    stochastic.for_acting("cuda_graph")
    with pytest.raises(ConfigError, match="draws more noise"):
        stochastic.plan_from(obs(2), noise)


@pytest.mark.usefixtures("recorded")
def test_a_goal_may_pull_otherwise_after_a_recording():
    tree = {"kind": "beso", "net": {"kind": "mlp", "width": 16}, "guidance": {"keys": ["aux"], "drop": 0.1}}
    eager, policy = (make(tree) for _ in range(2))
    policy.for_acting("cuda_graph")
    plans = []
    for weight in (1.0, 2.0, 0.0, 2.0):
        eager.guide(weight)
        policy.guide(weight)
        plans.append(policy.plan(obs(2), 1, generators(2)))
        torch.testing.assert_close(plans[-1], eager.plan(obs(2), 1, generators(2)))
    assert not torch.equal(plans[0], plans[1])


# -------------------------------------------------------------------------------------------------- what is refused


def test_without_cuda_a_graph_is_refused_in_words():
    with pytest.raises(ConfigError, match="a CUDA graph needs a policy on a CUDA device, and this one is on cpu"):
        parse(Acting, {"backend": "cuda_graph"}).apply(build("ddim"))


@pytest.mark.usefixtures("recorded")
def test_steerings_and_recordings_exclude_each_other():
    policy = build("ddim")
    steered = policy.steered(StartNoiseConfig(scale=0.5))
    with pytest.raises(ConfigError, match="cannot be steered: use"):
        Acting(backend="cuda_graph").apply(steered)
    policy.for_acting("cuda_graph")
    with pytest.raises(ConfigError, match="cannot be steered"):
        policy.steered(StartNoiseConfig(scale=0.5))
    with pytest.raises(ConfigError, match="nothing can look at its steps"):
        steered.base.sampler.steps(policy.field, torch.zeros(1, 2, 7), torch.zeros)
    with pytest.raises(ConfigError, match="nothing can look at its steps"):
        policy.sampler.sample(policy.field, torch.zeros(1, 8, 3), torch.zeros(1, 2, 7), None, hook=print)


@pytest.mark.usefixtures("recorded")
def test_recordings_cannot_be_copied_moved_trained_or_differentiated():
    policy = build("ddim")
    policy.for_acting("cuda_graph")
    noise, cond = torch.zeros(1, 8, 3), torch.zeros(1, 2, 7)
    for act in (
        policy.train,
        lambda: policy.to(torch.float64),
        lambda: policy.sampler.__reduce_ex__(4),
        lambda: policy.sampler.sample(policy.field, noise.requires_grad_(), cond, None),
    ):
        with pytest.raises(RobopolError, match=r"captured walks (only act|cannot be)"):
            act()
    assert policy.state_dict().keys() == build("ddim").state_dict().keys()


def test_a_backend_is_chosen_once_and_of_what_there_is():
    policy = build("ddim")
    policy.for_acting("packed")
    with pytest.raises(ConfigError, match="packed already"):
        policy.for_acting("compile")
    with pytest.raises(ConfigError, match="backend"):
        parse(Acting, {"backend": "fp32"})
    for name in ("ebt", "gmm"):
        with pytest.raises(ConfigError, match=f"a {name} policy does not walk from noise"):
            Acting(backend="compile").apply(make(POLICIES[name]))


def test_schedulers_of_diffusers_are_not_recorded():
    unbuilt = SimpleNamespace(config=DiffusersConfig())  # building it would import diffusers
    with pytest.raises(ConfigError, match="a scheduler of diffusers reads values on its way"):
        captured.Captured(unbuilt, torch.device("cuda"))


@pytest.mark.usefixtures("recorded")
def test_a_walk_that_is_refused_leaves_a_policy_as_it_was():
    eager, policy = build("ddim"), build("ddim")
    policy.for_acting("cuda_graph")
    with pytest.raises(ConfigError, match="1 to 100 steps"):
        Resampling(steps=200).apply(policy)
    assert policy.config == eager.config
    torch.testing.assert_close(policy.plan(obs(2), 1, generators(2)), eager.plan(obs(2), 1, generators(2)))


# ------------------------------------------------------------------------------------------------- where they are used


def test_a_steered_policy_acts_by_traced_networks(traced):
    config = BestOfConfig(objective=SmoothnessConfig(motion=Motion(actions=(0, 1), means="absolute")), n=3)
    eager, policy = (build("ddim").steered(config) for _ in range(2))
    Acting(backend="compile").apply(policy)
    torch.testing.assert_close(policy.plan(obs(2), 1, generators(2)), eager.plan(obs(2), 1, generators(2)))


@pytest.mark.parametrize("backend", ["packed", "compile"])
def test_a_policy_that_only_acts_has_a_name_and_a_latency(traced, backend):
    one, other = build("ddim", UNET), build("ddim", UNET)
    other.field.net.last.conv.weight.data += 1  # a weight that is packed
    for policy in (one, other):
        policy.for_acting(backend)
    assert one.fingerprint() != other.fingerprint()
    again = build("ddim", UNET)
    again.for_acting(backend)
    assert one.fingerprint() == again.fingerprint()
    if backend == "packed":
        assert latency_of(one) > 0


def test_a_server_records_before_anyone_asks(recorded, monkeypatch):
    policy = build("ddim")
    policy.for_acting("cuda_graph")
    monkeypatch.setattr(GenerativePolicy, "device", torch.device("cpu"))
    served = Served(policy, 4, 8)
    assert served.metadata.noise_shape == (8, 3)
    assert {len(chunks) for chunks in recorded} == {1, 4, 6}
