"""Composition and the strict conversion."""

import pytest

from robopol.config import parse
from robopol.configs import groups, load_config
from robopol.errors import ConfigError
from robopol.registry import KINDS, lookup
from robopol.training.config import TrainConfig

DATA = "data.demos.uri=demos.hdf5"


def train(*overrides: str) -> TrainConfig:
    return parse(TrainConfig, load_config("train", [DATA, "run=r", *overrides]))


POINT = {"kind": "point", "point": [0.4, 0.1]}
TOLD = {
    "biased_start": {"points": [[0.3, 0.0], [0.4, 0.1]]},
    "composition": {"policies": ["elsewhere"], "weights": [0.5, 0.5]},
    "guide": {"objective": POINT},
    "keep_away": {"discs": [{"centre": [0.5, 0.0], "radius": 0.1}]},
    "nudge": {"actions": [[0.1, None]]},
    "point": POINT,
    "sketch": {"points": [[0.3, 0.0], [0.4, 0.1]]},
    "steered": {"base": "elsewhere", "steerings": ["best_of"]},
    "stl": {"formula": "x >= 0"},
    "weighted_sum": {"objectives": [POINT], "weights": [2.0]},
    "workspace": {"low": [0.0, None], "high": [1.0, 1.0]},
}
"""Kind -> what it cannot be built without."""


@pytest.mark.parametrize("group", KINDS)
def test_every_registered_kind_exists_and_survives_a_round_trip(group):
    for kind in KINDS[group]:
        config = parse(lookup(group, kind), {"kind": kind} | TOLD.get(kind, {}))
        assert parse(lookup(group, kind), config.tree()) == config


def test_every_choice_of_every_group_can_be_trained_with():
    for group, choices in groups().items():
        for choice in choices:
            extra = ["env.id=Hopper-v5"] if choice == "gym" else []
            room, _, part = group.partition("/")
            if part:  # of a kind that has such a part
                kinds = ("diffusion", *KINDS[room])
                extra.append(f"{room}={next(k for k in kinds if part in lookup(room, k).model_fields)}")
            config = train(f"{group}={choice}", *extra)
            assert parse(TrainConfig, config.tree()) == config


def test_overrides_reach_keys_that_no_yaml_names():
    config = train("policy=flow", "policy.path.time_law=beta", "policy/net=mlp", "policy.net.width=64", "algo.lr=3e-4")
    assert config.policy.path.time_law == "beta"
    assert config.policy.net.width == 64
    assert config.algo.lr == 3e-4


def test_all_faults_are_reported_at_once_with_the_nearest_names():
    tree = load_config("train", ["algo.lrr=3", "policy.net.widhts=[1]", "seed=abc", "batch_size=1.5", "run=r"])
    with pytest.raises(ConfigError) as raised:
        parse(TrainConfig, tree)
    text = str(raised.value)
    assert "has 5 faults" in text
    assert "missing key: data.demos.uri" in text
    assert "unknown key: algo.lrr (did you mean lr" in text
    assert "unknown key: policy.net.widhts (did you mean widths" in text
    assert "seed: " in text
    assert "'abc'" in text
    assert "batch_size: " in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["policy=difusion"], "did you mean diffusion"),
        (["policy/nett=mlp"], "did you mean policy/net"),
        (["policy.kind=nonsense"], "unknown policy 'nonsense'"),
        (["policy.net.kind=os.system"], "unknown net 'os.system'"),
        (["seed=1,2"], "asks for several values"),
        (["experiment=demos"], "did you mean demo"),
        (["=3"], "not supported"),
    ],
)
def test_wrong_choices_are_refused_in_words(overrides, words):
    with pytest.raises(ConfigError, match=words):
        train(*overrides)


def test_a_tree_cannot_name_what_is_built():
    tree = load_config("train", [DATA, "run=r"])
    tree["algo"]["_target_"] = "os.system"
    with pytest.raises(ConfigError, match=r"unknown key: algo\._target_"):
        parse(TrainConfig, tree)


def test_configs_are_frozen():
    config = train()
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3
