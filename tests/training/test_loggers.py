import csv
import json
import os
import subprocess
import sys
import time
import warnings

import pytest

from robopol.errors import ConfigError, DataError, MissingExtraError
from robopol.training.loggers import Loggers, LoggingConfig, MetricsLog, read_metrics


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (10, 20, 30):
        log.log(step, {"train/loss": 1 / step}, env_steps=2 * step)
    log.log(20, {"eval/success_rate": 0.5, "train/loss": float("nan")})
    return log


def test_a_line_says_where_the_run_stood_and_every_metric(log):
    lines = read_metrics(log.path)
    assert [line["global_step"] for line in lines] == [10, 20, 30, 20]
    assert lines[0]["env_steps"] == 20
    assert lines[0]["train/loss"] == 0.1
    assert abs(lines[0]["time"] - time.time()) < 100
    assert lines[3]["eval/success_rate"] == 0.5


def test_the_file_is_strict_json_even_when_the_loss_is_not_finite(log):
    def refuse(name):
        raise AssertionError(name)

    lines = [json.loads(line, parse_constant=refuse) for line in log.path.read_text().splitlines()]
    assert lines[3]["train/loss"] is None


def test_rewinding_leaves_no_duplicates(log):
    log.rewind(20)
    log.log(30, {"train/loss": 7.0})
    assert [(line["global_step"], line.get("train/loss")) for line in read_metrics(log.path)] == [
        (10, 0.1),
        (20, 0.05),
        (20, None),
        (30, 7.0),
    ]
    log.log(30, {"rollout/return_mean": 1.0}, env_steps=50)
    log.log(30, {"rollout/return_mean": 2.0}, env_steps=60)
    log.rewind(30, 50)
    assert [line["env_steps"] for line in read_metrics(log.path)] == [20, 40, 0, 0, 50]
    log.rewind(-1)
    assert read_metrics(log.path) == []


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_torn_last_line_is_dropped(log, cut):
    log.path.write_bytes(log.path.read_bytes()[:-cut])
    log.rewind(30)
    log.log(40, {"train/loss": 1.0})
    assert [line["global_step"] for line in read_metrics(log.path)] == [10, 20, 30, 40]


def test_a_damaged_line_in_the_middle_is_named(log):
    text = log.path.read_text().splitlines()
    for bad in ("{", "[1]", '{"loss": 1}'):
        log.path.write_text("\n".join([text[0], bad, text[2]]) + "\n")
        with pytest.raises(DataError, match=r"line 2 of .*metrics\.jsonl"):
            log.rewind(5)


def test_the_csv_has_every_column_that_any_line_has(log):
    with log.write_csv().open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["global_step", "env_steps", "time", "train/loss", "eval/success_rate"]
    assert [row["global_step"] for row in rows] == ["10", "20", "30", "20"]
    assert [row["eval/success_rate"] for row in rows] == ["", "", "", "0.5"]
    assert float(rows[2]["train/loss"]) == 1 / 30


def test_tensorboard_shows_a_resumed_run_without_duplicates(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = Loggers(tmp_path, LoggingConfig(tensorboard=True))
    for step in (1, 2, 3):
        loggers.log(step, {"train/loss": float(step)})
    loggers.close()
    time.sleep(1.1)  # TensorBoard orders event files by the second in their names
    loggers = Loggers(tmp_path, LoggingConfig(tensorboard=True))
    loggers.rewind(1)
    loggers.log(2, {"train/loss": 20.0}, env_steps=5)
    loggers.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 20.0)]
    assert events.Scalars("time/env_steps")[-1].value == 5
    assert [line["train/loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 20.0]


@pytest.mark.parametrize(
    ("module", "config"),
    [
        ("torch.utils.tensorboard", LoggingConfig(tensorboard=True)),
        ("wandb", LoggingConfig(wandb="offline")),
    ],
)
def test_a_missing_package_is_named_before_training(tmp_path, monkeypatch, module, config):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'robopol\[(tensorboard|wandb)\]'"):
        Loggers(tmp_path, config)


def test_a_sink_that_breaks_is_dropped_with_one_warning(tmp_path):
    pytest.importorskip("tensorboard")
    loggers = Loggers(tmp_path, LoggingConfig(tensorboard=True))
    loggers.log(1, {"train/loss": 1.0})
    loggers._sinks[0]._writer = None
    with pytest.warns(RuntimeWarning, match="TensorBoard failed"):
        loggers.log(2, {"train/loss": 2.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loggers.log(3, {"train/loss": 3.0})
        loggers.flush()
        loggers.close()
    assert [line["global_step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert (tmp_path / "metrics.csv").exists()


OFFLINE = """
import sys
from pathlib import Path
from robopol.training.loggers import Loggers, LoggingConfig
loggers = Loggers(Path(sys.argv[1]), LoggingConfig(wandb="offline"))
loggers.log(10, {"train/loss": 1.0})
if sys.argv[2] == "finish":
    loggers.close()
"""


def test_wandb_offline_needs_neither_network_nor_login(tmp_path):
    pytest.importorskip("wandb")
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    run.mkdir()
    (run / "config.json").write_text('{"seed": 3}')
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    proxy = "http://127.0.0.1:9"  # nothing answers there
    clean |= {"HOME": str(home), "HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "CUDA_VISIBLE_DEVICES": ""}
    for ending in ("finish", "just end"):
        command = [sys.executable, "-c", OFFLINE, str(run), ending]
        done = subprocess.run(command, env=clean, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
        assert done.stdout == b""
    name = (run / "wandb_id.txt").read_text()
    files = list(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert {file.name for file in files} == {f"run-{name}.wandb"}
    assert all(b"train/loss" in file.read_bytes() for file in files)


def test_wandb_online_without_login_says_what_to_do(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuse(**_):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigError, match=r"No API key.*wandb=offline"):
        Loggers(tmp_path, LoggingConfig(wandb="online"))
