"""`robopol data` as a user types it."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robopol import cli
from robopol.data import Episodes, load_episodes, save_episodes
from robopol.envs import make_env
from robopol.errors import DataWarning
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect


@pytest.fixture(scope="module")
def reach():
    with make_env("robopol/Reach-v0", 2) as env:
        return collect(ExpertActor(env), env, 4, 0, source="expert", only_success=True)


@pytest.fixture
def file(reach, tmp_path):
    save_episodes(reach, tmp_path / "reach.hdf5")
    return str(tmp_path / "reach.hdf5")


def said(capsys, *words, status=0):
    """Run a command and return what it printed."""
    assert cli.run(["data", *map(str, words)]) == status
    return capsys.readouterr()


def test_info_says_what_is_there(reach, file, tmp_path, capsys):
    facts = json.loads(said(capsys, "info", file, "--json").out)
    assert facts["episodes"] == 4
    assert facts["duplicates"] == {"episodes": 0, "steps": 0}
    assert facts["tasks"] == {}
    meta = reach.meta.model_copy(update={"tasks": ("reach the goal",)})
    told = replace(reach, meta=meta, task=torch.tensor([0, 0, 0, -1])).select([0, 1, 1, 3])
    save_episodes(told, tmp_path / "told.hdf5")
    text = said(capsys, "info", tmp_path / "told.hdf5").out
    assert "reach the goal: 3" in text
    assert "duplicates:\n  episodes: 1" in text


def test_check_passes_what_was_recorded_here(file, capsys):
    for mode in ("auto", "states", "actions"):
        found = json.loads(said(capsys, "check", file, f"replay={mode}", "--json").out)
        assert list(found["replays"]) == ["actions" if mode == "auto" else mode]
        (replay,) = found["replays"].values()
        assert replay["to_the_bit"]
        assert (replay["episodes"], replay["differing"]) == (4, 0)
        assert found["notes"] == []
    text = said(capsys, "check", file, "replay=none").out
    assert "valid: True" in text
    assert "replays: {}" in text


def test_check_finds_altered_actions(reach, tmp_path, capsys):
    action = reach.action.clone()
    action[3] *= -1
    save_episodes(replace(reach, action=action), tmp_path / "altered.hdf5")
    found = json.loads(said(capsys, "check", tmp_path / "altered.hdf5", "--json", status=1).out)
    for mode in ("actions", "states"):  # open loop first, then the one that drifted step by step
        assert found["replays"][mode]["differing"] == 1
        assert found["replays"][mode]["drifts"][0]["episode"] == 0
    assert found["replays"]["states"]["episodes"] == 1
    said(capsys, "check", tmp_path / "altered.hdf5", "tolerance=1e9", "replay=states", status=0)


def test_check_takes_states_where_there_are_no_seeds(reach, tmp_path, capsys):
    seed = torch.tensor([-1, 7, 7, -1])
    seed[1:3] = reach.seed[1:3]
    save_episodes(replace(reach, seed=seed), tmp_path / "seedless.hdf5")
    found = json.loads(said(capsys, "check", tmp_path / "seedless.hdf5", "--json").out)
    assert [found["replays"][mode]["episodes"] for mode in ("actions", "states")] == [2, 2]
    assert found["notes"] == ["2 of 4 episodes have no seed to reset with, so no open loop"]
    save_episodes(replace(reach, seed=seed, states=None), tmp_path / "stateless.hdf5")
    for words, status in (["replay=auto"], 0), (["replay=actions"], 1), (["replay=auto", "episodes=2"], 0):
        found = json.loads(said(capsys, "check", tmp_path / "stateless.hdf5", *words, "--json", status=status).out)
        assert any("have no seed to reset with" in note for note in found["notes"])
        assert all(replay["episodes"] == 2 for replay in found["replays"].values())
    assert found["replays"] == {}  # the first and the last, which have no seed
    bare = replace(reach, seed=torch.full_like(seed, -1), states=None)
    save_episodes(bare, tmp_path / "bare.hdf5")
    found = json.loads(said(capsys, "check", tmp_path / "bare.hdf5", "--json").out)
    assert found["replays"] == {}
    assert "no seeds" in found["notes"][0]
    assert "no simulator states" in found["notes"][1]
    said(capsys, "check", tmp_path / "bare.hdf5", "replay=states", status=1)


def test_check_finds_damage(file, capsys):
    blob = bytearray(Path(file).read_bytes())
    blob[len(blob) // 2] ^= 255
    Path(file).write_bytes(blob)
    found = said(capsys, "check", file, status=1)
    assert "reach.hdf5" in found.err
    assert "Traceback" not in found.err


def test_check_of_an_unknown_world_judges_the_file_alone(golden_file, capsys):
    assert "'Golden-v0' cannot be made here" in said(capsys, "check", golden_file).out
    assert "cannot be made here" in said(capsys, "check", golden_file, "replay=actions", status=1).out


@pytest.fixture
def golden_file(reach, tmp_path):
    meta = reach.meta.model_copy(update={"env_id": "Golden-v0"})
    save_episodes(replace(reach, meta=meta), tmp_path / "golden.hdf5")
    return str(tmp_path / "golden.hdf5")


def test_stats_say_what_it_is_good_for(file, capsys):
    found = json.loads(said(capsys, "stats", file, "--json").out)
    assert found["tq"] is None
    assert found["coverage"]["saco"] is None
    found = json.loads(said(capsys, "stats", file, "ref_min=-40", "ref_max=0", f"reference={file}", "--json").out)
    assert found["references"] == {"random": -40.0, "expert": 0.0, "from": "the command"}
    assert found["coverage"]["saco"] == 1
    assert found["score"] == pytest.approx(100 * found["tq"])
    assert "recommendation:" in said(capsys, "stats", file, "k=3", "rows=20").out


def test_convert_keeps_everything(reach, file, tmp_path, capsys):
    out = tmp_path / "again.hdf5"
    text = said(capsys, "convert", file, f"robomimic:{out}?valid=0.5").out
    assert text.startswith(f"robomimic:{out}?valid=0.5: 4 episodes, {reach.num_steps} steps, ")
    assert load_episodes(out).equal(reach)
    assert len(load_episodes(f"{out}?filter=valid")) == 2
    facts = json.loads(said(capsys, "convert", file, tmp_path / "told.hdf5", "--json").out)
    size = (tmp_path / "told.hdf5").stat().st_size
    assert facts == {"uri": str(tmp_path / "told.hdf5"), "episodes": 4, "steps": reach.num_steps, "bytes": size}


def test_what_a_format_cannot_hold_is_said_in_a_line(file, tmp_path, capsys, monkeypatch):
    def lossy(episodes, path):
        warnings.warn("colours are lost", DataWarning, stacklevel=2)
        path.write_bytes(b"x")

    monkeypatch.setattr("robopol.data.formats.robomimic.write", lossy)
    for _ in range(2):  # every time, not once a process
        found = said(capsys, "convert", file, tmp_path / "lossy.hdf5")
        assert found.err == "robopol data: warning: colours are lost\n"


def test_merge_puts_datasets_of_one_world_together(reach, tmp_path, capsys):
    save_episodes(reach.select([0, 1]), tmp_path / "a.hdf5")
    save_episodes(reach.select([2, 3]), tmp_path / "b.hdf5")
    out = tmp_path / "both.hdf5"
    assert "4 episodes" in said(capsys, "merge", tmp_path / "a.hdf5", tmp_path / "b.hdf5", f"out={out}").out
    assert load_episodes(out).equal(reach)
    words = [tmp_path / "a.hdf5", tmp_path / "b.hdf5", f"out={tmp_path / 'told.hdf5'}", "--json"]
    assert json.loads(said(capsys, "merge", *words).out)["episodes"] == 4


def test_every_verb_reads_images_that_do_not_fit_into_memory(reach, tmp_path, capsys, monkeypatch):
    rows, episodes = len(reach.action), len(reach)
    picture = torch.arange(rows).to(torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3).contiguous()
    final = torch.zeros(episodes, 4, 4, 3, dtype=torch.uint8)
    seen = replace(
        reach, obs=reach.obs | {"images.front": picture}, final_obs=reach.final_obs | {"images.front": final}
    )
    for name, part in (("whole", seen), ("a", seen.select([0, 1])), ("b", seen.select([2, 3]))):
        save_episodes(part, tmp_path / f"{name}.hdf5")
    whole, a, b, out = (tmp_path / f"{name}.hdf5" for name in ("whole", "a", "b", "out"))
    memory = load_episodes(whole)
    cache = f"cache={tmp_path / 'cache'}"
    with monkeypatch.context() as patched:
        patched.setattr("robopol.data.image_columns.free_memory", lambda: 0)
        assert "say cache=FOLDER" in said(capsys, "info", whole, status=1).err
        facts = json.loads(said(capsys, "info", whole, cache, "--json").out)
        assert facts["episodes"] == episodes
        assert "valid: True" in said(capsys, "check", whole, "replay=none", cache).out
        said(capsys, "stats", whole, "k=3", "rows=20", cache)
        said(capsys, "convert", whole, tmp_path / "again.hdf5", cache)
        said(capsys, "merge", a, b, f"out={out}", cache)
    assert not list((tmp_path / "cache").glob("merging-*"))
    for written in (tmp_path / "again.hdf5", out):
        assert load_episodes(written).equal(memory)


def altered(reach: Episodes, **changes) -> Episodes:
    return replace(reach, meta=reach.meta.model_copy(update=changes))


def test_merge_explains_what_differs(reach, file, tmp_path, capsys):
    out = f"out={tmp_path / 'both.hdf5'}"
    newer = dict(reach.meta.versions) | {"mujoco": "9.9.9"}
    save_episodes(altered(reach, versions=newer), tmp_path / "newer.hdf5")
    error = said(capsys, "merge", file, tmp_path / "newer.hdf5", out, status=1).err
    assert '"mujoco": "9.9.9"' in error
    assert "versions=first" in error
    assert "8 episodes" in said(capsys, "merge", file, tmp_path / "newer.hdf5", out, "versions=first").out
    assert load_episodes(tmp_path / "both.hdf5").meta == reach.meta
    save_episodes(altered(reach, versions=newer, control_hz=20.0), tmp_path / "other.hdf5")
    error = said(capsys, "merge", file, tmp_path / "other.hdf5", out, "versions=first", status=1).err
    assert "control_hz: 10.0 / 20.0" in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["inof", "x"], "did you mean info"),
        (["info", "a.hdf5", "b.hdf5"], "robopol data info URI"),
        (["info", "a.hdf5", "k=3"], "unknown key: k"),
        (["check"], "robopol data check URI"),
        (["check", "a.hdf5", "replay=twice"], "replay"),
        (["stats", "a.hdf5", "ref_min=3"], "both ref_min= and ref_max="),
        (["stats", "a.hdf5", "bins=0"], "bins"),
        (["convert", "a.hdf5"], "convert URI URI"),
        (["merge", "a.hdf5", "out=b.hdf5"], "uris"),
        (["merge", "a.hdf5", "b.hdf5"], "missing key: out"),
        (["stats", "/nowhere.hdf5"], "/nowhere.hdf5"),
    ],
)
def test_wrong_words_get_one_clear_error(words, text, capsys):
    error = said(capsys, *words, status=1).err
    assert text in error
    assert "Traceback" not in error
