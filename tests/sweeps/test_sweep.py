"""Sweeps: which runs there are, what of them is done again, and what they come to."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from robopol.cli import run
from robopol.errors import ConfigError, DataError
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.files import write_json
from robopol.sweeps.aggregate import curves, settings
from robopol.sweeps.grid import check, grid, name_of
from robopol.sweeps.launchers.launcher import log_of

TRAIN = ["env=multi_goal", "experiment=demo", "policy.net.width=16", "policy.n_obs_steps=1", "batch_size=16"]
TRAIN += ["phases.cloning.updates=6", "eval.videos=0", "eval.final_episodes=2", "eval.num_envs=2", "runtime.threads=1"]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "demos.hdf5"
    assert run(["collect", "env=multi_goal", "episodes=6", f"out={out}"]) == 0
    return f"data.demos.uri={out}"


def test_every_combination_is_a_run(tmp_path):
    points = grid(["env=push", "seed=range(2)", "algo.lr=1e-4,1e-3", "policy/net=mlp,unet"], tmp_path)
    assert len(points) == len({point.folder for point in points}) == 8
    assert points[1].values == {"seed": "0", "algo.lr": "0.0001", "policy/net": "unet"}
    assert points[1].words == ("env=push", "seed=0", "algo.lr=0.0001", "policy/net=unet")
    assert points[1].folder == tmp_path / "seed-0_algo.lr-0.0001_policy-net-unet"
    assert points[1].command() == ["train", *points[1].words, f"run={points[1].folder}"]
    (alone,) = grid(["env=push", "~data", "policy.net.hidden=[1,2]"], tmp_path)
    assert alone.words == ("env=push", "~data", "policy.net.hidden=[1,2]")
    assert (alone.values, alone.folder) == ({}, tmp_path / "run")


def test_long_names_are_cut_and_told_apart():
    first, second = (name_of({"data.demos.uri": f"{'x' * 200}{end}"}) for end in "ab")
    assert first != second
    assert max(len(first), len(second)) <= 120


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=0,1", "run=here"], "names its runs itself"),
        (["seed=0,1", "seed=2"], "said twice"),
        (["seed=[0"], "no viable|mismatched|missing"),
    ],
)
def test_what_cannot_be_swept_is_said(tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        grid(words, tmp_path)


def fake_run(point, score, curve=(), words=None):
    """Leave a folder like that of a finished run."""
    point.folder.mkdir(parents=True)
    write_json(point.folder / "config.json", {})
    write_json(point.folder / "environment.json", {})
    lines = [*(point.words if words is None else words), f"run={point.folder}"]
    (point.folder / "overrides.txt").write_text("".join(f"{line}\n" for line in lines))
    logged = [{"global_step": step, "env_steps": 0, "eval/success_rate": value} for step, value in curve]
    (point.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in logged))
    write_json(point.folder / "summary.json", {"success_rate": score, "return_mean": 10 * score})


def test_a_folder_of_other_words_is_not_taken_for_the_run(tmp_path):
    points = grid(["env=push", "seed=0,1"], tmp_path)
    fake_run(points[0], 1.0)
    check(points)
    check(grid(["env=push", "seed=0,1,2"], tmp_path))  # more seeds are no other sweep
    with pytest.raises(ConfigError, match=r"was begun with env=push seed=0, and now it is env=reach seed=0"):
        check(grid(["env=reach", "seed=0,1"], tmp_path))
    with pytest.raises(ConfigError, match="listed twice"):
        check(grid(["seed=0,0"], tmp_path))


def test_the_interquartile_mean_by_hand():
    assert iqm([5.0]) == 5.0
    assert iqm([0.0, 1.0, 2.0, 100.0]) == 1.5
    assert iqm([0.0, 1.0, 2.0, 3.0, 100.0]) == 2.0  # a quarter of five is one
    scipy = pytest.importorskip("scipy.stats")
    for count in range(1, 14):
        values = np.random.default_rng(count).normal(size=count)
        assert iqm(values) == pytest.approx(scipy.trim_mean(values, 0.25))


def test_the_interval_resamples_within_worlds():
    # were worlds mixed, the share of easy runs in a resample would vary, and the interval with it
    low, high = stratified_iqm([[0.0] * 8, [1.0] * 8])
    assert low == high == 0.5
    draws = np.random.default_rng(0).normal(size=(200, 12))
    covered = [a <= 0 <= b for a, b in (stratified_iqm([row], resamples=500) for row in draws)]
    assert 0.85 < np.mean(covered) < 1.0


def test_seeds_and_worlds_are_averaged_and_the_rest_are_settings(tmp_path):
    points = grid(["env=push,reach", "algo.lr=1,2", "seed=range(4)"], tmp_path)
    for point in points:
        fake_run(point, float(point.values["algo.lr"]) / 2 - 0.1 * (point.values["env"] == "reach"))
    slow, quick = settings(points, "success_rate")
    assert (slow.name, quick.name) == ("algo.lr=1", "algo.lr=2")
    assert quick.scores == {"push": [1.0] * 4, "reach": [0.9] * 4}
    assert quick.row()["iqm"] == pytest.approx(0.95)
    assert quick.row()["iqm_ci95"] == pytest.approx((0.95, 0.95))
    assert settings(grid(["env=push,reach", "algo.lr=3", "seed=0"], tmp_path), "success_rate") == []


def test_curves_are_of_the_steps_that_all_runs_logged(tmp_path):
    points = grid(["seed=0,1"], tmp_path)
    fake_run(points[0], 1.0, [(10, 0.0), (20, 0.5), (30, 1.0)])
    fake_run(points[1], 1.0, [(10, 1.0), (20, 0.5)])
    (setting,) = settings(points, "success_rate")
    assert curves(setting, "success_rate") == {10: (0.5, 0.0, 1.0), 20: (0.5, 0.5, 0.5)}


def test_curves_resample_within_worlds(tmp_path):
    points = grid(["env=push,reach", "seed=range(4)"], tmp_path)
    for point in points:
        fake_run(point, 1.0, [(10, float(point.values["env"] == "push"))])
    (setting,) = settings(points, "success_rate")
    assert curves(setting, "success_rate") == {10: (0.5, 0.5, 0.5)}


def test_a_run_that_was_not_evaluated_is_named(tmp_path):
    (point,) = grid(["seed=0"], tmp_path)
    fake_run(point, 1.0)
    (point.folder / "summary.json").write_text("{}")
    with pytest.raises(DataError, match=r"has no success_rate.*final_episodes"):
        settings([point], "success_rate")
    (point.folder / "summary.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        settings([point], "success_rate")


@pytest.mark.slow
def test_a_sweep_on_this_machine(tmp_path, demos, capsys):
    begin = ["sweep", f"out={tmp_path}/s", "launcher.jobs=2", "--", *TRAIN, demos]
    assert run([*begin, "seed=choice(0)", "policy.n_action_steps=8,99"]) == 1
    out, err = capsys.readouterr()
    assert "2 runs, 0 of them finished" in out
    assert out.count("finished  ") == out.count("FAILED") == 1  # a run that fails stops nobody
    assert "policy.n_action_steps-99 failed" in err
    assert "n_action_steps=99 is more than" in err
    done = tmp_path / "s/seed-0_policy.n_action_steps-8/summary.json"
    before = done.stat().st_mtime_ns
    assert run([*begin, "seed=0,1", "policy.n_action_steps=choice(8)"]) == 0  # one more seed
    assert "2 runs, 1 of them finished" in capsys.readouterr().out
    assert done.stat().st_mtime_ns == before
    told = json.loads((tmp_path / "s/sweep.json").read_text())
    assert [row["runs"] for row in told["settings"]] == [2]
    assert (tmp_path / "s/sweep.png").stat().st_size > 5000


def test_words_that_make_no_run_are_refused_before_anything_starts(tmp_path, capsys):
    assert run(["sweep", f"out={tmp_path}/s", "--", "env=pusj", "seed=0,1"]) == 1
    assert "push" in capsys.readouterr().err
    assert run(["sweep", f"out={tmp_path}/s", "env=push"]) == 1
    assert "stand --" in capsys.readouterr().err
    for words, said in (
        (["algo.lrr=1e-3,1e-4"], "algo.lrr"),
        (["seed=0,1", "eval.final_episodes=0"], "evaluation at their end"),
        (["seed=0,1", "env=null"], "evaluation at their end"),
    ):
        assert run(["sweep", f"out={tmp_path}/s", "--", "data.demos.uri=a.hdf5", *words]) == 1
        assert said in capsys.readouterr().err
    begin = ["sweep", f"out={tmp_path}/s", "score=return_mean", "--", "algo=sac"]
    assert run([*begin, "env=multi_goal,push"]) == 1
    assert "not of one scale" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", [lambda sweep: os.killpg(sweep, signal.SIGKILL), lambda sweep: os.kill(sweep, signal.SIGTERM)]
)
def test_a_sweep_that_was_killed_goes_on(tmp_path, demos, end):
    words = [word for word in TRAIN if "updates" not in word] + [demos, "seed=0", "phases.cloning.updates=150"]
    words += ["checkpoint.every=10", "log_every=10"]
    command = [sys.executable, "-m", "robopol.cli", "sweep", f"out={tmp_path}", "--", *words]
    process = subprocess.Popen(command, start_new_session=True)
    point = grid(words, tmp_path)[0]
    try:
        while not list(point.folder.glob("checkpoints/0*")):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        end(process.pid)
        process.wait()
    assert not point.finished
    assert run(["sweep", f"out={tmp_path}", "--", *words]) == 0
    steps = [json.loads(line)["global_step"] for line in (point.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)  # it went on, and began nothing anew
    assert "resume" not in (point.folder / "overrides.txt").read_text()
    assert (point.folder.parent / log_of(point)).exists()
