"""Dynamics: outcomes that are learned, in units that do not matter, also from noised actions."""

import math
from dataclasses import replace

import pytest
import torch

from robopol.checkpoint import load_part, save_part
from robopol.data import Episodes
from robopol.errors import ConfigError, ShapeError
from tests.algos.bandit import Learner, bandit, build


def walks(count: int = 64, length: int = 6, unit: float = 1.0) -> Episodes:
    """Points that move by half of each action; beside them a number that never matters."""
    rng = torch.Generator().manual_seed(0)
    action = 2 * torch.rand(count, length, 1, generator=rng) - 1
    place = torch.cat([torch.zeros(count, 1, 1), 0.5 * action.cumsum(1)], 1) + torch.rand(count, 1, 1, generator=rng)
    aside = torch.rand(count, length + 1, 2, generator=rng)
    episodes = bandit(count, length)
    return replace(
        episodes,
        obs={"place": unit * place[:, :-1].reshape(-1, 1), "aside": aside[:, :-1].reshape(-1, 2)},
        final_obs={"place": unit * place[:, -1].contiguous(), "aside": aside[:, -1].contiguous()},
        action=action.reshape(-1, 1),
    )


def learner(episodes: Episodes | None = None, updates: int = 500, steps: int = 2, **changes) -> Learner:
    episodes = walks() if episodes is None else episodes
    predicts = changes.pop("predicts", ["place"])
    model = build("model", "dynamics", episodes, hidden=[64, 64], n_action_steps=steps, predicts=predicts)
    return Learner({"kind": "dynamics", "lr": 3e-3, "warmup": 20} | changes, episodes, updates, model=model)


def inputs(rows: int = 7, *proposals: int) -> tuple[dict, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    obs = {"place": torch.rand(rows, 1, 1, generator=rng), "aside": torch.rand(rows, 1, 2, generator=rng)}
    return obs, 2 * torch.rand(rows, *proposals, 2, 1, generator=rng) - 1


def test_where_actions_lead_is_learned():
    model = learner(noised=0.0).learn().parts()["model"]
    obs, actions = inputs(200)
    after = obs | {"place": obs["place"] + 0.5 * actions.sum(1, keepdim=True)}
    error = (model.predict(obs, actions) - model.embed(after)).abs().mean()
    still = (model.embed(obs) - model.embed(after)).abs().mean()
    assert error < 0.1 * still


def test_outcomes_do_not_depend_on_units():
    metres, millimetres = (
        build("model", "dynamics", walks(unit=unit), n_action_steps=2, predicts=["place"]) for unit in (1.0, 1000.0)
    )
    millimetres.net.load_state_dict(metres.net.state_dict())
    obs, actions = inputs()
    scaled = obs | {"place": 1000 * obs["place"]}
    torch.testing.assert_close(metres.embed(obs), millimetres.embed(scaled))
    torch.testing.assert_close(metres.predict(obs, actions), millimetres.predict(scaled, actions))


def test_proposals_are_judged_as_each_alone_and_gradients_are_right():
    model, (obs, actions) = build("model", "dynamics", walks(), n_action_steps=2).double(), inputs(3, 4)
    obs, actions = {key: value.double() for key, value in obs.items()}, actions.double()
    together = model.predict(obs, actions)
    assert together.shape == (3, 4, 3)
    assert model.embed(obs).shape == (3, 3)
    for index in range(4):
        torch.testing.assert_close(together[:, index], model.predict(obs, actions[:, index]))
    assert torch.autograd.gradcheck(lambda a: model.predict(obs, a), actions.requires_grad_())
    with pytest.raises(ShapeError, match=r"3 observations go with \(3, 2, 1\)"):
        model.predict(obs, torch.zeros(3, 1, 1))


def test_the_loss_by_hand():
    made = learner(noised=0.0)
    algo, batch = made.algo, made.batch(0)
    batch["next_mask"][:8] = False
    losses = algo.losses(batch, 0, torch.Generator())
    difference = algo.model.predict(batch["obs"], algo.model.actions(batch)) - algo.model.embed(batch["next_obs"])
    used = batch["mask"].all(-1)
    used[:8] = False
    assert 0 < used[8:].sum() < 56
    torch.testing.assert_close(losses, torch.where(used, (difference**2).mean(-1), 0.0))


def test_noised_actions_are_states_of_the_path():
    made, count = learner(), 20_000
    algo, rng = made.algo, torch.Generator().manual_seed(0)
    actions = torch.full((count, 2, 1), 0.4)
    normalizer = algo.model.action_normalizer
    x = normalizer.normalize(algo.noise(actions, rng)).flatten()
    k = torch.arange(100, dtype=torch.float64)
    share = 0.05 * 0.95**k
    share[-1] = 0.95**99  # what would be beyond
    assert share.sum().item() == pytest.approx(1)
    level, clean = algo.path.level(k), normalizer.normalize(torch.tensor([0.4])).item()
    mean = clean * (share * level.alpha).sum().item()
    square = (share * (level.alpha**2 * clean**2 + level.sigma**2)).sum().item()
    assert x.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(square / count))
    assert (x**2).mean().item() == pytest.approx(square, rel=0.05)


def test_more_and_more_actions_are_noised():
    made = learner(updates=100, noised=0.5)
    algo, batch = made.algo, made.batch(0, 512)
    clean = algo.losses(batch, 0, torch.Generator().manual_seed(0))
    shares = []
    for step in (0, 20, 50, 90):
        loss = algo.losses(batch, step, torch.Generator().manual_seed(0))
        shares.append((loss != clean)[clean > 0].float().mean().item())
    assert shares == pytest.approx([0.0, 0.2, 0.5, 0.5], abs=0.07)


def test_a_loaded_model_predicts_the_same_and_the_state_is_all_there_is(tmp_path):
    whole, half = learner(), learner()
    whole.update(0)
    save_part(whole.algo.parts()["model"], tmp_path)
    loaded, (obs, actions) = load_part(tmp_path, "model"), inputs()
    assert torch.equal(loaded.predict(obs, actions), whole.algo.parts()["model"].predict(obs, actions))
    half.algo.load_state({name: value.clone() for name, value in whole.algo.state().items()})
    for made in (whole, half):
        made.update(1)
    for name, value in whole.algo.state().items():
        assert torch.equal(value, half.algo.state()[name]), name


def test_what_cannot_be_predicted_is_refused():
    with pytest.raises(ConfigError, match="did you mean place"):
        learner(predicts=["plac"])
    with pytest.raises(ConfigError, match="trains no value model: set model=dynamics"):
        Learner({"kind": "dynamics"}, walks(), 1, model=build("model", "value", walks()))
