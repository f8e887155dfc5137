import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robopol.errors import CheckpointError
from robopol.training.environment import environment
from robopol.training.run import RunFolder, alone, is_run

CONFIG = {"seed": 3, "policy": {"kind": "gaussian"}}


def state_of(step):
    return {
        "weight": torch.full((3, 5), float(step)),
        "count": torch.tensor(step),
        "half": torch.ones(2).bfloat16(),
    }


def parts(step):
    return {part: lambda path: (path / "weights").write_text(str(step)) for part in ("policy", "model")}


def segments_of(step):
    """The last of those before, and one that is new with every tenth step."""
    numbers = range(step // 10 + 1)[-2:]
    return {f"part-{n}": lambda n=n: torch.full((2, 3), float(n)) for n in numbers}


def save(run, step, keep=5):
    run.save(step, parts(step), state_of(step), {"best": step / 2}, keep, segments_of(step))


def assert_shares(run):
    """What the newest checkpoint shares can be read, and there is nothing that no checkpoint needs."""
    found = run.latest()
    assert {name: read()[0, 0].item() for name, read in found.segments.items()} == {
        name: give()[0, 0].item() for name, give in segments_of(found.step).items()
    }
    needed = {f"{name}.safetensors" for step in run.steps() for name in segments_of(step)}
    assert {file.name for file in (run.path / "segments").iterdir()} == needed


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", CONFIG, ["seed=3", "policy=gaussian"])


def test_a_new_run_says_what_was_asked_for_and_where_it_ran(run):
    again = RunFolder.open(run.path)
    assert again.config == CONFIG
    assert (run.path / "overrides.txt").read_text().split() == ["seed=3", "policy=gaussian"]
    told = json.loads((run.path / "environment.json").read_text())
    assert told["versions"]["torch"] == torch.__version__
    assert set(told["versions"]) == {"robopol", "torch", "numpy", "mujoco", "gymnasium"}
    assert told["cpu"]
    assert again.latest() is None


def test_a_folder_holds_one_run(run):
    with pytest.raises(CheckpointError, match="resume="):
        RunFolder.create(run.path, CONFIG)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: path.write_text("no folder")])
def test_only_a_run_can_be_opened(tmp_path, make):
    make(tmp_path / "other")
    with pytest.raises(CheckpointError, match="give the folder"):
        RunFolder.open(tmp_path / "other")


def test_one_process_trains_in_a_folder(run):
    held = f"with alone(Path({str(run.path)!r})): print('held', flush=True); time.sleep(60)"
    code = f"import time; from pathlib import Path; from robopol.training.run import alone\n{held}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match=rf"process {other.pid} of \S+ trains"), alone(run.path):
            pass
        other.kill()
    with alone(run.path):  # however the other one ended
        pass
    with pytest.raises(CheckpointError, match="is not a folder"), alone(run.path / "nowhere"):
        pass


def test_the_newest_checkpoint_comes_back_bit_for_bit(run):
    for step in (5, 100, 20):
        save(run, step)
    step, state, progress, _ = RunFolder.open(run.path).latest()
    assert step == 100
    assert progress == {"best": 50.0}
    assert state.keys() == state_of(100).keys()
    for name, value in state_of(100).items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value)
    assert (run.checkpoint(100) / "policy" / "weights").read_text() == "100"


def test_links_are_relative_so_that_a_run_can_be_moved(run):
    save(run, 7)
    run.mark_best(7)
    moved = run.path.rename(run.path.with_name("moved"))
    for link in ("last", "best"):
        assert os.readlink(moved / "checkpoints" / link) == "00000007"
        assert (moved / "checkpoints" / link / "policy" / "weights").read_text() == "7"


def test_the_newest_and_the_best_checkpoints_are_kept(run):
    save(run, 1, keep=2)
    run.mark_best(1)
    for step in (2, 3, 4, 5):
        save(run, step, keep=2)
    assert run.steps() == [1, 4, 5]
    run.mark_best(4)
    save(run, 6, keep=1)
    assert run.steps() == [4, 6]
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5.*\[4, 6\]"):
        run.mark_best(5)


def test_a_checkpoint_never_changes(run):
    save(run, 3)
    run.save(3, {"policy": lambda path: pytest.fail("written twice")}, {}, {}, 1)
    assert run.latest().progress == {"best": 1.5}


def test_a_policy_that_cannot_be_written_leaves_nothing(run):
    save(run, 1)

    def fail(path):
        (path / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.save(2, {"policy": fail}, {}, {}, 1)
    assert run.latest().step == 1
    assert sorted(p.name for p in run.checkpoint(1).parent.iterdir()) == ["00000001", "last"]


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_checkpoint_is_named_with_advice(run, name, harm):
    save(run, 1)
    save(run, 2)
    file = run.checkpoint(2) / "train" / name
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=f"{file}.* delete {run.checkpoint(2)} .*step 1"):
        run.latest()
    shutil.rmtree(run.checkpoint(2))
    assert RunFolder.open(run.path).latest().step == 1
    save(run, 3)
    assert os.readlink(run.path / "checkpoints" / "last") == "00000003"


def killed_at(event, work):
    """Do ``work`` in a process that dies, like by kill -9, just before its ``event``-th file operation.

    Returns whether the work was done before.
    """
    child = os.fork()
    if child == 0:
        events = itertools.count(1)

        def count(name="os.fsync", _=None):
            if name.startswith(("os.", "open", "shutil.")) and next(events) == event:
                os._exit(9)

        sync = os.fsync
        os.fsync = lambda handle: (count(), sync(handle))[1]
        sys.addaudithook(count)
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 0


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


@needs_fork
def test_a_save_killed_at_any_instant_leaves_the_old_or_the_new_checkpoint(run):
    for step in (10, 20):
        save(run, step)
    run.mark_best(10)
    pristine = run.path.rename(run.path.with_name("pristine"))
    new = state_of(30)  # made before the fork: the child should only write

    def work():
        run.save(30, parts(30), new, {"best": 15.0}, 1, segments_of(30))
        run.mark_best(30)

    seen, best = [], []
    for event in itertools.count(1):
        shutil.copytree(pristine, run.path, symlinks=True)
        done = killed_at(event, work)
        links = run.path / "checkpoints"
        assert (links / "last" / "policy" / "weights").read_text() in ("20", "30")
        for folder in links.glob("[0-9]*"):  # also the one that is being removed
            for part in ("policy", "model"):
                assert (folder / part / "weights").read_text() == str(int(folder.name))
            assert json.loads((folder / "train" / "progress.json").read_text())
            assert load_file(folder / "train" / "state.safetensors").keys() == new.keys()
        opened = RunFolder.open(run.path)
        assert not list(run.path.rglob(".incomplete-*"))
        step, state, progress, _ = opened.latest()
        assert_shares(opened)
        assert all(torch.equal(state[name], value) for name, value in state_of(step).items())
        assert progress == {"best": step / 2}
        for link, steps in (("last", [step]), ("best", [10, step])):
            assert (links / link / "policy" / "weights").read_text() in map(str, steps)
        seen.append(step)
        best.append(int(os.readlink(links / "best")))
        save(opened, 40, keep=1)
        assert opened.latest().step == 40
        assert_shares(opened)
        shutil.rmtree(run.path)
        if done:
            break
    assert seen == sorted(seen)
    assert best == sorted(best)
    assert set(seen) == {20, 30}
    assert set(best) == {10, 30}
    assert len(seen) > 30


@needs_fork
def test_a_run_killed_at_its_beginning_can_be_begun_again(tmp_path):
    path = tmp_path / "run"
    for event in itertools.count(1):
        done = killed_at(event, lambda: RunFolder.create(path, CONFIG, ["a=1"]))
        run = RunFolder.open(path) if is_run(path) else RunFolder.create(path, CONFIG, ["a=1"])
        assert run.config == CONFIG
        assert (path / "overrides.txt").read_text() == "a=1\n"
        assert not list(path.glob(".incomplete-*"))
        shutil.rmtree(path)
        if done:
            break


def git(*arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_git_commit_of_the_working_directory_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git"] is None
    git("init")
    git("commit", "--allow-empty", "-m", "begin")
    noted = environment()["git"]
    assert len(noted["commit"]) == 40
    assert noted["dirty"] is False
    (tmp_path / "new").write_text("x")
    assert environment()["git"] == {"commit": noted["commit"], "dirty": True}


def test_a_machine_without_git_is_fine(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["git"] is None
