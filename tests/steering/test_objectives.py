"""Objectives that a user states: values by hand, gradients by differences, and what must not matter."""

import json
from itertools import pairwise

import pytest
import torch
from steering.paths import ABSOLUTE, DELTA, built, observe, planar

from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.registry import lookup
from robopol.steering import GuideConfig
from robopol.steering.objectives.sketch import resampled, to_line

LINE = [[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]
FORMULA = "eventually (distance(0.5, 0.2) <= 0.1) and always (x <= 0.8)"
OBJECTIVES = {
    "point": {"kind": "point", "point": [0.3, 0.4]},
    "point-last": {"kind": "point", "point": [0.3, 0.4], "when": "last"},
    "point-closest": {"kind": "point", "point": [0.3, 0.4], "when": "closest"},
    "sketch": {"kind": "sketch", "points": LINE},
    "sketch-free": {"kind": "sketch", "points": LINE, "pace": "free"},
    "smoothness": {"kind": "smoothness"},
    "workspace": {"kind": "workspace", "low": [-0.2, -0.3], "high": [0.4, None]},
    "keep_away": {
        "kind": "keep_away",
        "discs": [{"centre": [0.1, 0.1], "radius": 0.5}],
        "boxes": [{"low": [-0.5, -0.5], "high": [0.0, 0.3]}],
        "margin": 0.1,
    },
    "stl": {"kind": "stl", "formula": FORMULA},
    "stl-smooth": {"kind": "stl", "formula": FORMULA, "temperature": 0.1},
}


def windows(*shape, seed=0, dtype=torch.float64):
    return 0.5 * torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def score(tree, path, motion=ABSOLUTE, **options):
    """Score one path (H, 2)."""
    policy = planar(horizon=len(path), **options)
    return built(tree | {"motion": motion}, policy).score(observe(1), torch.tensor(path)[None, None])[0, 0].item()


def test_every_objective_of_a_path_is_here():
    assert {tree["kind"] for tree in OBJECTIVES.values()} == {
        "point", "sketch", "smoothness", "workspace", "keep_away", "stl",
    }  # fmt: skip


@pytest.mark.parametrize("motion", [ABSOLUTE, DELTA, DELTA | {"means": "velocity"}], ids=lambda tree: tree["means"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_finite_differences(name, motion):
    policy = planar(n_obs_steps=2)
    objective = built(OBJECTIVES[name] | {"motion": motion}, policy)
    at = windows(2, 2, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: objective.score(observe(2, 2), w), at, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_plan_is_scored_alone(name):
    objective = built(OBJECTIVES[name] | {"motion": DELTA})
    batch, order = windows(3, 4, 8, dtype=torch.float32), torch.tensor([2, 0, 3, 1])
    obs = {"state": torch.randn(3, 1, 3, generator=torch.Generator().manual_seed(1))}
    scores = objective.score(obs, batch)
    assert scores.shape == (3, 4)
    assert scores.dtype == torch.float32
    assert torch.equal(objective.score(obs, batch[:, order]), scores[:, order])
    assert torch.equal(objective.score({"state": obs["state"][[2, 1]]}, batch[[2, 1]]), scores[[2, 1]])
    assert torch.equal(objective.score(obs, batch.repeat(1, 2, 1, 1)), scores.repeat(1, 2))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_saved_with_the_policy_that_it_steers(name, tmp_path):
    policy = planar()
    policy.field.net = planar("diffusion").field.net.__class__(policy, 0.3)
    config = parse(lookup("objective", OBJECTIVES[name]["kind"]), OBJECTIVES[name] | {"motion": DELTA})
    assert parse(type(config), json.loads(json.dumps(config.tree()))) == config
    assert config.build(policy).config == config
    assert config.build(policy).obs_shapes == {"state": (3,)}
    plain = parse(lookup("policy", "diffusion"), policy.config.tree()).build(policy.spec)
    steered = plain.steered(GuideConfig(objective=config))
    save_part(steered, tmp_path)
    loaded = load_policy(tmp_path)
    rng = [torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)]
    assert torch.equal(loaded.plan(observe(2), 1, rng[0]), steered.plan(observe(2), 1, rng[1]))


def test_points():
    path = [[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]
    point = {"kind": "point", "point": [3.0, 4.0]}
    assert score(point, path) == pytest.approx(-6.0)
    assert score(point | {"when": "last"}, path) == pytest.approx(-1.0)
    assert score(point | {"when": "closest"}, path) == 0.0


@pytest.mark.parametrize("horizon", [4, 8, 32])
@pytest.mark.parametrize("name", ["point", "sketch", "sketch-free"])
def test_what_pulls_at_a_step_does_not_depend_on_how_many_there_are(name, horizon):
    """ITPS's mean over H steps pulls with 1 / H at each; a sum pulls with 1."""
    policy = planar(horizon=horizon)
    objective = built(OBJECTIVES[name] | {"motion": ABSOLUTE}, policy)
    at = 2 + windows(1, 3, horizon).requires_grad_()
    (gradient,) = torch.autograd.grad(objective.score(observe(1), at).sum(), at)
    torch.testing.assert_close(gradient.norm(dim=-1), torch.ones(1, 3, horizon, dtype=torch.float64))


def test_sketches_begin_and_end_where_they_were_drawn():
    line = torch.tensor([[0.1, 0.7], [0.3, 0.2], [0.9, 0.4]])
    for steps in (2, 3, 7, 32):
        found = resampled(line, steps)
        assert found.shape == (steps, 2)
        assert torch.equal(found[0], line[0])
        assert torch.equal(found[-1], line[-1])
    assert torch.equal(resampled(line, 3), line)
    torch.testing.assert_close(resampled(line, 5)[1], line[:2].mean(0))
    assert torch.equal(resampled(line, 1), line[-1:])
    assert torch.equal(resampled(line[:1], 4), line[:1].expand(4, 2))


def test_a_sketch_is_followed_at_the_given_or_at_any_pace():
    drawn, late = [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [0.7, 0.0]]
    given = {"kind": "sketch", "points": [[0.0, 0.0], [1.0, 0.0]]}
    free = given | {"pace": "free"}
    assert score(given, drawn) == score(free, drawn) == 0.0
    assert score(given, late) == pytest.approx(-0.5 - 0.3)
    assert score(free, late) == pytest.approx(0.0, abs=1e-7)
    assert score(free, [[0.5, 0.2], [2.0, 0.0], [0.0, -0.1]]) == pytest.approx(-0.2 - 1.0 - 0.1)


def test_distances_to_a_line_are_those_to_its_densest_sampling():
    line, points = torch.tensor(LINE), windows(50, dtype=torch.float32) * 3
    dense = torch.cat([a.lerp(b, torch.linspace(0, 1, 2001)[:, None]) for a, b in pairwise(line)])
    nearest = (points[:, None] - dense).norm(dim=-1).amin(-1)
    torch.testing.assert_close(to_line(points, line), nearest, rtol=0, atol=1e-3)
    twice = torch.tensor([LINE[0], *LINE])
    torch.testing.assert_close(to_line(points, twice), to_line(points, line))  # a point that was drawn twice


def test_smoothness_is_of_second_differences():
    path = windows(8)
    cost = ((path[2:] - 2 * path[1:-1] + path[:-2]) ** 2).sum().item()
    assert score({"kind": "smoothness"}, path.tolist()) == pytest.approx(-cost)
    steady = path + torch.arange(8.0)[:, None] * torch.tensor([0.3, -0.2])
    assert score({"kind": "smoothness"}, steady.tolist()) == pytest.approx(-cost)
    steps = path.diff(dim=0)  # as differences, their path lacks the first position, and so the first second difference
    without = ((path[3:] - 2 * path[2:-1] + path[1:-2]) ** 2).sum().item()
    assert score({"kind": "smoothness"}, steps.tolist(), DELTA) == pytest.approx(-without)
    with pytest.raises(ConfigError, match="from 3 steps on"):
        built({"kind": "smoothness", "motion": ABSOLUTE}, planar(horizon=2))


def test_a_workspace_pulls_only_outside():
    box = {"kind": "workspace", "low": [-1.0, None], "high": [1.0, 2.0]}
    assert score(box, [[0.0, -9.0], [1.0, 2.0]]) == 0.0
    assert score(box, [[1.5, 0.0], [0.0, 4.0], [-3.0, 2.0]]) == pytest.approx(-(0.25 + 4 + 4))
    at = windows(1, 1, 8).clamp(-0.9, 0.9).requires_grad_()
    objective = built(box | {"motion": ABSOLUTE})
    assert not torch.autograd.grad(objective.score(observe(1), at).sum(), at)[0].any()


def test_keeping_away_counts_what_is_missing_to_the_margin():
    disc = {"kind": "keep_away", "discs": [{"centre": [0.0, 0.0], "radius": 1.0}]}
    assert score(disc, [[0.6, 0.8], [3.0, 0.0]]) == pytest.approx(0.0, abs=1e-6)
    assert score(disc, [[0.0, 0.4], [3.0, 0.0]]) == pytest.approx(-0.6)
    assert score(disc | {"margin": 0.5}, [[0.0, 1.2], [3.0, 0.0]]) == pytest.approx(-0.3)
    box = {"kind": "keep_away", "boxes": [{"low": [0.0, 0.0], "high": [2.0, 1.0]}]}
    assert score(box, [[1.0, 0.5], [1.0, 0.9], [2.3, 0.5]]) == pytest.approx(-0.5 - 0.1)
    assert score(box | {"margin": 1.0}, [[2.3, 1.4], [5.0, 0.0]]) == pytest.approx(-0.5)
    both = box | {"discs": disc["discs"]}
    assert score(both, [[0.0, 0.4], [1.0, 0.9]]) == pytest.approx(-0.6 - 0.1)


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({"kind": "point", "point": [1.0, 2.0, 3.0]}, "has 3 numbers, and the motion has 2 axes"),
        ({"kind": "point", "point": [float("nan"), 1.0]}, "finite"),
        ({"kind": "sketch", "points": [[0.0, 1.0], [1.0]]}, "as many numbers each"),
        ({"kind": "sketch", "points": []}, "at least 1"),
        ({"kind": "sketch", "points": [[0.0, 1.0]], "pace": "free"}, "2 points or more"),
        ({"kind": "workspace", "low": [0.0], "high": [1.0, 1.0]}, "low has 1 numbers, high 2"),
        ({"kind": "workspace", "low": [0.0, 2.0], "high": [1.0, 1.0]}, "exceeds"),
        ({"kind": "keep_away"}, "by discs or boxes"),
        ({"kind": "keep_away", "boxes": [{"low": [0.0, 1.0], "high": [1.0, 1.0]}]}, "least corner first"),
        ({"kind": "keep_away", "discs": [{"centre": [0.0], "radius": 1.0}]}, "has 1 numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(tree, fault):
    with pytest.raises(ConfigError, match=fault):
        built(tree | {"motion": ABSOLUTE})
