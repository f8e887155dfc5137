"""Composition and the strict conversion."""

from collections.abc import Iterator
from typing import Any

import pytest

from robopol.config import Config, parse
from robopol.configs import groups, load_config
from robopol.configs.spoken import spoken
from robopol.errors import ConfigError
from robopol.policies.beso import BESOConfig
from robopol.policies.observation import LowDimConfig
from robopol.policies.paths.rectified_flow import RectifiedFlowConfig
from robopol.policies.samplers.first_order import DDIMConfig, EulerConfig
from robopol.registry import KINDS, lookup
from robopol.training.config import TrainConfig

DATA = "data.demos.uri=demos.hdf5"


ELSEWHERE = ("launcher", "robot")
"""Groups that are not those of training."""


def train(*overrides: str) -> TrainConfig:
    return parse(TrainConfig, load_config("train", [DATA, "run=r", *overrides]))


TOLD = {
    "agreement": {"policies": ["there"]},
    "biased_start": {"points": [[0, 0], [1, 1]]},
    "composition": {"policies": ["there"], "weights": [0.5, 0.5]},
    "feasible": {"critic": "there"},
    "guide": {"objective": "smoothness"},
    "keep_away": {"discs": [{"centre": [0, 0], "radius": 1}]},
    "learned_edit": {"editor": "there", "critic": "there"},
    "learned_noise": {"actor": "there"},
    "learned_repair": {"editor": "there", "objective": "smoothness"},
    "mixture": {"policies": ["there"]},
    "nudge": {"actions": [[1, None]]},
    "outcome": {"dynamics": "there", "toward": [[1]]},
    "point": {"point": [1, 1]},
    "sketch": {"points": [[0, 0], [1, 1]]},
    "steered": {"base": "there", "steerings": ["warm_start"]},
    "stl": {"formula": "always x < 1"},
    "value": {"critic": "there"},
    "dynamixel": {"port": "/dev/ttyUSB0", "calibration": "arm.json", "max_speed": 1, "max_accel": 10},
    "fine_tuned": {"net": "mlp", "times": [0, 10]},
    "feetech": {"port": "/dev/ttyUSB0", "calibration": "arm.json", "max_speed": 1, "max_accel": 10},
    "leader": {"driver": "swaying"},
    "ur": {"host": "there"},
    "sb3": {"algorithm": "SAC"},
    "weighted_sum": {"objectives": ["smoothness"], "weights": [2]},
    "workspace": {"low": [0, 0], "high": [1, 1]},
}
"""Kind -> what it must be told; the others have defaults for everything."""


@pytest.mark.parametrize("group", KINDS)
def test_every_registered_kind_exists_and_survives_a_round_trip(group):
    for kind in KINDS[group]:
        needed = {} if group == "model" else TOLD.get(kind, {})
        config = parse(lookup(group, kind), {"kind": kind} | needed)
        assert parse(lookup(group, kind), config.tree()) == config


def nested(config: Config) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every key, with its value, of each config that is a default of this one, on all floors."""
    for name, field in type(config).model_fields.items():
        held = getattr(config, name)
        if held != field.get_default(call_default_factory=True) or not isinstance(held, Config):
            continue
        for key, value in held.tree().items():
            yield (name, key), value
        for path, value in nested(held):
            yield (name, *path), value


def at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: at(path[1:], value) if path[1:] else value}


@pytest.mark.parametrize("group", KINDS)
def test_a_nested_key_that_is_told_its_default_changes_nothing(group):
    for kind in KINDS[group]:
        cls, needed = lookup(group, kind), {} if group == "model" else TOLD.get(kind, {})
        whole = parse(cls, {"kind": kind} | needed)
        for path, value in nested(whole):
            assert parse(cls, {"kind": kind} | needed | at(path, value)) == whole, path


def test_a_nested_key_of_a_run_that_is_told_its_default_changes_nothing():
    tree = load_config("train", [DATA, "run=r"])
    whole = parse(TrainConfig, tree)
    found = list(nested(whole))
    assert {path[0] for path, _ in found} >= {"collection", "eval", "execution", "checkpoint", "logging", "runtime"}
    for path, value in found:
        assert parse(TrainConfig, tree | at(path, value)) == whole, path


@pytest.mark.parametrize(
    ("group", "kind", "told", "what", "rest"),
    [
        ("policy", "beso", {"sampler": {"steps": 7}}, "sampler", {"steps": 7}),
        ("policy", "beso", {"sampler": {"kind": "ddim", "eta": 0.5}}, "sampler", {"eta": 0.5}),
        ("policy", "beso", {"path": {"sigma_max": 2}}, "path", {"sigma_max": 2.0}),
        ("policy", "beso", {"guidance": {"weight": 3}}, "guidance", {"weight": 3.0}),
        ("policy", "consistency", {"path": {"sigma_data": 0.4}}, "path", {"sigma_data": 0.4}),
        ("policy", "consistency", {"sampler": {"steps": 2}}, "sampler", {"steps": 2}),
        ("model", "q", {"encoder": {"keys": ["tool"]}}, "encoder", {"keys": ("tool",)}),
        ("algo", "dppo", {"surrogate": {"dual": 3}}, "surrogate", {"dual": 3.0}),
        ("algo", "expo", {"cloning": {"lr": 1e-3}}, "cloning", {"lr": 1e-3}),
        ("algo", "expo", {"editor": {"hidden": [8]}}, "editor", {"hidden": (8,)}),
        ("operator", "gamepad", {"buttons": {"discard": None}}, "buttons", {"discard": None}),
    ],
)
def test_a_nested_key_leaves_its_siblings_as_the_owner_has_them(group, kind, told, what, rest):
    cls = lookup(group, kind)
    before = getattr(parse(cls, {"kind": kind}), what)
    assert getattr(parse(cls, {"kind": kind} | told), what) == before.model_copy(update=rest)


def test_a_part_of_another_kind_has_the_defaults_of_its_own():
    beso = {"kind": "beso"}
    assert parse(BESOConfig, beso | {"sampler": "euler"}).sampler == EulerConfig()
    assert parse(BESOConfig, beso | {"sampler": {"kind": "euler", "steps": 3}}).sampler == EulerConfig(steps=3)
    assert parse(BESOConfig, beso | {"sampler": "ddim"}).sampler == BESOConfig().sampler
    with pytest.raises(ConfigError, match=r"unknown key: sampler\.step \(did you mean steps"):
        parse(BESOConfig, beso | {"sampler": {"step": 3}})
    with pytest.raises(ConfigError, match=r"unknown key: model\.encoder\.keyss \(did you mean keys"):
        parse(TrainConfig, {"model": {"kind": "q", "encoder": {"keyss": []}}})


def test_what_is_spoken_of_a_part_is_read_back_as_its_owner_would():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for config in (BESOConfig(), BESOConfig(sampler=DDIMConfig()), BESOConfig(sampler=EulerConfig(), guidance=None)):
        tree = OverridesParser.create().parse_override(f"x={spoken(config)}").value()
        assert parse(BESOConfig, tree) == config


def test_a_nested_key_on_the_command_line_leaves_the_rest_as_the_policy_has_it():
    beso, usual = train("policy=beso", "policy.path.sigma_max=2", "policy.sampler.eta=0.5").policy, BESOConfig()
    assert beso.path == usual.path.model_copy(update={"sigma_max": 2.0})
    assert beso.sampler == usual.sampler.model_copy(update={"eta": 0.5})
    other = train(
        "policy=beso", "policy/path=rectified_flow", "policy/sampler=euler", "algo=sac", "model.encoder.keys=[tool]"
    )
    assert other.policy.sampler == EulerConfig()
    assert other.policy.path == RectifiedFlowConfig()  # which has a sigma_min of its own
    assert other.model.encoder == LowDimConfig(keys=("tool",), limit=None)


def test_every_choice_of_every_group_can_be_trained_with():
    found = {group: choices for group, choices in groups().items() if group not in ELSEWHERE}
    whole = {group: choices for group, choices in found.items() if "/" not in group}
    lines = [[f"{group}={choice}"] for group in ("experiment", "algo", "schedule") for choice in whole.pop(group)]
    # composing takes longer than all else here: the k-th choices of all other groups are tried together
    for k in range(max(map(len, whole.values()))):
        lines.append([f"{group}={choices[k % len(choices)]}" for group, choices in whole.items()])
    parts: dict[tuple[str, str], dict[str, list[str]]] = {}  # (room, a kind that has such parts) -> part -> choices
    for group in (group for group in found if "/" in group):
        room, _, part = group.partition("/")
        kind = next(kind for kind in ("diffusion", *KINDS[room]) if part in lookup(room, kind).model_fields)
        parts.setdefault((room, kind), {})[group] = found[group]
    for (room, kind), of in parts.items():
        for k in range(max(map(len, of.values()))):
            lines.append([f"{room}={kind}", *(f"{group}={choices[k % len(choices)]}" for group, choices in of.items())])
    for words in lines:
        config = train(*words, *(["env.id=Hopper-v5"] if "env=gym" in words else []))
        assert parse(TrainConfig, config.tree()) == config


def test_an_experiment_brings_the_settings_of_its_family():
    expo = train("experiment=arm_expo", "data.demos.uri=x")
    assert expo.phases["online"].sources == {"demos": 1.0, "replay": 1.0}
    assert (expo.algo.delay, expo.model.ensemble, expo.model.layer_norm) == (20, 10, True)
    mazes = train("experiment=offline_to_online_cal_ql", "data.demos.uri=x")
    assert (mazes.reward.scale, mazes.reward.shift) == (10.0, -5.0)
    assert [phase.length for phase in mazes.phases.values()] == [250_000, 250_000]
    assert train("experiment=rlpd", "data.demos.uri=x") == train("algo=rlpd", "data.demos.uri=x")
    annealed, plain = (train(f"experiment=locomotion_{name}") for name in ("aql", "sac"))
    assert annealed.algo.tree() == plain.algo.tree() | {"expectile": 0.9}
    assert train("experiment=locomotion_trpo").algo.cg_steps == 25
    assert train("experiment=locomotion_trpo").env.id == "HalfCheetah-v5"
    assert train("experiment=locomotion_trpo", "env=push").env.id == "robopol/Push-v0"
    assert train("experiment=locomotion_trpo", "env.id=Ant-v5").env.id == "Ant-v5"
    chunks = train("experiment=arm_q_chunking", "data.demos.uri=x")
    assert (chunks.algo.edit, chunks.algo.proposals, chunks.reward.shift) == (0, 32, -1)


def test_overrides_reach_keys_that_no_yaml_names():
    config = train("policy=flow", "policy.path.time_law=beta", "policy/net=mlp", "policy.net.width=64", "algo.lr=3e-4")
    assert config.policy.path.time_law == "beta"
    assert config.policy.net.width == 64
    assert config.algo.lr == 3e-4


def test_an_algorithm_brings_what_it_trains_and_words_overrule_it():
    assert train("algo=iql").model.kind == "value"
    assert train("algo=iql").policy.kind == "diffusion"
    assert train("algo=cal_ql").policy.kind == "gaussian"
    assert train("algo=cal_ql", "policy=flow").policy.kind == "flow"
    for nothing in ("none", "null"):
        assert train("algo=iql", f"policy={nothing}").policy is None
    assert train("algo=dynamics").policy is None
    assert train("algo=dynamics", "policy=flow").policy.kind == "flow"  # which the trainer refuses
    assert train().model is None


def test_an_algorithm_that_acts_needs_no_data_and_a_schedule_overrules_it():
    words = ["algo=sac", "env=gym", "env.id=Pendulum-v1", "run=r"]
    online = parse(TrainConfig, load_config("train", words))
    assert (online.policy.kind, online.model.kind, online.data) == ("squashed_gaussian", "q", {})
    assert {name: phase.sources for name, phase in online.phases.items()} == {"online": {"replay": 1.0}}
    assert train("algo=ddpg").model.ensemble == 1
    both = train("algo=td3", "schedule=offline_to_online")
    assert list(both.phases) == ["offline", "online"]
    assert both.phases["online"].sources == {"demos": 1.0, "replay": 1.0}
    assert list(train("algo=td3", "schedule=offline").phases) == list(train().phases) == ["cloning"]


def test_a_wrong_key_under_a_name_of_the_users_own_is_told_with_the_nearest_names():
    with pytest.raises(ConfigError, match=r"unknown key: data\.demos\.urii \(did you mean uri"):
        parse(TrainConfig, load_config("train", ["data.demos.urii=x", "run=r"]))


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


@pytest.mark.parametrize("word", ['algo.lr={"a":1}', "algo.lr=[1", "no equals sign", "algo.lr=a(b"])
def test_a_word_that_cannot_be_read_is_told_with_how_it_is_written(word):
    with pytest.raises(ConfigError) as raised:
        load_config("train", [DATA, word])
    assert f"'{word}' cannot be read" in str(raised.value)
    assert "a mapping as {key: value}" in str(raised.value)
