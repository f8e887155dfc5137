"""Cal-QL: its losses by hand, and the limits in which it is something else."""

import pytest
import torch

from robopol.errors import ConfigError
from tests.algos.bandit import Learner, bandit, build

POLICY = {"kind": "gaussian", "hidden": [16]}


def learner(episodes=None, updates: int = 300, policy: dict = POLICY, steps: int = 1, **changes) -> Learner:
    episodes = bandit(32, 4) if episodes is None else episodes
    parts = {"model": build("model", "value", episodes, hidden=[32, 32], discount=0.9, n_action_steps=steps)}
    parts["policy"] = build("policy", episodes=episodes, **policy)
    return Learner({"kind": "cal_ql", "candidates": 3} | changes, episodes, updates, **parts)


def first_losses(made: Learner, batch: dict) -> dict:
    """The losses of a first update whose uniform candidates and proposals are those of a fixed generator."""
    return made.algo.learn(batch, batch, torch.Generator().manual_seed(5))


def candidates(made: Learner, batch: dict):
    algo, rng = made.algo, torch.Generator().manual_seed(5)
    uniform = -2 + 4 * torch.rand(64, 3, 1, 1, generator=rng)
    return uniform, algo.propose(batch["obs"], rng), algo.propose(batch["next_obs"], rng)


def conservatism(q: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    return q.exp().sum(-1).log() - data


def test_the_losses_are_those_of_the_text():
    made = learner(alpha=2.0)
    batch, model = made.batch(0), made.algo.model
    uniform, here, there = candidates(made, batch)
    assert here.shape == (64, 3, 1, 1)
    obs, after = batch["obs"], batch["next_obs"]
    with torch.no_grad():
        data, floor = model.q(obs, model.actions(batch)), batch["return_bound"][:, None]
        goal = batch["reward"] + batch["discount"] * model.q(after, there).amin(0).amax(-1)
        proposed = torch.cat([model.q(obs, here).clamp(min=floor), model.q(obs, there).clamp(min=floor)], -1)
        gap = conservatism(torch.cat([model.q(obs, uniform), proposed], -1), data)
        q_loss = ((data - goal) ** 2 + 2.0 * gap).mean()
        v_loss = ((model.v(obs) - model.q(obs, here).amin(0).mean(-1)) ** 2).mean()
    losses = first_losses(made, batch)
    torch.testing.assert_close(losses["train/q_loss"], q_loss)
    torch.testing.assert_close(losses["train/v_loss"], v_loss)


def test_candidates_are_samples_of_what_is_deployed_with_its_mean():
    made = learner(noise=0.0)
    batch, policy = made.batch(0), made.algo.cloning.deployed()
    assert policy.config.deterministic
    proposed = made.algo.propose(batch["obs"], torch.Generator().manual_seed(5))
    assert proposed.std(1).min() > 1e-3


def test_a_floor_far_below_is_cql_and_one_far_above_silences_the_proposals():
    def gradients(floor: float, **changes) -> list[torch.Tensor]:
        made = learner(**changes)
        batch = made.batch(0)
        batch["return_bound"] = torch.full((64,), floor)
        first_losses(made, batch)
        return [p.detach().clone() for p in made.algo.model.parameters()]

    low, cql = gradients(-torch.inf), gradients(0.0, calibrated=False)
    assert all(torch.equal(one, other) for one, other in zip(low, cql, strict=True))
    made = learner()
    batch = made.batch(0)
    with torch.no_grad():
        proposed = made.algo.propose(batch["obs"], torch.Generator())
    proposed.requires_grad_()
    floored = torch.maximum(made.algo.model.q(batch["obs"], proposed), torch.tensor(1e9))
    floored.sum().backward()
    assert proposed.grad.abs().max() == 0


def test_without_conservatism_it_learns_from_transitions_alone():
    plain, other = learner(alpha=0.0, calibrated=False), learner(alpha=0.0)
    batch = plain.batch(0)
    _, _, there = candidates(plain, batch)
    model = plain.algo.model
    with torch.no_grad():
        goal = batch["reward"] + batch["discount"] * model.q(batch["next_obs"], there).amin(0).amax(-1)
        td = ((model.q(batch["obs"], model.actions(batch)) - goal) ** 2).mean()
    torch.testing.assert_close(first_losses(plain, batch)["train/q_loss"], td)
    first_losses(other, batch)
    for one, two in zip(model.parameters(), other.algo.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.slow
def test_actions_that_no_data_speak_for_are_worth_less():
    model = learner(bandit(), lr=3e-3, alpha=1.0, candidates=8).learn().parts()["model"]
    obs = {"state": torch.zeros(1, 1, 1)}
    q = model.q(obs, torch.tensor([-1.0, 1.0, -2.0, 0.0, 2.0]).view(1, 5, 1, 1)).amin(0)[0].tolist()
    assert q[1] > 0.5 > q[0]
    assert max(q[2:]) < q[1]


def test_the_critic_can_judge_fewer_actions_than_a_policy_of_another_history_proposes():
    window = {"n_obs_steps": 2, "horizon": 5, "n_action_steps": 2}
    made = learner(policy=POLICY | window, steps=3)
    batch = made.batch(0)
    assert batch["obs"]["state"].shape == (64, 2, 1)
    assert made.algo.propose(batch["obs"], torch.Generator()).shape == (64, 3, 3, 1)
    assert made.update(0)["train/loss"].isfinite()
    with pytest.raises(ConfigError, match=r"set model\.n_action_steps=4 or less"):
        learner(policy=POLICY | window, steps=5)


def test_a_policy_without_a_density_serves_as_well():
    net = {"kind": "mlp", "width": 16, "blocks": 1}
    policy = {"kind": "flow", "net": net, "sampler": {"kind": "euler", "steps": 2}}
    made, again = learner(policy=policy), learner(policy=policy)
    made.update(0)
    again.algo.load_state({name: value.clone() for name, value in made.algo.state().items()})
    made.update(1)
    again.update(1)
    for name, value in made.algo.state().items():
        assert torch.equal(value, again.algo.state()[name]), name
