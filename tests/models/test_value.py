"""Values: in environment units, for several proposals, differentiable, whole when saved."""

import pytest
import torch

from robopol.checkpoint import load_part, save_part
from robopol.config import parse
from robopol.errors import CheckpointError, ConfigError, ShapeError
from robopol.models.value import ValueConfig, ValueModel
from robopol.policies import PolicySpec


def build(scale: float = 1.0, **changes) -> ValueModel:
    """A value of 3 actions after 2 observations, in a world measured in units of ``scale``."""
    config = parse(ValueConfig, {"kind": "value", "n_obs_steps": 2, "n_action_steps": 3, "hidden": [32]} | changes)
    spec = {
        "obs_shapes": {"state": [4]},
        "action_names": ["x", "y"],
        "action_low": [-1, -1],
        "action_high": [1, 1],
        "action_space": "box",
        "control_hz": 10.0,
        "n_obs_steps": config.n_obs_steps,
        "horizon": config.horizon,
        "n_action_steps": config.n_action_steps,
    }
    torch.manual_seed(0)
    made = config.build(parse(PolicySpec, spec))
    made.action_normalizer.fit(scale * torch.tensor([[-1.0, -2.0], [3.0, 2.0]]))
    made.observation.fit({"state": scale * torch.tensor([[-1.0, 0, 0, -3], [1.0, 1, 2, 3]])})
    return made


def inputs(rows: int = 5, *proposals: int) -> tuple[dict, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    obs = {"state": torch.rand(rows, 2, 4, generator=rng), "other": torch.zeros(rows, 2, 1)}
    return obs, torch.randn(rows, *proposals, 3, 2, generator=rng)


def test_shapes_and_needs():
    model = build(ensemble=4, discount=0.9)
    obs, actions = inputs()
    assert model.q(obs, actions).shape == (4, 5)
    assert model.v(obs).shape == (5,)
    assert model.needs.transition == (3, 0.9, None, False)
    with pytest.raises(ConfigError, match="ensemble"):
        build(ensemble=1)


def test_several_proposals_are_judged_as_each_alone():
    model, (obs, actions) = build(), inputs(5, 6)
    together = model.q(obs, actions)
    assert together.shape == (2, 5, 6)
    for index in range(6):
        torch.testing.assert_close(together[:, :, index], model.q(obs, actions[:, index]))


def test_values_do_not_depend_on_the_unit_that_the_normalisers_were_fitted_in():
    metres, millimetres = build(), build(1000.0)
    millimetres.heads.load_state_dict(metres.heads.state_dict())
    obs, actions = inputs()
    scaled = {"state": 1000 * obs["state"]}
    torch.testing.assert_close(metres.q(obs, actions), millimetres.q(scaled, 1000 * actions))
    assert not torch.allclose(metres.q(obs, actions), millimetres.q(obs, actions))


def test_q_can_be_differentiated_in_actions_of_the_environment():
    model, (obs, actions) = build(activation="tanh").double(), inputs()
    obs, actions = {"state": obs["state"].double()}, actions.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: model.q(obs, a), actions)


def test_a_loaded_value_is_the_saved_one(tmp_path):
    model, (obs, actions) = build(layer_norm=True), inputs()
    save_part(model, tmp_path)
    loaded = load_part(tmp_path, "model")
    assert isinstance(loaded, ValueModel)
    assert torch.equal(loaded.q(obs, actions), model.q(obs, actions))
    assert torch.equal(loaded.v(obs), model.v(obs))
    with pytest.raises(CheckpointError, match="no policy"):
        load_part(tmp_path, "policy")


@pytest.mark.parametrize("shape", [(5, 2, 2), (5, 3, 3), (4, 3, 2), (5, 6, 1, 3, 2), (3, 2)])
def test_actions_of_another_shape_are_refused(shape):
    model, (obs, _) = build(), inputs()
    with pytest.raises(ShapeError, match=r"5 observations go with \(5, 3, 2\)"):
        model.q(obs, torch.zeros(shape))


def test_observations_that_are_missing_are_named():
    with pytest.raises(ShapeError, match="lacks 'state'"):
        build().v({"other": torch.zeros(5, 2, 1)})
