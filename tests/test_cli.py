"""The command line as a user types it."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from robopol import cli
from robopol.commands.acting import ActingCommand
from robopol.configs import groups
from robopol.data import load_episodes
from robopol.envs.config import EnvConfig
from robopol.errors import EnvError

SMALL = ["policy/net=mlp", "policy.net.width=32", "phases.cloning.updates=30", "batch_size=16", "eval.videos=0"]


def heavy_imports(code: str) -> str:
    """Return which heavy packages a fresh interpreter has imported after ``code``."""
    names = ["torch", "numpy", "mujoco", "hydra", "pydantic", "gymnasium", "diffusers", "wandb"]
    names += ["stable_baselines3", "robomimic", "matplotlib"]
    code += f"; import sys; print([n for n in {names} if n in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.strip().splitlines()[-1]


def test_importing_and_asking_for_help_load_nothing_heavy():
    assert heavy_imports("import robopol") == "[]"
    assert heavy_imports("from robopol.cli import run; run(['--help'])") == "[]"


def test_training_does_not_load_what_it_does_not_use():
    loaded = heavy_imports("import robopol.training.train, robopol.envs.push, robopol.policies.diffusion")
    for name in ("diffusers", "wandb", "stable_baselines3", "robomimic", "matplotlib", "hydra"):
        assert name not in loaded


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb, capsys):
    assert cli.run([verb, "--help"]) == 0
    assert f"robopol {verb}" in capsys.readouterr().out


def test_help_names_every_verb(capsys):
    assert cli.run([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["trian"], 2, "did you mean train"),
        (["train", "env=reach", "policy=difusion"], 1, "did you mean diffusion"),
        (["train", "env=reach"], 1, "missing key: data.demos.uri"),
        (["train", "resume=/nowhere"], 1, "is not a folder"),
        (["train", "resume=/nowhere", "seed=3"], 1, "nothing else"),
        (["eval"], 1, "missing key: checkpoint"),
        (["eval", "checkpoint=/nowhere"], 1, "is not a folder"),
        (["eval", "checkpoint=/nowhere", "out=/dev/null/x"], 1, "nothing can be written into /dev/null"),
        (
            ["tune", "checkpoint=x", "steering=best_of", "over=steering.0.n", "values=[1]", "out=/"],
            1,
            "out=/: / is a folder",
        ),
        (["eval", "checkpoint=x", "episode=3"], 1, "did you mean episodes"),
        (["steer"], 1, "missing key: checkpoint"),
        (["steer", "checkpoint=/nowhere"], 1, "is not a folder"),
        (["serve"], 1, "missing key: checkpoint"),
        (["serve", "checkpoint=/nowhere"], 1, "is not a folder"),
        (["serve", "checkpoint=/nowhere", "token_file=/no/token"], 1, "/no/token cannot be read"),
        (["collect", "env=push"], 1, "missing key: out"),
        (["collect", "out=x.hdf5"], 1, "which world the expert is to act in"),
        (["collect", "env=push", "out=x.hdf5", "way=up"], 1, "no way 'up'"),
        (["collect", "env=gym", "env.id=Pendulum-v1", "out=x.hdf5"], 1, "has no expert"),
        (["data", "info"], 1, "robopol data info URI"),
        (["data", "info", "/nowhere.hdf5"], 1, "/nowhere.hdf5"),
        (["plot", "runs=[/nowhere]"], 1, "no log at"),
        (["train", "algo=fql", "policy=gmm"], 1, "algo=fql chooses policy/net, which policy=gmm does not have: leave"),
        (["collect", "env=push", "out=x"], 1, "the suffix of x does not tell the format"),
        (["collect", "env=push", "out=d4rl:x.hdf5"], 1, "does not write it"),
        (["list", "polcy"], 1, "did you mean policy"),
    ],
)
def test_wrong_commands_get_one_clear_error(words, status, text, capsys):
    assert cli.run(words) == status
    errors = capsys.readouterr().err
    assert text in errors
    assert "Traceback" not in errors


def test_the_own_world_of_a_policy_reads_no_files(monkeypatch):
    own = SimpleNamespace(spec=SimpleNamespace(env=EnvConfig(id="Hopper-v5", options={"xml_file": "hopper.xml"})))
    monkeypatch.setattr(ActingCommand, "load", lambda *args: own)
    with ExitStack() as opened, pytest.raises(EnvError, match="name the world yourself"):
        ActingCommand().load_into("x", None, 1, opened)
    with ExitStack() as opened:
        assert ActingCommand().load_into("x", own.spec.env, 1, opened)[1].spec.options == {"xml_file": "hopper.xml"}


def test_lists_name_keys_types_and_defaults(capsys):
    assert cli.run(["list"]) == 0
    assert "policy/net" in capsys.readouterr().out
    assert cli.run(["list", "train"]) == 0
    text = capsys.readouterr().out
    assert "data.NAME.uri" in text
    assert "eval.seed: int = 100000" in text
    assert cli.run(["list", "path", "discrete_vp"]) == 0
    text = capsys.readouterr().out
    assert "train_steps: int = 100" in text
    assert "Length of the chain, T." in text
    assert cli.run(["list", "algo", "expo"]) == 0
    assert "cloning.lr: float = 0.0003" in capsys.readouterr().out  # as EXPO has it, not as cloning alone
    assert cli.run(["list", "envs"]) == 0
    assert "robopol/Push-v0" in capsys.readouterr().out
    for group in ("policy", "net", "path", "sampler", "algo"):
        assert cli.run(["list", group]) == 0
    for group in groups():
        capsys.readouterr()
        assert cli.run(["list", group]) == 0
        assert set(groups()[group]) <= set(capsys.readouterr().out.split())


def test_too_few_successes_are_written_all_the_same(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("robopol.evaluation.collect.PATIENCE", 1)
    demos = tmp_path / "demos.hdf5"
    assert cli.run(["collect", "env=reach", f"out={demos}", "episodes=8", "env.options.max_episode_steps=11"]) == 1
    said, kept = capsys.readouterr(), len(load_episodes(demos))
    assert f"only {kept} of 8 episodes" in said.err
    assert f"{kept} episodes of the 8 wanted" in said.out


def test_what_a_format_cannot_hold_is_written_all_the_same(tmp_path: Path, capsys):
    pytest.importorskip("pyarrow")
    assert cli.run(["collect", "env=multi_goal", f"out='lerobot:{tmp_path}/demos?fps=5'", "episodes=2"]) == 1
    rescued = f"arrays:{tmp_path}/demos-arrays"
    errors = capsys.readouterr().err
    assert "leave out the option 'fps'" in errors
    assert f"robopol data convert {rescued}" in errors
    assert cli.run(["data", "convert", rescued, f"lerobot:{tmp_path}/demos"]) == 0
    assert load_episodes(f"lerobot:{tmp_path}/demos").equal(load_episodes(rescued))


def test_the_whole_way_from_demonstrations_to_a_judged_policy(tmp_path: Path, capsys):
    demos, run = tmp_path / "demos.hdf5", tmp_path / "run"
    assert cli.run(["collect", "env=reach", f"out={demos}", "episodes=6"]) == 0
    assert cli.run(["data", "info", str(demos), "--json"]) == 0
    lines = capsys.readouterr().out
    assert json.loads(lines[lines.index("{") :])["episodes"] == 6
    words = ["train", "env=reach", *SMALL, f"data.demos.uri={demos}", f"run={run}", "eval.final_episodes=4"]
    assert cli.run(words) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"summary: {run}/summary.json"
    assert "95% interval" in out
    for name, num_envs in (("one", 1), ("four", 4)):
        again = ["eval", f"checkpoint={run}", "episodes=4", f"num_envs={num_envs}", f"out={tmp_path / name}.json"]
        assert cli.run(again) == 0
    one, four = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "four"))
    assert one == four
    assert one == json.loads((run / "evaluation.json").read_text())
    other = ["eval", f"checkpoint={run}", "episodes=2", "policy.sampler=ddim", "policy.steps=5"]
    assert cli.run([*other, f"out={tmp_path / 'ddim.json'}"]) == 0
    capsys.readouterr()
    assert cli.run(["eval", f"checkpoint={run}", "episodes=1", "policy.sampler={kind: edm, spacing: uniform}"]) == 0
    assert cli.run(["eval", f"checkpoint={run}", "policy.steps=500"]) == 1
    assert "1 to 100 steps, not 500" in capsys.readouterr().err
    assert {"success_rate", "success_ci95", "return_mean", "return_ci95", "episodes", "seeds", "outcomes"} <= one.keys()
    assert cli.run(["plot", f"runs=[{run}]", f"out={tmp_path / 'curves.png'}"]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 5000
    rollouts = tmp_path / "rollouts.hdf5"
    words = ["collect", f"checkpoint={run}", "keep=all", "episodes=3", f"out={rollouts}", "seed=100000"]
    assert cli.run(words) == 0  # in its own world
    recorded = load_episodes(rollouts)
    assert recorded.lengths.tolist() == [outcome["length"] for outcome in one["outcomes"][:3]]
    short = ["eval", f"checkpoint={run}", "episodes=2", "env.options.max_episode_steps=3", "num_envs=1"]
    assert cli.run([*short, f"out={tmp_path / 'short.json'}"]) == 0  # there, too, but for what is said
    assert json.loads((tmp_path / "short.json").read_text())["length_mean"] <= 3


def test_gymnasium_environments_by_their_ids(tmp_path: Path, capsys):
    demos, run = tmp_path / "demos.hdf5", tmp_path / "run"
    sb3 = pytest.importorskip("stable_baselines3")
    sb3.TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0).save(tmp_path / "agent.zip")
    env = ["env=gym", "env.id=Pendulum-v1"]
    words = ["collect", *env, f"checkpoint=sb3:TD3:{tmp_path / 'agent.zip'}", "keep=all", "episodes=3", f"out={demos}"]
    assert cli.run(words) == 1
    assert "trust=true" in capsys.readouterr().err
    assert cli.run([*words, "trust=true"]) == 0
    words = ["train", *env, *SMALL, f"data.demos.uri={demos}", f"run={run}", "eval.final_episodes=2", "policy=flow"]
    assert cli.run(words) == 0
    assert json.loads((run / "summary.json").read_text())["return_mean"] < 0
