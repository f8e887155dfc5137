"""Exported policies: equal to the policy, and refused in words where they cannot be."""

import json

import pytest
import torch

from robopol import cli
from robopol.checkpoint import save_part
from robopol.config import parse
from robopol.envs import make_env
from robopol.envs.config import EnvConfig
from robopol.errors import CheckpointError, ConfigError, MissingExtraError
from robopol.evaluation.fitness import ROWS
from robopol.export import export as module
from robopol.export import load_exported
from robopol.export.export import TOLERANCE, export, rolled_out
from robopol.export.exported import digest_of
from robopol.export.simplify import Simplifier
from robopol.export.trace import Tape
from robopol.loading import load_policy
from robopol.policies import Policy, PolicySpec
from robopol.registry import KINDS, lookup
from robopol.training.contract import spec_for

ENGINES = ["torch", "onnx", "openvino"]
MLP = {"kind": "mlp", "width": 32}
NETS = [
    MLP,
    {"kind": "film_mlp", "width": 32, "features": 16},
    {"kind": "unet", "widths": [16, 32], "step_dim": 16},
    {"kind": "transformer", "width": 16, "layers": 2, "heads": 2},
]
SAMPLERS = [
    {"kind": "ddim", "steps": 4},
    {"kind": "ddim", "steps": 4, "eta": 0.5, "eps_from_clipped": True},
    {"kind": "ddpm", "steps": 5},
    {"kind": "euler", "steps": 4},
    {"kind": "heun", "steps": 3},
    {"kind": "ancestral", "steps": 4},
    {"kind": "dpm_solver", "steps": 4, "sde": True},
    {"kind": "edm", "steps": 4, "churn": 2.0},
    {"kind": "langevin", "steps": 3, "corrections": 2},
    {"kind": "consistency", "steps": 2},
    {"kind": "diffusers", "steps": 4},
]


def needs(engine: str) -> None:
    for package in {"torch": [], "onnx": ["onnx", "onnxruntime"], "openvino": ["onnx", "openvino"]}[engine]:
        pytest.importorskip(package)


def made(tree: dict, **spec: object) -> Policy:
    """Return an untrained policy of two observations that has seen data of several sizes."""
    size = {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4}
    config = parse(lookup("policy", tree["kind"]), size | tree)
    world = {
        "obs_shapes": {"state": [3], "goal": [2]},
        "action_names": ["x", "y"],
        "action_low": [-5, -5],
        "action_high": [5, 5],
        "action_space": "box",
        "control_hz": 10.0,
    }
    torch.manual_seed(0)
    policy = config.build(parse(PolicySpec, world | size | spec))
    policy.observation.fit({"state": 3 * torch.randn(50, 3) + 1, "goal": torch.rand(50, 2)})
    policy.action_normalizer.fit(2 * torch.randn(50, 2) - 1)
    return policy.eval()


def seen(rows: int = ROWS) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {"state": 3 * torch.randn(rows, 2, 3, generator=rng), "goal": torch.rand(rows, 2, 2, generator=rng)}


def diffusion(net: dict = MLP, sampler: dict = SAMPLERS[0]) -> dict:
    return {"kind": "diffusion", "prediction": "v", "net": net, "sampler": sampler}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("net", "batch"), [(MLP, 1), *((net, 3) for net in NETS)], ids=lambda v: str(v)[:18])
def test_plans_are_the_policys_for_the_same_generators(engine, net, batch, tmp_path, monkeypatch):
    needs(engine)
    monkeypatch.setattr(module, "_BLOCK", 8)
    policy = made(diffusion(net, {"kind": "ddim", "steps": 2}))
    manifest = export(policy, engine, tmp_path / "out", seen(8), "a test", batch)
    assert [check.rows for check in manifest.checks] == [8, 8]
    assert all(check.max_error <= TOLERANCE for check in manifest.checks)
    artefact = load_policy(tmp_path / "out")
    assert artefact.spec == policy.spec

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in range(5)]

    for n in (1, 2):
        ours = policy.act(seen(5), n, generators())
        theirs = artefact.act(seen(5), n, generators())
        assert ours.shape == theirs.shape == (5, n, 7, 2)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=TOLERANCE)
    assert (ours[:, 0] - ours[:, 1]).abs().max() > 1e-2, "the noise decides"


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["kind"])
def test_every_sampler_is_exported_with_all_its_noise(engine, sampler, tmp_path):
    needs(engine)
    policy = made(diffusion(sampler=sampler) | {"path": {"kind": "discrete_vp", "train_steps": 50}})
    manifest = export(policy, engine, tmp_path / "out", seen(32), "a test", 32)
    draws, *shape = manifest.noise
    assert shape == [8, 2]
    stochastic = {"ddpm": 5, "ancestral": 4, "edm": 5, "langevin": 7, "consistency": 2}.get(sampler["kind"], 1)
    if (sampler["kind"] == "ddim" and sampler.get("eta")) or sampler["kind"] == "dpm_solver":
        stochastic = 4
    assert draws == stochastic, "the start, and every step that draws but the last one"


def test_a_scheduler_that_draws_by_itself_is_refused_in_words(tmp_path):
    pytest.importorskip("diffusers")
    sampler = {"kind": "diffusers", "steps": 4, "scheduler": "EulerAncestralDiscreteScheduler"}
    policy = made(diffusion(sampler=sampler) | {"path": {"kind": "discrete_vp", "train_steps": 50}})
    with pytest.raises(ConfigError, match="only standard normal noise can be an input of an export"):
        export(policy, "torch", tmp_path / "out", seen(32), "a test", 32)
    assert not (tmp_path / "out").exists()


WALKED = {"net": MLP}
LAYERS = {"hidden": [32]}
POLICIES: dict[str, dict] = {
    "beso": WALKED | {"guidance": {"weight": 1.5}},
    "consistency": WALKED,
    "decision_diffuser": WALKED | {"sampler": {"kind": "ddpm", "steps": 4}, "inverse_hidden": [16]},
    "deterministic": LAYERS,
    "diagonal_gaussian": LAYERS,
    "diffusion": WALKED | {"sampler": {"kind": "ddpm", "steps": 4}},
    "edm": WALKED,
    "flow": WALKED,
    "gaussian": LAYERS,
    "gmm": LAYERS,
    "meow": LAYERS | {"shift_hidden": [8], "deterministic": False},
    "squashed_gaussian": LAYERS,
}
REFUSED: dict[str, tuple[dict, str]] = {
    "ebt": ({}, "depends on values it has just computed"),
    "gmm": (LAYERS | {"deterministic": False}, "noise of several shapes"),
}
ELSEWHERE = {"remote", "steered"}  # the one plans elsewhere; for the other there are tests of its own


def test_every_kind_of_policy_is_exported_or_refused():
    assert POLICIES.keys() | REFUSED.keys() | ELSEWHERE == KINDS["policy"].keys()


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        *(("onnx", kind) for kind in POLICIES),
        *(
            (engine, kind)
            for engine in ("torch", "openvino")
            for kind in ("gaussian", "gmm", "flow", "edm", "beso", "meow")
        ),
    ],
)
def test_other_policies(engine, kind, tmp_path):
    needs(engine)
    policy, rng = made({"kind": kind} | POLICIES[kind]), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in policy.parameters():  # some begin as the identity, whatever is seen
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.1)
    manifest = export(policy, engine, tmp_path / "out", seen(64), "a test", 16)
    assert max(check.max_error for check in manifest.checks) <= TOLERANCE
    kept, other = seen(16), seen(32)
    other = {key: value[16:] for key, value in other.items()}
    plans = [load_policy(tmp_path / "out").plan(obs, generator=torch.Generator()) for obs in (kept, other)]
    assert not torch.allclose(*plans), "what is seen matters"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("keypoints", [4, None])
def test_policies_that_see(engine, keypoints, tmp_path):
    pytest.importorskip("torchvision")
    needs(engine)
    encoder = {"kind": "image", "blocks": [1, 1], "keypoints": keypoints, "features": 8}
    shapes = {"state": [3], "goal": [2], "images.top": [24, 24, 3]}
    policy = made({"kind": "flow", "net": MLP, "encoder": encoder}, obs_shapes=shapes)
    rng = torch.Generator().manual_seed(2)
    pictures = torch.randint(256, (8, 2, 24, 24, 3), dtype=torch.uint8, generator=rng)
    manifest = export(policy, engine, tmp_path / "out", seen(8) | {"images.top": pictures}, "a test", 4)
    assert max(check.max_error for check in manifest.checks) <= TOLERANCE
    views = (pictures[:4], torch.zeros_like(pictures[:4]))
    plans = [
        load_policy(tmp_path / "out").plan(seen(4) | {"images.top": v}, generator=torch.Generator()) for v in views
    ]
    assert not torch.allclose(*plans), "what is seen matters"


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_exported_is_refused_in_words(kind, tmp_path):
    tree, text = REFUSED[kind]
    with pytest.raises(ConfigError, match=text):
        export(made({"kind": kind} | tree), "torch", tmp_path / "out", seen(8), "a test")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    for place in (tmp_path / "run", tmp_path / "run" / "thesis.txt"):
        with pytest.raises(ConfigError, match="exists and is not an exported policy"):
            export(made({"kind": "gaussian", **LAYERS}), "torch", place, seen(8), "a test")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_a_policy_whose_episodes_are_short_acts_until_there_is_enough():
    size = {"n_obs_steps": 1, "horizon": 2, "n_action_steps": 1}
    plain = {"obs_normalization": "identity", "action_normalization": "identity"}
    config = parse(lookup("policy", "gaussian"), {"kind": "gaussian", "hidden": [8]} | size | plain)
    with make_env("robopol/Reach-v0", 8, max_episode_steps=5) as env:
        found = rolled_out(config.build(spec_for(config, {}, env.spec)).eval(), env)
    assert ROWS <= int(found.lengths.sum()) < 2 * ROWS
    assert len(set(found.seed.tolist())) == len(found.seed)


def spoiled(plan: torch.Tensor) -> torch.Tensor:
    plan[0].add_(1)
    return plan


@pytest.mark.parametrize(
    ("planned", "text"),
    [
        (spoiled, "writes into parts of tensors"),
        (torch.zeros_like, "does not depend on the observation"),
    ],
)
def test_a_plan_that_cannot_be_written_down_is_refused_in_words(planned, text):
    tape, seen = Tape(), torch.ones(2, 3)
    with tape:
        tape.give("obs.state", seen)
        output = planned(seen * 2)
    with pytest.raises(ConfigError, match=text):
        tape.finish(output)


def test_an_artefact_that_is_not_equal_is_not_written(tmp_path, monkeypatch):
    def spoiled(self):
        plain(self)
        (constant, *_) = [v for v, tensor in self.graph.constants.items() if tensor.numel() == 32]
        self.graph.constants[constant] = self.graph.constants[constant] + 0.01

    plain = Simplifier.run
    monkeypatch.setattr(Simplifier, "run", spoiled)
    with pytest.raises(ConfigError, match="differs from the policy by up to"):
        export(made(diffusion()), "torch", tmp_path / "out", seen(8), "a test")
    assert not list(tmp_path.iterdir())


def test_a_file_cannot_call_what_it_likes(tmp_path):
    export(made(diffusion()), "torch", tmp_path / "out", seen(8), "a test")
    file = tmp_path / "out" / "graph.json"
    whole = json.loads(file.read_text())

    def seal():  # whoever writes the file can write its hash too
        manifest = json.loads((tmp_path / "out" / "export.json").read_text())
        manifest["files"]["graph.json"] = digest_of(file)
        (tmp_path / "out" / "export.json").write_text(json.dumps(manifest))

    for call in (["aten.from_file.default", {"filename": "/etc/passwd"}, [9999]], ["os.system.ls", {}, [9999]]):
        file.write_text(json.dumps(whole | {"calls": [call, *whole["calls"]]}))
        seal()
        with pytest.raises(CheckpointError, match=r"not hold a graph"):
            load_exported(tmp_path / "out")
    manifest = tmp_path / "out" / "export.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"engine": "os"}))
    with pytest.raises(CheckpointError, match="engine"):
        load_exported(tmp_path / "out")


def test_damaged_files_and_wrong_observations_are_refused(tmp_path):
    policy = made(diffusion())
    export(policy, "torch", tmp_path / "out", seen(8), "a test")
    artefact = load_exported(tmp_path / "out")
    with pytest.raises(ValueError, match="lacks 'goal'"):
        artefact.act({"state": torch.zeros(1, 2, 3)})
    with pytest.raises(ConfigError, match="plans and nothing else"):
        artefact.loss({})
    (tmp_path / "out" / "constants.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError):
        load_exported(tmp_path / "out")
    with pytest.raises(CheckpointError):
        load_policy(tmp_path)


def test_an_artefact_tells_which_weights_it_is_made_of(tmp_path):
    """By its id a servo loop knows whom it trusts, so that of other weights is another one (T8)."""
    first, second = made(diffusion()), made(diffusion())
    with torch.no_grad():
        next(second.parameters()).add_(1e-3)
    for name, policy in (("first", first), ("again", first), ("second", second)):
        export(policy, "torch", tmp_path / name, seen(8), "a test")
    found = [load_exported(tmp_path / name) for name in ("first", "again", "second")]
    assert found[0].manifest.weights == first.fingerprint().hex()
    assert found[0].fingerprint() == found[1].fingerprint() != found[2].fingerprint()
    constants = (tmp_path / "second" / "constants.safetensors").read_bytes()
    (tmp_path / "first" / "constants.safetensors").write_bytes(constants)
    with pytest.raises(CheckpointError, match=r"constants.safetensors is missing or not what was exported"):
        load_exported(tmp_path / "first")
    manifest = tmp_path / "again" / "export.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 1}))
    with pytest.raises(CheckpointError, match="schema_version 1"):
        load_exported(tmp_path / "again")


def test_a_missing_engine_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"robopol\[onnx\]"):
        export(made(diffusion()), "onnx", tmp_path / "out", seen(8), "a test")


def test_the_verb_and_an_evaluation_of_what_it_wrote(tmp_path, capsys):
    with make_env("robopol/Reach-v0") as env:
        spec = env.spec
        world = {
            "obs_shapes": {key: list(shape) for key, shape in spec.obs_shapes.items()},
            "action_names": list(spec.action_names),
            "action_low": list(spec.action_low),
            "action_high": list(spec.action_high),
            "action_space": spec.action_space,
            "control_hz": spec.control_hz,
            "env": EnvConfig.of(spec).tree(),
        }
    size = {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4}
    policy = parse(lookup("policy", "diffusion"), diffusion() | size).build(parse(PolicySpec, world | size))
    policy.observation.fit({key: torch.randn(20, *shape) for key, shape in spec.obs_shapes.items()})
    policy.action_normalizer.fit(torch.stack([torch.tensor(spec.action_low), torch.tensor(spec.action_high)]))
    saved = tmp_path / "run" / "policy"
    saved.mkdir(parents=True)
    save_part(policy, saved)
    words = ["export", f"checkpoint={saved}", "engine=torch", "batch=16", "policy.sampler=euler", "policy.steps=3"]
    assert cli.run(words) == 0
    out = tmp_path / "run" / "torch"
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    checks = json.loads((out / "export.json").read_text())["checks"]
    assert [check["rows"] for check in checks] == [256, 256]
    assert "robopol/Reach-v0" in checks[1]["source"]
    found = []
    for folder, more in ((saved, ["policy.sampler=euler", "policy.steps=3"]), (out, [])):
        result = tmp_path / "result.json"
        assert cli.run(["eval", f"checkpoint={folder}", "episodes=2", "num_envs=2", f"out={result}", *more]) == 0
        found.append(json.loads(result.read_text()))
    assert found[1]["return_mean"] == pytest.approx(found[0]["return_mean"], abs=0.05)
    assert load_policy(saved).config.sampler.kind == "ddim"
    capsys.readouterr()
    assert cli.run(["eval", f"checkpoint={out}", "policy.steps=2"]) == 1
    assert "exported" in capsys.readouterr().err


def test_a_world_that_the_policy_was_not_made_for_is_refused_in_words(tmp_path, capsys):
    save_part(made(diffusion()), tmp_path)
    assert cli.run(["export", f"checkpoint={tmp_path}", "env=reach", "engine=torch"]) == 1
    said = capsys.readouterr().err
    assert "the policy was not made for robopol/Reach-v0: observation 'state' has shape" in said
    assert "observation 'goal' has shape none" in said
